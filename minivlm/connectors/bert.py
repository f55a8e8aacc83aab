"""The encoder inside a Q-Former: a BERT whose learned queries look at the picture (BLIP-2, Li et al. 2023,
arXiv:2301.12597).

Token count: N features in, as many vectors out as there are queries. No design of its own: BLIP-2 and InstructBLIP hand
its queries on, LLaMA-VID attends from them, and as no design imports another, what they share is here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import Attention
from minivlm.layers import MLP, check_activation, check_divides, check_positive


@dataclass(frozen=True)
class BertConfig:
    """Sizes; by default BERT-base's. Of every `cross_every` blocks the first looks at the picture."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    cross_every: int = 2
    activation: str = "gelu"
    eps: float = 1e-12

    def __post_init__(self):
        check_positive(width=self.width, depth=self.depth, mlp_width=self.mlp_width, cross_every=self.cross_every)
        check_divides(self.heads, self.width)
        check_activation(self.activation)


@dataclass(frozen=True)
class VocabularyConfig:
    """Words of its own, as BERT has them: other ids and other vectors than the decoder's. `context`: how many it reads
    at most."""

    vocab_size: int
    context: int = 512

    def __post_init__(self):
        check_positive(vocab_size=self.vocab_size, context=self.context)


class Added(nn.Module):
    """BERT's way round: the norm comes after the sum, norm(x + part(x))."""

    def __init__(self, part: nn.Module, config: BertConfig):
        super().__init__()
        self.part, self.norm = part, nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, x: Float[Tensor, "B L D"], **options) -> Float[Tensor, "B L D"]:
        return self.norm(x + self.part(x, **options))


class QueryBlock(nn.Module):
    """Queries attend to queries, then, where the block `crosses`, to the picture, then pass their MLP."""

    def __init__(self, config: BertConfig, context_width: int, crosses: bool):
        super().__init__()
        self.attention = Added(Attention(config.width, config.heads), config)
        cross = Attention(config.width, config.heads, context_width=context_width) if crosses else None
        self.cross = Added(cross, config) if crosses else None
        self.mlp = Added(MLP(config.width, config.mlp_width, config.activation), config)

    def look(self, queries: Float[Tensor, "B Q D"], features: Float[Tensor, "B N Dc"]) -> Float[Tensor, "B Q D"]:
        """What queries alone do, once they have attended to one another."""
        return self.mlp(queries if self.cross is None else self.cross(queries, context=features))

    def forward(self, queries: Float[Tensor, "B Q D"], features: Float[Tensor, "B N Dc"]) -> Float[Tensor, "B Q D"]:
        return self.look(self.attention(queries), features)


class ReadingBlock(QueryBlock):
    """The same with words beside the queries. All attend to all; words have an MLP of their own and never see the
    picture but through the queries."""

    def __init__(self, config: BertConfig, context_width: int, crosses: bool):
        super().__init__(config, context_width, crosses)
        self.word_mlp = Added(MLP(config.width, config.mlp_width, config.activation), config)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        features: Float[Tensor, "B N Dc"],
        words: Float[Tensor, "B P D"],
        mask: Bool[Tensor, "B 1 L L"],
        last: bool,
    ) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B P D"]]:
        """Queries and words after this block; the words as they are where it is the `last`, since nobody reads them."""
        both = self.attention(torch.cat([queries, words], dim=1), mask=mask)
        queries, words = both.split([queries.shape[1], words.shape[1]], dim=1)
        return self.look(queries, features), words if last else self.word_mlp(words)


class QueryEncoder(nn.Module):
    """Learned queries, all different from the start, and the blocks that they pass."""

    block: type[QueryBlock] = QueryBlock

    def __init__(self, config: BertConfig, queries: int, context_width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.width) * 0.02)
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.blocks = nn.ModuleList(
            self.block(config, context_width, crosses=i % config.cross_every == 0) for i in range(config.depth)
        )

    def forward(self, features: Float[Tensor, "B N Dc"]) -> Float[Tensor, "B Q D"]:
        queries = self.norm(self.queries).expand(len(features), -1, -1)
        for block in self.blocks:
            queries = block(queries, features)
        return queries


class ReadingEncoder(QueryEncoder):
    """The same with a text beside the queries (InstructBLIP): what they look for then depends on what is asked."""

    block = ReadingBlock

    def __init__(self, config: BertConfig, vocabulary: VocabularyConfig, queries: int, context_width: int):
        super().__init__(config, queries, context_width)
        self.words = nn.Embedding(vocabulary.vocab_size, config.width)
        self.positions = nn.Parameter(torch.randn(vocabulary.context, config.width) * 0.02)
        nn.init.normal_(self.words.weight, std=0.02)

    def unread(self) -> list[nn.Module]:
        """What works on words that nobody reads any more: the last block's MLP for them."""
        return [self.blocks[-1].word_mlp]

    def forward(
        self, features: Float[Tensor, "B N Dc"], ids: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B Q D"]:
        """`mask` False = padding, which is not seen; it may be False everywhere, then there is nothing to read."""
        self._check(ids)
        words = self.norm(self.words(ids) + self.positions[: ids.shape[1]])  # (B, P, D)
        queries = self.norm(self.queries).expand(len(ids), -1, -1)
        seen = torch.cat([mask.new_ones(len(ids), queries.shape[1]), mask], dim=1)  # (B, Q+P)
        seen = seen[:, None, None].expand(-1, -1, seen.shape[1], -1)  # (B, 1, Q+P, Q+P)
        for block in self.blocks:
            queries, words = block(queries, features, words, seen, last=block is self.blocks[-1])
        return queries

    def _check(self, ids: Tensor) -> None:
        context, size = len(self.positions), self.words.num_embeddings
        if ids.shape[1] > context:
            raise ValueError(
                f"an instruction of {ids.shape[1]} words: this Q-Former reads at most {context}, shorten it"
            )
        if ids.numel() and ids.device.type != "meta" and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ValueError(
                f"instruction ids run from {int(ids.min())} to {int(ids.max())}, the Q-Former's vocabulary has "
                f"0..{size - 1}: it reads words of its own, encode them with its tokenizer"
            )
