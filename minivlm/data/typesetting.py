"""Typesetting: random pages. What stands on a page is drawn first, then how it is set, anew until it fits: so no text
is rarer for being long, and no answer likelier for being narrow.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from minivlm.data.documents import INKS, PAD, PALE, PAPERS, TILE, Line, Page, Pixels, Stamp, around, rules
from minivlm.data.glyphs import FONTS

ALPHABET = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # of what is to be read: no I and no O, which look like 1 and 0
DIGITS = ALPHABET[:10]
KEYS = ("code", "page", "date", "time", "room", "year")
HELD_OUT = 0.2  # of all texts: no training page shows them, and a test page shows no others
SHORTEST, LEAST, LONGEST = 72, 96 * 96, 3  # of a page: a side, all its pixels, and a side in shorter sides
_MOST = 6  # lines, or rows of a table, on a page; fewer where it is less than 128 pixels high
_HEIGHTS, _TINY = (7, 9, 12, 16, 20, 26), 4  # pixels of a capital, and of the needle
_ANGLES, _STAMP_HEIGHTS = (-30, -15, 15, 30), (7, 9, 12)  # degrees of a stamp, pixels of its capitals
_HEAVY = ("bold", "mono")  # fonts of stamps and needles
_MARGIN = 3  # blank pixels at the edges of a page and around what stands on it


def held_out(text: str) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) < HELD_OUT * 16**8


def sample_size(generator: torch.Generator, side: int = 128) -> tuple[int, int]:
    """Height and width of a page with about as many pixels as a square of `side`: any shape from 1:3 to 3:1, wide ones
    as likely as high ones. ValueError for a `side` that makes pages too narrow."""
    least = math.ceil(SHORTEST * math.sqrt(LONGEST))
    if side < least:
        raise ValueError(f"pages of {side}x{side} pixels can be narrower than {SHORTEST}: ask for {least} or more")
    stretch = LONGEST ** (float(torch.rand((), generator=generator)) - 0.5)
    height, width = round(side / stretch), round(side * stretch)
    return min(height, LONGEST * width), min(width, LONGEST * height)


def sample_pages(
    n: int, generator: torch.Generator, size: tuple[int, int] = (128, 128), split: str = "train"
) -> list[Page]:
    """`n` random pages of `size` (H, W), half with lines and half with a table; all that is to be read on them is of
    the `split`. ValueError for another split, or a size that leaves no room."""
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}; choose train or test")
    height, width = size
    if n < 1 or min(size) < SHORTEST or height * width < LEAST or max(size) > LONGEST * min(size):
        raise ValueError(
            f"need n >= 1 and a size (H, W) of {LEAST} pixels or more, each side at least {SHORTEST} of them and at "
            f"most {LONGEST} times the other, got {n} and {size}"
        )
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    return [_page(chance, size, split) for _ in range(n)]


@dataclass(frozen=True)
class _Content:
    """What stands on a page: lines, or a table's keys and values, the stamp's text and the needle's digit."""

    lines: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    stamp: str
    needle: str


class _Full(Exception):
    """The fonts and places drawn for a page leave no room on it."""


def _page(chance: random.Random, size: tuple[int, int], split: str) -> Page:
    content = _content(chance, min(_MOST, (size[0] - 8) // 20), split)  # else many draws until it fits
    while True:
        with suppress(_Full):
            return _set(chance, content, size)


def _content(chance: random.Random, most: int, split: str) -> _Content:
    many, stamp, needle = chance.randint(2, most), _text(chance, 3, ALPHABET, split), chance.choice(DIGITS)
    if chance.random() < 0.5:
        lines = tuple(_text(chance, chance.randint(3, 6), ALPHABET, split) for _ in range(many))
        return _Content(lines, (), stamp, needle)
    rows = tuple((key.upper(), _text(chance, 3, DIGITS, split)) for key in chance.sample(KEYS, many))
    return _Content((), rows, stamp, needle)


def _text(chance: random.Random, length: int, alphabet: str, split: str) -> str:
    while held_out(text := "".join(chance.choices(alphabet, k=length))) != (split == "test"):
        pass
    return text


def _set(chance: random.Random, content: _Content, size: tuple[int, int]) -> Page:
    tallest = chance.choice(_HEIGHTS)
    heights = [height for height in _HEIGHTS if height <= tallest]
    lines, table = _lines(chance, content.lines, heights), _table(chance, content.rows, heights)
    look = [chance.choice(values) for values in (_HEAVY, _STAMP_HEIGHTS, tuple(INKS), _ANGLES)]
    stamp, needle = Stamp(content.stamp, *look, 0, 0), Line(content.needle, chance.choice(_HEAVY), _TINY, PALE, 0, 0)
    boxes = [line.box for line in lines] or [around(rules(table))]
    taken: list[Pixels] = []
    body, stamp_at, needle_at = (_room(chance, part, taken, size) for part in (boxes, [stamp.box], [needle.box]))
    return Page(
        size,
        chance.choice(tuple(PAPERS)),
        tuple(_moved(line, body) for line in lines),
        tuple((_moved(key, body), _moved(value, body)) for key, value in table),
        _moved(stamp, stamp_at),
        _moved(needle, needle_at),
        grain=(chance.randrange(TILE), chance.randrange(TILE)),
    )


def _lines(chance: random.Random, texts: Sequence[str], heights: Sequence[int]) -> tuple[Line, ...]:
    """One below the other, each in a font, size and ink of its own."""
    lines, y = [], 0
    for text in texts:
        height = chance.choice(heights)
        lines.append(Line(text, chance.choice(tuple(FONTS)), height, chance.choice(tuple(INKS)), 0, y))
        y += height + height // 3 + chance.randint(2, 6)  # the tail of a Q, and blank
    return tuple(lines)


def _table(
    chance: random.Random, rows: Sequence[tuple[str, str]], heights: Sequence[int]
) -> tuple[tuple[Line, Line], ...]:
    """All in one font, size and ink, the values left-aligned behind the longest key."""
    font, height, ink = chance.choice(tuple(FONTS)), chance.choice(heights), chance.choice(tuple(INKS))
    keys = [Line(key, font, height, ink, 0, number * (height + 2 * PAD + 1)) for number, (key, _) in enumerate(rows)]
    column = max((key.box[2] for key in keys), default=0) + 2 * PAD + 1
    return tuple((key, replace(key, text=value, x=column)) for key, (_, value) in zip(keys, rows, strict=True))


def sample_charts(n: int, generator: torch.Generator, size: tuple[int, int] = (128, 128)) -> list[Page]:
    """`n` pages of `size` (H, W) as an optician has them: full of glyphs in all heights that mean nothing, many of them
    tiny, with a stamp and a needle among them. What an encoder learns its letters from; nothing is asked on them."""
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    return [_chart(chance, size) for _ in range(n)]


def _chart(chance: random.Random, size: tuple[int, int]) -> Page:
    letters = "".join(chance.choices(ALPHABET, k=3))
    looks = [chance.choice(values) for values in (_HEAVY, _STAMP_HEIGHTS, tuple(INKS), _ANGLES)]
    stamp, needle = Stamp(letters, *looks, 0, 0), Line(chance.choice(DIGITS), chance.choice(_HEAVY), _TINY, PALE, 0, 0)
    taken: list[Pixels] = []
    stamp, needle = (_moved(part, _room(chance, [part.box], taken, size)) for part in (stamp, needle))
    words, y = [], chance.randint(1, 4)
    while y + (height := chance.choice((_TINY, _TINY, *_HEIGHTS))) < size[0]:
        words += [word for word in _row(chance, height, y, size[1]) if not _touches(word.box, taken, size)]
        y += height + height // 4 + chance.randint(1, 3)  # the tail of a Q, and blank
    paper, grain = chance.choice(tuple(PAPERS)), (chance.randrange(TILE), chance.randrange(TILE))
    return Page(size, paper, tuple(words), (), stamp, needle, grain)


def _row(chance: random.Random, height: int, y: int, width: int) -> Iterator[Line]:
    """Words from left to right; of tiny glyphs each stands alone."""
    tiny, x = height == _TINY, chance.randint(1, 9)
    fonts, inks = (_HEAVY, (PALE,)) if tiny else (tuple(FONTS), tuple(INKS))
    while x < width:
        text = chance.choice(DIGITS) if tiny else "".join(chance.choices(ALPHABET, k=chance.randint(1, 4)))
        word = Line(text, chance.choice(fonts), height, chance.choice(inks), x, y)
        yield word
        x = word.box[2] + chance.randint(2, 7)


def _touches(box: Pixels, taken: Sequence[Pixels], size: tuple[int, int]) -> bool:
    """Does a box reach into another, or beyond the page?"""
    over = any(all(box[k] < other[k + 2] and other[k] < box[k + 2] for k in (0, 1)) for other in taken)
    return over or box[2] > size[1] or box[3] > size[0]


def _room(
    chance: random.Random, boxes: Sequence[Pixels], taken: list[Pixels], size: tuple[int, int]
) -> tuple[int, int]:
    """How far to move some boxes so that together they lie free on the page, each place where they do being as likely;
    they take it. `_Full` where there is none."""
    left, top, right, bottom = around(boxes)
    first = (_MARGIN - left, _MARGIN - top)  # the move into the upper left corner
    spare = (size[1] - 2 * _MARGIN - (right - left), size[0] - 2 * _MARGIN - (bottom - top))
    free = np.ones([max(0, more + 1) for more in spare], dtype=bool)  # after so many steps to the right, and down?
    for box, other in product(boxes, taken):
        free[tuple(_blocked(box, other, k, first[k]) for k in (0, 1))] = False
    places = np.argwhere(free)
    if len(places) == 0:
        raise _Full
    x, y = (start + int(step) for start, step in zip(first, places[chance.randrange(len(places))], strict=True))
    taken += [(box[0] + x, box[1] + y, box[2] + x, box[3] + y) for box in boxes]
    return x, y


def _blocked(box: Pixels, other: Pixels, k: int, first: int) -> slice:
    """The steps, after a first move, at which one box is too near another, seen along one side of the page."""
    return slice(max(0, other[k] - _MARGIN - box[k + 2] - first + 1), max(0, other[k + 2] + _MARGIN - box[k] - first))


def _moved(part: Line | Stamp, by: tuple[int, int]) -> Line | Stamp:
    return replace(part, x=part.x + by[0], y=part.y + by[1])
