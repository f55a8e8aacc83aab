"""Exercises of lesson 09: the canvas for a picture, what is left of it without its empty rows, and places as
fractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minivlm.course.checks import compare
from minivlm.course.exercise import ExerciseSpec
from minivlm.vision.tiles import Size, TilesConfig
from minivlm.vision.variable import bins
from minivlm.vision.vit import clip_vit

TILE = 64


def _tiles(canvases: Sequence[Size]) -> TilesConfig:
    tower = clip_vit(image_size=(TILE, TILE), patch_size=8, width=8, depth=0, heads=1, mlp_width=8)
    return TilesConfig(tower, tuple(map(tuple, canvases)), image_size=(TILE, TILE))


def best_canvas(size: Size, canvases: Sequence[Size]) -> Size:
    """The package's choice among canvases of whole tiles."""
    return _tiles(canvases).best_canvas(tuple(size))


CANVASES = [(192, 64), (128, 128), (64, 128), (128, 64), (64, 192)]
PICTURES = [(64, 64), (60, 150), (150, 60), (40, 40), (128, 128), (300, 310), (90, 200), (200, 90), (63, 190), (20, 70)]


def check_canvas(answer: Callable) -> None:
    def all_of(rule: Callable) -> Tensor:
        return torch.tensor([[int(side) for side in rule(size, CANVASES)] for size in PICTURES])

    classics = {
        "The scale is the larger of the two ratios: then the picture hangs over the canvas. Take the smaller.":
            _by(lambda kept, empty: (kept, -empty), fit=max),
        "A picture is not enlarged for credit: no more pixels count than the picture itself has.":
            _by(lambda kept, empty: (kept, -empty), capped=False),
        "The emptiest canvas wins ties: of equals take the one with the LEAST empty room.":
            _by(lambda kept, empty: (kept, empty)),
        "Only the empty room is compared: first comes how many pixels survive.": _by(lambda kept, empty: -empty),
        "Only the surviving pixels are compared: of equals the one with the least empty room is taken.":
            _by(lambda kept, empty: kept),
        "Height and width are exchanged: sizes are (height, width), of pictures and of canvases.":
            _by(lambda kept, empty: (kept, -empty), turned=True),
    }  # fmt: skip
    wrong = {message: all_of(rule) for message, rule in classics.items()}
    compare(all_of(lambda size, canvases: answer(size, list(canvases))), all_of(best_canvas), wrong)


def _by(merit: Callable, fit: Callable = min, capped: bool = True, turned: bool = False) -> Callable:
    """A rule that takes the canvas of most merit, by pixels that survive and room that stays empty."""

    def rule(size: Size, canvases: Sequence[Size]) -> Size:
        height, width = reversed(size) if turned else size

        def of(canvas: Size) -> object:
            scale = fit(canvas[0] / height, canvas[1] / width)
            kept = int(height * scale) * int(width * scale)
            kept = min(kept, height * width) if capped else kept
            return merit(kept, canvas[0] * canvas[1] - kept)

        return max(canvases, key=of)

    return rule


def kept_patches(size: Size, rows: int, cols: int) -> tuple[int, int]:
    """The package's unpadding: of a canvas of `rows` x `cols` patches, how many rows and columns show the picture."""
    config = _tiles([(8 * rows, 8 * cols)])
    down, across = config.kept(tuple(size))
    return down.stop - down.start, across.stop - across.start


GRIDS = [(16, 16), (8, 16), (24, 8)]


def check_kept(answer: Callable) -> None:
    def all_of(rule: Callable) -> Tensor:
        found = [rule(size, *grid) for size in PICTURES for grid in GRIDS]
        return torch.tensor([[int(side) for side in pair] for pair in found])

    def scaled(size: Size, rows: int, cols: int) -> tuple[float, float]:
        scale = min(rows / size[0], cols / size[1])
        return size[0] * scale, size[1] * scale

    def one_side(size: Size, rows: int, cols: int) -> tuple[int, int]:
        high, wide = scaled(size, rows, cols)
        return rows - (rows - int(high + 1e-6)) // 2, cols - (cols - int(wide + 1e-6)) // 2

    classics = {
        "Nothing is taken away: empty rows or columns of the canvas are left out.": lambda size, r, c: (r, c),
        "Empty patches are taken from one side only: the picture is in the middle, as many go from either side.":
            one_side,
        "What is left is the rounded size: an odd number of empty rows leaves one of them, for as many go from either "
        "side.": lambda size, r, c: tuple(int(side + 1e-6) for side in scaled(size, r, c)),
        "The other side is shortened: a picture wider than its canvas keeps all columns and loses rows.":
            lambda size, r, c: kept_patches((size[1], size[0]), r, c),
    }  # fmt: skip
    wrong = {message: all_of(rule) for message, rule in classics.items()}
    compare(all_of(answer), all_of(kept_patches), wrong)


def places(count: int, parts: int) -> Tensor:
    """The package's `bins`: which of `parts` learned places each of `count` rows takes."""
    return bins(torch.arange(count)[None], torch.tensor([[count]]), parts)[0]


def check_places(answer: Callable) -> None:
    pairs = [(count, parts) for count in (1, 3, 7, 8, 12, 16, 30) for parts in (8, 16)]

    def all_of(rule: Callable) -> Tensor:
        return torch.cat([torch.as_tensor(rule(*pair)).flatten() for pair in pairs])

    def row(count: int) -> Tensor:
        return torch.arange(count, dtype=torch.float64)

    classics = {
        "Rows are counted, not shares of the picture: row 3 of 7 begins at 3/7 of its height.":
            lambda count, parts: torch.arange(count).clamp(max=parts - 1),
        "The last row is stretched to the last place: row i begins at i / count, not at i / (count - 1).":
            lambda count, parts: (row(count) / max(1, count - 1) * parts).long().clamp(max=parts - 1),
        "Rounded to the nearest place: a row takes the place that it BEGINS in, so round down.":
            lambda count, parts: (row(count) / count * parts).round().long().clamp(max=parts - 1),
        "Rounded up: a row takes the place that it begins in, so round down.":
            lambda count, parts: (row(count) / count * parts).ceil().long().clamp(max=parts - 1),
        "The middle of the row is looked up: it is where the row begins that counts.":
            lambda count, parts: ((row(count) + 0.5) / count * parts).long(),
        "Count and parts are exchanged: of `count` rows each gets one of `parts` places.":
            lambda count, parts: (row(count) / parts * count).long(),
        "It begins at 1: the first place is number 0.": lambda count, parts: places(count, parts) + 1,
    }  # fmt: skip
    wrong = {message: all_of(rule) for message, rule in classics.items()}
    compare(all_of(answer), all_of(places), wrong)


EXERCISES = {
    "09.canvas": ExerciseSpec("The canvas for a picture", 3, best_canvas, check_canvas),
    "09.kept": ExerciseSpec("Without the empty rows", 2, kept_patches, check_kept),
    "09.places": ExerciseSpec("Places as fractions", 2, places, check_places),
}
