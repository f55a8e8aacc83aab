"""Film: a video as one picture, its frames one below another, so that a connector can read all of them at once
(Flamingo, Alayrac et al. 2022, arXiv:2204.14198, whose resampler makes of a whole video what it makes of a picture).

An encoder reads each frame by itself. Token count, in -> out: N patches a frame; a film of T frames gives T * N. A
connector that reads frame after frame needs none of this: for it a video is T pictures of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.layers import check_positive
from minivlm.layout import Grid, Views
from minivlm.vision.vision import Vision, check_images, sizes_of
from minivlm.vision.vit import ViTConfig


@dataclass(frozen=True)
class FilmConfig:
    """`tower` reads each frame; a film of which nothing else is said has `frames` of them."""

    tower: ViTConfig
    frames: int

    def __post_init__(self):
        check_positive(frames=self.frames)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the whole film."""
        height, width = self.tower.image_size
        return self.frames * height, width

    @property
    def layers(self) -> int | None:
        return self.tower.layers

    @property
    def width(self) -> int:
        return self.tower.width

    @property
    def class_token(self) -> bool:
        return False  # each frame's is left out

    @property
    def grid(self) -> Grid:
        """That of a frame: what a connector needs to know to tell frames apart."""
        return self.tower.grid

    def views(self, size: tuple[int, int]) -> Views:
        """One view, the grids of all frames one below another; ValueError for what is not made of whole frames."""
        height, width = self.tower.image_size
        if size[0] < height or size[0] % height or size[1] != width:
            raise ValueError(f"a film of {size[0]}x{size[1]} pixels is not made of whole frames of {height}x{width}")
        rows, cols = self.tower.grid
        return ((size[0] // height * rows, cols),)

    def build(self) -> Film:
        return Film(self)


class Film(Vision):
    def __init__(self, config: FilmConfig):
        super().__init__()
        self.config = config
        self.tower = config.tower.build()

    def unread(self, layer: int | None) -> list[nn.Module]:
        return self.tower.unread(layer)

    def features(
        self, images: Float[Tensor, "P 3 H W"], sizes: Int[Tensor, "P 2"] | None = None, layer: int | None = None
    ) -> Float[Tensor, "P N D"]:
        """Patches of every frame, frame after frame, row after row. Of a film with fewer (`sizes`), what follows its
        last frame is to be filled up, and is whatever the encoder makes of the filling."""
        check_images(images)
        for size in sizes_of(images, sizes):
            self.config.views(size)
        height, _ = self.config.tower.image_size
        frames = images.unflatten(2, (-1, height)).transpose(1, 2)  # (P, T, 3, h, W)
        states = self.tower.features(frames.flatten(0, 1), layer=layer)[:, -self.config.tower.num_patches :]
        return states.unflatten(0, frames.shape[:2]).flatten(1, 2)  # (P, T*n, D)


def as_film(images: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B 1 3 TH W"]:
    """The T frames of each video as the one picture that `Film` reads."""
    return torch.cat(images.unbind(dim=1), dim=2)[:, None]
