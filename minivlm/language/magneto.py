"""Magneto: a second norm inside each half of a block, just before its last map (sub-LN; Wang et al. 2022,
arXiv:2210.06423), and places as fixed waves. Kosmos-2 speaks with it (Peng et al. 2023, arXiv:2306.14824), and BEiT-3
(arXiv:2208.10442) in a variant with learned places.

Token count: L in, L out. Equal to the text model of `transformers.Kosmos2ForConditionalGeneration`. Whatever enters,
picture or word, is first multiplied by sqrt(width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.language.decoder import Decoder, MultiHeadConfig
from minivlm.layers import MLP, Block, check_positive

FIRST = 2  # the number of the first place: fairseq, where Kosmos-2 was trained, counts on from the padding's id, 1


@dataclass(frozen=True)
class MagnetoConfig(MultiHeadConfig):
    """Sizes of a Magneto."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % 2 or self.width < 4:
            raise ValueError(
                f"waves come in pairs of at least two lengths: width must be even and 4 or more, got {self.width}"
            )

    def build(self) -> Magneto:
        return Magneto(self)


@dataclass(frozen=True)
class LearnedMagnetoConfig(MultiHeadConfig):
    """Sizes of a Magneto that has learned `context` places."""

    context: int = 1022

    def __post_init__(self):
        super().__post_init__()
        check_positive(context=self.context)

    def build(self) -> LearnedMagneto:
        return LearnedMagneto(self)


class SubLNLinear(nn.Linear):
    """A linear map of what a norm has evened out."""

    def __init__(self, width: int, out_width: int, eps: float):
        super().__init__(width, out_width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B Dout"]:
        return super().forward(self.norm(x))


def sinusoids(positions: Int[Tensor, "B L"], width: int) -> Float[Tensor, "B L D"]:
    """Waves of `width` / 2 lengths, from 2 pi to 20000 pi: their sines in the first half of the channels, their cosines
    in the second."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=positions.device).float() * (-math.log(10000) / (half - 1)))
    phases = positions[..., None].float() * rates  # (B, L, D/2)
    return torch.cat([phases.sin(), phases.cos()], dim=-1)


class SubLNDecoder(Decoder):
    """What both kinds share. The output layer is the embedding table."""

    def __init__(self, config: MultiHeadConfig):
        norm = partial(nn.LayerNorm, config.width, eps=config.eps)

        def block() -> Block:
            attention, mlp = Attention(config.width, config.heads), MLP(config.width, config.mlp_width, "gelu")
            attention.out = SubLNLinear(config.width, config.width, config.eps)
            mlp.down = SubLNLinear(config.mlp_width, config.width, config.eps)
            return Block(attention, mlp, norm)

        super().__init__(config, block, norm, tied=True)


class Magneto(SubLNDecoder):
    """Kosmos-2's: every place, a picture's too, is a wave."""

    def enter(self, x: Float[Tensor, "B L D"], positions: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return x * math.sqrt(self.config.width) + sinusoids(positions + FIRST, self.config.width).to(x.dtype)


class LearnedMagneto(SubLNDecoder):
    """BEiT-3's: a learned vector is added at every place from 0 on; what brings one of its own (position -1) is left as
    it comes, and nothing is scaled. The published system has no output layer of its own; the words' table is taken."""

    def __init__(self, config: LearnedMagnetoConfig):
        super().__init__(config)
        self.position_embedding = nn.Embedding(config.context + FIRST, config.width)
        nn.init.normal_(self.position_embedding.weight, std=config.width**-0.5)

    def enter(self, x: Float[Tensor, "B L D"], positions: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        if positions.device.type != "meta" and positions.max() >= self.config.context:
            raise ValueError(
                f"a text of {int(positions.max()) + 1} places, but this Magneto has learned only "
                f"{self.config.context}: shorten the text"
            )
        return x + self.position_embedding(positions + FIRST) * (positions >= 0)[..., None]
