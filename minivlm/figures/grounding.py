"""Boxes on pictures: what was meant, what was said, and where it was looked meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivlm.data.boxes import Box
from minivlm.data.referring import iou
from minivlm.figures.common import PALETTE, colours, wrapped


def boxes_drawn(
    images: Float[Tensor, "N 3 H W"],
    boxes: Mapping[str, Sequence[Box | None]],
    captions: Sequence[str],
    side: int | None = None,
) -> tuple[Figure, str]:
    """Each picture with a box of each name (None: none there), and with the lines between `side` x `side` cells. With
    two names, how much the two boxes of a picture share is told. ValueError where the numbers do not agree."""
    counts = {len(images), len(captions), *map(len, boxes.values())}
    if len(counts) > 1 or not boxes:
        told = ", ".join(f"{len(found)} {name}" for name, found in boxes.items()) or "none"
        raise ValueError(f"{len(images)} pictures, {len(captions)} captions, boxes: {told}; give one to each picture")
    per_row = min(4, len(images))
    rows = -(-len(images) // per_row)
    size = (2.3 * per_row, 2.7 * rows + 0.3)
    figure, axes = plt.subplots(rows, per_row, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    told = []
    for ax, image, caption, *found in zip(axes.flat, images, captions, *boxes.values(), strict=False):
        draw_picture(ax, image, dict(zip(boxes, found, strict=True)), side)
        told.append(f"{caption} ({_told(dict(zip(boxes, found, strict=True)))})")
        ax.set_xlabel(wrapped(caption, 30), fontsize=8)
    lines = [plt.Line2D([], [], color=colour, linewidth=2) for colour in _inks(boxes)]
    figure.legend(lines, list(boxes), frameon=False, loc="outside upper center", ncols=len(boxes))
    return figure, "Boxes: " + "; ".join(told) + "."


def said_and_seen(
    image: Float[Tensor, "3 H W"], boxes: Mapping[str, Box | None], heats: Mapping[str, Float[Tensor, "rows cols"]]
) -> tuple[Figure, str]:
    """A picture with its boxes, and beside it each kind of heat over the patches, with the same boxes."""
    figure, axes = plt.subplots(1, 1 + len(heats), figsize=(2.4 * (1 + len(heats)), 2.7), layout="constrained")
    axes = np.atleast_1d(axes)
    draw_picture(axes[0], image, boxes)
    told = [_told(boxes)]
    for ax, (name, heat) in zip(axes[1:], heats.items(), strict=True):
        ax.imshow(heat.cpu(), cmap="cividis", extent=(0, 1, 1, 0), interpolation="nearest")
        _outline(ax, boxes)
        ax.set_title(name, fontsize=9)
        ax.set(xticks=[], yticks=[])
        row, col = divmod(int(heat.argmax()), heat.shape[1])
        told.append(f"{name} peaks at row {row + 1}, column {col + 1}")
    return figure, "; ".join(told) + "."


def draw_picture(axes: Axes, image: Float[Tensor, "3 H W"], boxes: Mapping[str, Box | None], side: int | None = None):
    """A picture over the unit square, with boxes and the lines between cells."""
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).cpu(), extent=(0, 1, 1, 0), interpolation="nearest")
    for line in np.arange(1, side or 1) / (side or 1):
        axes.axhline(line, color="#808080", linewidth=0.3)
        axes.axvline(line, color="#808080", linewidth=0.3)
    _outline(axes, boxes)
    axes.set(xticks=[], yticks=[])


def _outline(axes: Axes, boxes: Mapping[str, Box | None]) -> None:
    styles = ("solid", "dashed", "dotted")
    for number, ((_, box), colour) in enumerate(zip(boxes.items(), _inks(boxes), strict=True)):
        if box is not None:
            left, top, right, bottom = box
            line = dict(edgecolor=colour, linewidth=2, linestyle=styles[number % 3])
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **line))


def _inks(boxes: Mapping[str, object]) -> list[str]:
    """A colour a name: vermilion first, which shows on all backgrounds."""
    return sorted(PALETTE.values(), key=lambda ink: ink != PALETTE["vermilion"])[: len(colours(boxes))]


def _told(boxes: Mapping[str, Box | None]) -> str:
    words = [
        f"{name} " + ("none" if box is None else ", ".join(f"{edge:.2f}" for edge in box))
        for name, box in boxes.items()
    ]
    there = list(boxes.values())
    if len(there) == 2 and None not in there:
        words.append(f"IoU {iou(*there):.2f}")
    return "; ".join(words)
