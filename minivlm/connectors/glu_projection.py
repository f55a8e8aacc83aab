"""The GLU projection: every patch by a linear map and a gated MLP, between two learned tokens that say where a picture
begins and ends (CogVLM, Wang et al. 2023, arXiv:2311.03079).

Token count: N in, N + 2 out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.connectors.connector import Connector, Grid
from minivlm.layers import GatedMLP, check_positive
from minivlm.layout import VisualLayout


@dataclass(frozen=True)
class GLUProjection:
    """`hidden`: the width of the gated MLP."""

    hidden: int
    eps: float = 1e-5

    def __post_init__(self):
        check_positive(hidden=self.hidden)

    def build(self, width: int, out_width: int, grid: Grid) -> GLUAdapter:
        return GLUAdapter(self, width, out_width)


class GLUAdapter(Connector, nn.Module):
    """Nothing but the norm has a bias."""

    def __init__(self, config: GLUProjection, width: int, out_width: int):
        super().__init__()
        self.enter = nn.Linear(width, out_width, bias=False)
        self.norm = nn.LayerNorm(out_width, eps=config.eps)
        self.mlp = GatedMLP(out_width, config.hidden)
        self.begin = nn.Parameter(torch.randn(out_width) * out_width**-0.5)
        self.end = nn.Parameter(torch.randn(out_width) * out_width**-0.5)

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.tag() + VisualLayout.patches(grid) + VisualLayout.tag()

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        patches = self.mlp(nn.functional.gelu(self.norm(self.enter(features))))  # (B, N, Dout)
        begin, end = (tag.expand(len(patches), 1, -1) for tag in (self.begin, self.end))
        return torch.cat([begin, patches, end], dim=1)
