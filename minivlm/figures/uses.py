"""Uses as a picture: a panel each, the best designs with their intervals, and which of them are told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minivlm.figures.common import PALETTE
from minivlm.uses import Verdict

SHOWN = 8  # designs of a use at most
_KINDS = {"best": "vermilion", "not told apart from it": "orange", "behind it": "sky"}


def use_panels(verdicts: Sequence[Verdict]) -> tuple[Figure, str]:
    """A panel for each use that has results: its best designs, their prices in their names, with 95 % intervals; what
    does not look as a dashed line. The words are the verdicts', those without results too. ValueError where none has
    any."""
    there = [verdict for verdict in verdicts if verdict.standings]
    if not there:
        raise ValueError("no results of any use: run `python -m minivlm compare`")
    cols = min(2, len(there))
    rows = -(-len(there) // cols)
    figure, axes = plt.subplots(
        rows, cols, figsize=(4.9 * cols, 0.5 + 2.3 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    for ax, verdict in zip(axes.flat, there, strict=False):
        _panel(ax, verdict)
    for ax in axes.flat[len(there) :]:
        ax.axis("off")
    figure.supxlabel("%", fontsize=9)
    named = [Patch(color=PALETTE[colour], label=kind) for kind, colour in _KINDS.items()]
    figure.legend(handles=named, frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    return figure, f"{'. '.join(map(str, verdicts))}."


def _panel(ax: Axes, verdict: Verdict) -> None:
    shown = list(verdict.standings)[:SHOWN]
    for row, name in enumerate(shown):
        standing = verdict.standings[name]
        kind = "best" if row == 0 else "not told apart from it" if standing.tied else "behind it"
        half = 0 if math.isnan(standing.half) else 100 * standing.half
        ax.barh(row, 100 * standing.mean, xerr=half, color=PALETTE[_KINDS[kind]], capsize=2)
    if verdict.blind:
        ax.axvline(100 * verdict.blind.mean, color="black", linestyle="dashed", linewidth=1)
    labels = [f"{name} ({verdict.standings[name].cost:,.3g})" for name in shown]
    ax.set_yticks(range(len(shown)), labels, fontsize=7)
    left = len(verdict.standings) - len(shown)
    title = f"{verdict.use.name}: {verdict.use.measure}\n(in brackets: {verdict.use.price}"
    ax.set_title(f"{title}{f'; {left} more below' if left else ''})", fontsize=8)
    ax.set(xlim=(0, 100), ylim=(len(shown) - 0.4, -0.6))
