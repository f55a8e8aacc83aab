"""OPT: GPT-3 for everyone - learned positions, LayerNorm before each half of a block, ReLU (Zhang et al. 2022,
arXiv:2205.01068).

Token count: L in, L out, at most `context`. Equal to `transformers.OPTForCausalLM` as BLIP-2 uses it (2.7B and 6.7B;
350M alone puts its norms behind and has narrower words, which is not computed here).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention, LayerCache
from minivlm.language.decoder import Decoder, MultiHeadConfig
from minivlm.layers import MLP, Block, check_positive

FIRST = 2  # the row of the table for the first place: fairseq, where OPT was trained, kept the rows before for padding


@dataclass(frozen=True)
class OPTConfig(MultiHeadConfig):
    """Sizes of an OPT that has learned `context` places."""

    context: int = 2048

    def __post_init__(self):
        super().__post_init__()
        check_positive(context=self.context)

    def build(self) -> OPT:
        return OPT(self)


class OPT(Decoder):
    """A vector of its own for every place is added to the words; the output layer is the embedding table."""

    def __init__(self, config: OPTConfig):
        norm = partial(nn.LayerNorm, config.width, eps=config.eps)

        def block() -> Block:
            return Block(Attention(config.width, config.heads), MLP(config.width, config.mlp_width, "relu"), norm)

        super().__init__(config, block, norm, tied=True)
        self.position_embedding = nn.Embedding(config.context + FIRST, config.width)
        nn.init.normal_(self.position_embedding.weight, std=config.width**-0.5)

    def enter(self, x: Float[Tensor, "B L D"], positions: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        self._check(x.shape[1])
        return x + self.position_embedding(positions + FIRST)

    def make_cache(self, max_length: int) -> list[LayerCache]:
        self._check(max_length)
        return super().make_cache(max_length)

    def _check(self, length: int) -> None:
        if length > self.config.context:
            raise ValueError(
                f"{length} positions, but this OPT has learned only {self.config.context}: shorten the text"
            )
