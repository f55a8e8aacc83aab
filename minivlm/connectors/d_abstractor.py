"""D-Abstractor: each query looks at a few points around a place of its own, which it learns to choose, instead of at
every patch (Honeybee, Cha et al. 2023, arXiv:2312.06742; deformable attention: Zhu et al. 2020, arXiv:2010.04159).

Token count: N in, `tokens` out, a square number: a square grid of queries, which starts spread over the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.attention import Attention, Tapped
from minivlm.connectors.connector import Budgeted, Connector, Grid, square_side
from minivlm.layers import MLP, check_divides, check_positive
from minivlm.layout import VisualLayout

POOLED = ("query", "tgt")


@dataclass(frozen=True)
class DAbstraction(Budgeted):
    """`depth` layers; each query has `points` points in each of its `heads`.

    `pooled` says what the features pooled to one a query are: what the query looks from, added in every layer
    ("query", as in Honeybee's own configuration), or what its content starts from ("tgt", as one reads its paper).
    Learned vectors are the other of the two.
    """

    width: int = 1024
    depth: int = 6
    heads: int = 8
    points: int = 4
    mlp_width: int = 1024
    pooled: str = "query"

    def __post_init__(self):
        super().__post_init__()
        check_positive(width=self.width, depth=self.depth, points=self.points, mlp_width=self.mlp_width)
        check_divides(self.heads, self.width)
        if self.pooled not in POOLED:
            raise ValueError(f"unknown pooled {self.pooled!r}; choose one of {', '.join(POOLED)}")

    def build(self, width: int, out_width: int, grid: Grid) -> DAbstractor:
        return DAbstractor(self, width, out_width, grid)


class DAbstractor(Connector, nn.Module):
    """`reference` are the places (x, y) of the queries, learned; from (0, 0), the upper left corner of the picture, to
    (1, 1), but nothing keeps them there."""

    one_grid = True

    def __init__(self, config: DAbstraction, width: int, out_width: int, grid: Grid):
        super().__init__()
        self.config, self.grid = config, grid
        self.side = square_side(config.tokens, min(grid), f"a D-Abstractor over {grid[0]}x{grid[1]} patches")
        self.enter = nn.Identity() if width == config.width else nn.Linear(width, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], config.width))
        self.queries = nn.Parameter(0.02 * torch.randn(config.tokens, config.width))
        down, across = (torch.linspace(0.5, patches - 0.5, self.side) / patches for patches in grid)
        self.reference = nn.Parameter(torch.cartesian_prod(down, across).flip(1))  # (K, 2), row by row, as (x, y)
        self.layers = nn.ModuleList(DeformableLayer(config, grid) for _ in range(config.depth))
        self.leave = nn.Identity() if out_width == config.width else nn.Linear(config.width, out_width)

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.cells((self.side, self.side))

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        features = self.enter(features) + self.positions
        picture = features.transpose(1, 2).unflatten(2, self.grid)  # (B, D, rows, cols)
        pooled = F.adaptive_avg_pool2d(picture, self.side).flatten(2).transpose(1, 2)  # (B, K, D)
        learned = self.queries.expand_as(pooled)
        x, places = (learned, pooled) if self.config.pooled == "query" else (pooled, learned)
        for layer in self.layers:
            x = layer(x, places, features, self.reference)
        return self.leave(x)


class DeformableLayer(nn.Module):
    """Queries attend to each other, then to their points, then an MLP; a norm after each (transformers'
    DeformableDetrDecoderLayer)."""

    def __init__(self, config: DAbstraction, grid: Grid):
        super().__init__()
        self.attention, self.attention_norm = Attention(config.width, config.heads), nn.LayerNorm(config.width)
        self.sampling = DeformableAttention(config.width, config.heads, config.points, grid)
        self.sampling_norm = nn.LayerNorm(config.width)
        self.mlp, self.mlp_norm = MLP(config.width, config.mlp_width, "relu"), nn.LayerNorm(config.width)

    def forward(
        self,
        x: Float[Tensor, "B K D"],
        places: Float[Tensor, "B K D"],
        features: Float[Tensor, "B N D"],
        reference: Float[Tensor, "K 2"],
    ) -> Float[Tensor, "B K D"]:
        x = self.attention_norm(x + self.attention(x + places, values=x))
        x = self.sampling_norm(x + self.sampling(x + places, features, reference))
        return self.mlp_norm(x + self.mlp(x))


class DeformableAttention(Tapped):
    """A query reads the features at `points` points in each head, between patches too, and mixes what it finds there.

    Records the points (B, K, heads, points, 2), as x and y, and their weights (B, K, heads, points), which sum to 1 in
    each head: a choice among the query's own points and no attention over keys, hence a softmax of its own.
    """

    def __init__(self, width: int, heads: int, points: int, grid: Grid):
        super().__init__()
        self.heads, self.points, self.grid = heads, points, grid
        self.offsets = nn.Linear(width, heads * points * 2)
        self.weights = nn.Linear(width, heads * points)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.register_buffer("size", torch.tensor([grid[1], grid[0]]), persistent=False)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """As published: the same for every query, head by head in another direction, each point a patch further out."""
        for weight in (self.offsets.weight, self.weights.weight, self.weights.bias):
            weight.zero_()
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            layer.bias.zero_()
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], dim=1)  # (heads, 2)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, self.points + 1)[:, None]
        self.offsets.bias.copy_((direction[:, None] * steps).flatten())  # (heads, points, 2)

    def forward(
        self, x: Float[Tensor, "B K D"], features: Float[Tensor, "B N D"], reference: Float[Tensor, "K 2"]
    ) -> Float[Tensor, "B K D"]:
        offsets = self.offsets(x).unflatten(2, (self.heads, self.points, 2))  # in patches
        points = reference[:, None, None] + offsets / self.size  # (B, K, heads, points, 2)
        weights = self.weights(x).unflatten(2, (self.heads, self.points)).softmax(dim=-1)
        self.record("points", points)
        self.record("weights", weights)
        found = self._look(features, points)  # (B, heads, d, K, points)
        return self.out(torch.einsum("bhdkp,bkhp->bkhd", found, weights).flatten(2))  # (B, K, D)

    def _look(self, features: Tensor, points: Tensor) -> Float[Tensor, "B H d K P"]:
        """The values at the points, between the four nearest patches; zeros outside the picture."""
        values = self.value(features).unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)  # (B, heads, d, N)
        picture = values.unflatten(3, self.grid).flatten(0, 1)  # (B*heads, d, rows, cols)
        where = 2 * points.transpose(1, 2).flatten(0, 1) - 1  # (B*heads, K, points, 2), corners at -1 and 1
        return F.grid_sample(picture, where, align_corners=False).unflatten(0, (-1, self.heads))
