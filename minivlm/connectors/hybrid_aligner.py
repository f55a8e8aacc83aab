"""The hybrid aligner: the features of two encoders, side by side in every place, get a linear map each, half the
decoder's width, before one MLP reads both (DeepSeek-VL, Lu et al. 2024, arXiv:2403.05525).

Token count: N in, N out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.connectors.connector import Connector, Grid
from minivlm.layers import check_divides, check_positive
from minivlm.layout import VisualLayout


@dataclass(frozen=True)
class HybridProjection:
    """`high_width`: how many of the features of a place, the first ones, are the high-resolution encoder's."""

    high_width: int

    def __post_init__(self):
        check_positive(high_width=self.high_width)

    def build(self, width: int, out_width: int, grid: Grid) -> HybridAligner:
        if self.high_width >= width:
            raise ValueError(
                f"of {width} features the first {self.high_width} are one encoder's, which leaves none for the other: "
                "make high_width smaller"
            )
        check_divides(2, out_width)
        return HybridAligner(self.high_width, width - self.high_width, out_width)


class HybridAligner(Connector, nn.Module):
    pointwise: ClassVar[bool] = True

    def __init__(self, high_width: int, low_width: int, out_width: int):
        super().__init__()
        self.widths = (high_width, low_width)
        self.high, self.low = (nn.Linear(width, out_width // 2) for width in self.widths)
        self.out = nn.Linear(out_width, out_width)

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.patches(grid)

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N Dout"]:
        high, low = features.split(self.widths, dim=-1)
        return self.out(F.gelu(torch.cat([self.high(high), self.low(low)], dim=-1)))
