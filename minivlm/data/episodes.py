"""Episodes: a picture is called something that it is not, and the shots before it say what.

"a red X , a blue Y . what color is the Z ?": X, Y and Z are pictures, whose own colours have no say. If X is a circle
and Y a square, circles are called red here and squares blue, so what Z is called is told by its shape, and by the
shots. The other rule has it the other way round: a picture's colour decides which shape it is called. Which two words
stand for which two values is drawn anew for each episode, so without shots it is a guess.

The labels are words that the decoder knows, where it is used to read them: an episode told in words, "a red circle , a
blue square . what color is the circle ?", it can follow. Whether it can follow pictures is a matter of the design.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minivlm.data.scenes import COLOR_NAMES, SHAPE_NAMES, Scenes

RULES = ("color", "shape")  # what is asked for; the other of the two decides
_NAMES = {"color": COLOR_NAMES, "shape": SHAPE_NAMES}
_DECIDES = {"color": "shape", "shape": "color"}


@dataclass(frozen=True)
class Episodes:
    """B episodes of S shots and a question.

    rule    of all of them, one of `RULES`
    scene   (B, S + 1), which scene of a bank of single objects each case shows; the last is asked about
    answer  (B, S + 1), 0 or 1: which of its episode's two labels a case is given
    labels  the two labels of each episode
    """

    rule: str
    scene: Int[Tensor, "B cases"]
    answer: Int[Tensor, "B cases"]
    labels: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Episodes:
        return Episodes(self.rule, self.scene[rows], self.answer[rows], self.labels[rows])

    def right(self) -> list[str]:
        """The answer of each episode."""
        return [pair[answer] for pair, answer in zip(self.labels, self.answer[:, -1].tolist(), strict=True)]

    def wrong(self) -> list[str]:
        """The other label of each episode."""
        return [pair[1 - answer] for pair, answer in zip(self.labels, self.answer[:, -1].tolist(), strict=True)]


def sample_episodes(scenes: Scenes, n: int, shots: int, rule: str, generator: torch.Generator) -> Episodes:
    """`n` episodes on `scenes` of one object each. ValueError if some scene has more, or fewer than two values of what
    decides occur."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; choose one of {', '.join(RULES)}")
    if (scenes.shape[:, 1:] >= 0).any():
        raise ValueError("an episode shows one object a picture: sample scenes with max_objects=1")
    if n < 1 or shots < 0:
        raise ValueError(f"need at least one episode and no fewer than 0 shots, got {n} of {shots}")
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    decides = _DECIDES[rule]
    where = _by_value(getattr(scenes, decides)[:, 0], len(_NAMES[decides]))
    if len(where) < 2:
        raise ValueError(f"too few scenes: this rule needs two values of {decides} to tell apart")
    rows = [_cases(where, shots + 1, chance) for _ in range(n)]
    scene, answer = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Episodes(rule, scene, answer, tuple(tuple(chance.sample(_NAMES[rule], 2)) for _ in range(n)))


def _by_value(values: Int[Tensor, " S"], count: int) -> list[list[int]]:
    """The scenes that have each value, for those values that occur."""
    found = [(values == value).nonzero().flatten().tolist() for value in range(count)]
    return [scenes for scenes in found if scenes]


def _cases(scenes: list[list[int]], cases: int, chance: random.Random) -> tuple[list[int], list[int]]:
    """The scene and the answer of each case, for two of the values, each case drawn for itself."""
    two = chance.sample(scenes, 2)
    answers = [chance.randrange(2) for _ in range(cases)]
    return [chance.choice(two[answer]) for answer in answers], answers


def tell(episodes: Episodes, scenes: Scenes, told: Bool[Tensor, "B cases"]) -> list[str]:
    """Each episode in words up to its answer, with an `<image>` for each case, or where it is `told` the word for what
    decides."""
    return [_tell(episodes, row, scenes, words) for row, words in enumerate(told.tolist())]


def _tell(episodes: Episodes, row: int, scenes: Scenes, told: list[bool]) -> str:
    labels, decides = episodes.labels[row], _DECIDES[episodes.rule]
    values = getattr(scenes, decides)[episodes.scene[row], 0].tolist()
    *shown, asked = (_NAMES[decides][v] if word else "<image>" for v, word in zip(values, told, strict=True))
    called = [labels[answer] for answer in episodes.answer[row].tolist()]
    if episodes.rule == "color":
        shot, question = "a {called} {it}", f"what color is the {asked} ?"
    else:
        shot, question = "a {it} {called}", f"what shape is the {asked} object ?"
    shots = [shot.format(called=label, it=it) for label, it in zip(called, shown, strict=False)]
    return f"{' , '.join(shots)} . {question}" if shots else question
