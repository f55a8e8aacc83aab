"""Watching: questions on videos with one answer each, which no guess gets, and which frames are enough to answer.

MOVE, ORDER and FLASH ask what only the order of the frames tells: played backwards, the same frames have another
answer. COUNT takes all frames, in any order. DETAIL asks about a certain one, and COLOR is to be seen in some.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch

from minivlm.data.scenes import COLOR_NAMES, SHAPE_NAMES, SIZES
from minivlm.data.tasks import COUNTS, ORDINALS, YES_NO
from minivlm.data.videos import FLASHER, HEADINGS, MOVERS, VISITORS, Videos, sample_videos

_WAYS = tuple(HEADINGS)
_RADII = tuple(share / 3 for share in SIZES.values())  # in sides of the picture
_ROW_MARGIN = 0.03  # of the picture's sides: nearer to the border of two rows, an object could be in either


@dataclass(frozen=True)
class VideoQuestion:
    """A question with its one-word answer.

    frames   numbers, from 0, of frames that are enough to answer it
    choices  every answer that this question can have; guessing gets `chance`
    """

    task: str
    text: str
    answer: str
    frames: tuple[int, ...]
    choices: tuple[str, ...]
    novel: ClassVar[bool] = False  # training shows whatever can be asked about

    @property
    def chance(self) -> float:
        return 1 / len(self.choices)


class View:
    """One video as the question makers need it: by frame, the numbers of the objects that are there and what they
    are."""

    def __init__(self, beat_of: list[int], shape, color, size, x, y, heading, beat, flash):
        self.beat_of, self.all = beat_of, tuple(range(len(beat_of)))
        self.shape, self.color, self.size, self.x, self.y = shape, color, size, x, y  # by frame, by column
        self.heading, self.beat = heading, beat  # by column
        self.flashes = [color for color in flash if color >= 0]
        self.visitors = [column for column in VISITORS if beat[column] >= 0]

    @classmethod
    def of_each(cls, videos: Videos) -> Iterator[View]:
        shown = videos.shown()
        columns = [getattr(shown, f.name).tolist() for f in fields(shown)]
        columns += [value.tolist() for value in (videos.heading, videos.beat, videos.flash)]
        beat_of = videos.beat_of().tolist()
        return (cls(beat_of, *values) for values in zip(*columns, strict=True))

    def there(self, frame: int) -> list[int]:
        return [column for column, shape in enumerate(self.shape[frame]) if shape >= 0]

    def name(self, column: int) -> str:
        """Of an object: its shape, which no other of its video has."""
        return next(SHAPE_NAMES[shapes[column]] for shapes in self.shape if shapes[column] >= 0)

    def apart(self, frame: int, column: int) -> bool:
        """Is it neither hidden by another object of that frame, nor hides one?"""
        x, y, size = (values[frame] for values in (self.x, self.y, self.size))
        others = (other for other in self.there(frame) if other != column)
        return all(
            max(abs(x[other] - x[column]), abs(y[other] - y[column])) > _RADII[size[other]] + _RADII[size[column]]
            for other in others
        )

    def in_order(self, frame: int) -> list[int]:
        """The objects of a frame in reading order, by rows of a third of its height; [] where that is not clear."""
        there, x, y = self.there(frame), self.x[frame], self.y[frame]
        clear = all(self.apart(frame, c) and abs(y[c] * 3 - round(y[c] * 3)) > 3 * _ROW_MARGIN for c in there)
        return sorted(there, key=lambda column: (int(y[column] * 3), x[column])) if clear else []


def _color(view: View, chance: random.Random) -> VideoQuestion | None:
    """Not of the one that flashes, which has several."""
    frame = chance.choice(view.all)
    seen = [column for column in view.there(frame) if column != FLASHER and view.apart(frame, column)]
    if not seen:
        return None
    column = chance.choice(seen)
    text, answer = f"what color is the {view.name(column)} ?", COLOR_NAMES[view.color[frame][column]]
    return VideoQuestion("COLOR", text, answer, (frame,), COLOR_NAMES)


def _move(view: View, chance: random.Random) -> VideoQuestion | None:
    mover = chance.choice([column for column in MOVERS if view.shape[0][column] >= 0])
    free = [view.apart(frame, mover) for frame in view.all]
    enough = [(a, b) for a, b in zip(view.all, view.all[1:], strict=False) if free[a] and free[b]]
    if not enough:
        return None
    answer = _WAYS[view.heading[mover]]
    return VideoQuestion("MOVE", f"which way does the {view.name(mover)} move ?", answer, enough[0], _WAYS)


def _order(view: View, chance: random.Random) -> VideoQuestion | None:
    if len(view.visitors) < 2:
        return None
    a, b = chance.sample(view.visitors, 2)
    beats = (view.beat[a], view.beat[b])
    frames = tuple(frame for frame in view.all if view.beat_of[frame] in beats)
    text = f"does the {view.name(a)} appear before the {view.name(b)} ?"
    return VideoQuestion("ORDER", text, YES_NO[int(beats[0] > beats[1])], frames, YES_NO)


def _flash(view: View, chance: random.Random) -> VideoQuestion | None:
    """Not about the middle one of three, which is the same when played backwards."""
    count = len(view.flashes)
    numbers = [n for n in range(count) if 2 * n != count - 1]
    if not numbers:
        return None
    number = chance.choice(numbers)
    text, answer = f"what color is the {ORDINALS[number]} flash ?", COLOR_NAMES[view.flashes[number]]
    return VideoQuestion("FLASH", text, answer, view.all, COLOR_NAMES)


def _count(view: View, chance: random.Random) -> VideoQuestion | None:
    if chance.random() < 0.5:
        text, count = "how many flashes are there ?", len(view.flashes)
    else:
        text, count = "how many objects appear ?", len(view.visitors)
    if not count:
        return None
    return VideoQuestion("COUNT", text, COUNTS[count - 1], view.all, COUNTS)


def _detail(view: View, chance: random.Random) -> VideoQuestion | None:
    frame = chance.choice(view.all)
    order = view.in_order(frame)
    if not order:
        return None
    number = chance.randrange(len(order))
    text = f"what color is the {ORDINALS[number]} object in frame {' '.join(str(frame + 1))} ?"
    return VideoQuestion("DETAIL", text, COLOR_NAMES[view.color[frame][order[number]]], (frame,), COLOR_NAMES)


_MAKERS: dict[str, Callable[[View, random.Random], VideoQuestion | None]] = {
    "COLOR": _color, "MOVE": _move, "ORDER": _order, "FLASH": _flash, "COUNT": _count, "DETAIL": _detail,
}  # fmt: skip
VIDEO_TASKS = tuple(_MAKERS)
_WEIGHTS = {"DETAIL": 3.0}  # proposed so much more often, because it applies so much less


def ask_videos(
    videos: Videos, generator: torch.Generator, tasks: Sequence[str] = VIDEO_TASKS, per_video: int = 8
) -> list[list[VideoQuestion]]:
    """For each video up to `per_video` different questions: that many proposals of random tasks, of which some do not
    apply and some come twice. ValueError for an unknown task."""
    unknown = set(tasks) - set(VIDEO_TASKS)
    if unknown or not tasks:
        raise ValueError(f"unknown tasks {sorted(unknown)}; choose some of {', '.join(VIDEO_TASKS)}")
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    weights = [_WEIGHTS.get(task, 1.0) for task in tasks]
    asked = []
    for view in View.of_each(videos):
        proposals = (_MAKERS[task](view, chance) for task in chance.choices(tasks, weights, k=per_video))
        asked.append(list(dict.fromkeys(question for question in proposals if question is not None)))
    return asked


def video_bank(frames: int, per_task: int = 500, seed: int = 0) -> tuple[Videos, list[list[VideoQuestion]]]:
    """`per_task` fixed videos with, for each task, about as many questions on them; always the same, at any number of
    frames up to the frame that DETAIL asks about."""
    generator = torch.Generator().manual_seed(97_000_000 + seed)
    videos = sample_videos(per_task, generator, frames)
    return videos, ask_videos(videos, generator, per_video=2 * len(VIDEO_TASKS))
