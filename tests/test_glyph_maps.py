"""Glyph maps: each glyph is in the square where its ink's middle is, told by how long the text before it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from pages import draw

from minivlm.data.documents import INKS, PALE, PAPERS, Line, Page
from minivlm.data.glyph_maps import GLYPH_CLASSES, INK_CLASSES, glyph_maps
from minivlm.data.glyphs import GLYPHS

SIZES = [(128, 128), (72, 216), (120, 88)]


def middles(line: Line) -> Iterator[tuple[str, float, float]]:
    """Each glyph of a line and the middle (x, y) of its place: behind the text before it, halfway up a capital."""
    for n, glyph in enumerate(line.text):
        right = replace(line, text=line.text[: n + 1]).box[2]
        alone = replace(line, text=glyph).box
        yield glyph, right - (alone[2] - alone[0]) / 2, line.y + line.height / 2


def upright(page: Page) -> list[Line]:
    return [*page.lines, *(cell for row in page.table for cell in row), page.needle]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("square", [4, 8])
def test_each_glyph_is_where_its_ink_is(size, square):
    pages = draw(30, 4, size)
    maps, found, glyphs = glyph_maps(pages, square), 0, 0
    assert maps.glyph.shape == maps.ink.shape == (30, size[0] // square, size[1] // square)
    for page, glyph, ink in zip(pages, maps.glyph, maps.ink, strict=True):
        for line in upright(page):
            for letter, x, y in middles(line):
                classes = 1 + GLYPHS.index(letter) + (len(GLYPHS) if line is page.needle else 0)
                colour = 1 + (*INKS, PALE).index(line.ink)
                near = {
                    (int((y + down) // square), int((x + right) // square)) for down in (-0.6, 0.6) for right in (-1, 1)
                }  # the stencil's middle is a whole pixel
                found += any((glyph[place], ink[place]) == (classes, colour) for place in near)
                glyphs += 1
    assert found / glyphs > (0.999 if square == 4 else 0.9)  # two narrow glyphs may share a square


@pytest.mark.parametrize("square", [4, 8])
def test_the_needle_is_the_only_one_of_its_kind(square):
    pages = draw(50, 6)
    for page, glyph in zip(pages, glyph_maps(pages, square).glyph, strict=True):
        tiny = glyph[glyph > len(GLYPHS)]
        assert tiny.tolist() == [1 + len(GLYPHS) + int(page.needle.text)]


def test_a_stamp_reads_along_its_turn_and_its_ring_is_no_glyph():
    for page in draw(60, 7):
        glyph = glyph_maps([replace(page, lines=(), table=())], 1).glyph[0]
        rows, columns = ((glyph > 0) & (glyph <= len(GLYPHS))).nonzero(as_tuple=True)
        turn = math.radians(page.stamp.angle)
        along = columns * math.cos(turn) - rows * math.sin(turn)
        assert "".join(GLYPHS[glyph[rows[n], columns[n]] - 1] for n in along.argsort()) == page.stamp.text


def test_all_else_is_nothing_and_papers_are_numbered():
    pages = draw(40, 8)
    maps = glyph_maps(pages, 2)
    written = [sum(len(part.text) for part in page.printed) for page in pages]
    assert (maps.glyph > 0).flatten(1).sum(dim=1).tolist() == written
    assert torch.equal(maps.glyph > 0, maps.ink > 0)
    assert int(maps.glyph.max()) < GLYPH_CLASSES and int(maps.ink.max()) == INK_CLASSES - 1
    assert [tuple(PAPERS)[number] for number in maps.paper] == [page.paper for page in pages]


@pytest.mark.parametrize("square", [0, 3, 5])
def test_squares_tile_the_page(square):
    with pytest.raises(ValueError, match=f"squares of {square} pixels do not tile a page of 128x128"):
        glyph_maps(draw(1), square)
    with pytest.raises(ValueError, match="squares of 8 pixels do not tile a page of 96x100"):
        glyph_maps(draw(1, size=(96, 100)), 8)
