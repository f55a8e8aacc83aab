"""Training and accuracy as pictures: curves, bars with intervals, rows of examples."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from minivlm.evaluate import Score
from minivlm.figures.common import colours, wrapped


def curves(losses: Mapping[str, Sequence[float]], smooth: float = 0.9) -> tuple[Figure, str]:
    """Loss against step, one line a run, each an exponential mean of its neighbours."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    told = []
    for (name, values), colour in zip(losses.items(), colours(losses), strict=True):
        mean, line = values[0], []
        for value in values:
            mean = smooth * mean + (1 - smooth) * value
            line.append(mean)
        axes.plot(line, label=name, color=colour)
        told.append(f"{name} goes from {values[0]:.2f} to {line[-1]:.2f} in {len(values)} steps")
    axes.set(xlabel="step", ylabel="loss (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    figure.tight_layout()
    return figure, "Loss: " + "; ".join(told) + "."


def accuracy_bars(groups: Mapping[str, Mapping[str, Score]]) -> tuple[Figure, str]:
    """Accuracy with its 95 % interval, a group of bars a task, a colour a model; a black line marks chance."""
    tasks = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    figure, axes = plt.subplots(figsize=(max(5, 0.8 + 1.1 * len(tasks)), 3.2))
    told = []
    for number, ((name, scores), colour) in enumerate(zip(groups.items(), colours(groups), strict=True)):
        places = np.arange(len(tasks)) + (number - (len(groups) - 1) / 2) * width
        values = np.array([scores[task].accuracy for task in tasks])
        error = np.abs(np.array([scores[task].interval for task in tasks]).T - values)
        axes.bar(places, values, width, yerr=error, label=name, color=colour, capsize=2)
        told.append(f"{name} " + ", ".join(f"{task} {value:.0%}" for task, value in zip(tasks, values, strict=True)))
    for place, task in enumerate(tasks):
        chance = next(iter(groups.values()))[task].chance
        axes.plot([place - 0.45, place + 0.45], [chance, chance], color="black", linewidth=1.5)
    axes.set(ylim=(0, 1), ylabel="accuracy", xticks=range(len(tasks)))
    axes.set_xticklabels([textwrap.fill(task, 12) for task in tasks])
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=len(groups))
    figure.tight_layout()
    return figure, "Accuracy (black line: chance): " + "; ".join(told) + "."


def picture_grid(images: Float[Tensor, "N 3 H W"], captions: Sequence[str], per_row: int = 8) -> tuple[Figure, str]:
    """Pictures in rows with a line of text under each (broken where it is long)."""
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} pictures and {len(captions)} captions: give one to each")
    per_row = min(per_row, len(images))
    rows = -(-len(images) // per_row)
    texts = [wrapped(caption, 20) for caption in captions]
    height = 1.6 + 0.15 * max(text.count("\n") + 1 for text in texts)
    figure, axes = plt.subplots(
        rows, per_row, figsize=(1.5 * per_row, height * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for ax, image, text in zip(axes.flat, images, texts, strict=False):
        ax.imshow(image.permute(1, 2, 0).clamp(0, 1).cpu(), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color("#bbbbbb")  # where a white picture ends
        ax.set_xlabel(text, fontsize=8, labelpad=3)
    count = f"{len(images)} pictures" if len(images) > 1 else "One picture"
    return figure, f"{count}: " + "; ".join(captions).removesuffix(" .") + "."
