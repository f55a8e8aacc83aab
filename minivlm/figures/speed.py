"""Speed as pictures: how many times as fast as others, and how time grows with the operations counted."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.bench.growth import Growth
from minivlm.bench.timing import Ratio
from minivlm.figures.common import PALETTE, colours, wrapped


def speed_bars(ratios: Sequence[Ratio]) -> tuple[Figure, str]:
    """A bar a ratio, its quartiles as a whisker, and a tick at what is wanted; a line at 1, where both are as fast.
    ValueError where there is nothing to draw."""
    if not ratios:
        raise ValueError("no ratios: run `python -m minivlm bench` first")
    figure, ax = plt.subplots(figsize=(9, 0.8 + 0.5 * len(ratios)), layout="constrained")
    for row, one in enumerate(ratios):
        fill, ink = (PALETTE["blue"], "white") if one.ratio >= one.wanted else (PALETTE["orange"], "black")
        ax.barh(row, one.ratio, 0.6, color=fill)
        ax.hlines(row, *one.spread, color="black", linewidth=1)
        ax.plot(one.wanted, row, marker="|", markersize=16, color=PALETTE["vermilion"], linestyle="")
        ax.annotate(f"{one.ratio:.2f}", (0, row), (4, 0), textcoords="offset points", va="center", color=ink)
    ax.axvline(1, color="black", linewidth=1, linestyle="--")
    labels = [wrapped(f"{one.what}: {one.ours} / {one.rival}", 60) for one in ratios]
    ax.set_yticks(range(len(ratios)), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="times as fast (red tick: wanted; blue: reached)", xlim=(0, None))
    told = (f"{one.what}, {one.ours} {one.ratio:.2f} times {one.rival} (wanted {one.wanted:g})" for one in ratios)
    return figure, f"How many times as fast: {'; '.join(told)}."


def growth_lines(growths: Sequence[Growth]) -> tuple[Figure, str]:
    """Measured times of a training step as points against their operations, with the fitted line of each, and its size
    beside each point; both scales logarithmic. ValueError where there is nothing to draw."""
    if not growths:
        raise ValueError("no growth: run `python -m minivlm bench` first")
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for one, colour in zip(growths, colours([one.what for one in growths]), strict=True):
        operations = [flops / 1e9 for flops in one.flops]
        ax.plot(operations, one.milliseconds, "o", color=colour, label=one.what)
        ax.plot(operations, [one.fixed + one.rate * flops for flops in one.flops], color=colour, linewidth=1)
        for size, *point in zip(one.sizes, operations, one.milliseconds, strict=True):
            ax.annotate(f"{size:,}", point, (5, -9), textcoords="offset points", fontsize=8, color=colour)
    ax.set(xscale="log", yscale="log", xlabel="operations of a training step, GFLOPs", ylabel="milliseconds")
    ax.legend(frameon=False)
    told = (
        f"{one.sizes[0]:,} to {one.sizes[-1]:,} {one.what}, {one.milliseconds[0]:,.0f} to "
        f"{one.milliseconds[-1]:,.0f} ms, off the line by at most {one.misfit:.0%}"
        for one in growths
    )
    return figure, f"A training step's time against its operations, and a line for each: {'; '.join(told)}."
