"""Spelling: a connector learns, place by place, to say in the decoder's own words what stands there on a page.

From answers alone the connector would have to learn what to say of 64 places while the decoder learns which of them to
look at, and neither pays before the other is there. Here the first is learned apart, against the decoder's embeddings,
which stay as they are. Only for connectors that read each place alone: what has no places cannot be taught so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.data.documents import INKS, PAPERS, Page
from minivlm.data.glyph_maps import NOTHING, glyph_maps
from minivlm.data.glyphs import GLYPHS
from minivlm.data.page_texts import NEEDLE
from minivlm.data.typesetting import DIGITS
from minivlm.language.tokenizer import Tokenizer
from minivlm.layout import Views
from minivlm.model import VLM
from minivlm.pages import PageBank
from minivlm.streams import generator
from minivlm.train import Step

SHARPNESS = 20.0  # of the softmax over cosines
BLANK, RARE = 0.05, 4.0  # weights of a place with nothing but paper, which most are, and of the one with the needle
LENGTH = 0.05  # weight of how far a token's length is from that of a word's embedding, in those lengths


@dataclass(frozen=True)
class SpellingOutput:
    loss: Float[Tensor, ""]


class Spelling(nn.Module):
    """A model's own connector, and the words of its decoder as they are now; ValueError for a connector that does not
    read each place alone."""

    def __init__(self, model: VLM):
        super().__init__()
        if not model.connector.pointwise:
            raise ValueError(f"{type(model.connector).__name__} keeps no places, so it cannot learn to spell them")
        self.connector = model.connector
        words = model.language.embedding.weight.detach()
        self.register_buffer("words", F.normalize(words, dim=1), persistent=False)  # (V, D)
        self.length = float(words.norm(dim=1).mean())

    def forward(
        self, features: Float[Tensor, "P N D"], words: Int[Tensor, "P N W"], share: Float[Tensor, "P N W"],
        weight: Float[Tensor, "P N"],
    ) -> SpellingOutput:  # fmt: skip
        """`share`: how much of what stands at a place each of its `words` is; `weight`: how much the place matters."""
        tokens = self.connector(features)
        logits = SHARPNESS * F.normalize(tokens, dim=-1) @ self.words.T  # (P, N, V)
        missed = -(share * logits.log_softmax(dim=-1).gather(2, words)).sum(dim=-1)  # (P, N)
        off = (tokens.norm(dim=-1) / self.length - 1).square().mean()
        return SpellingOutput((weight * missed).sum() / weight.sum() + LENGTH * self.length**2 * off)


@dataclass(frozen=True)
class PagePlaces:
    """Batches for `Spelling`: features of a bank's pages, and the `words` for what stands at each of their places."""

    bank: PageBank
    words: Int[Tensor, "S N W"]
    batch_size: int
    seed: int = 0

    @classmethod
    def make(cls, model: VLM, tokenizer: Tokenizer, bank: PageBank, batch_size: int, seed: int = 0) -> PagePlaces:
        views = model.config.vision.views(model.config.vision.image_size)
        return cls(bank, place_words(bank.pages, views, tokenizer), batch_size, seed)

    def __call__(self, step: int, rows: range) -> Step:
        chosen = torch.randint(len(self.words), (self.batch_size,), generator=generator(self.seed, step))
        chosen = chosen[rows.start : rows.stop]
        words = self.words[chosen]
        there = words != Tokenizer.pad_id
        needle, paper = there[..., -2], there[..., -1]
        weight = torch.where(needle, RARE, torch.where(paper, BLANK, 1.0))
        return Step((self.bank.features[chosen, 0], words, there / there.sum(dim=2, keepdim=True), weight), len(rows))


def place_words(pages: Sequence[Page], views: Views, tokenizer: Tokenizer) -> Int[Tensor, "P N 10"]:
    """The words for each place of pages of one size, view after view, row after row: glyphs and inks of its four
    quarters; or the needle's digit and its name (the last but one); or, where nothing stands, the paper (the last). All
    else is padding."""
    return torch.cat([_in_view(pages, rows, tokenizer) for rows, _ in views], dim=1)


def _in_view(pages: Sequence[Page], rows: int, tokenizer: Tokenizer) -> Int[Tensor, "P n 10"]:
    maps = glyph_maps(pages, pages[0].size[0] // (2 * rows))
    glyph, ink = _quarters(maps.glyph), _quarters(maps.ink)  # (P, n, 4) each
    tiny = glyph > len(GLYPHS)
    needle = tiny.any(dim=2, keepdim=True)  # what else is at its place goes unsaid
    digits = _ids(["", *GLYPHS, *DIGITS], tokenizer)[glyph.where(tiny | ~needle, NOTHING)]
    inks = _ids(["", *INKS, ""], tokenizer)[ink.where(~needle, NOTHING)]
    name, papers = _ids(["", NEEDLE], tokenizer)[needle.long()], _ids([*PAPERS], tokenizer)[maps.paper]
    words = torch.cat([digits, inks, name], dim=2)
    blank = (words == tokenizer.pad_id).all(dim=2, keepdim=True)
    return torch.cat([words, papers[:, None, None].where(blank, tokenizer.pad_id)], dim=2)


def _ids(words: Sequence[str], tokenizer: Tokenizer) -> Int[Tensor, " n"]:
    """The last id of each word; padding for none."""
    return torch.tensor([tokenizer.encode(word)[-1] if word else tokenizer.pad_id for word in words])


def _quarters(classes: Int[Tensor, "P rows2 cols2"]) -> Int[Tensor, "P n 4"]:
    """The four quarters of each place, row after row."""
    places = classes.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (P, rows, 2, cols, 2)
    return places.transpose(2, 3).flatten(3, 4).flatten(1, 2)
