"""Depths as pictures: which block worked on which place, which patches of a picture a block passed by, and accuracy
against what is saved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from minivlm.batch import Batch
from minivlm.depth import DepthResult
from minivlm.figures.common import PALETTE, colours, told_apart, words_at
from minivlm.language.depths import DepthsConfig
from minivlm.layout import Kind
from minivlm.model import Output
from minivlm.skipping import worked
from minivlm.tables import interval

_COLOURS = {"passed by": "#e6e6e6", "worked on, picture": PALETTE["blue"], "worked on, word": PALETTE["orange"]}


def depth_raster(
    seen: Mapping[str, tuple[Batch, Output]],
    config: DepthsConfig,
    decode: Callable[[list[int]], str],
    sample: int = 0,
) -> tuple[Figure, str]:
    """A panel for each batch of `seen` and what was made of it: a row a block, the first at the bottom, a column a
    place of the sample's sequence; coloured where the block worked on it, patches apart from words."""
    if not seen:
        raise ValueError("nothing to show: give a batch and its output, or several")
    size = (10, 0.5 + (0.28 * config.depth + 1.0) * len(seen))
    figure, axes = plt.subplots(len(seen), 1, figsize=size, squeeze=False, layout="constrained")
    told = []
    for ax, (name, (batch, output)) in zip(axes[:, 0], seen.items(), strict=True):
        length, visual = int(output.layout.lengths[sample]), output.layout.is_visual[sample].cpu()
        rows = worked(output, config)[:, sample, :length].cpu()  # (blocks, L)
        colour = rows.int() * (2 - visual[:length].int())  # 0 passed by, 1 a patch, 2 a word
        ax.imshow(colour, cmap=ListedColormap(list(_COLOURS.values())), vmin=0, vmax=2, aspect="auto", origin="lower")
        ax.set_xticks([x - 0.5 for x in range(1, length)], minor=True)
        ax.set_yticks([y - 0.5 for y in range(1, len(rows))], minor=True)
        ax.grid(which="minor", color="white", linewidth=0.7)
        ax.tick_params(which="minor", length=0)
        words = output.layout.is_text[sample].nonzero().flatten().tolist()
        ax.set_xticks(words, words_at(batch, output, decode, sample, words), rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(rows)), [f"block {block + 1}" for block in range(len(rows))], fontsize=8)
        ax.set_title(name, fontsize=9, loc="left")
        told.append(f"{name}: {_said(batch, output, config, decode, sample)}.")
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in _COLOURS.items()],
        frameon=False, loc="outside upper center", ncols=3, fontsize=8,
    )  # fmt: skip
    return figure, " ".join(told)


def _said(batch: Batch, output: Output, config: DepthsConfig, decode: Callable, sample: int) -> str:
    rows, layout, told = worked(output, config)[:, sample].cpu(), output.layout, []
    visual, text = layout.is_visual[sample].cpu(), layout.is_text[sample].cpu()
    for block in config.routed:
        places = (rows[block] & text).nonzero().flatten().tolist()
        words = told_apart(words_at(batch, output, decode, sample, places))
        named = f" ({', '.join(words)})" if words else ""
        told.append(
            f"block {block + 1} works on {int((rows[block] & visual).sum())} of {int(visual.sum())} places of the "
            f"picture and on {len(words)} of {int(text.sum())} words{named}"
        )
    return "; ".join(told)


def passed_patches(
    batch: Batch, output: Output, config: DepthsConfig, samples: Sequence[int] | None = None
) -> tuple[Figure, str]:
    """A row for each block that has a router, a column for each of the `samples` (default: all): the picture, its
    patches framed where the block worked on them, and veiled where it passed them by. `batch` needs images, one a
    sample."""
    if batch.images is None:
        raise ValueError("patches are drawn on their picture: give a batch with images")
    samples = range(len(batch)) if samples is None else samples
    shape = (len(config.routed), len(samples))
    size = (1.7 * shape[1] + 0.5, 1.75 * shape[0] + 0.2)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    rows, told = worked(output, config).cpu(), []
    for line, block in zip(axes, config.routed, strict=True):
        line[0].set_ylabel(f"block {block + 1}", fontsize=9)
        for ax, sample in zip(line, samples, strict=True):
            seen, patches = _veiled(ax, batch, output, rows[block, sample], sample)
            ax.set_title(f"{seen} of {patches}", fontsize=9)
            told.append(f"picture {sample + 1}, block {block + 1}: {seen} of {patches}")
    return figure, f"Patches that a block works on (framed; all others veiled): {'; '.join(told)}."


def _veiled(ax: Axes, batch: Batch, output: Output, route: Bool[Tensor, " L"], sample: int) -> tuple[int, int]:
    """Draws one picture; returns how many of its patches are in the clear, and how many there are."""
    layout, picture = output.layout, batch.images[sample, 0].cpu()
    places = (layout.kind[sample] == Kind.PATCH).nonzero().flatten().tolist()
    height, width = (int(at[sample].max()) + 1 for at in (layout.row, layout.col))
    ax.imshow(picture.permute(1, 2, 0).clamp(0, 1), extent=(0, width, height, 0), interpolation="nearest")
    for place in places:
        corner = (int(layout.col[sample, place]), int(layout.row[sample, place]))
        if route[place]:
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=PALETTE["vermilion"], linewidth=1.2, zorder=3))
        else:
            ax.add_patch(Rectangle(corner, 1, 1, facecolor="white", alpha=0.8, edgecolor="#999999", linewidth=0.4))
    ax.set(xticks=[], yticks=[])
    return int(route[places].sum()), len(places)


def accuracy_against_skipping(runs: Sequence[DepthResult]) -> tuple[Figure, str]:
    """Mean accuracy against operations and against time, both as shares of the plain decoder's: a point an arm and its
    depths, the mean over seeds with its 95 % interval. ValueError where there is nothing to draw."""
    if not runs:
        raise ValueError("no results: train an arm first")
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), sharey=True, layout="constrained")
    arms, told = {}, []
    for run in runs:
        arms.setdefault(_arm(run), []).append(run)
    for (arm, own), colour in zip(arms.items(), colours(arms), strict=True):
        middle, half = interval([run.mean for run in own])
        spent = {what: statistics.mean(run.left(what) for run in own) for what in ("flops", "milliseconds")}
        for ax, share in zip(axes, spent.values(), strict=True):
            error = 0 if math.isnan(half) else half
            ax.errorbar(share, middle, error, fmt="o", color=colour, capsize=3, label=arm)
        told.append(f"{arm} {middle:.0%} with {spent['flops']:.0%} and {spent['milliseconds']:.0%}")
    for ax, label in zip(axes, ("operations", "time"), strict=True):
        ax.set(xlabel=f"{label}, of the plain decoder's", xlim=(0, 1.15), ylim=(0, 1.03))
    axes[0].set_ylabel("mean accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    return figure, f"Mean accuracy with operations and time, of the plain decoder's: {'; '.join(told)}."


def _arm(run: DepthResult) -> str:
    """A run's arm, and its depths where it has some."""
    return f"{run.design}, {run.capacity:.1%}, every {run.every}" if run.every else run.design
