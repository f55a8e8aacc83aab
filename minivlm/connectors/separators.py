"""Separators: what stands between the tokens of a picture: a newline after a row, a tag before a view.

Read one after the other, rows of a grid do not say where they end, nor tiles which part of the picture they show; Fuyu
and LLaVA-NeXT (arXiv:2401.13601 names both) end rows with a newline, NVLM (arXiv:2409.11402) tags tiles. Token count:
one more a row that ends in a newline, one a word of a view's tag, and one at the end where the design has that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minivlm.connectors.connector import Connector
from minivlm.layout import Kind, Views, VisualLayout

LEARNED = -1  # in place of a word's id: a vector of its own, that is learned


@dataclass(frozen=True)
class Separators:
    """Ids of words of the decoder, or `LEARNED`.

    newline     after each row of a view's grid; None: no row ends visibly
    lined_from  the first view whose rows do (LLaVA-NeXT's first, the whole picture, has none)
    tags        the words before the first view, those before the second, ...; a picture may have fewer views, not more,
                where there are tags
    end         after the last view; None: nothing
    """

    newline: int | None = None
    lined_from: int = 0
    tags: tuple[tuple[int, ...], ...] = ()
    end: int | None = None

    def __post_init__(self):
        if not all(isinstance(tag, tuple) for tag in self.tags):
            raise TypeError(f"a tag is a tuple of words, for it may have several; got {self.tags}")
        if any(word < LEARNED for word in self.words):
            raise ValueError(f"a separator is the id of a word, or {LEARNED} for one that is learned; got {self.words}")

    @property
    def words(self) -> tuple[int, ...]:
        """All there are: the newline's, the tags', the end's."""
        return tuple(word for word in (self.newline, *chain(*self.tags), self.end) if word is not None)

    def build(self, width: int) -> Separated:
        return Separated(self, width)


class Separated(nn.Module):
    """Sets the tokens of a picture's views, and the separators between them, in one row."""

    def __init__(self, config: Separators, width: int):
        super().__init__()
        self.config = config
        count = config.words.count(LEARNED)
        self.learned = nn.Parameter(torch.randn(count, width) * width**-0.5) if count else None

    def arrange(self, views: Views, connector: Connector) -> tuple[VisualLayout, Int[Tensor, " K"]]:
        """What stands at each place of a picture of these views, and which vector: first come the tokens of all
        views, then the separators."""
        config, parts = self.config, [connector.layout(grid) for grid in views]
        if config.tags and len(views) > len(config.tags):
            raise ValueError(f"a picture of {len(views)} views, but tags for {len(config.tags)}: name more of them")
        total = sum(map(len, parts))
        tag, end = total + (config.newline is not None), total + len(config.words) - 1
        layouts, sources, first = [], [], 0
        for number, part in enumerate(parts):
            source = torch.arange(first, first + len(part))
            first += len(part)
            if config.newline is not None and number >= config.lined_from:
                rows = len(part.row.unique()) or views[number][0]  # a sliver of a picture may have rows of nothing
                part, source = _lined(part, source, rows, total)
            if config.tags:
                words = len(config.tags[number])
                part, source = VisualLayout.tag(words) + part, torch.cat([torch.arange(tag, tag + words), source])
                tag += words
            layouts.append(part.in_view(number))
            sources.append(source)
        if config.end is not None:
            layouts.append(VisualLayout.tag().in_view(len(views) - 1))
            sources.append(torch.tensor([end]))
        return sum(layouts[1:], layouts[0]), torch.cat(sources)

    def forward(
        self,
        tokens: Sequence[Float[Tensor, "_ D"]],
        sources: Sequence[Int[Tensor, " _"]],
        embedding: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "P K D"]:
        """The row of each picture, filled up with zeros on the right, from the tokens of its views and the places that
        `arrange` gave them. `embedding` gives the vectors of words."""
        separators = self._vectors(tokens[0], embedding)
        rows = [
            torch.cat([own, separators])[source.to(own.device)] for own, source in zip(tokens, sources, strict=True)
        ]
        return pad_sequence(rows, batch_first=True)

    def _vectors(self, like: Tensor, embedding: Callable[[Tensor], Tensor]) -> Float[Tensor, "separators D"]:
        if not self.config.words:
            return like[:0]  # of the visual tokens' width, which need not be the words'
        words = torch.tensor(self.config.words, dtype=torch.long, device=like.device)
        vectors = embedding(words.clamp(min=0)).to(like.dtype)
        if self.learned is not None:
            places = [place for place, word in enumerate(self.config.words) if word == LEARNED]
            vectors = vectors.index_put((torch.tensor(places, device=like.device),), self.learned.to(like.dtype))
        return vectors


def _lined(part: VisualLayout, source: Tensor, rows: int, newline: int) -> tuple[VisualLayout, Tensor]:
    """A view with the vector number `newline` after each of its rows."""
    if (part.row < 0).any():
        raise ValueError("only tokens that stand for places have rows to end: use no newline with a resampler")
    ends = VisualLayout.latents(rows)
    ends = replace(ends, kind=torch.full_like(ends.kind, int(Kind.NEWLINE)))
    order = torch.argsort(torch.cat([part.row, torch.arange(rows)]), stable=True)  # after the tokens of its row
    return (part + ends)[order], torch.cat([source, torch.full((rows,), newline)])[order]
