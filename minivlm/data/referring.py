"""Referring: phrases and the places that they mean, as dialogs in Kosmos-2's grounded text (`language.grounding`).

Three things are asked of a scene: where a phrase is ("locate"), what is in a box ("name"), and to tell it all, each
phrase with its box ("tell"). Boxes are tight, as they are at 64 pixels; only what a phrase singles out is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minivlm.data.boxes import Box
from minivlm.data.scenes import Scene, Scenes, boxes
from minivlm.data.tasks import View
from minivlm.language.grounding import ground, grounded

SIZE = 64  # pixels a side
Turn = tuple[str, str]  # question and answer


@dataclass(frozen=True)
class Referent:
    """An object that its colour and shape single out: the phrase for it, its whole name, its box, and whether training
    never shows that colour and shape together."""

    phrase: str
    name: str
    box: Box
    novel: bool


def referents(scenes: Scenes) -> list[list[Referent]]:
    """Of each scene all objects that can be referred to, in reading order."""
    found = (boxes(scenes, SIZE).cpu() / SIZE).tolist()  # (B, 9, 4)
    return [_referents(scenes[i], edges) for i, edges in enumerate(found)]


def _referents(scene: Scene, edges: Sequence[Sequence[float]]) -> list[Referent]:
    some = ((scene.objects[i], edges[i]) for i in View(scene, "test").unique())
    return [Referent(f"the {o.name}", f"a {o.describe()}", tuple(box), o.novel) for o, box in some]


def locate(referent: Referent, side: int) -> Turn:
    """Where is it? The question opens a box; the answer is the box's two words, and the mark that shuts it."""
    words = ground(referent.phrase, [referent.box], side).partition("<object>")[2]
    return f"where is {referent.phrase} ? <object>", words


def name(referent: Referent, side: int) -> Turn:
    """What is in this box?"""
    return f"{ground('it', [referent.box], side)} is", referent.name


def tell(found: Sequence[Referent], side: int) -> Turn:
    """A caption of what can be referred to, each with its box."""
    return "", " , ".join(ground(referent.name, [referent.box], side) for referent in found) + " ."


def said_box(answer: str, side: int) -> Box | None:
    """The box that an answer to `locate` gives; None unless it is two places, the second not above or left of the
    first, and the mark that shuts a box."""
    found = grounded(f"<object>{answer}", side)
    if len(found) != 1 or len(found[0][1]) != 1:
        return None
    left, top, right, bottom = found[0][1][0]
    return (left, top, right, bottom) if left < right and top < bottom else None


def iou(one: Box, other: Box) -> float:
    """Intersection over union: the area that two boxes share, as a share of the area that either covers."""
    shared = _area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
