"""Classic mistakes in the exercises of lesson 10, each with the message that it must get."""

from __future__ import annotations

_CELLS = """
import math

def box_to_cells(box, side):
    left, top, right, bottom = (edge * side for edge in box)
    return {}
"""

_BOX = """
def cells_to_box(first, last, side):
    (top, left), (bottom, right) = divmod(first, side), divmod(last, side)
    inset = {}
    return (left + inset) / side, (top + inset) / side, (right + 1 - inset) / side, (bottom + 1 - inset) / side
"""

_IOU = """
def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    shared = {}
    return {}
"""

_KEPT = "max(0, width) * max(0, height)"

MISTAKES = {
    "10.cells": [
        (
            _CELLS.format(
                "math.floor(top) * side + math.floor(left), math.floor(bottom) * side + math.floor(right)"
            ),
            "ends on a line",
        ),
        (
            _CELLS.format(
                "math.floor(left) * side + math.floor(top), math.ceil(right - 1) * side + math.ceil(bottom - 1)"
            ),
            "Rows and columns are exchanged",
        ),
        (
            _CELLS.format("math.floor(top) * side + math.floor(left), math.ceil(bottom) * side + math.ceil(right)"),
            "one too far",
        ),
        (_CELLS.format("math.floor(top) * side + math.floor(left)"), "must return 2 numbers"),
    ],
    "10.box": [
        (_BOX.format("0.5"), "no area between centres"),
        (_BOX.format("0"), "Edges everywhere"),
        (_BOX.format("0 if first == last else 0.5"), "Only one cell alone"),
        (_BOX.replace("divmod(first, side)", "divmod(first, side)[::-1]").replace(
            "divmod(last, side)", "divmod(last, side)[::-1]"
        ).format("0 if top == bottom or left == right else 0.5"), "Rows and columns are exchanged"),
    ],
    "10.iou": [
        (_IOU.format("width * height", "shared / (sum(areas) - shared)"), "Boxes that are apart"),
        (_IOU.format(_KEPT, "shared / sum(areas)"), "counted twice"),
        (_IOU.format(_KEPT, "shared / areas[0]"), "one box alone"),
        (_IOU.format(_KEPT, "2 * shared / sum(areas)"), "Dice"),
    ],
}  # fmt: skip
