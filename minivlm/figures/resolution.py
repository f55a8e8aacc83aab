"""What encoders are shown of one page, patch by patch, and what reading costs them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.figures.common import PALETTE, colours
from minivlm.tables import interval

Shown = tuple[Float[Tensor, "3 H W"], int]  # a picture, and the side of a patch of it in pixels
Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture's sides


def encoder_views(
    views: Mapping[str, Shown], boxes: Mapping[str, Box] | None = None, scale: float = 2.2
) -> tuple[Figure, str]:
    """Pictures as encoders get them, name -> (pixels, side of a patch), each pixel a square and patches fenced; all
    equally high, `scale` inches. `boxes`: of those named, what to put a frame round. ValueError for no picture."""
    if not views:
        raise ValueError("nothing to show: give a picture or more")
    boxes = boxes or {}
    widths = [image.shape[2] / image.shape[1] for image, _ in views.values()]
    figure, axes = plt.subplots(
        1,
        len(views),
        figsize=(scale * sum(widths) + 0.3 * len(views), scale + 0.6),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    told = []
    for ax, (name, (image, patch)) in zip(axes[0], views.items(), strict=True):
        height, width = image.shape[1:]
        ax.imshow(image.permute(1, 2, 0).clamp(0, 1), interpolation="nearest", extent=(0, width, height, 0))
        ax.vlines(range(0, width + 1, patch), 0, height, colors=PALETTE["sky"], linewidth=0.5)
        ax.hlines(range(0, height + 1, patch), 0, width, colors=PALETTE["sky"], linewidth=0.5)
        rows, cols = height // patch, width // patch
        ax.set_title(f"{name}\n{height}x{width}: {rows}x{cols} patches", fontsize=8)
        ax.axis("off")
        told.append(
            f"{name}: {height} by {width} pixels, {rows} by {cols} patches" + _framed(ax, image, boxes.get(name))
        )
    return figure, "; ".join(told) + "."


def _framed(ax: Axes, image: Float[Tensor, "3 H W"], box: Box | None) -> str:
    """Draws the frame a pixel outside of its box and says how large the box is there."""
    if box is None:
        return ""
    height, width = image.shape[1:]
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    frame = plt.Rectangle(
        (left - 1, top - 1), right - left + 2, bottom - top + 2, fill=False, color=PALETTE["vermilion"]
    )
    ax.add_patch(frame)
    return f", what is framed is {bottom - top:.1f} pixels high"


def accuracy_against_cost(
    designs: Mapping[str, tuple[Mapping[str, float], Sequence[float]]], task: str
) -> tuple[Figure, str]:
    """Accuracy on a task against visual tokens and against operations. `designs`: name -> ({"tokens": .., "GFLOP": ..},
    accuracies, one a seed); mean and 95 % interval. ValueError where there is nothing to draw."""
    if not designs:
        raise ValueError("no results: train a design first")
    axis_names = {"tokens": "visual tokens a page", "GFLOP": "GFLOP a page"}
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True, layout="constrained")
    told = []
    for (name, (cost, accuracies)), colour in zip(designs.items(), colours(designs), strict=True):
        middle, half = interval(accuracies)
        for ax, key in zip(axes, axis_names, strict=True):
            ax.errorbar(
                cost[key], middle, 0 if math.isnan(half) else half, fmt="o", color=colour, capsize=3, label=name
            )
        told.append(f"{name} {middle:.0%} with {cost['tokens']:,.0f} tokens and {cost['GFLOP']:.2f} GFLOP")
    for ax, (key, label) in zip(axes, axis_names.items(), strict=True):
        ax.set(xlabel=label, xscale="log", ylim=(0, 1))
        every = sorted({cost[key] for cost, _ in designs.values()})
        ax.set_xticks(every, [f"{value:.3g}" for value in every], fontsize=7, rotation=30)
        ax.minorticks_off()
    axes[0].set_ylabel(f"accuracy on {task}")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    return figure, f"Accuracy on {task}: {'; '.join(told)}."
