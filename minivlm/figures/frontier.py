"""What accuracy costs: which designs nothing beats at their price, who wins among equals, and what tells designs apart.

It reads results of `compare`. Designs are told apart by their names, written at their points: there are more of them
than colours.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from minivlm.figures.common import PALETTE
from minivlm.tables import BLIND, Compared, interval, mean_of

COSTS: dict[str, Callable[[Compared], float]] = {
    "visual tokens": lambda run: run.tokens,
    "operations of a question (MFLOP)": lambda run: run.flops / 1e6,
    "keys and values (kB)": lambda run: run.cache_bytes / 1e3,
    "milliseconds to read a question": lambda run: run.milliseconds,
}
SIZES: dict[str, Callable[[Compared], float]] = {
    "weights (k)": lambda run: run.weights / 1e3,
    "weights that learn (k)": lambda run: run.trained_weights / 1e3,
    "operations of training (TFLOP)": lambda run: run.train_flops / 1e12,
}
MEAN = "mean"


@dataclass(frozen=True)
class Point:
    """A design's price, the median over its seeds, and its accuracy: mean and half of the 95 % interval over seeds."""

    cost: float
    accuracy: float
    half: float


def points(results: Iterable[Compared], cost: str, task: str = MEAN) -> dict[str, Point]:
    """A point a design, its price the key `cost` of `COSTS` or `SIZES`; ValueError where there is nothing to draw, and
    for a price or a task that nobody knows."""
    results, prices = list(results), COSTS | SIZES
    tasks = [MEAN, *(results[0].accuracy if results else ())]
    if cost not in prices or (results and task not in tasks):
        known = f"prices are {', '.join(prices)}, tasks {', '.join(tasks)}"
        raise ValueError(f"no price {cost!r} or no task {task!r}: {known}")
    runs: dict[str, list[Compared]] = {}
    for run in results:
        runs.setdefault(run.design, []).append(run)
    if not runs:
        raise ValueError("no results to draw: run `python -m minivlm compare`")
    return {
        name: Point(statistics.median(map(prices[cost], some)), *interval([share(run, task) for run in some]))
        for name, some in runs.items()
    }


def share(run: Compared, task: str) -> float:
    """The share of right answers on a task, or in the mean of all."""
    return mean_of(run.accuracy, list(run.accuracy)) if task == MEAN else run.accuracy[task]


def front(found: Mapping[str, Point]) -> list[str]:
    """Those that no other beats, cheapest first: none is at least as right for as little, and better in one of both."""
    ordered = sorted(found, key=lambda name: (found[name].cost, -found[name].accuracy))
    best, kept = float("-inf"), []
    for name in ordered:
        equal = kept and (found[name].cost, found[name].accuracy) == (found[kept[-1]].cost, best)
        if found[name].accuracy > best or equal:
            kept.append(name)
            best = found[name].accuracy
    return kept


def frontiers(results: Sequence[Compared], costs: Sequence[str] = tuple(COSTS), task: str = MEAN) -> tuple[Figure, str]:
    """A panel for each of the `costs` (keys of `COSTS`): a point a design with its interval, the front as a line of
    steps with the names of those on it, the blind decoder as a dashed line."""
    cols = min(2, len(costs))
    rows = -(-len(costs) // cols)
    figure, axes = plt.subplots(
        rows, cols, figsize=(5.2 * cols, 0.4 + 3.6 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    told = []
    for ax, cost in zip(axes.flat, costs, strict=False):
        found = points(results, cost, task)
        blind = found.pop(BLIND, None)
        best = front(found)
        _panel(ax, found, best, blind)
        ax.set_xlabel(cost, fontsize=9)
        on = ", ".join(f"{name} ({found[name].accuracy:.0%} at {_short(found[name].cost)})" for name in best)
        told.append(f"against {cost}, nothing beats {on}")
    for ax in axes.flat[len(costs) :]:
        ax.axis("off")
    figure.supylabel(f"accuracy, {task}", fontsize=9)
    dashed = f" Dashed: the blind decoder, {blind.accuracy:.0%}." if blind else ""
    return figure, f"Accuracy ({task}) of {len(found)} designs: {'; '.join(told)}.{dashed}"


def _panel(ax: Axes, found: Mapping[str, Point], best: Sequence[str], blind: Point | None) -> None:
    for name, point in found.items():
        colour = PALETTE["vermilion"] if name in best else PALETTE["sky"]
        ax.errorbar(point.cost, point.accuracy, point.half, color=colour, marker="o", markersize=4, capsize=2)
    for n, name in enumerate(best):
        below = n % 2
        ax.annotate(name, (found[name].cost, found[name].accuracy), (4, -10 if below else 6), fontsize=7,
                    textcoords="offset points")  # fmt: skip
    line = [(found[name].cost, found[name].accuracy) for name in best]
    ax.step(*zip(*line, (max(point.cost for point in found.values()), line[-1][1]), strict=True), where="post",
            color=PALETTE["vermilion"], linewidth=1)  # fmt: skip
    if blind:
        ax.axhline(blind.accuracy, color="black", linestyle="dashed", linewidth=1)
    if min(point.cost for point in found.values()) > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        ax.minorticks_off()


def matched(
    results: Sequence[Compared], design: str, by: str = "weights (k)", factor: float = 1.25, task: str = MEAN
) -> tuple[Figure, str]:
    """Bars of accuracy of the designs that are at most `factor` larger or smaller than `design` in `by` (a key of
    `SIZES` or `COSTS`), best first, with intervals. ValueError for a design without results or a factor below 1."""
    found = points(results, by, task)
    if design not in found or factor < 1:
        raise ValueError(f"no results of {design!r} among {', '.join(found)}, or a factor below 1: {factor}")
    own = found[design].cost
    near = {n: p for n, p in found.items() if n != BLIND and own / factor <= p.cost <= own * factor}
    order = sorted(near, key=lambda name: -near[name].accuracy)
    figure, ax = plt.subplots(figsize=(7, 0.9 + 0.26 * len(order)), layout="constrained")
    colours = [PALETTE["vermilion"] if name == design else PALETTE["sky"] for name in order]
    ax.barh(order, [near[n].accuracy for n in order], xerr=[near[n].half for n in order], color=colours, capsize=2)
    if BLIND in found:
        ax.axvline(found[BLIND].accuracy, color="black", linestyle="dashed", linewidth=1)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=8)
    ax.set(xlabel=f"accuracy, {task}", xlim=(0, 1))
    said = ", ".join(f"{n} {near[n].accuracy:.0%} ({_short(near[n].cost)})" for n in order)
    return figure, f"Accuracy ({task}) of designs within {factor:g} times {design}'s {_short(own)} {by}: {said}."


def separating(results: Sequence[Compared]) -> tuple[Figure, str]:
    """Designs, best mean first, by tasks, those that tell most apart first: how much better than the mean of all
    designs, in points of a hundred. A task's spread, the standard deviation over designs, stands in its name beside
    that over seeds, which is chance."""
    runs: dict[str, list[Compared]] = {}
    for run in results:
        if run.design != BLIND:
            runs.setdefault(run.design, []).append(run)
    if len(runs) < 2:
        raise ValueError(f"two designs or more can be told apart, got {', '.join(runs) or 'none'}")
    tasks = list(next(iter(runs.values()))[0].accuracy)
    mean = {(n, t): 100 * statistics.mean(run.accuracy[t] for run in some) for n, some in runs.items() for t in tasks}
    spread = {t: statistics.pstdev(mean[n, t] for n in runs) for t in tasks}
    chance = {t: statistics.mean(100 * statistics.pstdev(r.accuracy[t] for r in some) for some in runs.values())
              for t in tasks}  # fmt: skip
    tasks = sorted(tasks, key=lambda t: -spread[t])
    names = sorted(runs, key=lambda n: -sum(mean[n, t] for t in tasks))
    middle = {t: statistics.mean(mean[n, t] for n in runs) for t in tasks}
    grid = [[mean[n, t] - middle[t] for t in tasks] for n in names]
    limit = max(abs(value) for row in grid for value in row) or 1
    figure, ax = plt.subplots(figsize=(1.6 + 0.85 * len(tasks), 1.2 + 0.24 * len(names)), layout="constrained")
    image = ax.imshow(grid, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    labels = [f"{t}\n{middle[t]:.0f} ± {spread[t]:.0f}\n(seeds {chance[t]:.0f})" for t in tasks]
    ax.set_xticks(range(len(tasks)), labels, fontsize=7)
    ax.xaxis.tick_top()
    figure.colorbar(image, label="points above the mean of all", shrink=0.7)
    said = ", ".join(f"{t} ± {spread[t]:.0f} (seeds ± {chance[t]:.0f}; best {max(names, key=lambda n: mean[n, t])})"
                     for t in tasks)  # fmt: skip
    return figure, f"How far {len(names)} designs lie apart, in points of a hundred: {said}."


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
