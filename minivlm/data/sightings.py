"""Sightings: a video in exact words, place by place, as an encoder that made no mistake would see it.

A frame is cut into a grid of places, row by row. A place is told by the size, colour and shape of every thing whose
centre is in it, or by the background where there is none; of which word belongs to which of two things in one place
nothing is told, as in the mean of their patches.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.data.scenes import BACKGROUND_NAMES, COLOR_NAMES, SHAPE_NAMES, SIZE_NAMES
from minivlm.data.videos import Videos

SIGHT_WORDS = (*SIZE_NAMES, *COLOR_NAMES, *SHAPE_NAMES, *BACKGROUND_NAMES)
_SIZES, _COLORS, _SHAPES, _BACKGROUNDS = (
    SIGHT_WORDS.index(names[0]) for names in (SIZE_NAMES, COLOR_NAMES, SHAPE_NAMES, BACKGROUND_NAMES)
)


def sighted(videos: Videos, grid: tuple[int, int]) -> Float[Tensor, "B T places words"]:
    """How often each of `SIGHT_WORDS` is told of each place of each frame; `grid` is rows and columns. At (1, 1) all
    words of a frame are in one sum."""
    shown, (rows, cols) = videos.shown(), grid
    words = torch.stack([_SIZES + shown.size, _COLORS + shown.color, _SHAPES + shown.shape], dim=-1)  # (B, T, c, 3)
    one = torch.nn.functional.one_hot(words.clamp(min=0), len(SIGHT_WORDS)).sum(dim=3)  # (B, T, c, words)
    there = shown.shape >= 0
    place = (shown.y * rows).long() * cols + (shown.x * cols).long()  # (B, T, c)
    told = torch.zeros(*place.shape[:2], rows * cols, len(SIGHT_WORDS))
    told.scatter_add_(2, place[..., None].expand_as(one), (one * there[..., None]).float())
    empty = told.sum(dim=-1) == 0  # (B, T, places)
    background = torch.nn.functional.one_hot(_BACKGROUNDS + videos.background, len(SIGHT_WORDS)).float()
    return told + empty[..., None] * background[:, None, None]


def place_words(told: Float[Tensor, "B T places words"]) -> list[list[list[str]]]:
    """What `sighted` tells, as text: of each video, of each frame, the words of each place."""
    return [[[_text(place) for place in frame] for frame in video] for video in told.long().tolist()]


def _text(counts: list[int]) -> str:
    return " ".join(word for word, count in zip(SIGHT_WORDS, counts, strict=True) for _ in range(count))
