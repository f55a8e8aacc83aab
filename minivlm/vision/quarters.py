"""Quarters: a picture's four quarters, then the whole, each read like a picture of its own (Idefics2, Laurençon et al.
2024, arXiv:2405.02246). Token count: five times that of the encoder's own, whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minivlm.batch import pad_pictures
from minivlm.layout import Grid, Views
from minivlm.vision.vision import Vision, VisionConfig, check_images, sizes_of

Size = tuple[int, int]


@dataclass(frozen=True)
class QuartersConfig:
    """`tower` reads pictures of any size."""

    tower: VisionConfig

    any_size: ClassVar[bool] = True

    @property
    def layers(self) -> int | None:
        return self.tower.layers

    @property
    def image_size(self) -> Size:
        return self.tower.image_size

    @property
    def width(self) -> int:
        return self.tower.width

    @property
    def class_token(self) -> bool:
        return self.tower.class_token

    @property
    def grid(self) -> Grid:
        return self.tower.grid

    def views(self, size: Size) -> Views:
        """The grids of the four quarters, then the whole's; ValueError where a quarter holds no whole patch."""
        parts = [(rows.stop - rows.start, cols.stop - cols.start) for rows, cols in _parts(*size)]
        try:
            return tuple(grid for part in parts for grid in self.tower.views(part))
        except ValueError as error:
            raise ValueError(f"of a picture of {size[0]}x{size[1]} pixels, cut in quarters: {error}") from error

    def build(self) -> Quarters:
        return Quarters(self)


class Quarters(Vision):
    def __init__(self, config: QuartersConfig):
        super().__init__()
        self.config = config
        self.tower = config.tower.build()

    def unread(self, layer: int | None) -> list[nn.Module]:
        return self.tower.unread(layer)

    def features(
        self, images: Float[Tensor, "P 3 H W"], sizes: Int[Tensor, "P 2"] | None = None, **layer: int
    ) -> Float[Tensor, "P N D"]:
        """Those of top left, top right, bottom left, bottom right and the whole, one after the other; pictures with
        fewer are filled up on the right."""
        check_images(images)
        shapes = sizes_of(images, sizes)
        parts = [
            [image[:, rows, cols] for rows, cols in _parts(*size)] for image, size in zip(images, shapes, strict=True)
        ]
        padded, _, small = pad_pictures(parts)  # (P, 5, 3, h, w), _, (P, 5, 2)
        states = self.tower.features(padded.flatten(0, 1), small.flatten(0, 1), **layer)
        states = states.unflatten(0, small.shape[:2])  # (P, 5, n, D)
        joined = []
        for own, size in zip(states, shapes, strict=True):
            counts = [rows * cols for rows, cols in self.config.views(size)]
            joined.append(torch.cat([view[:count] for view, count in zip(own, counts, strict=True)]))
        return pad_sequence(joined, batch_first=True)


def _parts(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each part; of an odd side the second half is one pixel longer."""
    if min(height, width) < 2:
        raise ValueError(f"a picture of {height}x{width} pixels has no quarters: enlarge it")
    rows, cols = ((slice(0, n // 2), slice(n // 2, n)) for n in (height, width))
    return [*((r, c) for r in rows for c in cols), (slice(0, height), slice(0, width))]
