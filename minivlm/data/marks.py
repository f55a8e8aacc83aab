"""Marks: a box, an arrow or a point drawn into a picture, and questions that only the mark makes clear, "what color is
the object at the arrow ?".

One object is marked, in a colour that no object has. Each colour (or shape) that the scene holds is as likely to be the
marked one's, and there are two or more: whoever overlooks the mark must guess.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.data.boxes import Box
from minivlm.data.scenes import COLOR_NAMES, COLORS, SHAPE_NAMES, Scene, Scenes, boxes
from minivlm.data.tasks import Question

_PLACES = {
    "box": ("object in the box", "marked object"),
    "arrow": ("object at the arrow", "marked object"),
    "point": ("object at the mark", "marked object"),
}
MARKS = tuple(_PLACES)
_NAMES = {"color": COLOR_NAMES, "shape": SHAPE_NAMES}


@dataclass(frozen=True)
class Mark:
    """One of `MARKS`, in one of `COLORS`, at a box. ValueError for another, or a box that is none."""

    kind: str
    color: str
    box: Box

    def __post_init__(self):
        if self.kind not in MARKS:
            raise ValueError(f"unknown mark {self.kind!r}; choose one of {', '.join(MARKS)}")
        if self.color not in COLORS:
            raise ValueError(f"unknown color {self.color!r}; choose one of {', '.join(COLORS)}")
        left, top, right, bottom = self.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"a box is (left, top, right, bottom) as shares of the picture's sides, got {self.box}")


def ask_marks(
    scenes: Scenes, generator: torch.Generator, size: int | tuple[int, int] = 64
) -> tuple[list[Mark], list[list[Question]]]:
    """For each scene a mark, at an object's box as it is at `size`, (H, W) or one side in pixels, and a question on the
    object; none where all have the colour (or shape) asked for, which could be answered without the mark."""
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    height, width = (size, size) if isinstance(size, int) else size
    found = (boxes(scenes, size).cpu() / torch.tensor([width, height, width, height])).tolist()  # (B, 9, 4)
    marks, questions = [], []
    for i, edges in enumerate(found):
        scene, kind = scenes[i], chance.choice(MARKS)
        question, needed = _question(scene, kind, chance)
        there = {o.color for o in scene.objects}
        color = chance.choice([name for c, name in enumerate(COLOR_NAMES) if c not in there])
        marks.append(Mark(kind, color, tuple(edges[question.objects[0]])))
        questions.append([question] * needed)
    return marks, questions


def _question(scene: Scene, kind: str, chance: random.Random) -> tuple[Question, bool]:
    """A question on an object to be marked, and whether the scene has another answer to it."""
    what = chance.choice(tuple(_NAMES))
    values = [getattr(o, what) for o in scene.objects]
    value = chance.choice(sorted(set(values)))
    i = chance.choice([i for i, v in enumerate(values) if v == value])
    text, names = f"what {what} is the {chance.choice(_PLACES[kind])} ?", _NAMES[what]
    return Question("MARK", text, names[value], (i,), names, scene.objects[i].novel), len(set(values)) > 1


def draw_marks(images: Float[Tensor, "B 3 H W"], marks: Sequence[Mark]) -> Float[Tensor, "B 3 H W"]:
    """The pictures, each with its mark, anti-aliased. ValueError for another number of marks than of pictures."""
    if len(marks) != len(images):
        raise ValueError(f"got {len(marks)} marks for {len(images)} pictures: give each picture one")
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device) + 0.5)[:, None]  # (H, 1)
    x = torch.arange(width, device=images.device) + 0.5  # (W,)
    sides, drawn = images.new_tensor([width, height, width, height]), images.clone()
    for kind, distance in _DISTANCES.items():
        rows = [row for row, mark in enumerate(marks) if mark.kind == kind]
        if rows:
            edges = (images.new_tensor([marks[row].box for row in rows]) * sides)[..., None, None]  # (n, 4, 1, 1)
            ink = images.new_tensor([COLORS[marks[row].color] for row in rows])[..., None, None]  # (n, 3, 1, 1)
            cover = (0.5 - distance(x, y, edges)).clamp(0, 1)[:, None]  # (n, 1, H, W)
            drawn[rows] = torch.lerp(images[rows], ink, cover)
    return drawn


def _pen(x: Tensor, y: Tensor) -> tuple[int, float]:
    """The shorter side of a picture, and how thick lines in it are, in pixels."""
    side = min(len(x), len(y))
    return side, max(1.5, side / 48)


def _outline(x: Tensor, y: Tensor, edges: Float[Tensor, "n 4 1 1"]) -> Float[Tensor, "n H W"]:
    """Pixels to a rectangle just outside the box, or within the picture's edge where the box has no outside."""
    _, thick = _pen(x, y)
    left, top = (edges[:, :2] - thick).clamp(min=thick / 2).unbind(dim=1)
    right, bottom = ((edges[:, k] + thick).clamp(max=n - thick / 2) for k, n in ((2, len(x)), (3, len(y))))
    beyond = torch.maximum(torch.maximum(left - x, x - right), torch.maximum(top - y, y - bottom))
    return beyond.abs() - thick / 2


def _arrow(x: Tensor, y: Tensor, edges: Float[Tensor, "n 4 1 1"]) -> Float[Tensor, "n H W"]:
    """Pixels to an arrow on that side of the box where the picture has most room, its tip at the middle of the side. It
    reaches into a box that leaves too little."""
    side, thick = _pen(x, y)
    left, top, right, bottom = edges.unbind(dim=1)  # (n, 1, 1) each
    rooms = torch.stack([left, top, len(x) - right, len(y) - bottom])  # (4, n, 1, 1)
    room, way = rooms.max(dim=0)
    out_x, out_y = edges.new_tensor([[-1, 0], [0, -1], [1, 0], [0, 1]])[way].unbind(dim=-1)  # away from the box
    length, head = side / 6, side / 12
    reach = torch.minimum(room - length, torch.ones_like(room))  # from the box's edge to the tip
    tip_x = (left + right + out_x * (right - left)) / 2 + out_x * reach
    tip_y = (top + bottom + out_y * (bottom - top)) / 2 + out_y * reach
    along = (x - tip_x) * out_x + (y - tip_y) * out_y
    across = ((x - tip_x) * out_y + (y - tip_y) * out_x).abs()
    wedge = torch.maximum(0.8 * across - 0.6 * along, along - head)
    shaft = torch.maximum(across - thick / 2, torch.maximum(head / 2 - along, along - length))
    return torch.minimum(wedge, shaft)


def _point(x: Tensor, y: Tensor, edges: Float[Tensor, "n 4 1 1"]) -> Float[Tensor, "n H W"]:
    """Pixels to a disc in the middle of the box."""
    side, _ = _pen(x, y)
    left, top, right, bottom = edges.unbind(dim=1)
    return torch.hypot(x - (left + right) / 2, y - (top + bottom) / 2) - max(1.5, side / 32)


_DISTANCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "box": _outline, "arrow": _arrow, "point": _point,
}  # fmt: skip
