"""SAM's image encoder: blocks that look around within windows, so that a large picture can be afforded, and a few among
them that look at all of it (Kirillov et al. 2023, arXiv:2304.02643; Li et al. 2022, arXiv:2203.16527).

Token count: (H / patch) * (W / patch) patches in, the same out, which stay a picture: rows and columns of vectors.
Equal to `transformers`' SamVisionEncoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.layers import MLP, Block, check_positive
from minivlm.vision.vision import check_images
from minivlm.vision.vit import PatchTower, TowerConfig

EPS = 1e-6  # of every norm


@dataclass(frozen=True)
class SAMConfig(TowerConfig):
    """`window`: patches along either side of a window. `global_blocks`, counted from 0, look at the whole picture.
    `out_width`: channels that the neck hands on."""

    window: int
    global_blocks: tuple[int, ...]
    out_width: int

    def __post_init__(self):
        super().__post_init__()
        check_positive(window=self.window, out_width=self.out_width)
        blocks = self.global_blocks
        if not blocks or list(blocks) != sorted({*blocks} & {*range(self.depth)}):
            raise ValueError(f"global_blocks must be some of 0..{self.depth - 1} in ascending order, got {blocks}")

    def build(self) -> SAM:
        return SAM(self)


class SAM(PatchTower):
    """Calling it gives two pictures of vectors: the state after the first block that looks at all of the picture, and
    what the neck makes of the state after the last block."""

    config: SAMConfig

    def __init__(self, config: SAMConfig):
        super().__init__(config, bias=True)
        self.position_embedding = nn.Parameter(torch.randn(*config.grid, config.width) * config.width**-0.5)
        within = (config.window, config.window)
        self.blocks = nn.ModuleList(
            WindowBlock(config, config.grid if number in config.global_blocks else within)
            for number in range(config.depth)
        )
        self.neck = Neck(config.width, config.out_width)

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B rows cols D"], Float[Tensor, "B rows cols C"]]:
        check_images(images, self.config.image_size)
        x = self.patches(images) + self.position_embedding
        middle = self.config.global_blocks[0] + 1
        for block in self.blocks[:middle]:
            x = block(x)
        first = x
        for block in self.blocks[middle:]:
            x = block(x)
        return first, self.neck(x)


class WindowBlock(Block):
    """The pre-norm block over a picture of vectors, whose attention stays within windows of that many rows and columns.
    A single window as large as the picture is no limit at all."""

    def __init__(self, config: SAMConfig, window: tuple[int, int]):
        attention = PlacedAttention(config.width, config.heads, window)
        mlp = MLP(config.width, config.mlp_width, "gelu")
        super().__init__(attention, mlp, partial(nn.LayerNorm, config.width, eps=EPS))
        self.window = window

    def forward(self, x: Float[Tensor, "B rows cols D"]) -> Float[Tensor, "B rows cols D"]:
        seen = self.attention(cut(self.attention_norm(x), self.window))
        x = x + joined(seen, self.window, x.shape[1:3])
        return x + self.mlp(self.mlp_norm(x))


class PlacedAttention(Attention):
    """Self-attention over a window that knows how far apart places are: to the score of a query at (i, j) and a key at
    (k, l) it adds q . rows[i - k] + q . cols[j - l], which is not divided by sqrt(d), as q . k is."""

    def __init__(self, width: int, heads: int, window: tuple[int, int]):
        super().__init__(width, heads)
        self.window = window
        self.rows, self.cols = (nn.Parameter(torch.zeros(2 * side - 1, self.head_dim)) for side in window)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        q = self.q(x)
        return self.out(self.mix(q, self.k(x), self.v(x), bias=self.distance(q)))

    def distance(self, q: Float[Tensor, "B L D"]) -> Float[Tensor, "B H L L"]:
        """What is added to the scores."""
        q = self._split(q, self.heads).unflatten(2, self.window)  # (B, H, rows, cols, d)
        of_rows = torch.einsum("bhijd,ikd->bhijk", q, by_pair(self.rows))
        of_cols = torch.einsum("bhijd,jld->bhijl", q, by_pair(self.cols))
        return (of_rows[..., :, None] + of_cols[..., None, :]).flatten(4).flatten(2, 3)


def by_pair(table: Float[Tensor, "distances d"]) -> Float[Tensor, "side side d"]:
    """For places i and k the vector of the distance i - k; those of a table run from 1 - side to side - 1."""
    places = torch.arange((len(table) + 1) // 2, device=table.device)
    return table[places[:, None] - places + len(places) - 1]


def cut(x: Float[Tensor, "B rows cols D"], window: tuple[int, int]) -> Float[Tensor, "windows L D"]:
    """Windows of one picture after the other, row by row; zeros fill those that reach beyond its right and bottom."""
    height, width = window
    x = F.pad(x, (0, 0, 0, -x.shape[2] % width, 0, -x.shape[1] % height))
    x = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))  # (B, down, height, across, width, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)  # (B * down * across, height * width, D)


def joined(
    windows: Float[Tensor, "windows L D"], window: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "B rows cols D"]:
    """The pictures, of `grid` rows and columns, that `cut` made windows of."""
    down, across = (-(-places // side) for places, side in zip(grid, window, strict=True))
    x = windows.unflatten(1, window).unflatten(0, (-1, down, across))  # (B, down, across, height, width, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]


class Neck(nn.Module):
    """Fewer channels, then a look at the 3x3 neighbours; each place is normed after both."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.narrow = nn.Linear(width, out_width, bias=False)  # a convolution of 1x1 is a linear map of each place
        self.look = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.narrow_norm, self.look_norm = (nn.LayerNorm(out_width, eps=EPS) for _ in range(2))

    def forward(self, x: Float[Tensor, "B rows cols D"]) -> Float[Tensor, "B rows cols C"]:
        x = self.narrow_norm(self.narrow(x))
        return self.look_norm(self.look(x.movedim(-1, 1)).movedim(1, -1))
