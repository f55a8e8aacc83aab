"""The token strip: what the decoder reads, one cell a token, and which of them it is taught to say."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minivlm.batch import Batch
from minivlm.figures.common import PALETTE, words_at
from minivlm.layout import Kind
from minivlm.model import Output, answer_positions

_COLOURS = {
    Kind.TEXT: "#FFFFFF",
    Kind.NEWLINE: PALETTE["sky"],
    Kind.LATENT: PALETTE["purple"],
    Kind.CELL: PALETTE["green"],
    Kind.TAG: PALETTE["yellow"],
}


def token_strip(
    batch: Batch, output: Output, decode: Callable[[list[int]], str], sample: int = 0, per_row: int = 16, image: int = 0
) -> tuple[Figure, str]:
    """Every position of one sample: patches as thumbnails, words as words; taught words framed, all others hatched.

    Reads `output.layout` only. Patches are shown as thumbnails where `batch.images` is given, else as grey cells.
    """
    layout, length = output.layout, int(output.layout.lengths[sample])
    taught = _taught(batch, output, sample)
    rows = -(-length // per_row)
    figure, axes = plt.subplots(figsize=(per_row * 0.62, rows * 0.62))
    axes.set(xlim=(0, per_row), ylim=(rows, 0), aspect="equal")
    axes.axis("off")
    for place in range(length):
        x, y = place % per_row, place // per_row
        if layout.kind[sample, place] == Kind.PATCH:
            _patch(axes, batch, layout, sample, place, x, y)
        else:
            _word(axes, batch, output, decode, sample, place, x, y)
        frame = (
            dict(edgecolor=PALETTE["vermilion"], linewidth=2.2, zorder=3)
            if place in taught
            else dict(edgecolor="#999999", linewidth=0.6, hatch="///", alpha=0.4)
        )
        axes.add_patch(Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, fill=False, **frame))
    return figure, describe_strip(output, sample, len(taught))


def describe_strip(output: Output, sample: int, taught: int) -> str:
    layout, length = output.layout, int(output.layout.lengths[sample])
    visual, text = int(layout.is_visual[sample].sum()), int(layout.is_text[sample].sum())
    return (
        f"{length} tokens: {visual} of the picture ({visual / length:.0%}) and {text} words; "
        f"the loss is taken on {taught} of them (framed), {length - taught} are only read (hatched)."
    )


def _taught(batch: Batch, output: Output, sample: int) -> set[int]:
    if batch.labels is None:
        return set()
    rows, columns, _ = answer_positions(output.layout, batch.labels)
    return set(columns[rows == sample].tolist())


def _patch(axes, batch, layout, sample, place, x, y) -> None:
    if batch.images is None:
        axes.add_patch(Rectangle((x, y), 1, 1, color="#cccccc"))
        return
    picture = batch.images[sample, layout.image[sample, place]].permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    rows, cols = int(layout.row[sample].max()) + 1, int(layout.col[sample].max()) + 1
    height, width = picture.shape[0] // rows, picture.shape[1] // cols
    top, left = int(layout.row[sample, place]) * height, int(layout.col[sample, place]) * width
    tile = np.clip(picture[top : top + height, left : left + width], 0, 1)
    axes.imshow(tile, extent=(x + 0.03, x + 0.97, y + 0.97, y + 0.03), interpolation="nearest", zorder=1)


def _word(axes, batch, output, decode, sample, place, x, y) -> None:
    kind = Kind(int(output.layout.kind[sample, place]))
    axes.add_patch(Rectangle((x, y), 1, 1, color=_COLOURS[kind]))
    if kind == Kind.TEXT:
        [word] = words_at(batch, output, decode, sample, [place])
        size = min(9, 50 / max(len(line) for line in word.split("-")))
        clear = dict(facecolor="white", edgecolor="none", pad=0.8)  # no hatch across the letters
        word = word.replace("-", "-\n")
        axes.text(x + 0.5, y + 0.5, word, ha="center", va="center", fontsize=size, bbox=clear, zorder=4)
