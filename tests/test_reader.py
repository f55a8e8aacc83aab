"""A reader's loss place by place, and its pictures and maps, tile by tile."""

from __future__ import annotations

import pytest
import torch
from references import assert_same
from torch.nn.functional import interpolate

from minivlm import mini
from minivlm.data.documents import PAPERS, render_pages
from minivlm.data.glyph_maps import GLYPH_CLASSES, INK_CLASSES, glyph_maps
from minivlm.data.glyphs import GLYPHS
from minivlm.data.typesetting import sample_charts, sample_pages
from minivlm.pages import GlyphPages
from minivlm.streams import generator
from minivlm.vision.reading import Reader

CONFIGS = {"one": mini.reader, "any": mini.reader_any, "two": mini.reader_two, "class token": mini.vision}


def maps_of(reader: Reader, rows: int, cols: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    chance = torch.Generator().manual_seed(1)
    glyph = torch.randint(GLYPH_CLASSES, (batch, 2 * rows, 2 * cols), generator=chance)
    glyph[torch.rand(glyph.shape, generator=chance) < 0.5] = 0
    ink = torch.randint(INK_CLASSES, glyph.shape, generator=chance)
    return glyph, ink, torch.randint(len(PAPERS), (batch,), generator=chance)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_quarter_by_quarter(name):
    config = CONFIGS[name]()
    torch.manual_seed(3)
    reader = Reader(config)
    images = torch.rand(2, 3, *config.image_size, generator=torch.Generator().manual_seed(0))
    rows, cols = config.grid
    glyph, ink, paper = maps_of(reader, rows, cols)
    with torch.no_grad():
        loss = reader(images, glyph, ink, paper).loss
        features = reader.vision.features(images)[:, -rows * cols :]
        sums, weights, papers = [0.0, 0.0], 0.0, 0.0
        for b in range(2):
            for place in range(rows * cols):
                told = reader.head(features[b, place])
                papers -= torch.log_softmax(told[-len(PAPERS) :], 0)[paper[b]]
                for quarter in range(4):
                    row, col = 2 * (place // cols) + quarter // 2, 2 * (place % cols) + quarter % 2
                    wanted = glyph[b, row, col]
                    weight = 0.05 if wanted == 0 else 4.0 if wanted > len(GLYPHS) else 1.0
                    weights += weight
                    glyphs = told[quarter * GLYPH_CLASSES : (quarter + 1) * GLYPH_CLASSES]
                    inks = told[4 * GLYPH_CLASSES + quarter * INK_CLASSES :][:INK_CLASSES]
                    sums[0] -= weight * torch.log_softmax(glyphs, 0)[wanted]
                    sums[1] -= weight * torch.log_softmax(inks, 0)[ink[b, row, col]]
    assert_same(loss, sum(sums) / weights + papers / (2 * rows * cols), 1e-4)


def test_a_small_encoder_reads_pages_made_small_and_their_tiles():
    source = GlyphPages(mini.reader(), 3, charts=False, seed=5)
    images, glyph, ink, paper = source(2, range(3)).inputs
    pages = sample_pages(3, generator(5, 2))
    whole = render_pages(pages)
    small, fine, coarse = interpolate(whole, (64, 64), mode="bicubic", antialias=True), *both(pages)
    assert_same(images[:3], small.clamp(0, 1))
    assert torch.equal(glyph[:3], coarse.glyph) and torch.equal(ink[:3], coarse.ink)
    for n, tile in enumerate(range(3, 15)):
        page, row, col = n // 4, n % 4 // 2, n % 2
        assert torch.equal(images[tile], whole[page, :, 64 * row : 64 * row + 64, 64 * col : 64 * col + 64])
        assert torch.equal(glyph[tile], fine.glyph[page, 16 * row : 16 * row + 16, 16 * col : 16 * col + 16])
        assert torch.equal(ink[tile], fine.ink[page, 16 * row : 16 * row + 16, 16 * col : 16 * col + 16])
    assert paper.tolist() == [*fine.paper, *fine.paper.repeat_interleave(4)]


def both(pages):
    return glyph_maps(pages, 4), glyph_maps(pages, 8)


def test_one_for_any_size_gets_a_size_a_step():
    config = mini.reader_any()
    source = GlyphPages(config, 2, any_size=True)
    sizes = set()
    for step in range(5):
        images, glyph, _, _ = source(step, range(2)).inputs
        sizes.add(tuple(images.shape[2:]))
        [(rows, cols)] = config.views(tuple(images.shape[2:]))
        assert glyph.shape == (2, 2 * rows, 2 * cols)
        assert Reader(config)(*source(step, range(2)).inputs).loss.isfinite()
    assert len(sizes) > 2


def test_two_encoders_are_asked_for_squares_of_half_a_place():
    images, glyph, _, _ = GlyphPages(mini.reader_two(), 2, charts=False, seed=1)(0, range(2)).inputs
    pages = sample_pages(2, generator(1, 0))
    assert torch.equal(images, render_pages(pages)) and torch.equal(glyph, glyph_maps(pages, 8).glyph)


def test_half_of_the_rows_gives_half_of_the_pictures():
    source = GlyphPages(mini.reader_two(), 4)
    for whole, half in zip(source(1, range(4)).inputs, source(1, range(2, 4)).inputs, strict=True):
        assert torch.equal(half, whole[2:])


def test_half_of_the_pages_are_charts_where_asked():
    source = GlyphPages(mini.reader_two(), 6, seed=3)
    glyph = source(1, range(6)).inputs[1]
    chance = generator(3, 1)
    pages = sample_charts(3, chance) + sample_pages(3, chance)
    assert torch.equal(glyph, glyph_maps(pages, 8).glyph)
    assert int((glyph[:3] > len(GLYPHS)).flatten(1).sum(dim=1).min()) > 1  # a page has one tiny digit
