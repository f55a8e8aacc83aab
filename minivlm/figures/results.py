"""Results of trained designs as pictures: what each task gains from more tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.data.tasks import TASKS
from minivlm.figures.common import colours
from minivlm.tables import BLIND, Kind, interval


def accuracy_against_tokens(
    results: Iterable[Kind],
    tasks: Sequence[str] = TASKS,
    tokens: Callable[[Kind], float] = attrgetter("tokens"),
    of: str = "picture",
) -> tuple[Figure, str]:
    """A panel a task: accuracy against visual `tokens` a picture, or what it is that they are `of`, a line a design,
    mean over seeds with its 95 % interval; the blind decoder as a dashed line. ValueError where no design has results
    at two numbers of tokens."""
    results = list(results)
    blind = [run for run in results if run.design == BLIND]
    counts: dict[str, list[float]] = {}
    for run in results:
        if run.design != BLIND:
            counts[run.design] = sorted({*counts.get(run.design, ()), tokens(run)})
    if not any(len(there) > 1 for there in counts.values()):
        raise ValueError(f"a curve needs a design at two numbers of tokens or more, got {counts or 'no results'}")
    cols = min(3, len(tasks))
    rows = -(-len(tasks) // cols)
    figure, axes = plt.subplots(
        rows,
        cols,
        figsize=(3.1 * cols, 0.5 + 2.1 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    told = []
    for ax, task in zip(axes.flat, tasks, strict=False):
        for (design, there), colour in zip(counts.items(), colours(counts), strict=True):
            runs = [[r.accuracy[task] for r in results if (r.design, tokens(r)) == (design, k)] for k in there]
            middle, half = zip(*map(interval, runs), strict=True)
            ax.errorbar(there, middle, half, color=colour, marker="o", markersize=4, capsize=2, label=design)
            told.append(
                f"{task}, {design}: " + ", ".join(f"{m:.0%} at {k:g}" for m, k in zip(middle, there, strict=True))
            )
        if blind:
            ax.axhline(
                interval([run.accuracy[task] for run in blind])[0], color="black", linestyle="dashed", linewidth=1
            )
        ax.set_title(task, fontsize=9)
    every = sorted({k for there in counts.values() for k in there})
    for ax in axes.flat[len(tasks) :]:
        ax.axis("off")
    axes[0, 0].set(xscale="log", ylim=(0, 1), xticks=every, xticklabels=[f"{k:g}" for k in every])
    axes[0, 0].minorticks_off()
    figure.supxlabel(f"visual tokens a {of}", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    return figure, f"Accuracy against visual tokens a {of}{' (dashed: blind)' if blind else ''}: {'; '.join(told)}."
