"""What all decoders share: vectors go through blocks that only look back, and become a score for every next word.

Token count: L in, L out. A decoder knows nothing of pictures: it reads a sequence of vectors, wherever they came from.
What is its own (how it places words, what its blocks are) each kind says in its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import LayerCache
from minivlm.layers import check_divides, check_positive


@runtime_checkable
class DecoderConfig(Protocol):
    """What the rest of a model asks of any decoder's sizes."""

    vocab_size: int
    width: int
    depth: int
    kv_heads: int
    dim_per_head: int

    def build(self) -> Decoder: ...


@dataclass(frozen=True)
class MultiHeadConfig:
    """Sizes of a decoder with LayerNorm, an MLP of two maps, and a key head for every query head."""

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    eps: float = 1e-5

    def __post_init__(self):
        check_positive(vocab_size=self.vocab_size, width=self.width, depth=self.depth, mlp_width=self.mlp_width)
        check_divides(self.heads, self.width)

    @property
    def kv_heads(self) -> int:
        return self.heads

    @property
    def dim_per_head(self) -> int:
        return self.width // self.heads


class Decoder(nn.Module):
    """Embeddings in, normed hidden states out; `logits` turns those into a score for every word.

    `tied`: the output layer is the embedding table. A kind of decoder gives its `block` and its `norm`, and says with
    `enter` or `angles` how the words learn their places.
    """

    def __init__(
        self,
        config: DecoderConfig,
        block: Callable[[], nn.Module],
        norm: Callable[[], nn.Module],
        tied: bool,
        head_bias: bool = False,
    ):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(block() for _ in range(config.depth))
        self.final_norm = norm()
        self.head = nn.Linear(config.width, config.vocab_size, bias=head_bias)
        if tied:
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

    def enter(self, x: Float[Tensor, "B L D"], positions: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The state before the first block: the vectors as they are, unless places are added to them."""
        return x

    def angles(self, positions: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines that turn queries and keys, in a decoder with rotary positions."""
        return None

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        positions: Int[Tensor, "B L"] | None = None,
        mask: Bool[Tensor, "#B 1 L Lk"] | None = None,
        cache: list[LayerCache] | None = None,
        blocks: Sequence[Callable[..., Tensor]] | None = None,
        final_norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Hidden states after the final norm. Without a `mask` attention is plainly causal; `positions` default to
        0..L-1. `blocks` and `final_norm` are run in place of the decoder's own, by a fusion that adds to what they do.

        With a `cache` (see `make_cache`) the keys and values of earlier calls are attended to as well, and `mask`
        must say which of them: (B, 1, L, all positions so far).
        """
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        if cache is not None and mask is None:
            raise ValueError("with a cache, say what may be attended to: pass a mask (B, 1, L, all positions so far)")
        x, angles = self.enter(x, positions), self.angles(positions)
        for i, block in enumerate(self.blocks if blocks is None else blocks):
            layer_cache = cache[i] if cache is not None else None
            x = block(x, mask=mask, is_causal=mask is None, angles=angles, cache=layer_cache)
        return (final_norm or self.final_norm)(x)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.head(hidden)

    def make_cache(self, max_length: int) -> list[LayerCache]:
        """An empty cache for at most `max_length` positions, one entry a block."""
        return [LayerCache(max_length) for _ in self.blocks]

    @property
    def inner(self) -> Decoder:
        """The decoder whose blocks are run: another one where this is built around one."""
        return self

    def keeps(self, length: int) -> list[int]:
        """How many keys each block keeps for decoding, of a sequence of that length."""
        return [length] * len(self.blocks)

    def decide(self, x: Float[Tensor, "B L D"]) -> None:
        """Run whatever it computes to decide which places its blocks work on, so that it can be counted."""

    def aside(self) -> Tensor | float:
        """What the last pass adds to the loss, said once; most decoders have nothing to add."""
        return 0.0
