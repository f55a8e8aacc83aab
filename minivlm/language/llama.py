"""The Llama decoder: RMSNorm, rotary positions, SwiGLU, grouped heads (Touvron et al. 2023, arXiv:2302.13971).

Token count: L in, L out. It knows nothing of pictures: it reads a sequence of vectors, wherever they came from.
Equal to `transformers.LlamaForCausalLM` with plain rotary positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention, LayerCache, rotary
from minivlm.layers import Block, GatedMLP, check_divides, check_positive


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
        check_divides(self.kv_heads, self.heads)
        if self.dim_per_head % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.dim_per_head}")

    @property
    def dim_per_head(self) -> int:
        return self.head_dim or self.width // self.heads

    def build(self) -> Llama:
        return Llama(self)


class Llama(nn.Module):
    """Embeddings in, normed hidden states out; `logits` turns those into a score for every word."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        norm = partial(nn.RMSNorm, config.width, eps=config.eps)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        heads = dict(kv_heads=config.kv_heads, head_dim=config.head_dim, bias=config.qkv_bias, out_bias=False)
        attention = partial(Attention, config.width, config.heads, **heads)
        self.blocks = nn.ModuleList(
            Block(attention(), GatedMLP(config.width, config.mlp_width), norm) for _ in range(config.depth)
        )
        self.final_norm = norm()
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        self._start()

    def _start(self) -> None:
        """Words start at unit length, and what each block adds to them starts quieter (scaled as in GPT-2): drowned in
        the noise of untrained blocks, words take several times as many steps to be told apart."""
        nn.init.normal_(self.embedding.weight, std=self.config.width**-0.5)
        with torch.no_grad():
            for block in self.blocks:
                block.attention.out.weight *= (2 * self.config.depth) ** -0.5
                block.mlp.down.weight *= (2 * self.config.depth) ** -0.5

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        positions: Int[Tensor, "B L"] | None = None,
        mask: Bool[Tensor, "#B 1 L Lk"] | None = None,
        cache: list[LayerCache] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Hidden states after the final norm. Without a `mask` attention is plainly causal; `positions` default to
        0..L-1.

        With a `cache` (see `make_cache`) the keys and values of earlier calls are attended to as well, and `mask`
        must say which of them: (B, 1, L, all positions so far).
        """
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        if cache is not None and mask is None:
            raise ValueError("with a cache, say what may be attended to: pass a mask (B, 1, L, all positions so far)")
        angles = rotary(positions, self.config.dim_per_head, self.config.rope_theta)
        for i, block in enumerate(self.blocks):
            layer_cache = cache[i] if cache is not None else None
            x = block(x, mask=mask, is_causal=mask is None, angles=angles, cache=layer_cache)
        return self.final_norm(x)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.head(hidden)

    def make_cache(self, max_length: int) -> list[LayerCache]:
        """An empty cache for at most `max_length` positions, one entry a block."""
        return [LayerCache(max_length) for _ in self.blocks]
