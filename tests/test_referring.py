"""Referring: each phrase singles out one object, its box is tight round it, and boxes are compared by their areas."""

from __future__ import annotations

import random

import pytest
import torch

from minivlm.data.referring import iou, locate, name, referents, said_box, tell
from minivlm.data.scenes import masks, sample_scenes
from minivlm.language.grounding import cell_word, grounded

SCENES = sample_scenes(60, torch.Generator().manual_seed(5), "test")
FOUND = referents(SCENES)


def test_a_phrase_names_one_object_and_its_box_is_tight_round_it():
    count = 0
    for number, (found, mask) in enumerate(zip(FOUND, masks(SCENES, 64), strict=True)):
        objects = SCENES[number].objects
        for referent in found:
            (i,) = [i for i, o in enumerate(objects) if f"the {o.name}" == referent.phrase]
            rows, columns = mask[i].nonzero(as_tuple=True)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [64 * edge for edge in referent.box] == pytest.approx([int(edge) for edge in edges])
            assert referent.name == f"a {objects[i].describe()}" and referent.novel == objects[i].novel
            count += 1
    names = [[o.name for o in SCENES[i].objects] for i in range(len(SCENES))]
    assert count == sum(there.count(name) == 1 for there in names for name in there) > 100


@pytest.mark.parametrize("side", [8, 32])
def test_questions_and_answers_are_published_grounded_text(side):
    found = next(found for found in FOUND if len(found) > 2)
    for referent in found:
        question, answer = locate(referent, side)
        assert question == f"where is {referent.phrase} ? <object>"
        box = said_box(answer, side)
        assert max(abs(a - b) for a, b in zip(box, referent.box, strict=True)) <= 1 / side
        question, answer = name(referent, side)
        assert grounded(question, side) == [("it", [box])] and question.endswith(" is") and answer == referent.name
    question, text = tell(found, side)
    told = [phrase for phrase, _ in grounded(text, side)]
    assert question == "" and told == [referent.name for referent in found]


def cells(*numbers: int) -> str:
    return "".join(map(cell_word, numbers))


@pytest.mark.parametrize(
    "answer",
    ["", "red", cells(3, 9), cells(3) + "</object>", cells(3, 9, 12) + "</object>", f"red {cells(3, 9)}</object>",
     cells(9, 0) + "</object>", cells(2, 1) + "</object>", f"{cells(3, 9)}</object><object>{cells(3, 9)}</object>"],
)  # fmt: skip
def test_what_is_no_box_is_none(answer):
    assert said_box(answer, 4) is None


def test_a_box_is_what_is_said():
    assert said_box(cells(0, 10) + "</object>", 4) == (0.125, 0.125, 0.625, 0.625)
    assert said_box(cells(1, 2) + "</object>", 4) == (0.25, 0, 0.75, 0.25)  # within a row: from edge to edge


def test_iou_is_counted_in_pixels():
    draw = random.Random(0)
    for _ in range(200):
        one, other = ([*map(sorted, ([draw.randint(0, 9), draw.randint(10, 20)] for _ in range(2)))] for _ in range(2))
        shift = draw.choice((0, 12))  # often apart
        pixels = []
        for (left, right), (top, bottom) in (one, [[x + shift for x in other[0]], other[1]]):
            pixels.append({(x, y) for x in range(left, right) for y in range(top, bottom)})
        boxes = [
            (min(x for x, _ in p), min(y for _, y in p), max(x for x, _ in p) + 1, max(y for _, y in p) + 1)
            for p in pixels
        ]
        assert iou(*boxes) == pytest.approx(len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1]))
    assert iou((0.0, 0.0, 0.2, 0.2), (0.5, 0.6, 0.9, 0.8)) == 0
