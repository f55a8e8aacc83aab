"""Exercises of lesson 08: a picture cut into words of pixels, the raster with its newlines, and a patch's place in
it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minivlm.connectors.projection import LinearProjection
from minivlm.connectors.separators import Separators
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec
from minivlm.runtime import pick_device
from minivlm.vision.patches import PatchesConfig


def patches(picture: Tensor, p: int) -> Tensor:
    """The package's `Patches.cut`: a picture (3, H, W) in [0, 1] to (n, p * p * 3) in [-1, 1]."""
    return PatchesConfig(p).build().cut(picture)


def check_patches(answer: Callable) -> None:
    p, picture = 3, draw(3, 6, 12, seed=81).sigmoid()
    squares = (2 * picture - 1).unflatten(2, (4, p)).unflatten(1, (2, p))  # (3, rows, p, cols, p)

    def flat(*axes: int) -> Tensor:
        return squares.permute(*axes).reshape(8, -1)

    want = patches(picture, p)
    classics = {
        "The colours come first in a patch, as a convolution has them: here they come last, pixel by pixel.":
            flat(1, 3, 0, 2, 4),
        "The patches go down the columns: they are read row by row, as words are.": flat(3, 1, 2, 4, 0),
        "Rows and columns within a patch are exchanged: rows, then columns, then colours.": flat(1, 3, 4, 2, 0),
        "A reshape alone moves no pixel: split both sides, then bring the axes into order.":
            (2 * picture - 1).reshape(8, -1),
        "The pixels lie still in [0, 1]: bring them to [-1, 1].": (want + 1) / 2,
        "The pixels lie in [-0.5, 0.5]: bring them to [-1, 1].": want / 2,
    }  # fmt: skip
    compare(answer(picture, p), want, classics)


def lined(tokens: Tensor, newline: Tensor, rows: int, cols: int) -> Tensor:
    """The package's separators: tokens (rows * cols, D) and a newline (D,) to (rows * (cols + 1), D)."""
    separated = Separators(newline=0).build(len(newline))
    connector = LinearProjection().build(len(newline), len(newline), (rows, cols))
    _, source = separated.arrange(((rows, cols),), connector)
    return separated([tokens], [source], lambda ids: newline.expand(len(ids), -1))[0]


def check_raster(answer: Callable) -> None:
    rows, cols = 2, 3
    tokens, newline = draw(rows * cols, 4, seed=82), draw(4, seed=83)
    grid, ends = tokens.unflatten(0, (rows, cols)), newline.expand(rows, 1, -1)
    upright = tokens.unflatten(0, (cols, rows))
    want = lined(tokens, newline, rows, cols)
    classics = {
        "The newline comes before each row: it closes the row, so it comes behind.":
            torch.cat([ends, grid], dim=1).flatten(0, 1),
        "The last row has no newline: it is closed, too.": want[:-1],
        "There is one newline, at the end of all: each row is closed by its own.": torch.cat([tokens, newline[None]]),
        "Rows and columns are exchanged: a row has `cols` patches.":
            torch.cat([upright, newline.expand(cols, 1, -1)], dim=1).flatten(0, 1),
        "A newline follows every patch: it follows every row.":
            torch.stack([tokens, newline.expand_as(tokens)], dim=1).flatten(0, 1),
        "The newline is added to the last patch of a row: it is a token of its own.":
            torch.cat([grid[:, :-1], grid[:, -1:] + newline], dim=1).flatten(0, 1),
        "The newlines stand in a row below the picture: they form its last column.":
            torch.cat([grid.flatten(0, 1), newline.expand(cols, -1)]),
    }  # fmt: skip
    compare(answer(tokens, newline, rows, cols), want, classics)


def where(newline: Tensor) -> Tensor:
    """Where newlines stand, (L,) bool, to the row and the column of every patch, (L, 2); -1 for the newlines."""
    place, ends = torch.arange(len(newline), device=newline.device), newline.long()
    row = ends.cumsum(dim=0) - ends
    begin = torch.where(newline, place + 1, 0).cummax(dim=0).values  # where the row begins; of a newline, the next
    return torch.stack([row, place - begin], dim=1).masked_fill(newline[:, None], -1)


def check_where(answer: Callable) -> None:
    rows = ("pppp\n" * 3, "pp\n" * 5, "ppppppp\n")
    for row in rows:
        newline = torch.tensor([kind == "\n" for kind in row], device=pick_device())
        _check_where(answer(newline), newline)


def _check_where(got: object, newline: Tensor) -> None:
    want, place = where(newline), torch.arange(len(newline), device=newline.device)
    cols, ends = int(newline.long().argmax()), newline.long()

    def of(row: Tensor, col: Tensor, hide: bool = True) -> Tensor:
        pair = torch.stack([row, col], dim=1)
        return pair.masked_fill(newline[:, None], -1) if hide else pair

    row, col = want.unbind(dim=1)
    classics = {
        "Row and column are exchanged: the row comes first.": want.flip(1),
        "The columns go on from row to row: each row begins at column 0.": of(row, place),
        "The columns go on from row to row: each row begins at column 0. (Without the newlines they still do.)":
            of(row, place - row),
        "The newline is not counted as a place: it takes one, so every row begins one later.":
            of(place // cols, place % cols),
        "The columns begin at 1: the first patch of a row is in column 0.": of(row, col + 1),
        "The rows begin at 1: the first row is row 0.": of(row + 1, col),
        "A newline stands for no place of the picture: -1, twice.":
            of(ends.cumsum(dim=0) - ends, place % (cols + 1), hide=False),
    }  # fmt: skip
    compare(got, want, classics)


EXERCISES = {
    "08.patches": ExerciseSpec("A picture as words of pixels", 2, patches, check_patches),
    "08.raster": ExerciseSpec("A newline behind each row", 2, lined, check_raster),
    "08.where": ExerciseSpec("Where a patch stands, from newlines alone", 3, where, check_where),
}
