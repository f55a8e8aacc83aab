"""Tasks: questions on scenes with one answer each, balanced so that guessing from the words alone gets nowhere.

The argument. Colours, shapes, places and backgrounds are drawn symmetrically, so a question that names one and asks for
another has every possible answer equally often. Yes-no questions draw the answer first and the question to fit. Only
counts are lopsided (four of a kind is rarer than one), so those are proposed and kept with a chance that undoes it. No
proposal depends on how another fared: taking the first so many accepted would tie the answers to the size of the scene.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch

from minivlm.data.scenes import (
    BACKGROUND_NAMES,
    CELLS,
    COLOR_NAMES,
    HELD_OUT,
    SHAPE_NAMES,
    SIZE_NAMES,
    Scene,
    Scenes,
    sample_scenes,
)

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
COUNTS = ("one", "two", "three", "four")
YES_NO = ("yes", "no")
PLURALS = {name: name + ("es" if name == "cross" else "s") for name in SHAPE_NAMES}


@dataclass(frozen=True)
class Question:
    """A question with its one-word answer.

    objects  indices, into the scene's objects, of those it is about
    choices  every answer that this question can have in its split; guessing gets `chance`
    novel    it is about a combination of colour and shape that training never shows
    """

    task: str
    text: str
    answer: str
    objects: tuple[int, ...]
    choices: tuple[str, ...]
    novel: bool

    @property
    def chance(self) -> float:
        return 1 / len(self.choices)


class View:
    """One scene as the question makers need it: how often each colour, shape and combination occurs, and what may."""

    def __init__(self, scene: Scene, split: str):
        self.scene, self.objects = scene, scene.objects
        self.colors = Counter(o.color for o in self.objects)
        self.shapes = Counter(o.shape for o in self.objects)
        self.pairs = Counter((o.color, o.shape) for o in self.objects)
        self.allowed = frozenset(product(range(len(COLOR_NAMES)), range(len(SHAPE_NAMES))))
        self.allowed -= HELD_OUT if split == "train" else frozenset()

    def unique(self) -> list[int]:
        """Objects that colour and shape together single out."""
        return [i for i, o in enumerate(self.objects) if self.pairs[o.color, o.shape] == 1]


def _pair_name(pair: tuple[int, int]) -> str:
    return f"{COLOR_NAMES[pair[0]]} {SHAPE_NAMES[pair[1]]}"


def _color(view: View, chance: random.Random) -> Question | None:
    single = [i for i, o in enumerate(view.objects) if view.shapes[o.shape] == 1]
    if not single:
        return None
    i = chance.choice(single)
    o = view.objects[i]
    choices = tuple(name for c, name in enumerate(COLOR_NAMES) if (c, o.shape) in view.allowed)
    return Question(
        "COLOR", f"what color is the {SHAPE_NAMES[o.shape]} ?", COLOR_NAMES[o.color], (i,), choices, o.novel
    )


def _shape(view: View, chance: random.Random) -> Question | None:
    single = [i for i, o in enumerate(view.objects) if view.colors[o.color] == 1]
    if not single:
        return None
    i = chance.choice(single)
    o = view.objects[i]
    choices = tuple(name for s, name in enumerate(SHAPE_NAMES) if (o.color, s) in view.allowed)
    text = f"what shape is the {COLOR_NAMES[o.color]} object ?"
    return Question("SHAPE", text, SHAPE_NAMES[o.shape], (i,), choices, o.novel)


def _count(view: View, chance: random.Random) -> Question | None:
    kind, n = chance.choice(("color", "shape")), chance.randint(1, len(COUNTS))
    counted = view.colors if kind == "color" else view.shapes
    values = [value for value, times in counted.items() if times == n]
    if not values or chance.random() > _count_acceptance()[kind][n - 1]:
        return None
    value = chance.choice(values)
    objects = tuple(i for i, o in enumerate(view.objects) if getattr(o, kind) == value)
    what = f"{COLOR_NAMES[value]} objects" if kind == "color" else PLURALS[SHAPE_NAMES[value]]
    novel = any(view.objects[i].novel for i in objects)
    return Question("COUNT", f"how many {what} are there ?", COUNTS[n - 1], objects, COUNTS, novel)


@cache
def _count_acceptance() -> dict[str, list[float]]:
    """How often to keep a question with answer n: the rarest always, others as much less often as they are more
    frequent.

    The frequencies are those of some scene holding some colour (or shape) exactly n times, measured once on 20,000
    scenes.
    """
    scenes = sample_scenes(20_000, torch.Generator().manual_seed(0))
    acceptance = {}
    for kind, values in (("color", len(COLOR_NAMES)), ("shape", len(SHAPE_NAMES))):
        times = torch.stack([(getattr(scenes, kind) == value).sum(dim=1) for value in range(values)])  # (values, B)
        share = [(times == n).any(dim=0).float().mean() for n in range(1, len(COUNTS) + 1)]
        acceptance[kind] = [float(min(share) / s) for s in share]
    return acceptance


def _exist(view: View, chance: random.Random) -> Question | None:
    answer = chance.choice(YES_NO)
    if answer == "yes":
        i = chance.randrange(len(view.objects))
        pair = (view.objects[i].color, view.objects[i].shape)
    else:
        pair = _absent_pair(view, chance)
    objects = tuple(i for i, o in enumerate(view.objects) if (o.color, o.shape) == pair)
    return Question("EXIST", f"is there a {_pair_name(pair)} ?", answer, objects, YES_NO, pair in HELD_OUT)


def _absent_pair(view: View, chance: random.Random) -> tuple[int, int]:
    """A combination that is not there: half the time one whose colour and shape both are, if there is such a one."""
    absent = view.allowed - set(view.pairs)
    hard = [p for p in absent if p[0] in view.colors and p[1] in view.shapes] if chance.random() < 0.5 else []
    return chance.choice(sorted(hard or absent))


def _loc(view: View, chance: random.Random) -> Question | None:
    unique = view.unique()
    if not unique:
        return None
    i = chance.choice(unique)
    o = view.objects[i]
    return Question("LOC", f"where is the {o.name} ?", CELLS[o.cell], (i,), CELLS, o.novel)


def _spatial(view: View, chance: random.Random) -> Question | None:
    relation, axis = chance.choice((("left of", 0), ("above", 1)))
    unique = view.unique()
    if len(unique) < 2:
        return None
    i, j = chance.sample(unique, 2)
    a, b = view.objects[i], view.objects[j]
    place_a, place_b = ((o.cell % 3, o.cell // 3)[axis] for o in (a, b))
    if place_a == place_b:
        return None
    answer = YES_NO[int(place_a > place_b)]
    return Question("SPATIAL", f"is the {a.name} {relation} the {b.name} ?", answer, (i, j), YES_NO, a.novel or b.novel)


def _nth(view: View, chance: random.Random) -> Question | None:
    i = chance.randrange(len(view.objects))
    o = view.objects[i]
    return Question(
        "NTH", f"what color is the {ORDINALS[i]} object ?", COLOR_NAMES[o.color], (i,), COLOR_NAMES, o.novel
    )


def _bind(view: View, chance: random.Random) -> Question | None:
    if len(view.objects) < 2:
        return None
    i, j = chance.sample(range(len(view.objects)), 2)
    a, b = view.objects[i], view.objects[j]
    true, swapped = [(a.color, a.shape), (b.color, b.shape)], [(b.color, a.shape), (a.color, b.shape)]
    if a.color == b.color or a.shape == b.shape or any(p in view.pairs or p not in view.allowed for p in swapped):
        return None
    answer = chance.choice(YES_NO)
    first, second = true if answer == "yes" else swapped
    text = f"is there a {_pair_name(first)} and a {_pair_name(second)} ?"
    return Question("BIND", text, answer, (i, j), YES_NO, first in HELD_OUT or second in HELD_OUT)


def _coarse(view: View, chance: random.Random) -> Question | None:
    if chance.random() < 0.5:
        answer = BACKGROUND_NAMES[view.scene.background]
        return Question("COARSE", "what color is the background ?", answer, (), BACKGROUND_NAMES, False)
    ranked = view.colors.most_common(2)
    if ranked[0][1] < 2 or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return None
    color = ranked[0][0]
    objects = tuple(i for i, o in enumerate(view.objects) if o.color == color)
    return Question("COARSE", "what is the most common color ?", COLOR_NAMES[color], objects, COLOR_NAMES, False)


_MAKERS: dict[str, Callable[[View, random.Random], Question | None]] = {
    "COLOR": _color, "SHAPE": _shape, "COUNT": _count, "EXIST": _exist, "LOC": _loc,
    "SPATIAL": _spatial, "NTH": _nth, "BIND": _bind, "COARSE": _coarse,
}  # fmt: skip
TASKS = tuple(_MAKERS)
_WEIGHTS = {"COUNT": 6.0, "BIND": 2.5, "SPATIAL": 1.5}  # proposed so much more often, because they apply so much less


def ask(
    scenes: Scenes, generator: torch.Generator, tasks: Sequence[str] = TASKS, per_scene: int = 8, split: str = "train"
) -> list[list[Question]]:
    """For each scene up to `per_scene` questions: that many proposals of random tasks, of which some do not apply.

    `split` is the one the scenes were drawn from: in "train" no question names a held-out combination.
    Raises ValueError for an unknown task.
    """
    unknown = set(tasks) - set(TASKS)
    if unknown or not tasks:
        raise ValueError(f"unknown tasks {sorted(unknown)}; choose some of {', '.join(TASKS)}")
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    weights = [_WEIGHTS.get(task, 1.0) for task in tasks]
    asked = []
    for i in range(len(scenes)):
        view = View(scenes[i], split)
        proposals = (_MAKERS[task](view, chance) for task in chance.choices(tasks, weights, k=per_scene))
        asked.append([question for question in proposals if question is not None])
    return asked


def vocabulary() -> list[str]:
    """Every word that questions, answers and captions can hold, in a fixed order."""
    templates = (
        "what color is the ? what shape is object how many objects are there is a where left of above and "
        "background most common , at on ."
    )
    words = [*templates.split(), *COLOR_NAMES, *SHAPE_NAMES, *PLURALS.values(), *SIZE_NAMES, *BACKGROUND_NAMES]
    return list(dict.fromkeys([*words, *CELLS, *ORDINALS, *COUNTS, *YES_NO]))


def evaluation_bank(
    tasks: Sequence[str] = TASKS, per_task: int = 500, seed: int = 0, split: str = "test"
) -> tuple[Scenes, list[list[Question]]]:
    """`per_task` fixed scenes with, for each task, 0.6 to 1.6 times as many questions on them; always the same."""
    generator = torch.Generator().manual_seed(90_000_000 + seed)
    scenes = sample_scenes(per_task, generator, split)
    return scenes, ask(scenes, generator, tasks, per_scene=round(2.6 * len(tasks)), split=split)


def fingerprint(scenes: Scenes, questions: list[list[Question]]) -> str:
    """SHA-256 over everything that a bank holds: equal fingerprints, equal evaluations."""
    digest = hashlib.sha256()
    for i, asked in enumerate(questions):
        digest.update(repr((scenes[i], asked)).encode())
    return digest.hexdigest()
