"""Exercises of lesson 10: a box to two cells, two cells to a box, and how much of two boxes is shared."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor

import torch
from torch import Tensor

from minivlm.course.checks import compare
from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.data.boxes import Box
from minivlm.data.referring import iou
from minivlm.language.grounding import box_to_cells, cells_to_box

SIDE = 8
BOXES: tuple[Box, ...] = (
    (0.10, 0.20, 0.30, 0.45),
    (0.25, 0.50, 0.75, 0.875),  # every edge on a line between cells
    (0.00, 0.00, 1.00, 1.00),
    (0.30, 0.05, 0.36, 0.95),  # within one column
    (0.77, 0.51, 0.80, 0.60),  # within one cell
    (0.05, 0.65, 0.95, 0.70),
)
PAIRS: tuple[tuple[Box, Box], ...] = (
    ((0.1, 0.2, 0.5, 0.6), (0.3, 0.3, 0.7, 0.8)),
    ((0.0, 0.0, 1.0, 1.0), (0.2, 0.3, 0.6, 0.5)),
    ((0.1, 0.1, 0.3, 0.3), (0.6, 0.7, 0.9, 0.8)),  # apart along both axes: two negatives make a positive
    ((0.1, 0.1, 0.3, 0.9), (0.5, 0.2, 0.9, 0.8)),
    ((0.2, 0.2, 0.4, 0.7), (0.2, 0.2, 0.4, 0.7)),
)


def check_cells(answer: Callable) -> None:
    def every(rule: Callable[[float, float, float, float], tuple[int, int]]) -> Tensor:
        return torch.tensor([rule(*(edge * SIDE for edge in box)) for box in BOXES])

    def last(x: float) -> int:
        return ceil(x - 1)

    classics = {
        "A box that ends on a line between cells reaches into none beyond it: the last is ceil(edge * side - 1).":
            every(lambda a, b, c, d: (floor(b) * SIDE + floor(a), floor(d) * SIDE + floor(c))),
        "Rows and columns are exchanged: a cell's number is row * side + column.":
            every(lambda a, b, c, d: (floor(a) * SIDE + floor(b), last(c) * SIDE + last(d))),
        "The last cell is one too far: ceil(edge * side) counts cells, their numbers begin at 0.":
            every(lambda a, b, c, d: (floor(b) * SIDE + floor(a), ceil(d) * SIDE + ceil(c))),
        "Numbers begin at 0: the upper left cell is 0.":
            every(lambda a, b, c, d: (floor(b) * SIDE + floor(a) + 1, last(d) * SIDE + last(c) + 1)),
        "Edges are rounded: the first cell is the one that holds the corner, floor(edge * side).":
            every(lambda a, b, c, d: (round(b) * SIDE + round(a), last(d) * SIDE + last(c))),
    }  # fmt: skip
    got = _gathered(answer, [(box, SIDE) for box in BOXES], 2)
    compare(got, torch.tensor([box_to_cells(box, SIDE) for box in BOXES]), classics)


def check_box(answer: Callable) -> None:
    pairs = [(9, 36), (0, 63), (18, 20), (18, 42), (27, 27), (5, 62)]

    def every(rule: Callable[[int, int, int, int], tuple[float, ...]]) -> Tensor:
        return torch.tensor([rule(*divmod(a, SIDE), *divmod(b, SIDE)) for a, b in pairs]) / SIDE

    def inset(top: int, left: int, bottom: int, right: int, by: float) -> tuple[float, ...]:
        return left + by, top + by, right + 1 - by, bottom + 1 - by

    classics = {
        "A box within one row or column has no area between centres: there it goes from edge to edge.":
            every(lambda t, x, b, r: inset(t, x, b, r, 0.5)),
        "Edges everywhere: the box goes from the centre of the first cell to the centre of the last.":
            every(lambda t, x, b, r: inset(t, x, b, r, 0)),
        "Only one cell alone goes from edge to edge: a shared row or column is enough.":
            every(lambda t, x, b, r: inset(t, x, b, r, 0 if (t, x) == (b, r) else 0.5)),
        "Edge to edge along one axis only: where a row or a column is shared, all four edges are outer ones.":
            every(lambda t, x, b, r: (x + 0.5 * (x < r), t + 0.5 * (t < b), r + 1 - 0.5 * (x < r),
                                      b + 1 - 0.5 * (t < b))),
        "Rows and columns are exchanged: divmod(cell, side) gives the row first.":
            every(lambda t, x, b, r: inset(x, t, r, b, 0 if t == b or x == r else 0.5)),
        "The box ends at the upper left corner of the last cell: its centre is half a cell further.":
            every(lambda t, x, b, r: (x, t, r, b)),
    }  # fmt: skip
    got = _gathered(answer, [(*pair, SIDE) for pair in pairs], 4)
    compare(got.float(), torch.tensor([cells_to_box(*pair, SIDE) for pair in pairs]), classics)


def check_iou(answer: Callable) -> None:
    def every(rule: Callable[[float, float, float, float], float]) -> Tensor:
        return torch.tensor([rule(*_overlap(a, b), _area(a), _area(b)) for a, b in PAIRS])

    def shared(w: float, h: float) -> float:
        return max(0.0, w) * max(0.0, h)

    classics = {
        "Boxes that are apart share nothing: a negative width or height becomes 0 before they are multiplied.":
            every(lambda w, h, a, b: w * h / (a + b - w * h)),
        "The shared part is counted twice: the union is the two areas less what they share.":
            every(lambda w, h, a, b: shared(w, h) / (a + b)),
        "Divided by one box alone: a box round the whole picture would always be right.":
            every(lambda w, h, a, b: shared(w, h) / a),
        "Divided by the other box alone: divide by the area that either covers.":
            every(lambda w, h, a, b: shared(w, h) / b),
        "The shared area alone says nothing: divide it by the area of the union.":
            every(lambda w, h, a, b: shared(w, h)),
        "Divided by the smaller box: divide by the area that either covers.":
            every(lambda w, h, a, b: shared(w, h) / min(a, b)),
        "Twice the shared area over the sum is Dice's coefficient, not the IoU.":
            every(lambda w, h, a, b: 2 * shared(w, h) / (a + b)),
    }  # fmt: skip
    got = _gathered(answer, list(PAIRS), 1)[:, 0]
    compare(got.float(), torch.tensor([iou(*pair) for pair in PAIRS]), classics)


def _overlap(a: Box, b: Box) -> tuple[float, float]:
    """Width and height of what two boxes share; negative where they are apart."""
    return min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _gathered(answer: Callable, inputs: list[tuple], count: int) -> Tensor:
    """What a learner's function gives for each of the inputs, `count` numbers each, as rows."""
    rows = []
    for given in inputs:
        found = answer(*given)
        row = list(found) if isinstance(found, (tuple, list)) else [found]
        if len(row) != count or not all(isinstance(value, (int, float)) for value in row):
            wanted = "a number" if count == 1 else f"{count} numbers"
            raise Mistake(f"It must return {wanted}, got {found!r}.")
        rows.append(row)
    return torch.tensor(rows)


EXERCISES = {
    "10.cells": ExerciseSpec("A box as two cells", 2, box_to_cells, check_cells),
    "10.box": ExerciseSpec("Two cells as a box", 2, cells_to_box, check_box),
    "10.iou": ExerciseSpec("Intersection over union", 2, iou, check_iou),
}
