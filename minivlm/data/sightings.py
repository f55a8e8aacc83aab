"""Sightings: a video in exact words, place by place, as an encoder that made no mistake would see it.

A frame is cut into a grid of places, row by row. A place is told by the size, colour and shape of every thing whose
centre is in it, and by the word for where in the frame that is, or by the background where there is nothing. Which word
belongs to which of two things in one place is not told, nor is it in the mean of their patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.data.scenes import BACKGROUND_NAMES, CELLS, COLOR_NAMES, SHAPE_NAMES, SIZE_NAMES
from minivlm.data.videos import Shown, Videos

SIGHT_WORDS = (*SIZE_NAMES, *COLOR_NAMES, *SHAPE_NAMES, *CELLS, *BACKGROUND_NAMES)
THINGS = 5  # the most that there are in a frame: movers, props and a visitor
_FINE = (8, 8)
SIZES_AT, COLORS_AT, SHAPES_AT, CELLS_AT, BACKGROUNDS_AT = (
    SIGHT_WORDS.index(names[0]) for names in (SIZE_NAMES, COLOR_NAMES, SHAPE_NAMES, CELLS, BACKGROUND_NAMES)
)


def cell_of(shown: Shown) -> Int[Tensor, "B T c"]:
    """In which ninth of its frame each object is, as an index into `CELLS`."""
    return (shown.y * 3).long() * 3 + (shown.x * 3).long()


def sighted(videos: Videos, grid: tuple[int, int]) -> Float[Tensor, "B T places words"]:
    """How often each of `SIGHT_WORDS` is told of each place of each frame; `grid` is rows and columns. At (1, 1) all
    words of a frame are in one sum."""
    shown, (rows, cols) = videos.shown(), grid
    cell = cell_of(shown)
    words = torch.stack(
        [SIZES_AT + shown.size, COLORS_AT + shown.color, SHAPES_AT + shown.shape, CELLS_AT + cell], dim=-1
    )
    one = F.one_hot(words, len(SIGHT_WORDS)).sum(dim=3)  # (B, T, c, words)
    there = shown.shape >= 0
    place = (shown.y * rows).long() * cols + (shown.x * cols).long()  # (B, T, c)
    told = torch.zeros(*place.shape[:2], rows * cols, len(SIGHT_WORDS))
    told.scatter_add_(2, place[..., None].expand_as(one), (one * there[..., None]).float())
    empty = told.sum(dim=-1) == 0  # (B, T, places)
    background = F.one_hot(BACKGROUNDS_AT + videos.background, len(SIGHT_WORDS)).float()
    return told + empty[..., None] * background[:, None, None]


def sighted_things(videos: Videos, things: int = THINGS) -> Float[Tensor, "B T things words"]:
    """The same with a place a thing and none between them: the first `things` of a fine grid, row by row, in which
    something is; where there are fewer, the background."""
    told = sighted(videos, _FINE)
    order = (
        (told[..., BACKGROUNDS_AT:].sum(dim=-1) > 0).int().argsort(dim=-1, stable=True)[..., :things]
    )  # (B, T, things)
    return told.gather(2, order[..., None].expand(-1, -1, -1, len(SIGHT_WORDS)))


def without_cells(
    told: Float[Tensor, "B T places words"], which: Bool[Tensor, " B"] | None = None
) -> Float[Tensor, "B T places words"]:
    """The same, but `which` videos (None: all) without the words for where in the frame a thing is; one place alone
    keeps them."""
    if told.shape[2] == 1:
        return told
    left = told.clone()
    left[slice(None) if which is None else which, ..., CELLS_AT:BACKGROUNDS_AT] = 0
    return left


def place_words(told: Float[Tensor, "B T places words"]) -> list[list[list[str]]]:
    """What `sighted` tells, as text: of each video, of each frame, the words of each place."""
    return [[[_text(place) for place in frame] for frame in video] for video in told.long().tolist()]


def _text(counts: list[int]) -> str:
    return " ".join(word for word, count in zip(SIGHT_WORDS, counts, strict=True) for _ in range(count))
