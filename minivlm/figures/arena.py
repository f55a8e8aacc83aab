"""The arena as pictures: ratings with how sure they are, who beats whom, what ratings cannot tell, and what order does
to Elo's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minivlm.arena import Margins, cycles
from minivlm.figures.common import PALETTE
from minivlm.ratings import Ratings, beside, duel, said_rank
from minivlm.tables import interval

WRITTEN = 12  # so many designs at most have their numbers written into a matrix
_POINT = dict(fmt="o", color=PALETTE["blue"], markersize=4, capsize=3)


def rating_rows(ratings: Ratings, accuracy: Mapping[str, Sequence[float]]) -> tuple[Figure, str]:
    """A row a design, the best at the top: its rating, the ranks it may have, and beside them its mean `accuracy`, of a
    value a seed; with 95 % intervals. ValueError for a design without accuracy."""
    order, ranks, right = ratings.order, ratings.ranks, beside(ratings, accuracy)
    figure, axes = _rows(ratings, 3, widths=(3, 2, 2))
    told = []
    for row, number in enumerate(order):
        middle, half = interval(right[number])
        axes[0].errorbar(ratings.rating[number], row, xerr=ratings.half[number], **_POINT)
        axes[1].plot(ranks[number], (row, row), color=PALETTE["orange"], linewidth=5, marker="o", markersize=5)
        axes[2].errorbar(100 * middle, row, xerr=0 if math.isnan(half) else 100 * half, **_POINT)
        told.append(
            f"{ratings.designs[number]} {ratings.rating[number]:.0f} ± {ratings.half[number]:.0f}, rank "
            f"{said_rank(ranks[number])}, accuracy {middle:.0%}"
        )
    axes[0].set_xlabel("rating (points, mean 1000)")
    axes[1].set(xlabel="rank", xlim=(0.5, len(order) + 0.5))
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[2].set(xlabel="accuracy (%)", xlim=(0, 100))
    pairs = len(order) * (len(order) - 1) // 2
    apart = f"{int(ratings.apart.sum()) // 2} of {pairs} pairs are told apart."
    return figure, f"Ratings with 95 % intervals, the best first: {'; '.join(told)}. {apart}"


def win_matrix(ratings: Ratings) -> tuple[Figure, str]:
    """The share of battles that the row won against the column; rows and columns by rating, the best first."""
    figure = _matrix(ratings, 100 * ratings.shares, (0, 100), "battles that the row wins (%)", "{:.0f}")
    first, last = ratings.order[0], ratings.order[-1]
    names, shares, (high, low) = ratings.designs, ratings.shares, _highest(ratings.shares)
    return figure, (
        f"Battles won by the row against the column. The best rated, {names[first]}, wins "
        f"{shares[first, last]:.0%} against the last, {names[last]}; clearest is {names[high]} against {names[low]}, "
        f"{shares[high, low]:.0%}."
    )


def misfit_matrix(ratings: Ratings) -> tuple[Figure, str]:
    """Observed less fitted share of battles that the row won against the column: what a number a design cannot tell. In
    words also the cycles: threes that beat one another in a ring."""
    misfit, names = ratings.misfit, ratings.designs
    most = 100 * max(np.abs(misfit).max(), 0.01)
    figure = _matrix(
        ratings, 100 * misfit, (-most, most), "won, less what ratings fit (points of a hundred)", "{:+.1f}"
    )
    high, low = _highest(misfit)
    found, threes = cycles(ratings.shares), math.comb(len(names), 3)
    ring = f", such as {' over '.join(names[number] for number in (*found[0], found[0][0]))}" if found else ""
    return figure, (
        f"Shares of battles less those that ratings fit: {names[high]} wins {ratings.shares[high, low]:.1%} against "
        f"{names[low]} where {ratings.shares[high, low] - misfit[high, low]:.1%} fit, the worst misfit. Of "
        f"{threes} threes {len(found)} {'is a cycle' if len(found) == 1 else 'are cycles'}{ring}."
    )


def elo_spread(elos: Float[np.ndarray, "orders designs"], ratings: Ratings) -> tuple[Figure, str]:
    """A row a design: Elo's ratings after the same battles in several orders, a dot each, and the 95 % interval of
    Bradley and Terry's, which knows no order. ValueError for ratings of other designs."""
    if elos.shape[1:] != ratings.rating.shape:
        raise ValueError(f"Elo's ratings are of {elos.shape[1]} designs, the others of {len(ratings.designs)}")
    order = ratings.order
    figure, (ax,) = _rows(ratings, 1)
    for row, number in enumerate(order):
        ax.plot(elos[:, number], np.full(len(elos), row + 0.2), ".", color=PALETTE["orange"], alpha=0.6)
        ax.errorbar(ratings.rating[number], row - 0.15, xerr=ratings.half[number], **_POINT)
    ax.lines[0].set_label("Elo's, an order a dot")
    ax.containers[0].set_label("Bradley and Terry's, with 95 % interval")
    ax.set_xlabel("rating (points, mean 1000)")
    figure.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2, fontsize=8)
    rankings = len({tuple(np.argsort(-after)) for after in elos})
    low, high = elos.min(axis=0), elos.max(axis=0)
    most = int((high - low).argmax())
    return figure, (
        f"The same battles in {len(elos)} orders give {rankings} rankings by Elo. Most depends on order for "
        f"{ratings.designs[most]}: {low[most]:.0f} to {high[most]:.0f}, where Bradley and Terry's rating is "
        f"{ratings.rating[most]:.0f} ± {ratings.half[most]:.0f}, whatever the order."
    )


def duel_panels(margins: Margins, first: str, second: str) -> tuple[Figure, str]:
    """Two designs' battles: how far their margins differ, and the share that the first wins, of each seed and of all,
    with its 95 % interval. ValueError for designs that are not in `margins`."""
    share, low, high = duel(margins, first, second)
    one, other = margins.between(first, second).stacked  # (seeds, questions)
    seeds = [float(((a > b) + (a == b) / 2) @ margins.weights) for a, b in zip(one, other, strict=True)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.9), width_ratios=(3, 2), layout="constrained")
    _differences(left, one, other, (first, second))
    right.plot(100 * np.array(seeds), range(len(seeds)), "o", color=PALETTE["black"], markersize=4)
    right.errorbar(100 * share, len(seeds), xerr=100 * np.array([[share - low], [high - share]]), **_POINT)
    right.axvline(50, color="#999999", linewidth=1)
    right.set_yticks(range(len(seeds) + 1), [*(f"seed {n + 1}" for n in range(len(seeds))), "all"], fontsize=8)
    right.set(xlabel=f"battles that {first} wins (%)", xlim=(0, 100), ylim=(len(seeds) + 0.5, -0.5))
    by_seed = ", ".join(f"{won:.0%}" for won in seeds)
    return figure, (
        f"{first} wins {share:.0%} of {one.size:,} battles against {second} (95 % interval {low:.0%} to {high:.0%}); "
        f"seed by seed {by_seed}."
    )


def _differences(ax: Axes, one: np.ndarray, other: np.ndarray, names: tuple[str, str]) -> None:
    """Counts of battles by how far the margins differ, ties left out; what is farther out is in the last bars."""
    there = one != other
    differ = one[there] - other[there]
    finite = np.abs(differ[np.isfinite(differ)])
    reach = float(np.quantile(finite, 0.99)) if len(finite) else 1.0
    edges = np.linspace(-reach, reach, 41)
    for side, name, colour in ((differ > 0, names[0], "blue"), (differ < 0, names[1], "orange")):
        ax.hist(differ[side].clip(-reach, reach), edges, color=PALETTE[colour], label=f"{name} wins")
    ax.set(xlabel=f"margin of {names[0]} less that of {names[1]} (nats)", ylabel="battles")
    ax.legend(frameon=False, fontsize=8)


def _rows(ratings: Ratings, panels: int, widths: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """Panels side by side with a row for each design, the best rated at the top."""
    order = ratings.order
    size = (9, 1.2 + 0.28 * len(order))
    figure, axes = plt.subplots(
        1, panels, figsize=size, width_ratios=widths, sharey=True, squeeze=False, layout="constrained"
    )
    axes[0, 0].set_yticks(range(len(order)), [ratings.designs[number] for number in order], fontsize=8)
    axes[0, 0].set_ylim(len(order) - 0.5, -0.5)
    for ax in axes[0]:
        ax.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        ax.set_axisbelow(True)
    return figure, list(axes[0])


def _matrix(ratings: Ratings, values: np.ndarray, limits: tuple[float, float], label: str, written: str) -> Figure:
    """Values of row against column, the best rated first; written out where there is room."""
    order = ratings.order
    names, shown = [ratings.designs[number] for number in order], values[np.ix_(order, order)]
    side = 2.2 + 0.34 * len(order)
    figure, ax = plt.subplots(figsize=(side + 1.2, side), layout="constrained")
    image = ax.imshow(shown, cmap="PuOr_r", vmin=limits[0], vmax=limits[1])
    ax.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(len(order)), names, fontsize=8)
    figure.colorbar(image, label=label, shrink=0.8)
    middle, reach = sum(limits) / 2, (limits[1] - limits[0]) / 2
    for row in range(len(order) if len(order) <= WRITTEN else 0):
        for column in set(range(len(order))) - {row}:
            value = shown[row, column]
            colour = "white" if abs(value - middle) > 0.6 * reach else "black"
            ax.text(column, row, written.format(value), ha="center", va="center", fontsize=7, color=colour)
    return figure


def _highest(values: np.ndarray) -> tuple[int, int]:
    return tuple(int(place) for place in np.unravel_index(values.argmax(), values.shape))
