"""Experts: who looks at whom beside them, how far they have moved from the weights they began as, what a model answers,
and what its decoder can still read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn

from minivlm.batch import IGNORE, Batch
from minivlm.figures.common import PALETTE, colours, wrapped
from minivlm.layout import Layout
from minivlm.model import Output, answer_positions

Blocks = Sequence[Mapping[str, nn.Module]]  # for each block its parts, by name
LIKELIEST = 5


def sights(masks: Mapping[str, tuple[Bool[Tensor, "B 1 L L"], Layout]], sample: int = 0) -> tuple[Figure, str]:
    """A panel a mask and the layout it is of: which places (columns) each place (row) of a sample may look at, in one
    colour for words that look and another for the tokens of pictures."""
    fills = [to_rgb("white"), to_rgb(PALETTE["sky"]), to_rgb(PALETTE["orange"])]
    figure, axes = plt.subplots(1, len(masks), figsize=(3.2 * len(masks), 3.7), squeeze=False, layout="constrained")
    told = []
    for ax, (name, (mask, layout)) in zip(axes[0], masks.items(), strict=True):
        length = int(layout.lengths[sample])
        visual, seen = layout.is_visual[sample, :length].cpu(), mask[sample, 0, :length, :length].cpu()
        ax.imshow(np.array(fills)[seen * (1 + visual[:, None].int())], interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.set(xlabel="place looked at", ylabel="place that looks")
        counts = seen.sum(dim=1)
        first, last = counts[visual][[0, -1]].tolist()
        told.append(
            f"{name}, of {length} places: a picture's first token looks at {first}, its last at {last}, the last word "
            f"at {counts[~visual][-1]}"
        )
    handles = [Patch(color=fills[1], label="a word looks"), Patch(color=fills[2], label="a picture's token looks")]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure, f"{'; '.join(told)}."


def distances(blocks: Blocks, starts: Blocks) -> Float[Tensor, "blocks parts"]:
    """How far each part of each block lies from the same part of its start: the length of the difference of all its
    weights, over the length of those it began as."""
    pairs = zip(blocks, starts, strict=True)
    return torch.tensor([[_distance(part, start[name]) for name, part in block.items()] for block, start in pairs])


@torch.no_grad()
def _distance(part: nn.Module, start: nn.Module) -> float:
    own = dict(start.named_parameters())
    moved = sum(float((weight - own.get(name, 0)).square().sum()) for name, weight in part.named_parameters())
    return (moved / sum(float(weight.square().sum()) for weight in own.values())) ** 0.5


def moved_parts(models: Mapping[str, tuple[Blocks, Blocks]]) -> tuple[Figure, str]:
    """A panel a model, of its blocks and those they began as: how far every part has moved (`distances`), on one colour
    scale."""
    panels = {name: distances(*pair) for name, pair in models.items()}
    top = max(float(panel.max()) for panel in panels.values())
    widths = [panel.shape[1] for panel in panels.values()]
    size = (2.2 + 0.62 * sum(widths), 1.5 + 0.45 * max(map(len, panels.values())))
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained", width_ratios=widths)
    told = []
    for ax, (name, panel) in zip(axes[0], panels.items(), strict=True):
        parts = list(models[name][0][0])
        drawn = ax.imshow(panel, cmap="cividis", vmin=0, vmax=top or 1, interpolation="nearest", aspect="auto")
        ax.set_title(name, fontsize=9)
        ax.set_xticks(range(len(parts)), parts, fontsize=8, rotation=30, ha="right")
        ax.set_yticks(range(len(panel)), [f"block {n}" for n in range(1, len(panel) + 1)], fontsize=8)
        for (row, col), value in np.ndenumerate(panel.numpy()):
            fill = "white" if value < top / 2 else "black"
            ax.text(col, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color=fill)
        mean = ", ".join(f"{part} {value:.0%}" for part, value in zip(parts, panel.mean(dim=0).tolist(), strict=True))
        row, col = divmod(int(panel.argmax()), len(parts))
        told.append(f"{name}: {mean}; furthest {parts[col]} of block {row + 1}, {float(panel.max()):.0%}.")
    figure.colorbar(drawn, ax=list(axes[0]), label="distance (share of length)")
    return figure, f"How far from its start, mean over blocks. {' '.join(told)}"


def retention(models: Mapping[str, tuple[float, float]], start: tuple[float, float]) -> tuple[Figure, str]:
    """What was learned beside what was kept: for each model its accuracy (on scenes told in words, on pictures), and an
    arrow to it from where all began."""
    figure, axes = plt.subplots(figsize=(5.6, 4), layout="constrained")
    axes.plot(*start, "ko", label="before training")
    for (name, end), colour in zip(models.items(), colours(models), strict=True):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "shrinkB": 5})
        axes.plot(*end, "o", color=colour, label=name, markersize=9)
    lowest = min(words for words, _ in (start, *models.values()))
    axes.set(xlim=(min(0.8, lowest - 0.05), 1.01), ylim=(0, 1.02))
    axes.set(xlabel="accuracy on scenes told in words", ylabel="accuracy on pictures")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    told = [f"{name} {words:.0%} and {pictures:.0%}" for name, (words, pictures) in models.items()]
    return figure, (
        f"Accuracy told in words and on pictures: before training {start[0]:.0%} and {start[1]:.0%}; {'; '.join(told)}."
    )


def likely_answers(
    batch: Batch,
    outputs: Mapping[str, Output],
    decode: Callable[[list[int]], str],
    sample: int = 0,
    question: int = 0,
) -> tuple[Figure, str]:
    """The picture of a sample, then a panel an output: the likeliest first words of its answer to one question (counted
    from 0), the right word in a colour of its own. `batch` needs its images and its answers."""
    if batch.images is None or batch.labels is None:
        raise ValueError("answers are drawn beside their picture: give a batch with images and labels")
    asked, right = _asked(batch, decode, sample, question)
    figure, axes = plt.subplots(
        1, 1 + len(outputs), figsize=(2.0 + 1.9 * len(outputs), 2.4), squeeze=False, layout="constrained"
    )
    axes[0, 0].imshow(batch.images[sample, 0].permute(1, 2, 0).clamp(0, 1).cpu(), interpolation="nearest")
    axes[0, 0].set(xticks=[], yticks=[])
    axes[0, 0].set_xlabel(wrapped(asked, 22), fontsize=9)
    told = []
    for ax, (name, output) in zip(axes[0, 1:], outputs.items(), strict=True):
        shares, ids = _first_word(output, batch, sample, question).topk(LIKELIEST)
        words = [decode([i]) or "·" for i in ids.tolist()]
        fills = [PALETTE["green"] if word == right else PALETTE["sky"] for word in words]
        ax.barh(range(LIKELIEST), shares.tolist(), color=fills)
        ax.set_yticks(range(LIKELIEST), words, fontsize=8)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1), xlabel="probability")
        ax.set_title(name, fontsize=9)
        first = ", ".join(f"{word} {share:.0%}" for word, share in zip(words[:3], shares.tolist(), strict=False))
        told.append(f"{name}: {first}")
    return figure, f'"{asked}", right is {right}. {"; ".join(told)}.'


def _asked(batch: Batch, decode: Callable[[list[int]], str], sample: int, question: int) -> tuple[str, str]:
    """The words of a question, and the first of its answer."""
    here = batch.segments[sample] == question + 1
    learned, words = batch.labels[sample] != IGNORE, batch.text_mask[sample]
    if not (here & learned).any():
        raise ValueError(f"sample {sample} has no question {question} with an answer, counted from 0")
    ids = batch.input_ids[sample]
    return decode(ids[here & words & ~learned].tolist()), decode([int(ids[here & learned][0])])


def _first_word(output: Output, batch: Batch, sample: int, question: int) -> Float[Tensor, " V"]:
    """How likely each word is to be the first of that answer."""
    rows, columns, _ = answer_positions(output.layout, batch.labels)
    place: Int[Tensor, " words"] = columns[(rows == sample) & (output.layout.segment[rows, columns] == question + 1)]
    return output.logits[sample, output.layout.predecessor()[sample, place[0]]].detach().float().softmax(dim=-1).cpu()
