"""C-Abstractor: convolutions mix each patch with its neighbours before and after the grid is pooled, so that a token
keeps its place (Honeybee, Cha et al. 2023, arXiv:2312.06742; MM1's connector as well, arXiv:2403.09611).

Token count: N in, `tokens` out, a square number: the cells of a square grid, whatever the shape of the grid of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.connectors.connector import Budgeted, Connector, Grid, square_side
from minivlm.layers import MLP, check_positive
from minivlm.layout import VisualLayout


@dataclass(frozen=True)
class CAbstraction(Budgeted):
    """`depth` convolution blocks of `width` channels before the pooling, and as many after it."""

    width: int = 1024
    depth: int = 3

    def __post_init__(self):
        super().__post_init__()
        check_positive(width=self.width, depth=self.depth)

    def build(self, width: int, out_width: int, grid: Grid) -> CAbstractor:
        return CAbstractor(self, width, out_width, grid)


class CAbstractor(Connector, nn.Module):
    """Learned positions are added to the features (upstream changes its input in doing so, we do not)."""

    one_grid = True

    def __init__(self, config: CAbstraction, width: int, out_width: int, grid: Grid):
        super().__init__()
        self.config, self.grid = config, grid
        self.side = square_side(config.tokens, min(grid), f"a C-Abstractor over {grid[0]}x{grid[1]} patches")
        self.positions = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], width))
        self.before = stage(config.depth, width, config.width)
        self.after = stage(config.depth, config.width, config.width)
        self.mlp = MLP(config.width, out_width, "silu", out_width)

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.cells((self.side, self.side))

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        picture = (features + self.positions).transpose(1, 2).unflatten(2, self.grid)  # (B, D, rows, cols)
        pooled = F.adaptive_avg_pool2d(self.before(picture), self.side)
        return self.mlp(self.after(pooled).flatten(2).transpose(1, 2))  # (B, K, Dout)


def stage(depth: int, in_width: int, width: int) -> nn.Sequential:
    """Blocks one after the other; the first one changes the number of channels."""
    return nn.Sequential(*(Bottleneck(in_width if i == 0 else width, width) for i in range(depth)))


class Bottleneck(nn.Module):
    """The residual block of RegNet (Radosavovic et al. 2020, arXiv:2003.13678; timm.models.regnet.Bottleneck).

    Mix the channels, look at the 3x3 neighbours in each channel by itself, weigh the channels, mix them again. As in
    Honeybee, with SiLU, and with LayerNorm over the channels where RegNet has batch norm.
    """

    def __init__(self, in_width: int, width: int):
        super().__init__()
        self.mix = ConvNorm(in_width, width)
        self.look = ConvNorm(width, width, kernel=3, groups=width)
        self.excite = SqueezeExcite(width, round(in_width / 4))
        self.remix = ConvNorm(width, width)
        self.shortcut = nn.Identity() if in_width == width else ConvNorm(in_width, width)

    def forward(self, x: Float[Tensor, "B D rows cols"]) -> Float[Tensor, "B Dout rows cols"]:
        y = F.silu(self.look(F.silu(self.mix(x))))
        return F.silu(self.remix(self.excite(y)) + self.shortcut(x))


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size of the picture, then the norm of each place over its channels."""

    def __init__(self, in_width: int, width: int, kernel: int = 1, groups: int = 1):
        convolution = nn.Conv2d(in_width, width, kernel, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(convolution, ChannelNorm(width))


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: Float[Tensor, "B D rows cols"]) -> Float[Tensor, "B D rows cols"]:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SqueezeExcite(nn.Module):
    """Each channel times a gate between 0 and 1, read off the mean of all channels over the whole picture (Hu et al.
    2018, arXiv:1709.01507): the one place where a cell hears of patches far away."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = MLP(width, hidden, "silu")

    def forward(self, x: Float[Tensor, "B D rows cols"]) -> Float[Tensor, "B D rows cols"]:
        return x * self.gate(x.mean(dim=(2, 3))).sigmoid()[:, :, None, None]
