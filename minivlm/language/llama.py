"""The Llama decoder: RMSNorm, rotary positions, SwiGLU, grouped heads (Touvron et al. 2023, arXiv:2302.13971).

Token count: L in, L out. Equal to `transformers.LlamaForCausalLM` with plain rotary positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Int
from torch import Tensor, nn

from minivlm.attention import Attention, rotary
from minivlm.language.decoder import Decoder
from minivlm.layers import Block, GatedMLP, check_divides, check_groups, check_positive


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama. `tied`: the output layer is the embedding table. `head_dim` None: width / heads. `qkv_bias`:
    queries, keys and values have biases (Qwen)."""

    vocab_size: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp_width: int
    eps: float = 1e-6
    rope_theta: float = 10000.0
    tied: bool = False
    head_dim: int | None = None
    qkv_bias: bool = False

    def __post_init__(self):
        check_positive(vocab_size=self.vocab_size, width=self.width, depth=self.depth, mlp_width=self.mlp_width)
        if self.head_dim is None:
            check_divides(self.heads, self.width)
        check_groups(self.kv_heads, self.heads)
        if self.dim_per_head % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.dim_per_head}")

    @property
    def dim_per_head(self) -> int:
        return self.head_dim or self.width // self.heads

    def build(self) -> Llama:
        return Llama(self)


class Llama(Decoder):
    """Places turn the queries and keys of every block; nothing but `qkv_bias` has a bias."""

    def __init__(self, config: LlamaConfig):
        norm = partial(nn.RMSNorm, config.width, eps=config.eps)
        heads = dict(kv_heads=config.kv_heads, head_dim=config.head_dim, bias=config.qkv_bias, out_bias=False)

        def block() -> Block:
            attention = Attention(config.width, config.heads, **heads)
            return Block(attention, GatedMLP(config.width, config.mlp_width), norm)

        super().__init__(config, block, norm, config.tied)

    def angles(self, positions: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
        return rotary(positions, self.config.dim_per_head, self.config.rope_theta)
