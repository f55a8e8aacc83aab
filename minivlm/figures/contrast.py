"""One space as a picture: similarity matrices, what a temperature makes of them, and classes by their captions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.figures.common import PALETTE


def similarity(
    panels: Mapping[str, Float[Tensor, "I T"]], rows: Sequence[str], columns: Sequence[str]
) -> tuple[Figure, str]:
    """Cosine similarity of each picture (row) with each text (column), one panel a moment, one colour scale for all."""
    size = (0.21 * len(columns) * len(panels) + 3.5, 0.21 * len(rows) + 2.2)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True, layout="constrained")
    told = []
    for ax, (name, matrix) in zip(axes[0], panels.items(), strict=True):
        picture = ax.imshow(matrix.cpu(), cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
        own = matrix.argmax(dim=1).cpu() == matrix.new_tensor(range(len(matrix))).cpu()
        ax.set_title(f"{name}:\n{int(own.sum())} of {len(matrix)} right", fontsize=10)
        ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
        ax.set_yticks(range(len(rows)), rows, fontsize=8)
        told.append(f"{name}, {int(own.sum())} of {len(matrix)} pictures are nearest to their own text")
    figure.colorbar(picture, ax=list(axes[0]), label="cosine similarity", shrink=0.9)
    return figure, "Similarity: " + "; ".join(told) + "."


def match_probabilities(
    cosines: Float[Tensor, "I T"], temperatures: Sequence[float], rows: Sequence[str], columns: Sequence[str]
) -> tuple[Figure, str]:
    """How sure each picture (row) is of each text: a softmax over the row, the cosines divided by a temperature; one
    panel a temperature."""
    if not temperatures or min(temperatures) <= 0:
        raise ValueError(f"give temperatures, each above 0, got {list(temperatures)}")
    size = (0.21 * len(columns) * len(temperatures) + 3.2, 0.21 * len(rows) + 2.0)
    figure, axes = plt.subplots(1, len(temperatures), figsize=size, squeeze=False, sharey=True, layout="constrained")
    told = []
    for ax, temperature in zip(axes[0], temperatures, strict=True):
        sure = (cosines / temperature).softmax(dim=1).cpu()
        drawn = ax.imshow(sure, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
        ax.set_yticks(range(len(rows)), rows, fontsize=8)
        ax.set_title(f"temperature {temperature:.3g}", fontsize=10)
        own, right = sure.diagonal(), int((sure.argmax(dim=1) == sure.new_tensor(range(len(sure)))).sum())
        told.append(
            f"At temperature {temperature:.3g}, {right} of {len(sure)} pictures pick their own text; its probability "
            f"is {float(own.mean()):.0%} in the mean, {float(own.min()):.0%} to {float(own.max()):.0%}."
        )
    figure.colorbar(drawn, ax=list(axes[0]), label="probability of the text", shrink=0.9)
    return figure, " ".join(told)


def zero_shot_bars(
    images: Float[Tensor, "N 3 H W"],
    probabilities: Float[Tensor, "N C"],
    classes: Sequence[str],
    truth: Sequence[str],
    best: int = 4,
) -> tuple[Figure, str]:
    """A picture a column, and below it the probabilities of its `best` likeliest classes, the true one filled."""
    if not len(images) == len(probabilities) == len(truth):
        raise ValueError(f"{len(images)} pictures, {len(probabilities)} rows of probabilities, {len(truth)} truths")
    best = min(best, len(classes))
    figure, axes = plt.subplots(2, len(images), figsize=(1.9 * len(images), 3.6), squeeze=False, layout="constrained")
    told = []
    for top, bottom, image, row, true in zip(*axes, images, probabilities.cpu(), truth, strict=True):
        top.imshow(image.permute(1, 2, 0).clamp(0, 1).cpu(), interpolation="nearest")
        top.set(xticks=[], yticks=[])
        top.set_title(textwrap.shorten(true, 22, placeholder="…"), fontsize=9)
        order = row.argsort(descending=True)[:best].tolist()
        names = [classes[i] for i in order]
        fills = [PALETTE["blue"] if name == true else "white" for name in names]
        bottom.barh(range(best), row[order].tolist(), color=fills, edgecolor=PALETTE["blue"])
        bottom.set(xlim=(0, 1), ylim=(best - 0.5, -0.5), xticks=(0, 1))
        bottom.set_yticks(range(best), [textwrap.shorten(name, 14, placeholder="…") for name in names], fontsize=8)
        told.append(f"{true}: " + ", ".join(f"{classes[i]} {float(row[i]):.0%}" for i in order[:2]))
    return figure, "Likeliest classes (filled: the true one). " + "; ".join(told) + "."
