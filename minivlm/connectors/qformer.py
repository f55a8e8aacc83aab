"""Q-Former: learned queries ask the picture, and only their answers are handed on (BLIP-2, Li et al. 2023,
arXiv:2301.12597); told the question first, they ask for what it needs (InstructBLIP, Dai et al. 2023,
arXiv:2305.06500).

Token count: N in, `tokens` out, whatever N is: one for each query. Tokens stand for no place of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.connectors.bert import BertConfig, QueryEncoder, ReadingEncoder, VocabularyConfig
from minivlm.connectors.connector import Budgeted, Grid, Resampler


@dataclass(frozen=True)
class QFormerConfig(Budgeted):
    """BLIP-2: the queries see the picture alone. In the published system there are 32."""

    bert: BertConfig = BertConfig()

    def build(self, width: int, out_width: int, grid: Grid) -> QFormer:
        return QFormer(self, width, out_width)


class QFormer(Resampler, nn.Module):
    """Equal to `Blip2QFormerModel` and the `language_projection` behind it. Queries start as in LAVIS, all different
    (in transformers all start at 0)."""

    def __init__(self, config: QFormerConfig, width: int, out_width: int):
        super().__init__()
        self.tokens = config.tokens
        self.encoder = QueryEncoder(config.bert, config.tokens, width)
        self.out = nn.Linear(config.bert.width, out_width)

    def forward(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B K Dout"]:
        return self.out(self.encoder(features))


@dataclass(frozen=True)
class InstructQFormerConfig(Budgeted):
    """InstructBLIP: the queries read the instruction as well, in the Q-Former's own `vocabulary`."""

    vocabulary: VocabularyConfig
    bert: BertConfig = BertConfig()

    def build(self, width: int, out_width: int, grid: Grid) -> InstructQFormer:
        return InstructQFormer(self, width, out_width)


class InstructQFormer(Resampler, nn.Module):
    """Equal to `InstructBlipQFormerModel` and the `language_projection` behind it. The words themselves are not handed
    on: the decoder gets the instruction in its own words."""

    conditioned = True

    def __init__(self, config: InstructQFormerConfig, width: int, out_width: int):
        super().__init__()
        self.tokens, self.max_words = config.tokens, config.vocabulary.context
        self.encoder = ReadingEncoder(config.bert, config.vocabulary, config.tokens, width)
        self.out = nn.Linear(config.bert.width, out_width)

    def unread(self) -> list[nn.Module]:
        return self.encoder.unread()

    def forward(
        self, features: Float[Tensor, "B N D"], ids: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B K Dout"]:
        return self.out(self.encoder(features, ids, mask))
