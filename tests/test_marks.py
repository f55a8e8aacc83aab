"""Marks: each shows the box it is for and spares what is in it, and without it a question has several answers."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import pytest
import torch
from pages import tight, unevenness

from minivlm.data.boxes import WHOLE
from minivlm.data.marks import MARKS, Mark, ask_marks, draw_marks
from minivlm.data.scenes import COLOR_NAMES, COLORS, SHAPE_NAMES, Scenes, boxes, render, sample_scenes
from minivlm.evaluate import Question
from minivlm.language.tokenizer import mini_tokenizer

SIZES = [(64, 64), (49, 65), (128, 96), (60, 180)]
PLACES = [(0.4, 0.4, 0.6, 0.55), (0.1, 0.5, 0.3, 0.9), (0.7, 0.2, 0.95, 0.4), (0.3, 0.1, 0.5, 0.2)]
CORNERS = [(0.0, 0.0, 0.2, 0.2), (0.8, 0.8, 1.0, 1.0), WHOLE]


def changed(kind: str, box: tuple, size: tuple[int, int], color: str = "red") -> torch.Tensor:
    """How much of each pixel (H, W) of a black picture a mark covers."""
    [drawn] = draw_marks(torch.zeros(1, 3, *size), [Mark(kind, color, box)])
    cover = drawn / torch.tensor(COLORS[color])[:, None, None]
    torch.testing.assert_close(cover, cover[:1].expand(3, -1, -1))
    return cover[0]


def pen(size: tuple[int, int]) -> float:
    return max(1.5, min(size) / 48)


def pixels(box: tuple, size: tuple[int, int]) -> list[float]:
    return [share * side for share, side in zip(box, (size[1], size[0]) * 2, strict=True)]


# --- drawn -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", PLACES)
def test_an_outline_lies_around_the_box_and_leaves_it_alone(size, box):
    cover, (left, top, right, bottom) = changed("box", box, size), pixels(box, size)
    assert cover[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)].max() <= 0.01 + pen(size) % 1
    assert cover[math.ceil(top) : math.floor(bottom), math.ceil(left) : math.floor(right)].max() == 0
    reach = 1.5 * pen(size)  # from the box to the outline's outer edge
    x1, y1, x2, y2 = tight(cover > 0.5)
    for edge, wanted in ((x1, left - reach), (y1, top - reach), (x2, right + reach), (y2, bottom + reach)):
        assert abs(edge - wanted) <= 0.51
    around = 2 * (right - left + bottom - top + 4 * pen(size)) * pen(size)
    assert float(cover.sum()) == pytest.approx(around, rel=0.06)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", CORNERS)
def test_an_outline_at_the_edge_of_a_picture_is_whole(size, box):
    cover = changed("box", box, size)
    x1, y1, x2, y2 = tight(cover > 0.5)
    for line in (cover[y1:y2, x1], cover[y1:y2, x2 - 1], cover[y1, x1:x2], cover[y2 - 1, x1:x2]):
        assert line.min() > 0.5
    assert cover.sum() == pytest.approx(2 * (x2 - x1 + y2 - y1 - 2 * pen(size)) * pen(size), rel=0.15)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", PLACES)
def test_an_arrow_points_at_the_box_from_where_there_is_most_room(size, box):
    cover, (left, top, right, bottom) = changed("arrow", box, size), pixels(box, size)
    height, width = size
    rooms = {"left": left, "top": top, "right": width - right, "bottom": height - bottom}
    way = max(rooms, key=rooms.get)
    turned = {"left": cover.T.flip(0), "top": cover.flip(0), "right": cover.T, "bottom": cover}[way]  # now from below
    edge = {"left": width - left, "top": height - top, "right": right, "bottom": bottom}[way]
    middle = (left + right) / 2 if way in ("top", "bottom") else (top + bottom) / 2
    across = (turned * (torch.arange(turned.shape[1]) + 0.5)).sum(dim=1) / turned.sum(dim=1).clamp(min=1e-6)
    rows = (turned.sum(dim=1) > 0.3).nonzero()[:, 0].tolist()
    length = min(size) / 6
    assert 0 <= rows[0] - edge <= 2.5 and abs(rows[-1] + 1 - edge - 1 - length) <= 1
    assert all(abs(across[row] - middle) < 0.3 for row in rows)  # it is straight, and meets the side in its middle
    widths = turned.sum(dim=1)
    head = int(edge + 1 + length / 2) - 1  # the last row that the head fills
    assert widths[head] > 2 * pen(size) and abs(widths[rows[-2]] - pen(size)) < 0.6
    assert all(a <= b + 1e-4 for a, b in zip(widths[rows[0] : head], widths[rows[0] + 1 : head + 1], strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", CORNERS)
def test_an_arrow_is_never_cut_off(size, box):
    area = changed("arrow", (0.4, 0.4, 0.6, 0.6), size).sum()
    assert changed("arrow", box, size).sum() == pytest.approx(float(area), rel=0.06)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", [*PLACES, *CORNERS])
def test_a_point_is_a_disc_in_the_middle_of_the_box(size, box):
    cover, (left, top, right, bottom) = changed("point", box, size), pixels(box, size)
    radius = max(1.5, min(size) / 32)
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    assert float(cover.sum()) == pytest.approx(math.pi * radius**2, rel=0.1)
    assert float((cover * x).sum() / cover.sum()) == pytest.approx((left + right) / 2, abs=0.05)
    assert float((cover * y).sum() / cover.sum()) == pytest.approx((top + bottom) / 2, abs=0.05)
    assert cover[torch.hypot(x - (left + right) / 2, y - (top + bottom) / 2) > radius + 0.8].sum() == 0


def test_each_picture_gets_its_own_mark_and_keeps_the_rest():
    images = torch.rand(9, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    marks = [Mark(MARKS[n % 3], COLOR_NAMES[n], PLACES[n % 4]) for n in range(9)]
    drawn = draw_marks(images, marks)
    assert torch.equal(images, before) and drawn.shape == images.shape
    for n, mark in enumerate(marks):
        assert torch.equal(drawn[n : n + 1], draw_marks(images[n : n + 1], [mark]))
        cover = changed(mark.kind, mark.box, (50, 70))
        color = torch.tensor(COLORS[mark.color])[:, None, None]
        torch.testing.assert_close(drawn[n], images[n] * (1 - cover) + color * cover)


# --- asked -----------------------------------------------------------------------------------------------------------


@cache
def asked(n: int = 4000, size: int | tuple[int, int] = 64) -> tuple[Scenes, list[Mark], list]:
    generator = torch.Generator().manual_seed(8)
    scenes = sample_scenes(n, generator, "test")
    return scenes, *ask_marks(scenes, generator, size)


@pytest.mark.parametrize("size", [64, (60, 100)])
def test_the_answer_is_the_marked_objects(size):
    scenes, marks, questions = asked(n=400, size=size)
    height, width = (size, size) if isinstance(size, int) else size
    edges = boxes(scenes, size) / torch.tensor([width, height, width, height])
    kinds = set()
    for i, (mark, row) in enumerate(zip(marks, questions, strict=True)):
        objects = scenes[i].objects
        [marked] = [k for k, o in enumerate(objects) if edges[i, k].tolist() == pytest.approx(mark.box)]
        assert mark.color not in {COLOR_NAMES[o.color] for o in objects}
        for q in row:
            words = q.text.split()
            o = objects[marked]
            assert q.answer == {"color": COLOR_NAMES[o.color], "shape": SHAPE_NAMES[o.shape]}[words[1]]
            assert q.choices == {"color": COLOR_NAMES, "shape": SHAPE_NAMES}[words[1]]
            assert (q.task, q.objects, q.novel) == ("MARK", (marked,), o.novel)
            kinds.add((mark.kind, q.text.removeprefix(f"what {words[1]} is the ")))
    alike = {(kind, "marked object ?") for kind in MARKS}
    own = {("box", "object in the box ?"), ("arrow", "object at the arrow ?"), ("point", "object at the mark ?")}
    assert kinds == alike | own


def test_without_the_mark_there_are_several_answers():
    scenes, _, questions = asked()
    common, fair = [], []
    for i, row in enumerate(questions):
        for q in row:
            values = [getattr(o, q.text.split()[1]) for o in scenes[i].objects]
            own = getattr(scenes[i].objects[q.objects[0]], q.text.split()[1])
            common.append(own == Counter(values).most_common(1)[0][0])
            fair.append(1 / len(set(values)))
            assert len(set(values)) > 1
    assert sum(common) / len(common) == pytest.approx(sum(fair) / len(fair), abs=0.03)


def test_nothing_is_asked_where_all_are_alike():
    scenes, marks, questions = asked()
    assert len(marks) == len(questions) == 4000 and {len(row) for row in questions} == {0, 1}
    alone = (scenes.shape >= 0).sum(dim=1) == 1
    assert not any(row for row, one in zip(questions, alone.tolist(), strict=True) if one)
    several = [
        i for i in range(4000) if min(len(set(c[c >= 0].tolist())) for c in (scenes.color[i], scenes.shape[i])) > 1
    ]
    assert len(several) > 2000 and all(questions[i] for i in several)


@pytest.mark.parametrize("what, choices", [("color", 10), ("shape", 8)])
def test_no_answer_is_likelier(what, choices):
    given = [q.answer for row in asked()[2] for q in row if q.text.split()[1] == what]
    assert len(given) > 1500 and unevenness(given, choices) < 4


def test_marks_come_alike_and_every_word_is_known():
    _, marks, questions = asked()
    assert unevenness([mark.kind for mark in marks], 3) < 4 and unevenness([mark.color for mark in marks], 10) < 4
    tokenizer = mini_tokenizer()
    for row in questions:
        for q in row:
            assert isinstance(q, Question)
            assert len(tokenizer.encode(f"{q.text} {q.answer}")) == len(q.text.split()) + 1


def test_same_seed_same_marks():
    scenes = sample_scenes(50, torch.Generator().manual_seed(1))
    once, again, other = (ask_marks(scenes, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert draw_marks(render(scenes), once[0]).shape == (50, 3, 64, 64)


def test_bad_marks_are_refused():
    with pytest.raises(ValueError, match="unknown mark 'circle'; choose one of box, arrow, point"):
        Mark("circle", "red", WHOLE)
    with pytest.raises(ValueError, match="unknown color 'white'; choose one of red"):
        Mark("box", "white", WHOLE)
    for box in ((0.5, 0.0, 0.5, 1.0), (0.0, 0.5, 1.0, 0.4), (-0.1, 0.0, 1.0, 1.0), (0.0, 0.0, 64.0, 64.0)):
        with pytest.raises(ValueError, match="shares of the picture's sides"):
            Mark("box", "red", box)
    with pytest.raises(ValueError, match="got 1 marks for 2 pictures"):
        draw_marks(torch.zeros(2, 3, 32, 32), [Mark("box", "red", WHOLE)])
