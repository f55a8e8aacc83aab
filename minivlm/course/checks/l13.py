"""Exercises of lesson 13: the front that nothing beats, what a rating promises, a choice with data, and a connector of
one's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minivlm.arena import expected_shares
from minivlm.course.checks import compare, draw
from minivlm.course.exercise import ExerciseSpec
from minivlm.figures.frontier import Point, front
from minivlm.runtime import pick_device
from minivlm.uses import Entry, Use, judge

STUDENT = 4.303  # 95 % of Student's t with two degrees of freedom: three seeds


def on_front(cost: Tensor, right: Tensor) -> Tensor:
    """The package's front: which of n designs (n,) no other beats."""
    points = {str(n): Point(float(c), float(r), 0.0) for n, (c, r) in enumerate(zip(cost, right, strict=True))}
    best = front(points)
    return torch.tensor([n in best for n in points], device=cost.device)


def check_front(answer: Callable) -> None:
    device = pick_device()
    cost = torch.tensor([3.0, 1.0, 2.0, 2.0, 4.0, 4.0, 5.0, 1.0, 3.0], device=device)
    right = torch.tensor([0.5, 0.3, 0.4, 0.4, 0.8, 0.6, 0.8, 0.2, 0.35], device=device)
    cheaper, better = cost[:, None] > cost, right[:, None] < right  # (n, n): the other is ...
    no_dearer, no_worse = cost[:, None] >= cost, right[:, None] <= right
    classics = {
        "Only what is worse in BOTH is taken away: as cheap and less right, or as right and dearer, is beaten as well.":
            ~(cheaper & better).any(dim=1),
        "Equals beat each other, and everything itself: to beat, another must be truly better in one of both.":
            ~(no_dearer & no_worse).any(dim=1),
        "Of two equals one is gone: neither beats the other, so both stay.": _first_of_equals(cost, right),
        "Only the most right is kept: a cheaper one that is less right is on the front, too.": right == right.max(),
        "Only the cheapest is kept: a dearer one that is more right is on the front, too.": cost == cost.min(),
        "The price has the wrong sign: cheaper is better.": on_front(-cost, right),
        "The accuracy has the wrong sign: more right is better.": on_front(cost, -right),
        "It says which are beaten; asked is which are not.": ~on_front(cost, right),
    }  # fmt: skip
    compare(answer(cost, right), on_front(cost, right), classics)


def _first_of_equals(cost: Tensor, right: Tensor) -> Tensor:
    seen = [(float(c), float(r)) for c, r in zip(cost, right, strict=True)]
    first = torch.tensor([seen.index(pair) == n for n, pair in enumerate(seen)], device=cost.device)
    return on_front(cost, right) & first


def expected(ratings: Tensor) -> Tensor:
    """The package's: ratings (n,) in points to the share that each (row) should win against each other (column)."""
    shares = expected_shares(ratings.detach().cpu().numpy())
    return torch.tensor(shares, dtype=ratings.dtype, device=ratings.device)


def check_expected(answer: Callable) -> None:
    ratings = 1000 + 200 * draw(5, seed=131)
    gaps = (ratings[:, None] - ratings) / 400
    powers = 10 ** (ratings / 400)
    classics = {
        "Row and column are exchanged: the row's rating less the column's.": expected(ratings).T,
        "The base is e: with 400 points more the odds are TEN to one.": gaps.sigmoid(),
        "These are the odds: of odds o the share is o / (1 + o).": 10**gaps,
        "Points are taken as they are: divide the difference by 400.": (400 * math.log(10) * gaps).sigmoid(),
        "Ratings are divided by one another: it is 10 ** (rating / 400) that is.":
            ratings[:, None] / (ratings[:, None] + ratings),
        "A softmax over all: asked is each pair alone.": (powers / powers.sum()).expand(5, 5),
    }  # fmt: skip
    compare(answer(ratings), expected(ratings), classics)


def choose(right: Tensor, cost: Tensor, limit: float) -> int:
    """The package's choice: of designs with accuracies (n, 3 seeds) and prices (n,) up to `limit`, the cheapest that is
    not told apart from the best of them."""

    def entries(_: object) -> list[Entry]:
        return [Entry(str(n), seed, float(value), float(cost[n])) for n in range(len(cost))
                for seed, value in enumerate(right[n])]  # fmt: skip

    return int(judge(Use("", "", "", "", entries, at_most=limit), []).cheapest)


def check_choose(answer: Callable) -> None:
    cases = [_case(seed) for seed in range(40)]

    def all_of(rule: Callable) -> Tensor:
        return torch.tensor([int(rule(*case)) for case in cases])

    classics = {
        "The limit is not kept: what costs more does not count.": lambda r, c, limit: choose(r, c, math.inf),
        "It is the best, but a cheaper one may tie with it: of those not told apart the cheapest is asked for.":
            _by(lambda lead: lead.mean(dim=1) <= 0),
        "The cheapest, however far it is behind: only those count that tie with the best.":
            _by(lambda lead: lead[:, 0] == lead[:, 0]),
        "The dearest of the tied is taken: it is the cheapest.": _by(_within(STUDENT), dearest=True),
        "The best is looked for beyond the limit, too: with what cannot be paid nobody has to compete.":
            _by(_within(STUDENT), beyond=True),
        "The intervals of single designs were compared: a seed moves all alike, so take differences seed by seed.":
            _overlapping,
        "1.96 is for many seeds: with three it is Student's 4.303.": _by(_within(1.96)),
        "That is the spread of single seeds: of their mean it is smaller, by the root of their number.":
            _by(_within(STUDENT * math.sqrt(3))),
        "The spread was divided by n: of a sample it is by n - 1.": _by(_within(STUDENT * math.sqrt(2 / 3))),
    }  # fmt: skip
    compare(all_of(answer), all_of(choose), {message: all_of(rule) for message, rule in classics.items()})


def _case(seed: int) -> tuple[Tensor, Tensor, float]:
    """Six designs, three seeds that move all of them, and a limit that some do not keep."""
    level, common, own = (
        0.5 + 0.06 * draw(6, 1, seed=seed),
        0.05 * draw(1, 3, seed=seed + 50),
        draw(6, 3, seed=seed + 90),
    )
    cost = 10 * draw(6, seed=seed + 140).abs()
    return level + common + 0.015 * own, cost, float(cost.sort().values[4])


def _by(ties: Callable[[Tensor], Tensor], dearest: bool = False, beyond: bool = False) -> Callable:
    """A rule that takes by price among those that tie, by their lead (n, seeds) of the best."""

    def rule(right: Tensor, cost: Tensor, limit: float) -> int:
        paid = cost <= limit
        mean = right.mean(dim=1)
        best = mean.argmax() if beyond else mean.where(paid, -math.inf).argmax()
        there = ties(right[best] - right) & paid
        return int(cost.where(there, -math.inf).argmax() if dearest else cost.where(there, math.inf).argmin())

    return rule


def _within(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda lead: lead.mean(dim=1) <= factor * lead.std(dim=1) / math.sqrt(lead.shape[1])


def _overlapping(right: Tensor, cost: Tensor, limit: float) -> int:
    half = STUDENT * right.std(dim=1) / math.sqrt(right.shape[1])
    mean = right.mean(dim=1).where(cost <= limit, -math.inf)
    best = mean.argmax()
    return int(cost.where(mean + half >= mean[best] - half[best], math.inf).argmin())


def row_means(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Of patches (B, rows * cols, D), row by row, the mean of each row: (B, rows, D)."""
    return features.unflatten(1, grid).mean(dim=2)


def check_rows(answer: Callable) -> None:
    features, grid = draw(2, 12, 4, seed=132), (3, 4)
    rows, cols = grid
    classics = {
        "These are means of columns: patches come row by row, so the columns are the second axis of the grid.":
            features.unflatten(1, grid).mean(dim=1),
        "Rows and columns of the grid are exchanged: it is (rows, columns).":
            features.unflatten(1, (cols, rows)).mean(dim=2),
        "Every so many-th patch is taken: the patches of a row stand side by side.":
            features.unflatten(1, (cols, rows)).mean(dim=1),
        "Summed: a mean does not grow with the row.": features.unflatten(1, grid).sum(dim=2),
        "The largest of a row, not its mean.": features.unflatten(1, grid).amax(dim=2),
        "One mean of the whole picture: a token for each row is asked for.": features.mean(dim=1, keepdim=True),
        "The numbers of a patch are averaged: take the mean over the patches of a row.":
            features.unflatten(1, grid).mean(dim=3),
    }  # fmt: skip
    compare(answer(features, grid), row_means(features, grid), classics)


EXERCISES = {
    "13.front": ExerciseSpec("The front that nothing beats", 2, on_front, check_front),
    "13.expected": ExerciseSpec("What a rating promises", 2, expected, check_expected),
    "13.choose": ExerciseSpec("When would you choose what", 3, choose, check_choose),
    "13.rows": ExerciseSpec("A connector of your own", 2, row_means, check_rows),
}
