"""Context and content: one token for what the question needs of a picture, and a few for what is in it anyway
(LLaMA-VID, Li, Wang & Jia 2023, arXiv:2311.17043).

Token count: N in, 1 + n*n out. The context token comes first and stands for no place; the content tokens are the n x n
cells of a coarse grid, a single one for a picture of a video, which so is worth 2 tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import Tapped, attend
from minivlm.connectors.bert import BertConfig, ReadingEncoder, VocabularyConfig
from minivlm.connectors.connector import Budgeted, Connector, Grid
from minivlm.layers import MLP, check_positive
from minivlm.layout import VisualLayout


@dataclass(frozen=True)
class ContextContentConfig(Budgeted):
    """`queries` of a Q-Former read the question in its own `vocabulary`; they decide what the context token is."""

    vocabulary: VocabularyConfig
    queries: int = 32
    bert: BertConfig = BertConfig()

    def __post_init__(self):
        super().__post_init__()
        check_positive(queries=self.queries)

    def build(self, width: int, out_width: int, grid: Grid) -> ContextContent:
        return ContextContent(self, width, out_width, grid)


class ContextContent(Connector, Tapped):
    """Features may come with a class token in front: the Q-Former looks at it too, the tokens are made of patches.

    As upstream, the Q-Former sees normed features and the tokens are made of them as they are, and what the queries
    attend to is averaged over the queries before it is projected.
    """

    conditioned = True
    class_token = True
    one_grid = True

    def __init__(self, config: ContextContentConfig, width: int, out_width: int, grid: Grid):
        super().__init__()
        self.config, self.grid, self.max_words = config, grid, config.vocabulary.context
        self.side = self.side_of(grid)
        self.norm = nn.LayerNorm(width)
        self.encoder = ReadingEncoder(config.bert, config.vocabulary, config.queries, width)
        self.query, self.key = nn.Linear(config.bert.width, width), nn.Linear(width, width)
        self.context = nn.Linear(width, out_width)
        self.content = MLP(width, out_width, "gelu", out_width)

    def side_of(self, grid: Grid) -> int:
        """Cells along either side; ValueError where `grid` cannot be cut into as many as `tokens` asks for, with the
        counts that it can. Cells are all of one size: patches beyond the last whole one are left out."""
        sides = [n for n in range(1, min(grid) + 1) if all(patches // (patches // n) == n for patches in grid)]
        side = math.isqrt(max(self.config.tokens - 1, 0))
        if side not in sides or self.config.tokens != 1 + side * side:
            counts = ", ".join(str(1 + n * n) for n in sides)
            raise ValueError(
                f"one context token and a square of content tokens make no {self.config.tokens} of "
                f"{grid[0]}x{grid[1]} patches; they can give {counts}"
            )
        return side

    def layout(self, grid: Grid) -> VisualLayout:
        side = self.side_of(grid)
        return VisualLayout.latents(1) + VisualLayout.cells((side, side))

    def unread(self) -> list[nn.Module]:
        return self.encoder.unread()

    def forward(
        self, features: Float[Tensor, "B N D"], ids: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B K Dout"]:
        asking = self.query(self.encoder(self.norm(features), ids, mask))  # (B, Q, D)
        patches = features[:, -self.grid[0] * self.grid[1] :]
        needed = self._attend(asking, patches).mean(dim=1, keepdim=True)  # (B, 1, D)
        return torch.cat([self.context(needed), self.content(self._pool(patches))], dim=1)

    def _attend(self, asking: Float[Tensor, "B Q D"], patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B Q D"]:
        """Each query's mean of the patches, by how well their keys answer it: one head, the values unprojected."""
        q, k, v = asking[:, None], self.key(patches)[:, None], patches[:, None]  # (B, 1, ., D)
        found, weights = attend(q, k, v, explicit=self.tap is not None)
        if weights is not None:
            self.record("context", weights)
        return found[:, 0]

    def _pool(self, patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B C D"]:
        rows, cols = self.grid
        picture = patches.transpose(1, 2).unflatten(2, self.grid)  # (B, D, rows, cols)
        return F.avg_pool2d(picture, (rows // self.side, cols // self.side)).flatten(2).transpose(1, 2)
