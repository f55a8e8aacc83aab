"""Grounding: a place in a picture is two words (Kosmos-2, Peng et al. 2023, arXiv:2306.14824).

The picture is a grid of 32 x 32 cells, each with a word of its own; a box is the cells of its upper left and lower
right corners, behind the phrase that it shows: `<phrase>a dog</phrase><object><patch_index_0044><patch_index_0863>
</object>`. Token count: two a box, whatever its size, and a pair of marks around phrase and boxes each. Equal to
transformers' `Kosmos2Processor`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture's sides

SIDE = 32  # cells along each side of a picture
_BETWEEN = "</delimiter_of_multi_objects/>"
MARKS = ("<phrase>", "</phrase>", "<object>", "</object>", _BETWEEN)
_PAIR = r"<patch_index_(\d{4})><patch_index_(\d{4})>"
_OBJECT = re.compile(rf"(?:<phrase>([^<]+)</phrase>)?<object>((?:{_PAIR}{_BETWEEN})*{_PAIR})</object>")


def box_to_cells(box: Box, side: int = SIDE) -> tuple[int, int]:
    """The cells, counted row by row, that hold a box's upper left and lower right corners. A box that ends on a line
    between cells does not reach into the next. ValueError for a box without area or beyond the picture."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"a box is (left, top, right, bottom) in [0, 1] with left < right and top < bottom, got {box}")
    first = math.floor(top * side) * side + math.floor(left * side)
    return first, math.ceil(bottom * side - 1) * side + math.ceil(right * side - 1)


def cells_to_box(first: int, last: int, side: int = SIDE) -> Box:
    """The box from the centre of one cell to the centre of another; where that has no area, as they share a row or a
    column, from outer edge to outer edge."""
    if not (0 <= first < side * side and 0 <= last < side * side):
        raise ValueError(f"a picture of {side}x{side} cells has none numbered {first} or {last}")
    (top, left), (bottom, right) = divmod(first, side), divmod(last, side)
    inset = 0 if top == bottom or left == right else 0.5
    return (left + inset) / side, (top + inset) / side, (right + 1 - inset) / side, (bottom + 1 - inset) / side


def cell_word(cell: int) -> str:
    """The word of a cell."""
    return f"<patch_index_{cell:04}>"


def ground(phrase: str, boxes: Sequence[Box], side: int = SIDE) -> str:
    """A phrase and where it is seen, as text; a phrase that is seen nowhere stays without boxes."""
    pairs = ["".join(map(cell_word, box_to_cells(box, side))) for box in boxes]
    return f"<phrase>{phrase}</phrase>" + (f"<object>{_BETWEEN.join(pairs)}</object>" if pairs else "")


def grounded(text: str, side: int = SIDE) -> list[tuple[str, list[Box]]]:
    """The phrases of a text that are shown, and their boxes; "" for boxes that no phrase stands before. ValueError for
    a cell that a picture of `side` x `side` cells has not."""
    found = []
    for phrase, objects in (match.group(1, 2) for match in _OBJECT.finditer(text)):
        boxes = [cells_to_box(int(first), int(last), side) for first, last in re.findall(_PAIR, objects)]
        found.append(((phrase or "").strip(), boxes))
    return found
