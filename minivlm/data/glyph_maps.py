"""Glyph maps: which glyph stands where on a page, as classes on a grid of squares; what an encoder learns to read from.

A glyph belongs to the square that its middle falls into, where two meet to the one drawn later. Digits as tiny as the
needle are classes of their own, for they are read otherwise than large ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from minivlm.data.documents import INKS, PALE, PAPERS, Page
from minivlm.data.glyphs import GLYPHS

NOTHING = 0  # the class of a square without a glyph, and of its ink
GLYPH_CLASSES = 1 + len(GLYPHS) + 10  # nothing, each glyph, each digit as a needle
INK_CLASSES = 1 + len(INKS) + 1  # nothing, each ink, pale
_INK = {ink: 1 + number for number, ink in enumerate((*INKS, PALE))}
_PAPER = {paper: number for number, paper in enumerate(PAPERS)}


@dataclass(frozen=True)
class GlyphMaps:
    """Classes of glyphs and inks in each square of B pictures, and of each picture's paper."""

    glyph: Int[Tensor, "B rows cols"]
    ink: Int[Tensor, "B rows cols"]
    paper: Int[Tensor, " B"]


def glyph_maps(pages: Sequence[Page], square: int) -> GlyphMaps:
    """The maps of pages of one size, in squares of that many pixels; ValueError where these do not tile the page."""
    height, width = pages[0].size
    if square < 1 or height % square or width % square:
        raise ValueError(f"squares of {square} pixels do not tile a page of {height}x{width}")
    glyph = torch.full((len(pages), height // square, width // square), NOTHING)
    ink = torch.full_like(glyph, NOTHING)
    found = [(number, *rest) for number, page in enumerate(pages) for rest in _glyphs(page, square)]
    number, row, col, glyphs, inks = torch.tensor(found).T
    glyph[number, row, col] = glyphs
    ink[number, row, col] = inks
    return GlyphMaps(glyph, ink, torch.tensor([_PAPER[page.paper] for page in pages]))


def _glyphs(page: Page, square: int) -> Iterator[tuple[int, int, int, int]]:
    """Row and column of the square, and the classes of glyph and ink, of each glyph of a page; the needle last."""
    for part in page.printed:
        first = 1 + len(GLYPHS) if part.height <= page.needle.height else 1
        pastes = list(part.pastes())[-len(part.text) :]  # a stamp's first is its ring
        for _, which, x, y in pastes:
            yield y // square, x // square, first + which, _INK[part.ink]
