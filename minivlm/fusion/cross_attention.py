"""Gated cross attention: pictures stay out of the sequence. In layers of their own, between the decoder's blocks, words
look at them, and gates that start closed leave the decoder as it was until they have learned to open (Flamingo, Alayrac
et al. 2022, arXiv:2204.14198; Idefics, arXiv:2306.16527).

Token count: an `<image>` id stays the one word it is: T in, T out. The K visual tokens of each of M pictures are M * K
keys of every such layer, made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention, Tapped
from minivlm.fusion.fusion import Block, Fusion
from minivlm.language.decoder import Decoder
from minivlm.layers import MLP, GatedMLP, check_divides, check_positive
from minivlm.layout import Layout

LOOKS = ("latest", "preceding")


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """A layer for every `every` blocks of the decoder, over visual tokens of `visual_width`.

    A word `looks` at the "latest" picture begun, of which the `<image>` word itself is the first to see it, or at all
    "preceding" ones. Before the first picture it looks at nothing (with "preceding", published code lets it look at
    them all). `blind_mlp`: the layers' MLPs run there too, as published; without, a place that sees no picture is the
    untouched decoder's, to the bit.

    `gate_start`: what the gates of the looks start at. Published: 0, shut, so that the decoder at first says what it
    said without pictures.
    """

    every: int
    heads: int
    visual_width: int
    looks: str = "latest"
    blind_mlp: bool = True
    gate_start: float = 0.0

    def __post_init__(self):
        check_positive(every=self.every, heads=self.heads, visual_width=self.visual_width)
        if self.looks not in LOOKS:
            raise ValueError(f"unknown looks {self.looks!r}; choose one of {', '.join(LOOKS)}")

    def _places(self, decoder: Decoder, first: int) -> range:
        """The blocks that have a layer before them."""
        places = range(first, len(decoder.blocks), self.every)
        if not places:
            raise ValueError(f"a layer for every {self.every} blocks, but the decoder has only {len(decoder.blocks)}")
        return places


@dataclass(frozen=True, kw_only=True)
class FlamingoCrossAttention(_Rules):
    """Flamingo: before the last of every `every` blocks; GELU MLPs, a LayerNorm, one number a gate."""

    head_dim: int

    def __post_init__(self):
        super().__post_init__()
        check_positive(head_dim=self.head_dim)

    def build(self, decoder: Decoder) -> GatedCrossAttention:
        width = decoder.config.width
        sizes = dict(head_dim=self.head_dim, context_width=self.visual_width, bias=False)

        def layer() -> GatedLayer:
            mlp = MLP(width, 4 * width, "gelu", bias=False)
            attention = Attention(width, self.heads, **sizes)
            return GatedLayer(attention, mlp, partial(nn.LayerNorm, width), 1, self.gate_start)

        return GatedCrossAttention(self, self._places(decoder, self.every - 1), layer)


@dataclass(frozen=True, kw_only=True)
class IdeficsCrossAttention(_Rules):
    """Idefics: before the first of every `every` blocks, which they are like: SwiGLU, RMSNorm, and (`head_norms`) one
    over each head's queries and keys; no rotary positions. `vector_gates`: a number for every channel."""

    mlp_width: int
    head_norms: bool = True
    vector_gates: bool = False
    eps: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        check_positive(mlp_width=self.mlp_width)

    def build(self, decoder: Decoder) -> GatedCrossAttention:
        width, rms = decoder.config.width, partial(nn.RMSNorm, eps=self.eps)
        check_divides(self.heads, width)
        sizes = dict(context_width=self.visual_width, bias=False, head_norm=rms if self.head_norms else None)

        def layer() -> GatedLayer:
            attention, mlp = Attention(width, self.heads, **sizes), GatedMLP(width, self.mlp_width)
            return GatedLayer(attention, mlp, partial(rms, width), width if self.vector_gates else 1, self.gate_start)

        return GatedCrossAttention(self, self._places(decoder, 0), layer)


@dataclass(frozen=True)
class Seen:
    """The pictures as the layers see them: `keys_and_values` of each layer, (B, M*K, H*d), and which `segment` each
    picture belongs to, -1 for one that is not there."""

    keys_and_values: list[tuple[Tensor, Tensor]]
    segment: Int[Tensor, "B M"]


@dataclass(frozen=True)
class View:
    """What one layer may look at: keys, values, and which of them serve each of L places."""

    k: Float[Tensor, "B Lk k"]
    v: Float[Tensor, "B Lk k"]
    mask: Bool[Tensor, "B 1 L Lk"]


class GatedLayer(Tapped):
    """x += tanh(gate) * attention(norm(x), pictures); x += tanh(gate) * mlp(norm(x)). No map has a bias, so what looks
    at nothing is given nothing."""

    def __init__(
        self,
        attention: Attention,
        mlp: nn.Module,
        norm: Callable[[], nn.Module],
        gate_size: int,
        gate_start: float = 0.0,
    ):
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.mlp_norm, self.mlp = norm(), mlp
        self.attention_gate = nn.Parameter(torch.full((gate_size,), gate_start))
        self.mlp_gate = nn.Parameter(torch.zeros(gate_size))

    def forward(self, x: Float[Tensor, "B L D"], view: View | None, blind_mlp: bool) -> Float[Tensor, "B L D"]:
        """Without a `view` (no picture at all) only the MLP is left. `blind_mlp`: does it run where none is seen?"""
        if view is not None:
            x = x + self._look(x, view)
        told = self._gate("mlp_gate") * self.mlp(self.mlp_norm(x))
        return x + (told if blind_mlp else told * view.mask.any(dim=-1).transpose(1, 2))

    def _look(self, x: Float[Tensor, "B L D"], view: View) -> Float[Tensor, "B L D"]:
        q = self.attention.q(self.attention_norm(x))
        seen = self.attention.out(self.attention.mix(q, view.k, view.v, view.mask))
        update = self._gate("attention_gate") * seen
        self.record("cross_update", update)
        return update

    def _gate(self, name: str) -> Tensor:
        gate = getattr(self, name).tanh()
        self.record(name, gate)
        return gate

    def before(self, block: nn.Module, view: View | None, blind_mlp: bool) -> Block:
        """This layer and then `block`. When watched, both updates of the residual are recorded beside one another: this
        layer's look at the pictures (`cross_update`) and the block's self-attention (`self_update`)."""

        def both(x: Tensor, **options) -> Tensor:
            x = self(x, view, blind_mlp)
            if self.tap is None:
                return block(x, **options)
            keep = block.attention.register_forward_hook(lambda _, given, update: self.record("self_update", update))
            try:
                return block(x, **options)
            finally:
                keep.remove()

        return both


class GatedCrossAttention(Fusion):
    """The decoder with a layer before the block at each of `places`."""

    opens: ClassVar[bool] = False

    def __init__(self, config: _Rules, places: range, layer: Callable[[], GatedLayer]):
        super().__init__()
        self.config, self.places = config, places
        self.layers = nn.ModuleList(layer() for _ in places)

    def look(self, visual: Float[Tensor, "B M K Dv"] | None, layout: Layout) -> Seen | None:
        """Keys and values of every layer, and where each picture stands."""
        if visual is None:
            return None
        segment = torch.full(visual.shape[:2], -1, device=layout.image.device)
        rows, places = (layout.image >= 0).nonzero(as_tuple=True)
        segment[rows, layout.image[rows, places]] = layout.segment[rows, places]
        return Seen(self._keys_and_values(visual), segment)

    def _keys_and_values(self, visual: Float[Tensor, "B M K Dv"]) -> list[tuple[Tensor, Tensor]]:
        flat = visual.flatten(1, 2)  # (B, M*K, Dv)
        return [(layer.attention.k(flat), layer.attention.v(flat)) for layer in self.layers]

    def blocks(self, decoder: Decoder, layout: Layout, seen: Seen | None) -> list[Block]:
        blocks, blind_mlp = list(decoder.blocks), self.config.blind_mlp
        if seen is None and not blind_mlp:
            return blocks
        views = [None] * len(self.layers)
        if seen is not None:
            mask = self._mask(layout, seen).to(seen.keys_and_values[0][0].device)
            views = [View(k, v, mask) for k, v in seen.keys_and_values]
        for place, layer, view in zip(self.places, self.layers, views, strict=True):
            blocks[place] = layer.before(blocks[place], view, blind_mlp)
        return blocks

    def kept(self, tokens: int) -> int:
        return tokens * sum(layer.attention.k.out_features + layer.attention.v.out_features for layer in self.layers)

    def _mask(self, layout: Layout, seen: Seen) -> Bool[Tensor, "B 1 L Lk"]:
        """Which visual tokens each place looks at. A picture counts if it has begun and is shared, or of the same
        segment: no question sees another's."""
        number = torch.arange(seen.segment.shape[1], device=seen.segment.device)  # (M,)
        segment = seen.segment[:, None]  # (B, 1, M)
        begun = layout.latest[..., None] >= number  # (B, L, M)
        visible = begun & ((segment == 0) | (segment == layout.segment[..., None]))
        if self.config.looks == "latest":
            visible = visible & (number == torch.where(visible, number, -1).amax(dim=-1, keepdim=True))
        tokens = seen.keys_and_values[0][0].shape[1] // len(number)
        return visible.repeat_interleave(tokens, dim=-1)[:, None]
