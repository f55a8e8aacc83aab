"""Cues: what there is to follow in a video in exact words, place by place, and when that is which is asked about.

No question asks for a cue; but whoever could say them would have little left to do to answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.data.scenes import CELLS, SHAPE_NAMES
from minivlm.data.sightings import SHAPES_AT, cell_of
from minivlm.data.tasks import COUNTS, ORDINALS
from minivlm.data.videos import BEATS, FLASHER, HEADINGS, MOVERS, VISITORS, Videos

# What may be said of a place, a word of each row, in the words that questions and answers have for it.
CUES = (
    tuple(HEADINGS), ("object", "flash", "appear"), ORDINALS[:4], ("zero", *COUNTS),
    tuple(str(beat + 1) for beat in range(BEATS)), CELLS,
)  # fmt: skip
BEAT, CELL = 4, 5  # rows


def place_cues(videos: Videos, told: Float[Tensor, "B T places words"]) -> Int[Tensor, "B T places 6"]:
    """What there is to follow at each place, as indices into the rows of `CUES`: which way its mover goes; whether it
    flashes, appears, or is an object to which nothing happens; the number of that flash, or visitor; how many there
    were so far, of flashes where the first mover is, of visitors where the other is; the beat; and in which ninth of
    the frame the object is. -1 where there is none, or more than one, and of ways in the first frame, when nothing has
    moved."""
    here, beat = _here(videos, told), videos.beat_of()  # (B, T, places, columns), (T,)
    ways = _of_one(videos.heading[:, None], here, MOVERS)
    ways[:, 0] = -1
    flash = videos.flash >= 0  # (B, beats)
    flashes = flash.cumsum(dim=1)[:, beat]  # (B, T)
    which_flash = (flashes - 1)[..., None].where(here[..., FLASHER] & flash[:, beat, None], -1)
    since, comes = videos.beat[:, None] <= beat[:, None], videos.beat[:, None] >= 0  # (B, T, columns)
    visits = (since & comes).sum(dim=-1)  # (B, T)
    which_visit = (visits - 1)[..., None].where(here[..., VISITORS.start : VISITORS.stop].any(dim=-1), -1)
    kinds = torch.where(which_visit >= 0, 2, torch.where(which_flash >= 0, 1, here.any(dim=-1).int() - 1))
    so_far = _of_one(torch.stack([flashes, visits], dim=-1), here, MOVERS)
    which = which_visit.where(which_visit >= 0, which_flash)
    cell = cell_of(videos.shown())  # (B, T, columns)
    where = _of_one(cell, here, range(cell.shape[2]))
    return torch.stack([ways, kinds, which, so_far, beat[:, None].expand_as(ways), where], dim=-1)


def asked_cues(videos: Videos, words: Sequence[Sequence[str]]) -> Int[Tensor, "B L"]:
    """When that is, which a word of the questions names, as an index into the row `BEAT` of `CUES`: that of a
    visitor, or of the flash whose number is the word before; -1 where a word names neither."""
    cues = torch.full((len(words), max(map(len, words))), -1)
    columns = (value.tolist() for value in (videos.shape, videos.beat, videos.flash))
    for row, (shapes, beats, flash) in enumerate(zip(*columns, strict=True)):
        when = {SHAPE_NAMES[shapes[c]]: beats[c] for c in VISITORS if shapes[c] >= 0}
        flashes = [beat for beat, color in enumerate(flash) if color >= 0]
        named = {(ORDINALS[n], "flash"): beat for n, beat in enumerate(flashes)}
        for place, pair in enumerate(pairwise(("", *words[row]))):
            cues[row, place] = named.get(pair, when.get(pair[1], -1))
    return cues


def _here(videos: Videos, told: Float[Tensor, "B T places words"]) -> Bool[Tensor, "B T places columns"]:
    """Which objects are in each place: no two of a video share a shape."""
    words = (SHAPES_AT + videos.shape.clamp(min=0))[:, None, None].expand(*told.shape[:3], -1)
    return (told.gather(3, words) > 0) & (videos.shape >= 0)[:, None, None]


def _of_one(
    values: Int[Tensor, "B t c"], here: Bool[Tensor, "B T places columns"], columns: range
) -> Int[Tensor, "B T places"]:
    """The value of the one of those columns that is in a place; -1 for none or several."""
    there = here[..., columns.start : columns.stop]
    some = (values[:, :, None, columns.start : columns.stop] * there).sum(dim=-1)
    return some.where(there.sum(dim=-1) == 1, -1)
