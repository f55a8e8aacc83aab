"""An arena: every two designs meet once for each seed and question, and who is surer of the right answer wins.

Wins by exact match, ties counting half, would be accuracy drawn again; so battles are fought with margins. Ratings are
Bradley and Terry's (1952), by maximum likelihood over all battles at once: no order, no step size. How sure they are,
`ratings.py` says; Elo's, updated battle by battle, are here to show that order matters to them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

MEAN = 1000.0
A_LOGIT = 400 / math.log(10)  # points: 400 more are ten wins for each loss
ELO_STEP = 4.0  # Chatbot Arena's (2023); chess takes 10 to 40


@dataclass(frozen=True)
class Margins:
    """How much likelier runs found the right answers than wrong ones.

    tasks  the task of each question
    of     by design, (seeds, questions), in nats: log-probability of the right answer, less that of its rival. Row s
           is of the same seed for all designs, column q the same question. Infinite ones may be; NaN may not
    """

    tasks: Sequence[str]
    of: Mapping[str, Float[np.ndarray | Tensor, "seeds questions"]]

    def __post_init__(self):
        if len(self.of) < 2:
            raise ValueError(f"a battle needs two designs, got {', '.join(self.of) or 'none'}")
        for name, margins in self.of.items():
            if not isinstance(margins, np.ndarray | Tensor):
                raise TypeError(
                    f"margins must be arrays (seeds, questions); those of {name} are a {type(margins).__name__}"
                )
        shapes = {name: tuple(margins.shape) for name, margins in self.of.items()}
        first = next(iter(shapes.values()))
        if set(shapes.values()) != {first} or len(first) != 2 or not first[0] or first[1] != len(self.tasks):
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"margins must be (seeds, {len(self.tasks)}), of the same seeds for all; got {told}")
        if not len(self.tasks):
            raise ValueError("margins of no questions: evaluate the designs on one or more")
        empty = [name for name, margins in zip(self.of, self.stacked, strict=True) if np.isnan(margins).any()]
        if empty:
            raise ValueError(f"margins of {', '.join(empty)} hold NaN: leave out what failed, for all designs alike")

    @property
    def designs(self) -> tuple[str, ...]:
        return tuple(self.of)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The tasks that there are, each once."""
        return tuple(dict.fromkeys(self.tasks))

    @property
    def stacked(self) -> Float[np.ndarray, "designs seeds questions"]:
        found = (m.detach().double().cpu().numpy() if isinstance(m, Tensor) else m for m in self.of.values())
        return np.stack([np.asarray(margins, dtype=float) for margins in found])

    @property
    def weights(self) -> Float[np.ndarray, " questions"]:
        """What a question counts, in all 1: each task weighs the same, however many questions it has."""
        many = Counter(self.tasks)
        return np.array([1 / (len(many) * many[task]) for task in self.tasks])

    def only(self, task: str) -> Margins:
        """Those of one task; ValueError for one that there is not."""
        if task not in self.tasks:
            raise ValueError(f"no questions of task {task!r}; there are {', '.join(self.kinds)}")
        there = [number for number, other in enumerate(self.tasks) if other == task]
        return Margins([task] * len(there), {name: margins[:, there] for name, margins in self.of.items()})

    def between(self, first: str, second: str) -> Margins:
        """Those of two designs; ValueError for one that there is not, or for one and itself."""
        if first == second or not {first, second} <= self.of.keys():
            raise ValueError(f"no battle of {first} and {second}; choose two of {', '.join(self.of)}")
        return Margins(self.tasks, {name: self.of[name] for name in (first, second)})


def points(margins: Margins) -> Float[np.ndarray, "designs seeds questions"]:
    """How many of the others each design beats, for each seed and question; a tie is half a win."""
    found = margins.stacked
    return np.stack([(own > found).sum(axis=0) + ((own == found).sum(axis=0) - 1) / 2 for own in found])


def win_shares(margins: Margins) -> Float[np.ndarray, "designs designs"]:
    """The share of its battles that a design (row) wins against another (column); half against itself."""
    found, weights = margins.stacked, margins.weights
    won = [((own > found) + (own == found) / 2).mean(axis=1) @ weights for own in found]
    return np.stack(won)


def bradley_terry(points: Float[np.ndarray, "*batch designs"], battles: float) -> Float[np.ndarray, "*batch designs"]:
    """The likeliest ratings, in points with mean 1000, where design i beats j with the odds 10 ** ((i - j) / 400).

    `points` are sums of win shares over all others, of so many `battles` a pair: as every two meet equally often, the
    likelihood depends on nothing else, and is greatest where expected points are those made. A design that wins, or
    loses, all would be rated infinite: so each pair is taken to have fought one battle more, which was drawn.
    ValueError where such points cannot come of battles.
    """
    others = points.shape[-1] - 1
    if others < 1 or not np.allclose(points.sum(axis=-1), (others + 1) * others / 2) or not battles > 0:
        raise ValueError(f"win shares of {others + 1} designs and {battles} battles a pair cannot sum up to {points}")
    points = (battles * points + others / 2) / (battles + 1)
    logits = np.zeros(points.shape)
    for _ in range(100):  # Newton's steps; from where all are equal, some ten are enough, and thirty for the surest
        shares = _sigmoid(logits[..., :, None] - logits[..., None, :])
        curvature = -shares * (1 - shares)
        own = np.arange(others + 1)
        curvature[..., own, own] -= curvature.sum(axis=-1)
        slope = points - (shares.sum(axis=-1) - 0.5)
        # all logits may rise together: adding a constant to the curvature holds their mean where it is
        step = np.linalg.solve(curvature + 1, slope[..., None])[..., 0]
        logits = logits + step - step.mean(axis=-1, keepdims=True)
        if np.abs(step).max() < 1e-10:
            break
    return MEAN + A_LOGIT * logits


def expected_shares(ratings: Float[np.ndarray, "*batch designs"]) -> Float[np.ndarray, "*batch designs designs"]:
    """The share of battles that each design (row) should win against each other (column), by their ratings."""
    return _sigmoid((ratings[..., :, None] - ratings[..., None, :]) / A_LOGIT)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def cycles(shares: Float[np.ndarray, "designs designs"]) -> list[tuple[int, int, int]]:
    """Every three of which the first wins more often than not against the second, it against the third, and that
    against the first: what no single number a design can tell."""
    found = []
    for a, b, c in combinations(range(len(shares)), 3):
        for x, y, z in ((a, b, c), (a, c, b)):
            if min(shares[x, y], shares[y, z], shares[z, x]) > 0.5:
                found.append((x, y, z))
    return found


class Battles(NamedTuple):
    """Battles one by one: which two `designs`, by number, and what the first got of it (1, half or 0)."""

    pairs: Int[np.ndarray, "battles 2"]
    scores: Float[np.ndarray, " battles"]
    designs: int


def battles(margins: Margins) -> Battles:
    """All battles of all pairs, seeds and questions."""
    found = margins.stacked.reshape(len(margins.designs), -1)
    pairs = np.array(list(combinations(range(len(found)), 2)))
    first, second = found[pairs[:, 0]], found[pairs[:, 1]]
    scores = (first > second) + (first == second) / 2
    return Battles(pairs.repeat(found.shape[1], axis=0), scores.flatten(), len(found))


def elo(battles: Battles, orders: Int[np.ndarray, "orders battles"]) -> Float[np.ndarray, "orders designs"]:
    """Elo's ratings after these battles in each of some orders: both sides move by what the result was beyond
    expectation. ValueError for an order that leaves a battle out or fights one twice."""
    many = len(battles.scores)
    if orders.shape[1:] != (many,) or (np.sort(orders, axis=1) != np.arange(many)).any():
        raise ValueError(f"an order names each of {many} battles once, got orders of {orders.shape[1]} numbers")
    ratings = np.full((len(orders), battles.designs), MEAN)
    row, (first, second) = np.arange(len(orders)), battles.pairs.T
    for now in orders.T:  # the next battle of each order
        one, other = (row, first[now]), (row, second[now])
        surprise = battles.scores[now] - 1 / (1 + 10 ** ((ratings[other] - ratings[one]) / 400))
        ratings[one] += ELO_STEP * surprise
        ratings[other] -= ELO_STEP * surprise
    return ratings


def shuffled_elo(battles: Battles, times: int, seed: int = 0) -> Float[np.ndarray, "times designs"]:
    """Elo's ratings after the same battles, in so many orders. 100,000 battles take a second or more, so where there
    are many designs, look at a task."""
    chance = np.random.default_rng(seed)
    return elo(battles, np.stack([chance.permutation(len(battles.scores)) for _ in range(times)]))
