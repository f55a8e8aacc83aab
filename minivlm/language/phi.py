"""Phi: attention and MLP side by side, both reading the same norm; rotary positions on half of each head (Li et al.
2023, arXiv:2309.05463; the parallel block is GPT-J's).

Token count: L in, L out. Equal to `transformers.PhiForCausalLM`; moondream2 speaks with Phi-1.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention, rotary
from minivlm.language.decoder import Decoder, MultiHeadConfig
from minivlm.layers import MLP


@dataclass(frozen=True)
class PhiConfig(MultiHeadConfig):
    """Sizes of a Phi. `rotary_share`: the share of a head's channels that turn with the place, the first ones."""

    rope_theta: float = 10000.0
    rotary_share: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.rotary_channels % 2 or not 0 < self.rotary_channels <= self.dim_per_head:
            raise ValueError(
                f"rotary positions turn pairs of a head's {self.dim_per_head} channels, "
                f"and rotary_share {self.rotary_share} makes {self.rotary_channels}"
            )

    @property
    def rotary_channels(self) -> int:
        return int(self.dim_per_head * self.rotary_share)

    def build(self) -> Phi:
        return Phi(self)


class ParallelBlock(nn.Module):
    """x += attention(n) + mlp(n), where n = norm(x): one norm, and neither half waits for the other."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__()
        self.norm, self.attention, self.mlp = norm(), attention, mlp

    def forward(self, x: Float[Tensor, "B L D"], **attention_options) -> Float[Tensor, "B L D"]:
        normed = self.norm(x)
        return x + self.attention(normed, **attention_options) + self.mlp(normed)


class Phi(Decoder):
    """Biases everywhere, in the output layer too, which is not the embedding table."""

    def __init__(self, config: PhiConfig):
        norm = partial(nn.LayerNorm, config.width, eps=config.eps)

        def block() -> ParallelBlock:
            mlp = MLP(config.width, config.mlp_width, "gelu_tanh")
            return ParallelBlock(Attention(config.width, config.heads), mlp, norm)

        super().__init__(config, block, norm, tied=False, head_bias=True)

    def angles(self, positions: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        return rotary(positions, self.config.rotary_channels, self.config.rope_theta)
