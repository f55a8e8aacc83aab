"""Projection: every patch becomes one visual token by a small map of its own (LLaVA, Liu et al. 2023,
arXiv:2304.08485).

Token count: N in, N out. Nothing is thrown away and no token sees another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from minivlm.connectors.connector import Connector, Grid
from minivlm.layers import ACTIVATIONS, check_activation
from minivlm.layout import VisualLayout


class Projection(Connector, nn.Sequential):
    """What all projections share: one visual token a patch, in the same order."""

    pointwise: ClassVar[bool] = True

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.patches(grid)

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N Dout"]:
        return super().forward(features)


@dataclass(frozen=True)
class NoProjection:
    """BEiT-3: the features are the visual tokens, the class token's among them if the encoder hands it on."""

    class_token: bool = False

    def build(self, width: int, out_width: int, grid: Grid) -> Unprojected:
        if width != out_width:
            raise ValueError(f"without a projection features of width {width} do not fit a decoder of {out_width}")
        return Unprojected(self.class_token)


class Unprojected(Connector, nn.Module):
    pointwise: ClassVar[bool] = True

    def __init__(self, class_token: bool):
        super().__init__()
        self.class_token = class_token

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.latents(int(self.class_token)) + VisualLayout.patches(grid)

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return features


@dataclass(frozen=True)
class LinearProjection:
    """LLaVA 1.0: one linear map."""

    def build(self, width: int, out_width: int, grid: Grid) -> Projection:
        return Projection(nn.Linear(width, out_width))


@dataclass(frozen=True)
class MLPProjection:
    """LLaVA-1.5 (arXiv:2310.03744): Linear, GELU, Linear. `hidden` None: the decoder's width (moondream2: 8192)."""

    activation: str = "gelu"
    hidden: int | None = None

    def __post_init__(self):
        check_activation(self.activation)

    def build(self, width: int, out_width: int, grid: Grid) -> Projection:
        hidden = self.hidden or out_width
        return Projection(nn.Linear(width, hidden), _Activation(self.activation), nn.Linear(hidden, out_width))


@dataclass(frozen=True)
class NormedMLPProjection:
    """Yi-VL (arXiv:2403.04652): the MLP with a LayerNorm after each of its linear maps."""

    eps: float = 1e-5

    def build(self, width: int, out_width: int, grid: Grid) -> Projection:
        return Projection(
            nn.Linear(width, out_width),
            nn.LayerNorm(out_width, eps=self.eps),
            nn.GELU(),
            nn.Linear(out_width, out_width),
            nn.LayerNorm(out_width, eps=self.eps),
        )


class _Activation(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
