"""Ratings of designs with how sure they are: what other questions and other seeds would have changed.

Battles are not independent: a lucky seed wins many at once, and so does a question that suits a design. Resampling
single battles counts them as if they were, and is sure of far too much. So questions are resampled, within their tasks
and for all designs alike. Of three seeds there are but ten resamples, and none of them is as far off as three others
may be; so what seeds change is drawn from Student's t, as wide as each design's ratings by single seeds differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from minivlm.arena import Margins, bradley_terry, expected_shares, points, win_shares
from minivlm.tables import percent

DRAWS = 1000
SURE = 0.95


@dataclass(frozen=True)
class Ratings:
    """Of some designs, in their order.

    rating  Bradley and Terry's, in points, mean 1000
    half    half of its 95 % interval
    apart   which two are told apart, all such statements being right together in 95 of 100 studies
    shares  the share of battles that the row won against the column; half against itself
    """

    designs: tuple[str, ...]
    rating: Float[np.ndarray, " designs"]
    half: Float[np.ndarray, " designs"]
    apart: Bool[np.ndarray, "designs designs"]
    shares: Float[np.ndarray, "designs designs"]

    @property
    def order(self) -> list[int]:
        """Numbers of the designs, the best first."""
        return np.argsort(-self.rating, kind="stable").tolist()

    @property
    def ranks(self) -> list[tuple[int, int]]:
        """The best and the worst rank that each design may have: it ties with all from which it is not told apart."""
        above = self.rating[:, None] < self.rating
        better, worse = ((self.apart & side).sum(axis=1) for side in (above, above.T))
        return [(1 + int(b), len(above) - int(w)) for b, w in zip(better, worse, strict=True)]

    @property
    def misfit(self) -> Float[np.ndarray, "designs designs"]:
        """Observed less fitted share of wins of the row against the column."""
        return self.shares - expected_shares(self.rating)


def rate(margins: Margins, draws: int = DRAWS, seed: int = 0) -> Ratings:
    """Rate all designs, each task weighing the same. ValueError for a single seed, or a single question of a task:
    what others would change cannot be known."""
    seeds, few = len(margins.stacked[0]), [task for task in margins.kinds if list(margins.tasks).count(task) < 2]
    if seeds < 2 or few:
        what = f"one question of {', '.join(few)}" if few else f"{seeds} seed"
        raise ValueError(f"how sure a rating is cannot be known from {what}: give two or more")
    chance = np.random.default_rng(seed)
    off = _other_questions(margins, draws, chance) + _other_seeds(margins, draws, chance)
    rating = bradley_terry(points(margins).mean(axis=1) @ margins.weights, seeds * len(margins.tasks))
    return Ratings(margins.designs, rating, _reach(off), _told_apart(rating, off), win_shares(margins))


def by_task(margins: Margins, draws: int = DRAWS, seed: int = 0) -> dict[str, Ratings]:
    """Ratings within each task."""
    return {task: rate(margins.only(task), draws, seed) for task in margins.kinds}


def duel(margins: Margins, first: str, second: str, seed: int = 0) -> tuple[float, float, float]:
    """The share of battles that `first` wins against `second`, each task weighing the same, and its 95 % interval."""
    two = rate(margins.between(first, second), seed=seed)
    ahead, half = two.rating[0] - two.rating[1], 2 * two.half[0]  # of two, one's gain is the other's loss
    gaps = np.array([ahead, ahead - half, ahead + half])
    share, low, high = expected_shares(np.stack([gaps, 0 * gaps], axis=1))[:, 0, 1].tolist()
    return share, low, high


def _other_questions(margins: Margins, draws: int, chance: np.random.Generator) -> Float[np.ndarray, "draws designs"]:
    """By how much ratings move as questions are drawn again from those of their task, the same for all designs."""
    tasks, weights = np.array(margins.tasks), margins.weights
    drawn = np.empty((len(tasks), draws))
    for task in margins.kinds:
        own = tasks == task
        counts = chance.multinomial(own.sum(), np.full(own.sum(), 1 / own.sum()), size=draws)
        drawn[own] = counts.T * weights[own][:, None]
    made, battles = points(margins).mean(axis=1), margins.stacked[0].size
    return bradley_terry((made @ drawn).T, battles) - bradley_terry(made @ weights, battles)


def _other_seeds(margins: Margins, draws: int, chance: np.random.Generator) -> Float[np.ndarray, "draws designs"]:
    """By how much ratings would move with other seeds, judged by the rating that each seed alone gives a design. What a
    seed does to all designs alike is not in there: they meet seed by seed."""
    single = bradley_terry((points(margins) @ margins.weights).T, len(margins.tasks))  # (seeds, designs)
    seeds, designs = single.shape
    variance, free = shrunk(single.var(axis=0, ddof=1), seeds - 1)
    scale = np.sqrt(variance / seeds * designs / (designs - 1))  # less is left of it when the mean is held at 1000
    off = scale * chance.standard_t(free, size=(draws, designs))
    return off - off.mean(axis=1, keepdims=True)


def shrunk(variance: Float[np.ndarray, " n"], free: int) -> tuple[Float[np.ndarray, " n"], float]:
    """Variances from `free` degrees of freedom each, drawn towards what is usual among them, and the degrees of freedom
    that they have then: the more alike they are, the more they say about one another, and one that is far off the rest
    keeps the rest from saying much (empirical Bayes, Smyth 2004, section 6.2)."""
    logs = np.log(np.maximum(variance, 1e-9))  # a thousandth of a point squared is no spread
    shift, spread = _log_of_variance(free)
    excess = logs.var(ddof=1) - spread
    # the inverse of trigamma, by the first terms of its series; all together know no more than (n - 1) times one
    prior = math.inf if excess <= 0 else (1 + math.sqrt(1 + 2 * excess)) / excess
    prior = max(min(prior, (len(variance) - 2) * free), 1e-3)
    usual = math.exp(logs.mean() - shift + _log_of_variance(prior)[0])
    return (prior * usual + free * variance) / (prior + free), prior + free


def _log_of_variance(free: float) -> tuple[float, float]:
    """Mean and variance of the logarithm of an estimate, with so many degrees of freedom, of a variance that is 1."""
    half = torch.tensor(free / 2, dtype=torch.float64)
    return float(torch.digamma(half) - half.log()), float(torch.polygamma(1, half))


def _reach(off: Float[np.ndarray, "draws *some"]) -> Float[np.ndarray, "*some"]:
    """How far off, either way, 95 % of the draws are at most."""
    return np.quantile(np.abs(off), SURE, axis=0)


def _told_apart(
    rating: Float[np.ndarray, " designs"], off: Float[np.ndarray, "draws designs"]
) -> Bool[np.ndarray, "designs designs"]:
    """Which differences are beyond chance even for the most deceptive pair: intervals of single differences are made
    wider by the factor with which all of them together hold 95 % of the draws."""
    gaps = np.abs(off[:, :, None] - off[:, None, :])  # (draws, D, D)
    single = np.maximum(_reach(gaps), 1e-9)
    factor = np.quantile((gaps / single).max(axis=(1, 2)), SURE)
    return np.abs(rating[:, None] - rating) > factor * single


def table(ratings: Ratings, accuracy: Mapping[str, Sequence[float]], tasks: Mapping[str, Ratings] | None = None) -> str:
    """A Markdown table, the best first: the ranks a design may have, its rating and half of the 95 % interval, beside
    them its mean `accuracy` (a value a seed) in per cent, and its ratings in single `tasks`. ValueError for a design
    without accuracy."""
    right, tasks = beside(ratings, accuracy), tasks or {}
    lines = [
        f"| rank | design | rating | accuracy |{''.join(f' {task} |' for task in tasks)}",
        f"| ---: | --- | ---: | ---: |{' ---: |' * len(tasks)}",
    ]
    for number in ratings.order:
        name = ratings.designs[number]
        cells = [said_rank(ratings.ranks[number]), name, _said(ratings, name), percent(right[number])]
        lines.append(f"| {' | '.join(cells + [_said(own, name) for own in tasks.values()])} |")
    return "\n".join(lines)


def beside(ratings: Ratings, accuracy: Mapping[str, Sequence[float]]) -> list[Sequence[float]]:
    """The accuracies of the rated designs, in their order; ValueError for a design that has none."""
    missing = [name for name in ratings.designs if not len(accuracy.get(name, ()))]
    if missing:
        raise ValueError(f"no accuracy of {', '.join(missing)}: an arena is shown with accuracy beside it")
    return [accuracy[name] for name in ratings.designs]


def said_rank(ranks: tuple[int, int]) -> str:
    return "-".join(map(str, dict.fromkeys(ranks)))


def _said(ratings: Ratings, name: str) -> str:
    number = ratings.designs.index(name)
    return f"{ratings.rating[number]:.0f} ± {ratings.half[number]:.0f}"
