"""One cross attention as a resampler: learned queries look at the patches once, and what they saw are the visual tokens
(Qwen-VL, Bai et al. 2023, arXiv:2308.12966; Kosmos-2, Peng et al. 2023, arXiv:2306.14824).

Token count: N in, `tokens` out, whatever N is. No residual and no MLP: a query steers where its token looks, and gives
nothing of itself to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.connectors.connector import Budgeted, Grid, Resampler, square_side
from minivlm.layers import check_divides, check_positive

POSITIONS = ("keys and queries", "none")


@dataclass(frozen=True)
class QwenVLResampler(Budgeted):
    """Qwen-VL: queries and patches carry fixed 2-D sine positions, so that a query can look at a place. `tokens` is
    then a square, 16 x 16 in the published system. `positions` "none" leaves them out, to see what they are good for.
    """

    heads: int
    positions: str = "keys and queries"
    eps: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        check_positive(heads=self.heads)
        if self.positions not in POSITIONS:
            raise ValueError(f"unknown positions {self.positions!r}; known: {', '.join(map(repr, POSITIONS))}")
        if self.positions != "none":
            square_side(self.tokens, math.isqrt(self.tokens) + 1, "a resampler with 2-D positions")

    def build(self, width: int, out_width: int, grid: Grid) -> PlacedQueries:
        return PlacedQueries(self, width, out_width, grid)


class PlacedQueries(Resampler, nn.Module):
    """Positions are added to what decides where to look (queries and keys), not to what is seen (values)."""

    class_token = False  # which has no place
    one_grid = True

    def __init__(self, config: QwenVLResampler, width: int, out_width: int, grid: Grid):
        super().__init__()
        check_divides(config.heads, out_width)
        self.tokens = config.tokens
        self.queries = nn.Parameter(0.02 * torch.randn(config.tokens, out_width))
        self.enter = nn.Linear(width, out_width, bias=False)
        self.query_norm, self.patch_norm, self.norm = (nn.LayerNorm(out_width, eps=config.eps) for _ in range(3))
        self.attention = Attention(out_width, config.heads)
        self.out = nn.Linear(out_width, out_width, bias=False)
        of_queries, of_patches = torch.zeros(1, 1), torch.zeros(1, 1)
        if config.positions != "none":
            of_queries = sine_positions(math.isqrt(config.tokens), out_width)
            of_patches = resized(of_queries, grid)
        self.register_buffer("query_positions", of_queries, persistent=False)
        self.register_buffer("patch_positions", of_patches, persistent=False)

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        patches = self.patch_norm(self.enter(features))  # (B, N, Dout)
        queries = (self.query_norm(self.queries) + self.query_positions).expand(len(features), -1, -1)  # (B, K, Dout)
        seen = self.attention(queries, patches + self.patch_positions, values=patches)
        return self.out(self.norm(seen))


def sine_positions(side: int, width: int) -> Float[Tensor, "places D"]:
    """A vector for each place of a square grid, row by row: the column in the first half of the channels, the row in
    the second; in each half sines, then cosines, of ever lower frequencies."""
    if width % 4:
        raise ValueError(f"2-D sine positions need a width that is a multiple of 4, got {width}")
    frequencies = 10000 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies  # (side, D/4)
    line = torch.cat([angles.sin(), angles.cos()], dim=1).float()  # (side, D/2)
    return torch.cat([line.repeat(side, 1), line.repeat_interleave(side, dim=0)], dim=1)  # (side*side, D)


def resized(positions: Float[Tensor, "places D"], grid: Grid) -> Float[Tensor, "N D"]:
    """Positions of a square grid, stretched over another one by bicubic interpolation."""
    side = math.isqrt(len(positions))
    picture = positions.T.unflatten(1, (side, side))[None]  # (1, D, side, side)
    return F.interpolate(picture, size=grid, mode="bicubic")[0].flatten(1).T  # (N, D)


@dataclass(frozen=True)
class Kosmos2Resampler(Budgeted):
    """Kosmos-2: patches (and class token) of length 1; the queries, without positions, see each other as well."""

    heads: int

    def __post_init__(self):
        super().__post_init__()
        check_positive(heads=self.heads)

    def build(self, width: int, out_width: int, grid: Grid) -> FreeQueries:
        return FreeQueries(self, width, out_width)


class FreeQueries(Resampler, nn.Module):
    """The queries start as N(0, 1), as published, and so do the patches: of length 1, they would else come out of
    `enter` far shorter than the queries beside them, and be drowned for thousands of steps."""

    def __init__(self, config: Kosmos2Resampler, width: int, out_width: int):
        super().__init__()
        check_divides(config.heads, out_width)
        self.tokens = config.tokens
        self.queries = nn.Parameter(torch.randn(config.tokens, out_width))
        self.enter = nn.Linear(width, out_width)
        nn.init.normal_(self.enter.weight)
        self.attention = Attention(out_width, config.heads)

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        patches = self.enter(F.normalize(features, dim=-1))  # (B, N, Dout)
        queries = self.queries.expand(len(features), -1, -1)  # (B, K, Dout)
        return self.attention(queries, torch.cat([patches, queries], dim=1))
