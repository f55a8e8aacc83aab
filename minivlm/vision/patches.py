"""Raw patches: no encoder at all; what the connector reads are the pixels themselves (Fuyu, Bavishi et al. 2023,
adept.ai/blog/fuyu-8b; OtterHD, Li et al. 2023, arXiv:2311.04219).

Token count: a picture of h x w pixels, whatever its size and shape, becomes ceil(h / p) * ceil(w / p) patches of p
pixels a side. Nothing here has a size to outgrow: OtterHD trains the same network on squares of 448, 512 or 768
pixels, one of them a batch, and reads larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minivlm.layers import check_positive
from minivlm.layout import Grid, Views
from minivlm.vision.vision import Vision, check_images, resized, sizes_of

EMPTY = 1 / 255  # beyond the picture, before centring: the published processor fills up with 1 where white is 255


@dataclass(frozen=True)
class PatchesConfig:
    """Patches of `patch_size` pixels a side. A picture higher or wider than `limit`, (height, width) in pixels, is
    first shrunk to fit, its aspect kept; None: none is. Fuyu has 30 and (1080, 1920). `image_size` is that of a picture
    of which nothing else is said."""

    patch_size: int
    limit: tuple[int, int] | None = None
    image_size: tuple[int, int] = (512, 512)

    any_size: ClassVar[bool] = True
    layers: ClassVar[None] = None

    def __post_init__(self):
        check_positive(patch_size=self.patch_size, height=self.image_size[0], width=self.image_size[1])
        if self.limit is not None:
            check_positive(limit=min(self.limit))

    @property
    def width(self) -> int:
        """Numbers in a patch."""
        return 3 * self.patch_size**2

    @property
    def class_token(self) -> bool:
        return False

    @property
    def grid(self) -> Grid:
        return self.views(self.image_size)[0]

    def shrunk(self, size: tuple[int, int]) -> tuple[int, int]:
        """What a picture of `size` (height, width) measures once it fits the limit. ValueError if nothing is left."""
        height, width = size
        if min(size) < 1:
            raise ValueError(f"a picture of {height}x{width} pixels shows nothing: each side needs at least 1")
        if self.limit is None:
            return height, width
        scale = min(1, self.limit[0] / height, self.limit[1] / width)
        fits = int(height * scale), int(width * scale)  # cut off, not rounded, as published
        if min(fits) < 1:
            raise ValueError(
                f"{height}x{width} pixels shrink to {fits[0]}x{fits[1]} within {self.limit}: crop it first"
            )
        return fits

    def views(self, size: tuple[int, int]) -> Views:
        """The grids (rows, columns) that a picture of `size` (height, width) becomes: a single one, of its patches.
        ValueError for a picture without pixels."""
        height, width = self.shrunk(size)
        return ((-(-height // self.patch_size), -(-width // self.patch_size)),)

    def build(self) -> Patches:
        return Patches(self)


class Patches(Vision):
    """Cuts pictures up; has no weights. Equal to `transformers.FuyuImageProcessor`, but for pictures that it is given
    in 8 bits and shrinks: it rounds them to such again, which puts them about one grey level of 255 apart at most."""

    def __init__(self, config: PatchesConfig):
        super().__init__()
        self.config = config

    def features(
        self, images: Float[Tensor, "P 3 H W"], sizes: Int[Tensor, "P 2"] | None = None
    ) -> Float[Tensor, "P N D"]:
        """The patches of each picture, row by row, pixels in [-1, 1]; in a patch rows, then columns, then colours.

        Pictures come in [0, 1]; `sizes` says how high and wide each of them is (None: all of it), the rest, right and
        below, is not looked at. Those with fewer patches than N, the most, have zeros behind. TypeError or ValueError
        for other tensors, and for sizes that the pictures do not have.
        """
        check_images(images)
        pictures = (image[:, :h, :w] for image, (h, w) in zip(images, sizes_of(images, sizes), strict=True))
        return pad_sequence([self.cut(picture) for picture in pictures], batch_first=True)  # (P, N, 3*p*p)

    def cut(self, picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "n D"]:
        """The patches of one picture, whole ones, filled up on the right and below."""
        height, width = self.config.shrunk(picture.shape[1:])
        p, ((rows, cols),) = self.config.patch_size, self.config.views((height, width))
        picture = shrink(picture, (height, width))
        filled = F.pad(picture, (0, cols * p - width, 0, rows * p - height), value=EMPTY)  # (3, rows*p, cols*p)
        patches = filled.unflatten(2, (cols, p)).unflatten(1, (rows, p))  # (3, rows, p, cols, p)
        return ((patches - 0.5) / 0.5).permute(1, 3, 2, 4, 0).reshape(rows * cols, -1)  # (n, p*p*3)


def shrink(picture: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 sh sw"]:
    """The picture at a smaller `size` (height, width), each pixel a weighted mean of those round its place, the nearer
    the heavier."""
    return picture if picture.shape[1:] == size else resized(picture[None], size, "bilinear")[0]
