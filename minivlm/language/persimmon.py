"""Persimmon: a LayerNorm over each head's queries and keys, rotary positions on the first half of a head, MLPs with a
squared ReLU (Elsen et al. 2023, adept.ai/blog/persimmon-8b).

Token count: L in, L out. Equal to `transformers.PersimmonForCausalLM`; Fuyu and OtterHD speak with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention, rotary
from minivlm.language.decoder import Decoder, MultiHeadConfig
from minivlm.layers import MLP, Block


@dataclass(frozen=True)
class PersimmonConfig(MultiHeadConfig):
    """Sizes of a Persimmon. `rope_theta`: Persimmon's and Fuyu's; transformers' own default is 10000."""

    rope_theta: float = 25000.0

    def __post_init__(self):
        super().__post_init__()
        if self.dim_per_head % 4:
            raise ValueError(
                f"rotary positions turn pairs in the first half of a head: width / heads must be a multiple of 4, "
                f"got {self.width} / {self.heads} = {self.dim_per_head}"
            )

    def build(self) -> Persimmon:
        return Persimmon(self)


class SquaredMLP(MLP):
    """down(relu(up(x))^2), with biases (Primer, So et al. 2021, arXiv:2109.08668)."""

    def __init__(self, width: int, hidden: int):
        super().__init__(width, hidden, "relu")

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(self.activation(self.up(x)).square())


class Persimmon(Decoder):
    """Biases everywhere but in the output layer, which is not the embedding table. The heads of a block share the norm
    of their queries, and that of their keys."""

    def __init__(self, config: PersimmonConfig):
        norm = partial(nn.LayerNorm, config.width, eps=config.eps)
        head_norm = partial(nn.LayerNorm, eps=config.eps)

        def block() -> Block:
            attention = Attention(config.width, config.heads, head_norm=head_norm)
            return Block(attention, SquaredMLP(config.width, config.mlp_width), norm)

        super().__init__(config, block, norm, tied=False)

    def angles(self, positions: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        return rotary(positions, self.config.dim_per_head // 2, self.config.rope_theta)
