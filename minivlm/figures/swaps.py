"""One part at a time: what designs gain that are the same but for a single part, and which combinations there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minivlm.figures.common import PALETTE, wrapped
from minivlm.figures.frontier import MEAN, share
from minivlm.model import VLMConfig
from minivlm.switchboard import PARTS, Swap, answering, combine, different, differing, names_of, options
from minivlm.tables import BLIND, Compared, interval, paired

COLOURS = dict(zip(PARTS, ("orange", "blue", "green", "purple"), strict=True))
_CELLS = ("does not go together", "nobody's design", "a design of ours")


def by_design(results: Sequence[Compared]) -> dict[str, list[Compared]]:
    """The runs of each design, the blind one apart."""
    runs: dict[str, list[Compared]] = {}
    for run in results:
        if run.design != BLIND:
            runs.setdefault(run.design, []).append(run)
    return runs


def gain(runs: Mapping[str, Sequence[Compared]], swap: Swap, task: str = MEAN) -> tuple[float, float]:
    """What a swap adds to the accuracy on a task, in points of a hundred, seed by seed: mean and half of its 95 %
    interval (NaN with one seed). ValueError where both were never run with one seed."""
    gains = paired(runs.get(swap.after, ()), runs.get(swap.before, ()), lambda run: 100 * share(run, task))
    if not gains:
        raise ValueError(f"no seed with results of both {swap.before} and {swap.after}")
    return interval(gains)


def swap_rows(results: Sequence[Compared], swaps: Sequence[Swap], task: str = MEAN) -> tuple[Figure, str]:
    """A row a swap that there are results of, by part and best first: the gain in accuracy on a task, or in the mean,
    with its 95 % interval. ValueError where there are results of none."""
    runs = by_design(results)
    gains = {swap: gain(runs, swap, task) for swap in swaps if runs.keys() >= {swap.before, swap.after}}
    if not gains:
        raise ValueError(f"no results of both sides of a swap among {', '.join(runs) or 'nothing'}")
    order = sorted(gains, key=lambda swap: (PARTS.index(swap.part), -gains[swap][0]))
    figure, ax = plt.subplots(figsize=(8, 1.1 + 0.26 * len(order)), layout="constrained")
    for row, swap in enumerate(order):
        middle, half = gains[swap]
        ax.errorbar(middle, row, xerr=0 if math.isnan(half) else half, fmt="o", color=PALETTE[COLOURS[swap.part]],
                    markersize=4, capsize=3)  # fmt: skip
    ax.axvline(0, color="#999999", linewidth=1)
    ax.set_yticks(range(len(order)), [f"{swap.part}: {swap.before} → {swap.after}" for swap in order], fontsize=8)
    ax.set(xlabel=f"gain in accuracy, {task} (points of a hundred)", ylim=(len(order) - 0.5, -0.5))
    told = "; ".join(f"{part}: {_told(gains, part)}" for part in dict.fromkeys(swap.part for swap in order))
    return figure, f"Gain in accuracy ({task}, points) by swapping one part. {told}."


def _told(gains: Mapping[Swap, tuple[float, float]], part: str) -> str:
    own = sorted((swap for swap in gains if swap.part == part), key=lambda swap: -gains[swap][0])
    said = [f"{swap.before} → {swap.after} {said_gain(*gains[swap])}" for swap in own]
    return ", ".join(said)


def said_gain(middle: float, half: float) -> str:
    """ "+4.1 ± 2.0 (more)"; without a word where one seed leaves the interval unknown."""
    if math.isnan(half):
        return f"{middle:+.1f}"
    verdict = "a tie" if abs(middle) <= half else "more" if middle > 0 else "less"
    return f"{middle:+.1f} ± {half:.1f} ({verdict})"


def neighbours(results: Sequence[Compared], config: VLMConfig, title: str, task: str = MEAN) -> tuple[Figure, str]:
    """Accuracy of a configuration, if it was run, and of all designs that differ from it in one part, coloured by that
    part; the blind decoder as a dashed line. In words also the differences."""
    runs = by_design(results)
    known = different({name: own for name, own in answering().items() if name in runs})
    apart = {name: differing(own, config) for name, own in known.items()}
    own = next((name for name, parts in apart.items() if not parts), None)
    near = {name: parts[0] for name, parts in apart.items() if len(parts) == 1}
    shares = {
        name: interval([100 * share(run, task) for run in runs[name]]) for name in [*([own] if own else []), *near]
    }
    rows = sorted(shares, key=lambda name: (name != own, PARTS.index(near.get(name, "vision")), -shares[name][0]))
    figure, ax = plt.subplots(figsize=(8, 1.6 + 0.27 * len(rows)), layout="constrained")
    for row, name in enumerate(rows):
        middle, half = shares[name]
        colour = "vermilion" if name == own else COLOURS[near[name]]
        ax.barh(row, middle, xerr=0 if math.isnan(half) else half, color=PALETTE[colour], capsize=2)
    blind = [100 * share(run, task) for run in results if run.design == BLIND]
    if blind:
        ax.axvline(interval(blind)[0], color="black", linestyle="dashed", linewidth=1)
    named = [name if name == own else f"{near[name]}: {name}" for name in rows]
    ax.set_yticks(range(len(rows)), named, fontsize=8)
    ax.set_title(wrapped(title, 100), fontsize=8)
    ax.set(xlabel=f"accuracy, {task} (%)", xlim=(0, 100), ylim=(max(len(rows), 1) - 0.4, -0.6))
    return figure, _said_neighbours(runs, own, near, shares, task)


def _said_neighbours(
    runs: Mapping[str, Sequence[Compared]], own: str | None, near: Mapping[str, str], shares: Mapping[str, tuple],
    task: str,
) -> str:  # fmt: skip
    if own is None:
        known = ", ".join(f"{part} as in {name} {shares[name][0]:.0f} %" for name, part in near.items())
        return f"No results ({task}); one swap away there are {known or 'none'}."
    said = [f"{part} as in {name} {said_gain(*gain(runs, Swap(part, own, name), task))}" for name, part in near.items()]
    return f"{own}: {shares[own][0]:.0f} % ({task}). Swap one part, in points: {', '.join(said) or 'no results'}."


def parts_map(fusion: str, decoder: str) -> tuple[Figure, str]:
    """Connectors by encoders, with a fusion and a decoder (labels of `switchboard.options`): which go together, and
    which of these a design has chosen."""
    there = options()
    rows, cols = list(there["connector"]), list(there["vision"])
    kinds, names = np.zeros((len(rows), len(cols)), dtype=int), {}
    for row, connector in enumerate(rows):
        for col, vision in enumerate(cols):
            try:
                names[row, col] = names_of(combine(vision, connector, fusion, decoder))
            except ValueError:
                continue
            kinds[row, col] = 2 if names[row, col] else 1
    figure, ax = plt.subplots(figsize=(9, 1.6 + 0.27 * len(rows)), layout="constrained")
    palette = ["#dddddd", "#ffffff", PALETTE["sky"]]
    ax.pcolormesh(kinds, cmap=ListedColormap(palette), vmin=0, vmax=2, edgecolors="#999999")
    for (row, col), own in names.items():
        ax.text(col + 0.5, row + 0.5, ", ".join(own), ha="center", va="center", fontsize=6)
    ax.invert_yaxis()
    ax.set_xticks(np.arange(len(cols)) + 0.5, [wrapped(label, 16) for label in cols], fontsize=7)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=7)
    handles = [
        Patch(facecolor=colour, edgecolor="#999999", label=kind) for colour, kind in zip(palette, _CELLS, strict=True)
    ]
    figure.legend(handles=handles, frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    counts = [int((kinds == kind).sum()) for kind in range(3)]
    return figure, (
        f"Of {kinds.size} pairs of an encoder and a connector, {fusion}, {decoder}: {counts[2]} are a design of ours, "
        f"{counts[1]} go together and are nobody's, {counts[0]} do not go together."
    )
