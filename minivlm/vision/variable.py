"""Pictures of any size and shape in one tower: each keeps its own grid of patches, and a learned place stands for a
fraction of the picture, not for a number of patches (NaViT, Dehghani et al. 2023, arXiv:2307.06304; Idefics2, Laurençon
et al. 2024, arXiv:2405.02246).

Token count: a picture of h x w pixels becomes (h / patch) * (w / patch) features. A batch holds as many for each as for
its largest picture: zeros on the right. Equal to `transformers`' Idefics2VisionTransformer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.vision.vision import check_images, sizes_of
from minivlm.vision.vit import ViT, ViTConfig


@dataclass(frozen=True)
class VariableViTConfig(ViTConfig):
    """`image_size` says how finely places are told apart: as many learned ones as it has patches. Pictures may be
    smaller and larger."""

    any_size: ClassVar[bool] = True
    layers: ClassVar[None] = None

    def __post_init__(self):
        super().__post_init__()
        if self.class_token or self.pool != "mean":
            raise ValueError(
                f"a tower for pictures of any size gives patches only: class_token {self.class_token} must be False, "
                f'and pool "{self.pool}" must be "mean", which has no weights'
            )

    def views(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """The one grid, (rows, columns), of a picture of `size` (h, w) pixels: patches that lie fully inside it."""
        rows, cols = size[0] // self.patch_size, size[1] // self.patch_size
        if min(rows, cols) < 1:
            raise ValueError(
                f"sizes: a picture of {size[0]}x{size[1]} pixels holds no whole patch of {self.patch_size}: enlarge it"
            )
        return ((rows, cols),)

    def build(self) -> VariableViT:
        return VariableViT(self)


variable_vit = partial(
    VariableViTConfig,
    activation="gelu_tanh",
    eps=1e-6,
    class_token=False,
    pre_norm=False,
    patch_bias=True,
    pool="mean",
)


class VariableViT(ViT):
    """The padding of smaller pictures is thrown away before the first block: what is left of each stands row by row at
    the beginning of its line, and nothing attends beyond."""

    config: VariableViTConfig

    def features(
        self, images: Float[Tensor, "P 3 H W"], sizes: Int[Tensor, "P 2"] | None = None
    ) -> Float[Tensor, "P N D"]:
        """Every patch after the final norm. `sizes`: each picture's height and width, without the padding on its right
        and at its bottom; None: there is none. ValueError for sizes that do not fit, or hold no whole patch."""
        check_images(images)
        grids = torch.tensor([self.config.views(size)[0] for size in sizes_of(images, sizes)], device="cpu")
        row, col, there = lines(grids)  # (P, N)
        (down, across), (rows, cols) = self.config.grid, grids[..., None].unbind(dim=1)  # (P, 1)
        ids = bins(row, rows, down) * across + bins(col, cols, across)
        row, col, ids, there = (places.to(images.device) for places in (row, col, ids, there))
        picture = torch.arange(len(images), device=images.device)[:, None]  # (P, 1)
        x = self.pre_norm(self.patches(images)[picture, row, col] + self.position_embedding[ids])  # (P, N, D)
        mask = there[:, None, None].expand(-1, -1, there.shape[1], -1)  # (P, 1, N, N)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.final_norm(x).masked_fill(~there[..., None], 0)


def lines(grids: Int[Tensor, "P 2"]) -> tuple[Int[Tensor, "P N"], Int[Tensor, "P N"], Bool[Tensor, "P N"]]:
    """The patches of each grid, row by row, on a line as long as the largest grid needs: the row and the column of
    each, 0 where there is none, and where there is one."""
    counts = grids.prod(dim=1, keepdim=True)
    place = torch.arange(int(counts.max()), device=grids.device)
    there = place < counts
    place = place.where(there, 0)
    return place // grids[:, 1:], place % grids[:, 1:], there


def bins(place: Int[Tensor, "P N"], count: Int[Tensor, "P 1"], parts: int) -> Int[Tensor, "P N"]:
    """Which of `parts` equal parts of the picture row (or column) number `place` begins in, of `count` rows.

    Rounded as in the reference, which multiplies by 1 / count in single precision: of 25, 49, 50 or 55 rows some begin
    just before the border, of 70 parts, at which by whole numbers they would begin. The reference keeps what begins
    beyond 1 - 1e-6 below it; nothing does where there are fewer than a million rows.
    """
    begins = place.float() * (1.0 / count.float())
    inner = torch.arange(1 / parts, 1.0, 1 / parts, device=place.device)
    return torch.bucketize(begins, inner, right=True)
