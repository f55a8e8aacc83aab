"""Pages: what is drawn is what is said, where it is said, at any size; and a digit too small to survive a shrinking."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
from pages import ABOVE, SIZES, draw, ink_of, read, template, tight, unevenness
from torch.nn.functional import avg_pool2d, unfold

from minivlm.data import documents
from minivlm.data.documents import INKS, PAD, PAPERS, Line, Page, Stamp, around, render_pages, rules
from minivlm.data.glyphs import FONTS, ring, stencils
from minivlm.data.typesetting import ALPHABET, DIGITS, KEYS, held_out, sample_pages, sample_size

# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_ink_lies_in_its_box_and_touches_each_side(size):
    for page in draw(6, sum(size), size):
        first = [page.table[0][0]] if page.table else []
        for part in page.printed:
            if part not in first:
                assert tight(ink_of(page, part)) == part.box, part


@pytest.mark.parametrize("size", SIZES)
def test_nothing_touches_another_thing_or_the_edge(size):
    for page in draw(60, sum(size), size):
        table = [around(rules(page.table))] if page.table else []
        boxes = [*(line.box for line in page.lines), *table, page.stamp.box, page.needle.box]
        for left, top, right, bottom in boxes:
            assert min(left, top) >= 3 and right <= size[1] - 3 and bottom <= size[0] - 3
        for a, b in combinations(boxes, 2):
            assert max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) >= 1
        tops = [line.y for line in page.lines] or [key.y for key, _ in page.table]
        assert tops == sorted(tops) and 2 <= len(tops) <= 6 and bool(page.lines) != bool(page.table)


def test_rules_lie_around_and_between_the_cells_of_a_table():
    for page in draw(60):
        lines = rules(page.table)
        cells = [part.box for part in chain(*page.table)]
        assert len(lines) == (len(page.table) + 4 if page.table else 0)
        for cell in cells:
            sides = [max(r[0] - cell[2], cell[0] - r[2], r[1] - cell[3], cell[1] - r[3]) for r in lines]
            assert min(sides) >= 1  # blank between them
        for (key, value), (other, _) in zip(page.table, page.table[1:], strict=False):
            between = [r for r in lines if key.box[3] <= r[1] and r[3] <= other.box[1] and r[2] - r[0] > r[3] - r[1]]
            assert len(between) == 1 and key.text.lower() in KEYS and value.x > max(k.box[2] for k, _ in page.table)


def slow_render(page: Page) -> torch.Tensor:
    """A page without grain (3, H, W), one pixel of one glyph after another."""
    picture = torch.tensor(PAPERS[page.paper])[:, None, None].repeat(1, *page.size)
    for left, top, right, bottom in rules(page.table):
        picture[:, top:bottom, left:right] = torch.tensor(page.color(page.table[0][0].ink))[:, None, None]
    for part in page.printed:
        ink = torch.tensor(page.color(part.ink))
        for letters, which, x, y in part.pastes():
            for row, column in letters.masks[which].nonzero().tolist():
                spot = (slice(None), y + letters.top + row, x + letters.left + column)
                picture[spot] += letters.masks[which, row, column] * (ink - torch.tensor(PAPERS[page.paper]))
    return picture


@pytest.mark.parametrize("size", SIZES[:4])
def test_fast_rendering_equals_pixel_after_pixel(size, monkeypatch):
    monkeypatch.setattr(documents, "_GRAIN", 0.0)
    pages = draw(4, 7, size)
    torch.testing.assert_close(render_pages(pages), torch.stack([slow_render(p) for p in pages]), atol=1e-5, rtol=0)


def test_a_page_looks_the_same_in_any_batch_and_the_same_seed_gives_the_same_page():
    pages = draw(9, 4)
    assert pages == draw(9, 4) != draw(9, 5)
    assert torch.equal(render_pages(pages)[5:7], render_pages(pages[5:7]))
    assert render_pages(pages, "meta").shape == (9, 3, 128, 128)  # all of it on the device that is asked for
    assert render_pages(pages).amin() >= 0 and render_pages(pages).amax() <= 1


def test_the_grain_shades_paper_by_a_few_percent_each_page_its_own_way():
    pages = [replace(page, paper="gray", lines=(), table=()) for page in draw(20, 2)]
    shades = render_pages(pages)[:, 0] / PAPERS["gray"][0]
    corners = shades[:, :3]  # where nothing is ever printed
    assert float(corners.mean()) == pytest.approx(1, abs=0.01) and float(corners.std()) == pytest.approx(0.07, abs=0.01)
    assert len({tuple(row) for row in corners[:, 0, :4].tolist()}) == 20
    beside = torch.corrcoef(torch.stack([corners[:, :, :-1].flatten(), corners[:, :, 1:].flatten()]))[0, 1]
    assert 0.6 < float(beside) < 0.75  # two pixels coarse: 4 / 6


def test_ink_stands_out_from_every_paper():
    def light(color: tuple[float, ...]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for paper in PAPERS.values():
        assert min((light(paper) + 0.05) / (light(ink) + 0.05) for ink in INKS.values()) > 3  # WCAG, for large text
    inks = torch.tensor([*INKS.values()])
    assert (torch.cdist(inks, inks) + 9 * torch.eye(len(inks))).min() > 0.3


# --- what can be read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 128), (72, 216)])
def test_every_line_and_every_value_can_be_read(size):
    pages = draw(25, 21, size)
    for page, picture in zip(pages, render_pages(pages), strict=True):
        for line in page.lines:
            assert read(picture, page, line, ALPHABET) == line.text
        for key, value in page.table:
            assert read(picture, page, value, DIGITS) == value.text
            assert read(picture, page, key, "ACDEGIMOPRTY") == key.text


def test_every_stamp_can_be_read(monkeypatch):
    """It looks more like its own text, printed without grain, than like any that differs from it in one glyph."""
    pages = draw(12, 3, (96, 96))
    pictures = render_pages(pages)
    monkeypatch.setattr(documents, "_GRAIN", 0.0)
    for page, picture in zip(pages, pictures, strict=True):
        texts = sorted({page.stamp.text[:k] + glyph + page.stamp.text[k + 1 :] for k in range(3) for glyph in ALPHABET})
        others = render_pages([replace(page, stamp=centred(page.stamp, text)) for text in texts])
        left, top, right, bottom = page.stamp.box
        errors = ((others - picture)[:, :, top + 4 : bottom - 4, left + 4 : right - 4] ** 2).sum(dim=(1, 2, 3))
        assert texts[int(errors.argmin())] == page.stamp.text


def centred(stamp: Stamp, text: str) -> Stamp:
    """A stamp with another text, around the same middle."""
    other = replace(stamp, text=text)
    shift = stamp.diameter // 2 - other.diameter // 2
    return replace(other, x=stamp.x + shift, y=stamp.y + shift)


@pytest.mark.parametrize("angle", [-30, 15, 30])
def test_a_stamp_is_written_along_its_angle(angle):
    stamp = Stamp("888", "mono", 12, "red", angle, 50, 50)
    (_, _, x0, y0), (_, _, x1, y1), (_, _, x2, y2) = list(stamp.pastes())[1:]
    assert math.degrees(math.atan2(y0 - y2, x2 - x0)) == pytest.approx(angle, abs=3)
    assert (x1, y1) == (50 + stamp.diameter // 2, 50 + stamp.diameter // 2)
    assert {letters for letters, *_ in stamp.pastes()} == {ring(stamp.diameter), stencils("mono", 12, angle)}


def shade(picture: torch.Tensor, page: Page) -> torch.Tensor:
    """How much darker than paper each pixel (H, W) is, as a share of its light."""
    return 1 - (picture / torch.tensor(PAPERS[page.paper])[:, None, None]).mean(dim=0)


def grain_covariance(shrink: int) -> torch.Tensor:
    """How the grain's errors in a window of 12 x 12 pixels go together, found on blank paper, seen so much smaller."""
    [page] = draw(1, size=(512, 512))
    blank = replace(
        page, lines=(), table=(), stamp=replace(page.stamp, x=440, y=440), needle=replace(page.needle, y=500)
    )
    pictures = render_pages([replace(blank, grain=(40 * n, 90 * n)) for n in range(4)])[:, :, :430]
    seen = avg_pool2d(torch.stack([shade(picture, blank) for picture in pictures])[:, None], shrink)
    windows = unfold(seen, 12 // shrink, stride=3).transpose(1, 2).flatten(0, 1)  # (n, pixels)
    return torch.cov(windows.T)


@pytest.mark.parametrize("shrink, least, most", [(1, 0.99, 1.0), (2, 0.3, 0.58)])
def test_the_needle_can_be_read_but_not_on_a_page_of_half_the_size(shrink, least, most):
    """By the best reader that there can be: it knows the place, the font, the colours and the grain's statistics."""
    pages = draw(400, 9)
    trust = torch.linalg.inv(grain_covariance(shrink) + 1e-5 * torch.eye((12 // shrink) ** 2))
    right = 0
    for page, picture in zip(pages, render_pages(pages), strict=True):
        assert page.needle.box[3] - page.needle.box[1] == 4
        left, top = (min(max(0, k // 2 * 2 - 4), 116) for k in (page.needle.x, page.needle.y))
        dark = 1 - page.color(page.needle.ink)[0] / PAPERS[page.paper][0]
        clean = torch.zeros(10, 148, 148)
        for digit, rows in enumerate(template(digit, page.needle.font, 4) for digit in DIGITS):
            clean[digit, page.needle.y - ABOVE :, page.needle.x :][: len(rows), : rows.shape[1]] = dark * rows
        error = (shade(picture, page) - clean[:, :128, :128])[:, top : top + 12, left : left + 12]
        seen = avg_pool2d(error, shrink).flatten(1)  # (10, pixels)
        right += int(((seen @ trust) * seen).sum(dim=1).argmin()) == int(page.needle.text)
    print(f"\nneedle at 1/{shrink}: {right / len(pages):.1%} read")
    assert least <= right / len(pages) <= most


# --- what is drawn ---------------------------------------------------------------------------------------------------


def texts(pages: list[Page]) -> list[str]:
    """All that is to be read."""
    parts = [part for page in pages for part in (*page.lines, *(value for _, value in page.table), page.stamp)]
    return [part.text for part in parts]


def test_train_and_test_share_no_text():
    train, test = (texts(draw(400, 1, split=split)) for split in ("train", "test"))
    assert not any(map(held_out, train)) and all(map(held_out, test))
    values = [f"{n:03}" for n in range(1000)]
    assert sum(map(held_out, values)) == pytest.approx(200, abs=30)
    assert {glyph for text in test for glyph in text} == {glyph for text in train for glyph in text} == set(ALPHABET)


def test_inks_papers_fonts_and_places_are_drawn_alike():
    pages = draw(1200, 6)
    lines = [line for page in pages for line in page.lines]
    for answers, choices in (
        ([page.paper for page in pages], len(PAPERS)),
        ([page.stamp.ink for page in pages], len(INKS)),
        ([page.needle.text for page in pages], 10),
        ([line.ink for line in lines], len(INKS)),
        ([str(bool(page.lines)) for page in pages], 2),
        ([str(len(line.text)) for line in lines], 4),
        ([key.text for page in pages for key, _ in page.table], len(KEYS)),
    ):
        assert unevenness(answers, choices) < 4
    assert {line.font for line in lines} == set(FONTS) and {line.height for line in lines} == {7, 9, 12, 16, 20, 26}
    places = torch.tensor([page.needle.box[:2] for page in pages]).float() / 128
    assert (places.amin(dim=0) < 0.05).all() and (places.amax(dim=0) > 0.9).all()
    assert ((places.mean(dim=0) - 0.49).abs() < 0.04).all()


def test_pages_have_all_shapes():
    generator = torch.Generator().manual_seed(0)
    sizes = [sample_size(generator) for _ in range(3000)]
    shapes = torch.tensor([width / height for height, width in sizes]).log() / math.log(3)
    assert -1 <= float(shapes.min()) < -0.98 and 0.98 < float(shapes.max()) <= 1
    assert unevenness([str(int(5 * (s + 1) / 2)) for s in shapes.clamp(-0.999, 0.999).tolist()], 5) < 4
    assert all(abs(height * width - 128**2) < 160 for height, width in sizes)  # half a pixel of a side
    for size in sizes[:20]:
        assert render_pages(draw(2, size=size)).shape == (2, 3, *size)


def test_bad_calls_are_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        sample_pages(1, generator, split="dev")
    for n, size in ((0, (128, 128)), (1, (71, 200)), (1, (90, 90)), (1, (80, 241)), (1, (241, 80))):
        with pytest.raises(ValueError, match=rf"got {n} and \({size[0]}, {size[1]}\)"):
            sample_pages(n, generator, size)
    with pytest.raises(ValueError, match="ask for 125 or more"):
        sample_size(generator, 124)
    with pytest.raises(ValueError, match=r"got \[\(96, 96\), \(128, 128\)\]"):
        render_pages([*draw(1), *draw(1, size=(96, 96))])
    with pytest.raises(ValueError, match="got no page"):
        render_pages([])


def test_pages_that_cannot_be_printed_are_refused():
    page = next(page for page in draw(20) if page.table)
    for text in ("", "cat", "A B"):
        with pytest.raises(ValueError, match=f"digits and capitals, got '{text}'"):
            Line(text, "sans", 9, "red", 0, 0)
    with pytest.raises(ValueError, match="unknown ink 'white'; choose one of black"):
        Line("A", "sans", 9, "white", 0, 0)
    with pytest.raises(ValueError, match="unknown paper 'lime'; choose one of white"):
        replace(page, paper="lime")
    for place in ({"x": 127}, {"y": 127}, {"x": -1}):
        with pytest.raises(ValueError, match=r"reaches beyond a page of 128x128 pixels"):
            replace(page, needle=replace(page.needle, **place))
    moved = tuple((replace(key, x=PAD), replace(value, x=PAD + value.x - key.x)) for key, value in page.table)
    with pytest.raises(ValueError, match="a rule at"):
        replace(page, table=moved)


def test_rendering_is_fast():
    pages = draw(256)
    render_pages(pages)
    start = time.process_time()
    render_pages(pages)
    seconds = time.process_time() - start
    print(f"\nrender: 256 pages of 128 x 128 in {seconds:.2f} s, {torch.get_num_threads()} threads")
    assert seconds < 1.5 * torch.get_num_threads()
