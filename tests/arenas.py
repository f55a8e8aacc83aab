"""Margins made up from known abilities, and the ratings that are true of them."""

from __future__ import annotations

import math

import numpy as np

from minivlm.arena import Margins, bradley_terry

ASKED, OWN = 0.5, 0.7  # standard deviations: what a question does to a design, and what a single answer adds


def abilities(chance: np.random.Generator, designs: int, tasks: int) -> np.ndarray:
    """(designs, tasks), the second design as able as the first."""
    able = np.linspace(0, 1.2, designs)[:, None] + 0.3 * chance.normal(size=(designs, tasks))
    able[1] = able[0]
    return able


def played(chance: np.random.Generator, able: np.ndarray, spread: np.ndarray, seeds: int, each: int) -> Margins:
    """Margins of so many seeds on `each` questions a task: ability, what the seed does to a design (of standard
    deviation `spread`, by design), what a question does to it, how hard the question and how good the seed is for all,
    and noise."""
    designs, tasks = able.shape
    shape = (designs, seeds, tasks * each)
    margins = able.repeat(each, axis=1)[:, None] + spread[:, None, None] * chance.normal(size=(designs, seeds, 1))
    margins = margins + ASKED * chance.normal(size=(designs, 1, shape[2])) + OWN * chance.normal(size=shape)
    margins = margins + chance.normal(size=shape[1:]) + 0.3 * chance.normal(size=(seeds, 1))
    names = [f"task {number // each}" for number in range(shape[2])]
    return Margins(names, {f"design {n}": own for n, own in enumerate(margins)})


def true_ratings(able: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The ratings to which the shares of wins lead that are expected over all seeds and questions: a difference of two
    margins is normal, so the first wins with the probability of Phi(difference of abilities / its deviation)."""
    deviation = np.sqrt(spread[:, None] ** 2 + spread**2 + 2 * ASKED**2 + 2 * OWN**2)
    gaps = (able[:, None] - able).transpose(2, 0, 1) / deviation  # (tasks, D, D)
    shares = np.vectorize(lambda gap: (1 + math.erf(gap / math.sqrt(2))) / 2)(gaps).mean(axis=0)
    return bradley_terry(shares.sum(axis=1) - 0.5, 1e12)
