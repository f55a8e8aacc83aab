"""Pooling: neighbouring patches become one token, by their mean (DeCo, Yao et al. 2024, arXiv:2405.20985) or side by
side in its channels (the pixel shuffle of Idefics3 and SmolVLM, Laurençon et al. 2024, arXiv:2408.12637).

Token count: N in, `tokens` out. Every token is a cell of a coarser grid, and knows of nothing outside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.connectors.connector import Budgeted, Connector, Grid
from minivlm.layers import MLP, check_activation, check_positive
from minivlm.layout import VisualLayout


@dataclass(frozen=True)
class AveragePooling(Budgeted):
    """DeCo: the mean of each cell, then LLaVA-1.5's MLP. Cells overlap where the grid does not divide, as in torch's
    adaptive pooling; of all ways to lay `tokens` out in rows and columns, the one nearest the grid's own shape."""

    activation: str = "gelu"

    def __post_init__(self):
        super().__post_init__()
        check_activation(self.activation)

    def build(self, width: int, out_width: int, grid: Grid) -> AveragePool:
        return AveragePool(self, width, out_width, grid)


class AveragePool(Connector, nn.Module):
    one_grid = True

    def __init__(self, config: AveragePooling, width: int, out_width: int, grid: Grid):
        super().__init__()
        self.config, self.grid = config, grid
        self.cells = self.layout_of(grid)
        self.mlp = MLP(width, out_width, config.activation, out_width)

    def layout_of(self, grid: Grid) -> Grid:
        """Rows and columns of cells; ValueError where `tokens` cannot be laid out within the grid, with what can."""
        tokens, (rows, cols) = self.config.tokens, grid
        shapes = [(r, tokens // r) for r in range(1, rows + 1) if tokens % r == 0 and tokens // r <= cols]
        if not shapes:
            counts = sorted({r * c for r in range(1, rows + 1) for c in range(1, cols + 1)})
            raise ValueError(
                f"{tokens} tokens do not fit into {rows}x{cols} patches as rows and columns; "
                f"it can give {', '.join(map(str, counts))}"
            )
        return min(shapes, key=lambda shape: abs(math.log(shape[0] * cols / (shape[1] * rows))))

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.cells(self.layout_of(grid))

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        picture = features.transpose(1, 2).unflatten(2, self.grid)  # (B, D, rows, cols)
        pooled = F.adaptive_avg_pool2d(picture, self.cells)
        return self.mlp(pooled.flatten(2).transpose(1, 2))  # (B, K, Dout)


@dataclass(frozen=True)
class PixelShuffle:
    """SmolVLM: squares of `factor` x `factor` patches are laid side by side in the channels, then one linear map."""

    factor: int

    def __post_init__(self):
        check_positive(factor=self.factor)

    def at_budget(self, tokens: int, grid: Grid) -> PixelShuffle:
        """The factor that makes `tokens` of a grid; ValueError where none does, with the counts that there are."""
        counts = {_squares(grid, f): f for f in range(1, min(grid) + 1) if grid[0] % f == 0 and grid[1] % f == 0}
        if tokens not in counts:
            raise ValueError(
                f"squares of patches make no {tokens} tokens of {grid[0]}x{grid[1]} patches; "
                f"they can give {', '.join(map(str, sorted(counts)))}"
            )
        return PixelShuffle(counts[tokens])

    def build(self, width: int, out_width: int, grid: Grid) -> Shuffle:
        return Shuffle(self.factor, width, out_width, grid)


def _squares(grid: Grid, factor: int) -> int:
    return (grid[0] // factor) * (grid[1] // factor)


class Shuffle(Connector, nn.Module):
    """Patches beyond the last whole square are left out."""

    one_grid = True

    def __init__(self, factor: int, width: int, out_width: int, grid: Grid):
        super().__init__()
        if factor > min(grid):
            raise ValueError(f"squares of {factor}x{factor} patches do not fit into {grid[0]}x{grid[1]} patches")
        self.factor, self.grid = factor, grid
        self.out = nn.Linear(width * factor**2, out_width, bias=False)

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.cells((grid[0] // self.factor, grid[1] // self.factor))

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        f = self.factor
        rows, cols = self.grid[0] // f, self.grid[1] // f
        picture = features.unflatten(1, self.grid)[:, : rows * f, : cols * f]
        squares = picture.unflatten(1, (rows, f)).unflatten(3, (cols, f)).transpose(2, 3)  # (B, rows, cols, f, f, D)
        return self.out(squares.flatten(3).flatten(1, 2))  # (B, K, f*f*D) -> (B, K, Dout)
