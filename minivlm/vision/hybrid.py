"""Two encoders of one picture: SAM sees it large, for what is small in it, SigLIP sees it small, for what it means
(DeepSeek-VL, Lu et al. 2024, arXiv:2403.05525).

Token count: SigLIP's patches, 24 x 24 in the published system; SAM's 64 x 64 are brought to the same grid, and each
place has the features of both, SAM's first. Equal to the encoders of `transformers`' DeepseekVLHybridModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.vision.sam import Neck, SAMConfig
from minivlm.vision.vision import Vision, check_images, resized, sizes_of
from minivlm.vision.vit import ViTConfig

# What the published system centres the pictures of each encoder with; no model's configuration tells.
HIGH_CENTRE = dict(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
LOW_CENTRE = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True)
class HybridConfig:
    """`high` sees the pictures as they come, `low` in its own size: its patches, all of them, are the features."""

    high: SAMConfig
    low: ViTConfig

    layers: ClassVar[None] = None

    def __post_init__(self):
        if self.low.class_token or self.low.pool != "mean":
            raise ValueError(
                f"of the low-resolution tower only patches are read: class_token {self.low.class_token} must be False, "
                f'and pool "{self.low.pool}" must be "mean", which has no weights'
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels of the pictures that come in."""
        return self.high.image_size

    @property
    def class_token(self) -> bool:
        return False

    @property
    def grid(self) -> tuple[int, int]:
        return self.low.grid

    @property
    def high_width(self) -> int:
        """How many of the `width` features of a place are SAM's."""
        return 4 * self.high.out_width

    @property
    def width(self) -> int:
        return self.high_width + self.low.width

    def views(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """The one grid, (rows, columns), of a picture; ValueError for a `size` (h, w) other than `image_size`."""
        if tuple(size) != tuple(self.image_size):
            (height, width), (got_height, got_width) = self.image_size, size
            raise ValueError(
                f"sizes: both encoders read whole pictures of {height}x{width} pixels, got {got_height}x{got_width}: "
                "resize it, and fill what is missing with a colour"
            )
        return (self.grid,)

    def build(self) -> Hybrid:
        return Hybrid(self)


class Hybrid(Vision):
    """What SAM's first block of global attention saw is added to what its last one did, `alpha` times, from 0 on."""

    def __init__(self, config: HybridConfig):
        super().__init__()
        self.config = config
        self.high, self.low = config.high.build(), config.low.build()
        channels = config.high.out_width
        self.first_neck = Neck(config.high.width, channels)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.shrink = nn.Sequential(halving(channels), halving(2 * channels))

    def features(
        self, images: Float[Tensor, "P 3 H W"], sizes: Int[Tensor, "P 2"] | None = None
    ) -> Float[Tensor, "P N D"]:
        """Every place of the grid, row by row. `sizes`, where there are some, must say that no picture has padding; if
        not, ValueError."""
        check_images(images, self.config.image_size)
        for size in sizes_of(images, sizes):
            self.config.views(size)
        return torch.cat([self.high_features(images), self.low_features(images)], dim=-1)

    def high_features(self, images: Float[Tensor, "P 3 H W"]) -> Float[Tensor, "P N D"]:
        first, last = self.high(images)
        # The published system resizes and shrinks both, then adds: the same, for neither has a bias or a bend.
        both = (last + self.alpha * self.first_neck(first)).movedim(-1, 1)  # (P, C, rows, cols)
        rows, cols = self.config.grid
        both = F.interpolate(both, size=(4 * rows, 4 * cols), mode="bilinear")
        return self.shrink(both).flatten(2).transpose(1, 2)

    def low_features(self, images: Float[Tensor, "P 3 H W"]) -> Float[Tensor, "P N D"]:
        return self.low.final_norm(self.low.hidden(self.low_resolution(images)))

    def low_resolution(self, images: Float[Tensor, "P 3 H W"]) -> Float[Tensor, "P 3 h w"]:
        """The pictures in the size that the low-resolution tower reads: bilinear, antialiased, as published."""
        return resized(images, self.config.low.image_size, "bilinear")


def halving(channels: int) -> nn.Conv2d:
    """A convolution to half as many rows and columns, and twice as many channels."""
    return nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
