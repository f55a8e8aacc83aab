"""The Perceiver resampler: a few learned latents read the patches, and one another, again and again, each time refining
what they hold (Flamingo, Alayrac et al. 2022, arXiv:2204.14198; Idefics, arXiv:2306.16527; Idefics2, arXiv:2405.02246).

Token count: N in, `tokens` out, whatever N is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.connectors.connector import Budgeted, Grid, Resampler
from minivlm.layers import MLP, GatedMLP, check_groups, check_positive


@dataclass(frozen=True)
class _Sizes(Budgeted):
    """Latents, layers, and heads, whose size is free."""

    depth: int
    heads: int
    head_dim: int

    def __post_init__(self):
        super().__post_init__()
        check_positive(depth=self.depth, heads=self.heads, head_dim=self.head_dim)


class Layer(nn.Module):
    """One reading: the latents attend to the features and to themselves, then an MLP, both with a residual. The
    features stay as they came; only the latents are written. `attention_options`: a mask of who sees what."""

    def __init__(self, attention: Attention, mlp: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__()
        self.context_norm, self.latents_norm, self.attention = norm(), norm(), attention
        self.mlp_norm, self.mlp = norm(), mlp

    def forward(
        self, latents: Float[Tensor, "B K W"], features: Float[Tensor, "B N W"], **attention_options
    ) -> Float[Tensor, "B K W"]:
        normed = self.latents_norm(latents)
        seen = torch.cat([self.context_norm(features), normed], dim=1)  # (B, N+K, W)
        latents = latents + self.attention(normed, seen, **attention_options)
        return latents + self.mlp(self.mlp_norm(latents))


class Perceiver(Resampler, nn.Module):
    """The skeleton: latents (K, W) and the layers that they pass. `enter` and `out`, where a system has them, bring the
    features to the width W of the latents, and the latents to the decoder's."""

    masked: ClassVar[bool] = True

    def __init__(self, latents: Tensor, layers: list[Layer], norm: nn.Module, enter: nn.Module, out: nn.Module):
        super().__init__()
        self.tokens = len(latents)
        self.latents = nn.Parameter(latents)
        self.layers = nn.ModuleList(layers)
        self.norm, self.enter, self.out = norm, enter, out

    def forward(
        self, features: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B K Dout"]:
        """`mask`: True = a feature that is there; nobody sees the others. None: all are. ValueError for other masks."""
        options = {} if mask is None else {"mask": self.sees(mask, features)}
        features = self.enter(features)  # (B, N, W)
        latents = self.latents.expand(len(features), -1, -1)  # (B, K, W)
        for layer in self.layers:
            latents = layer(latents, features, **options)
        return self.out(self.norm(latents))

    def sees(self, mask: Tensor, features: Tensor) -> Bool[Tensor, "B 1 K Lk"]:
        """Every latent sees the features that are there, and all latents behind them."""
        if mask.dtype != torch.bool or mask.shape != features.shape[:2]:
            wanted, got = tuple(features.shape[:2]), tuple(mask.shape)
            raise ValueError(f"mask must be boolean and {wanted}, one for each feature, got {mask.dtype} {got}")
        keys = F.pad(mask, (0, self.tokens), value=True)  # (B, N+K)
        return keys[:, None, None].expand(-1, -1, self.tokens, -1)


@dataclass(frozen=True)
class FlamingoResampler(_Sizes):
    """Flamingo: GELU MLPs without biases. With several `frames`, the patches of each follow one another, and a learned
    vector tells them apart; a single picture has none, as in OpenFlamingo."""

    frames: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_positive(frames=self.frames)

    def build(self, width: int, out_width: int, grid: Grid) -> Perceiver:
        enter = FrameEmbedding(self.frames, width, grid) if self.frames > 1 else nn.Identity()
        return _in_features_width(self, width, out_width, "gelu", enter)


@dataclass(frozen=True)
class IdeficsResampler(_Sizes):
    """Idefics: ReLU, and (`head_norms`) a LayerNorm over each head's queries and keys."""

    head_norms: bool = True

    def build(self, width: int, out_width: int, grid: Grid) -> Perceiver:
        head_norm = nn.LayerNorm if self.head_norms else None
        return _in_features_width(self, width, out_width, "relu", nn.Identity(), head_norm)


def _in_features_width(
    config: _Sizes,
    width: int,
    out_width: int,
    activation: str,
    enter: nn.Module,
    head_norm: Callable[[int], nn.Module] | None = None,
) -> Perceiver:
    """The latents of Flamingo and Idefics are as wide as the features, and their decoders read them in that width, in
    layers of their own. To stand among the words of another width, one linear map is added here."""
    sizes = dict(head_dim=config.head_dim, bias=False, head_norm=head_norm)
    norm = partial(nn.LayerNorm, width)
    layers = [
        Layer(Attention(width, config.heads, **sizes), MLP(width, 4 * width, activation, bias=False), norm)
        for _ in range(config.depth)
    ]
    out = nn.Linear(width, out_width) if width != out_width else nn.Identity()
    return Perceiver(torch.randn(config.tokens, width), layers, norm(), enter, out)


class FrameEmbedding(nn.Module):
    """Adds to every patch the vector of its frame: the first frames' where fewer come than were learned."""

    def __init__(self, frames: int, width: int, grid: Grid):
        super().__init__()
        self.patches = grid[0] * grid[1]
        self.embedding = nn.Parameter(torch.randn(frames, width))

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        frames = features.shape[1] // self.patches  # a class token in each makes no further frame
        if not 1 <= frames <= len(self.embedding) or features.shape[1] % frames:
            raise ValueError(
                f"{features.shape[1]} vectors are no 1 to {len(self.embedding)} frames of {self.patches} patches"
            )
        told = features.unflatten(1, (frames, -1)) + self.embedding[:frames, None]  # (B, frames, N / frames, D)
        return told.flatten(1, 2)  # (B, N, D)


@dataclass(frozen=True)
class Idefics2Resampler(_Sizes):
    """Idefics2: a gated MLP, `hidden` wide, brings the features to the decoder's width, in which the latents work with
    grouped heads, gated MLPs and RMSNorm. The published latents start all as ones; these have a little noise, or an
    untrained model would hand on one token many times."""

    kv_heads: int
    hidden: int
    eps: float = 1e-5

    def __post_init__(self):
        super().__post_init__()
        check_positive(kv_heads=self.kv_heads, hidden=self.hidden)
        check_groups(self.kv_heads, self.heads)

    def build(self, width: int, out_width: int, grid: Grid) -> Perceiver:
        norm = partial(nn.RMSNorm, out_width, eps=self.eps)
        sizes = dict(kv_heads=self.kv_heads, head_dim=self.head_dim, bias=False)
        layers = [
            Layer(Attention(out_width, self.heads, **sizes), GatedMLP(out_width, 4 * out_width), norm)
            for _ in range(self.depth)
        ]
        latents = 1 + 0.02 * torch.randn(self.tokens, out_width)
        return Perceiver(latents, layers, norm(), GatedMLP(width, self.hidden, out_width), nn.Identity())
