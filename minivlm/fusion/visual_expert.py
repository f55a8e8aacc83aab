"""The visual expert: patches stand among the words and pass through the decoder on maps of their own, which start as
copies of the words' (CogVLM, Wang et al. 2023, arXiv:2311.03079). The language model is left as it was: a text without
a picture never meets an expert.

Token count: a text of T ids with M `<image>` ids and K visual tokens a picture becomes T - M + M * K positions, but all
patches of a picture are told the same place, so that words stay near to one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor, nn

from minivlm.fusion.experts import Experts, check_parts, copy_weights
from minivlm.language.decoder import Decoder
from minivlm.layers import check_positive
from minivlm.layout import Kind, Layout, VisualLayout


@dataclass(frozen=True)
class VisualExpertConfig:
    """An expert in every `every`-th block, for its parts named in `routes` (("mlp",) is the paper's FFN-only arm).
    `qkv_bias`: the experts' queries, keys and values have biases, whatever the decoder's have (CogVLM2)."""

    every: int = 1
    routes: tuple[str, ...] = ("q", "k", "v", "out", "mlp")
    qkv_bias: bool = False

    visual_width: ClassVar[None] = None

    def __post_init__(self):
        check_positive(every=self.every)
        check_parts(self.routes)

    def build(self, decoder: Decoder) -> VisualExpert:
        return VisualExpert(self, decoder)


class VisualExpert(Experts):
    """Attention is joint and plainly causal, and the norms are shared. The tag behind a picture is a word's affair: its
    output is the first to say something, and the words' maps make it."""

    one_place = True

    def __init__(self, config: VisualExpertConfig, decoder: Decoder):
        super().__init__(decoder, config.routes, config.every)
        if config.qkv_bias:
            for expert in self.experts:
                expert.update({name: _biased(expert[name]) for name in expert if name in ("q", "k", "v")})

    def unread(self, picture: VisualLayout) -> list[nn.Module]:
        """All but keys and values of an expert in the last block, if a tag closes the picture: then no word is read off
        the places that it serves."""
        if picture.kind[-1] != Kind.TAG or (self.depth - 1) % self.every:
            return []
        last = self.experts[-1]
        return [last[name] for name in ("q", "out", "mlp") if name in last]

    def route(self, layout: Layout) -> Bool[Tensor, "B L"]:
        closes = (layout.kind == Kind.TAG) & (layout.index > 0)
        return layout.is_visual & ~closes


def _biased(linear: nn.Linear) -> nn.Linear:
    biased = nn.Linear(linear.in_features, linear.out_features, device=linear.weight.device)
    copy_weights(linear, biased)
    return biased
