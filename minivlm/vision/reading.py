"""Learning to read: from each place of an encoder, what glyph and what ink is in each of its four quarters, and what
paper it is on. How the encoders for pages are pretrained; a caption of a whole page would teach it too slowly.

Token count: none of its own. Any vision part that gives one grid for a picture learns so, whatever its patches are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.data.documents import PAPERS
from minivlm.data.glyph_maps import GLYPH_CLASSES, INK_CLASSES
from minivlm.data.glyphs import GLYPHS
from minivlm.vision.vision import VisionConfig

BLANK, RARE = 0.05, 4.0  # weights of a quarter without a glyph, which nearly all are, and of one with the needle


@dataclass(frozen=True)
class ReaderOutput:
    loss: Float[Tensor, ""]


class Reader(nn.Module):
    """A vision part of `config`, and a linear head that reads its features."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.vision = config.build()
        self.head = nn.Linear(config.width, 4 * (GLYPH_CLASSES + INK_CLASSES) + len(PAPERS))

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        glyph: Int[Tensor, "B rows2 cols2"],
        ink: Int[Tensor, "B rows2 cols2"],
        paper: Int[Tensor, " B"],
    ) -> ReaderOutput:
        """`glyph` and `ink`: the class of each quarter of a place, two rows and two columns of them a place."""
        glyphs, inks, papers = self.read(images, glyph.shape[1:])
        weight = torch.where(glyph > 0, 1.0, BLANK).where(glyph <= len(GLYPHS), RARE)
        named = sum(
            (F.cross_entropy(logits.movedim(-1, 1), target, reduction="none") * weight).sum() / weight.sum()
            for logits, target in ((glyphs, glyph), (inks, ink))
        )
        return ReaderOutput(named + F.cross_entropy(papers.flatten(0, 1), paper.repeat_interleave(papers.shape[1])))

    def read(
        self, images: Float[Tensor, "B 3 H W"], quarters: tuple[int, int]
    ) -> tuple[Float[Tensor, "B rows2 cols2 G"], Float[Tensor, "B rows2 cols2 I"], Float[Tensor, "B N P"]]:
        """Logits of glyphs and inks in each quarter, and of the paper at each place."""
        return self.named(self.vision.features(images), quarters)

    def named(
        self, features: Float[Tensor, "B N D"], quarters: tuple[int, int]
    ) -> tuple[Float[Tensor, "B rows2 cols2 G"], Float[Tensor, "B rows2 cols2 I"], Float[Tensor, "B places P"]]:
        """The same of features that are there already."""
        features = features[:, features.shape[1] - quarters[0] * quarters[1] // 4 :]  # without a class token
        glyphs, inks, papers = self.head(features).split([4 * GLYPH_CLASSES, 4 * INK_CLASSES, len(PAPERS)], dim=-1)
        return _spread(glyphs, quarters), _spread(inks, quarters), papers


def _spread(logits: Float[Tensor, "B N C4"], quarters: tuple[int, int]) -> Float[Tensor, "B rows2 cols2 C"]:
    """Four quarters of each place as rows and columns of a picture."""
    rows, cols = quarters[0] // 2, quarters[1] // 2
    squares = logits.unflatten(2, (2, 2, -1)).unflatten(1, (rows, cols))  # (B, rows, cols, 2, 2, C)
    return squares.transpose(2, 3).flatten(3, 4).flatten(1, 2)
