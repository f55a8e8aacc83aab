"""Episodes: some cases of a rule that is made up on the spot, and the next case can be told from those before it.

Two words that mean nothing stand for two colours, or for two shapes, drawn anew for each episode: "dax" is what is
red, "wug" what is blue. Nothing learned earlier helps with the first case, a coin toss. One case narrows the rule down,
a few settle it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from minivlm.data.scenes import COLOR_NAMES, SHAPE_NAMES, Scenes

LABELS = ("dax", "wug", "blick", "fep", "zup", "kiki", "bouba", "toma", "lorp", "mip")
_VALUES = {"color": len(COLOR_NAMES), "shape": len(SHAPE_NAMES)}


@dataclass(frozen=True)
class Episodes:
    """B episodes of C cases.

    scene   (B, C), which scene of a bank of single objects each case shows
    answer  (B, C), 0 or 1: which of its episode's two labels is right
    labels  the two labels of each episode
    """

    scene: Int[Tensor, "B C"]
    answer: Int[Tensor, "B C"]
    labels: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Episodes:
        return Episodes(self.scene[rows], self.answer[rows], self.labels[rows])


def sample_episodes(scenes: Scenes, n: int, cases: int, generator: torch.Generator) -> Episodes:
    """`n` episodes on `scenes` of one object each. ValueError if some scene has more, or fewer than two values of an
    attribute occur."""
    if (scenes.shape[:, 1:] >= 0).any():
        raise ValueError("an episode shows one object a picture: sample scenes with max_objects=1")
    if n < 1 or cases < 1:
        raise ValueError(f"need at least one episode of one case, got {n} of {cases}")
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    where = {name: _by_value(getattr(scenes, name)[:, 0], count) for name, count in _VALUES.items()}
    if min(map(len, where.values())) < 2:
        raise ValueError("too few scenes: a rule needs two colours, or two shapes, to tell apart")
    rows = [_episode(where[chance.choice(tuple(where))], cases, chance) for _ in range(n)]
    scene, answer = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Episodes(scene, answer, tuple(tuple(chance.sample(LABELS, 2)) for _ in range(n)))


def _by_value(values: Int[Tensor, " S"], count: int) -> list[list[int]]:
    """The scenes that have each value, for those values that occur."""
    found = [(values == value).nonzero().flatten().tolist() for value in range(count)]
    return [scenes for scenes in found if scenes]


def _episode(scenes: list[list[int]], cases: int, chance: random.Random) -> tuple[list[int], list[int]]:
    """The scene and the answer of each case, for two of the values, each case drawn for itself."""
    two = chance.sample(scenes, 2)
    answers = [chance.randrange(2) for _ in range(cases)]
    return [chance.choice(two[answer]) for answer in answers], answers
