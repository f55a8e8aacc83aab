"""Raw patches as pictures: the raster with its newlines, the filters of a patch projection, and accuracy against size
or cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivlm.batch import Batch
from minivlm.figures.common import PALETTE, colours
from minivlm.layout import Kind, Layout
from minivlm.model import Output
from minivlm.tables import interval

Runs = Mapping[float, Sequence[float]]  # what was measured at each place of the x axis, once a seed


def rasters(seen: Sequence[tuple[Batch, Output]], patch_size: int, sample: int = 0) -> tuple[Figure, str]:
    """A panel for each batch and what was made of it: the picture of a sample, cut as the decoder reads it. Each patch,
    and each newline behind its row, has the place that it takes in the sequence; what the last patches are filled up
    with is black. A patch is as large in all panels."""
    if not seen or any(batch.images is None for batch, _ in seen):
        raise ValueError("a raster is drawn on its picture: give one or more batches with images")
    rows = max(_count(output.layout.row[sample]) for _, output in seen)
    widths = [max(4, _count(output.layout.col[sample]) + 1) for _, output in seen]  # the title needs four
    size = (0.42 * sum(widths) + 0.4 * len(seen), 0.42 * rows + 1.1)
    figure, axes = plt.subplots(1, len(seen), figsize=size, squeeze=False, layout="constrained", width_ratios=widths)
    told = []
    for ax, width, (batch, output) in zip(axes[0], widths, seen, strict=True):
        ax.set(xlim=(-0.05, width + 0.05), ylim=(rows + 0.05, -0.05), aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        told.append(_raster(ax, batch.images[sample, 0].cpu(), output.layout, sample, patch_size))
    return figure, " ".join(told)


def _count(indices: Tensor) -> int:
    return int(indices.max()) + 1


def _raster(axes: Axes, picture: Float[Tensor, "3 H W"], layout: Layout, sample: int, patch_size: int) -> str:
    rows, cols = _count(layout.row[sample]), _count(layout.col[sample])
    _, height, width = picture.shape
    axes.add_patch(Rectangle((0, 0), cols, rows, color="black"))
    inside = (0, width / patch_size, height / patch_size, 0)
    axes.imshow(picture.permute(1, 2, 0).clamp(0, 1), extent=inside, interpolation="nearest", zorder=2)
    places = layout.is_visual[sample].nonzero().flatten().tolist()
    ends = [place for place in places if layout.kind[sample, place] == Kind.NEWLINE]
    for place in places:
        end = place in ends
        row, col = (int(at[sample, place - end]) for at in (layout.row, layout.col))  # a newline stands by its row
        _cell(axes, row, col + end, place, end)
    axes.set_title(f"{height} x {width} pixels\n{len(places)} tokens", fontsize=9)
    newlines = f", each closed by a newline (places {', '.join(map(str, ends))})" if ends else ", no newline"
    return (
        f"A picture of {height}x{width} pixels is {rows} rows of {cols} patches{newlines}: {len(places)} tokens, "
        f"places {places[0]} to {places[-1]} of the sequence."
    )


def _cell(axes: Axes, row: int, col: int, place: int, end: bool) -> None:
    """A patch, or the newline at the end of its row, with its number."""
    fill = dict(facecolor=PALETTE["sky"]) if end else dict(fill=False)
    axes.add_patch(Rectangle((col + 0.2 * end, row), 1 - 0.2 * end, 1, edgecolor="#888888", zorder=3, **fill))
    clear = {} if end else dict(bbox=dict(facecolor="white", edgecolor="none", pad=0.6, alpha=0.75))
    axes.text(col + 0.5 + 0.1 * end, row + 0.5, str(place), ha="center", va="center", fontsize=7, zorder=4, **clear)


def patch_filters(maps: Mapping[str, Float[Tensor, "D F"]], patch_size: int, count: int = 8) -> tuple[Figure, str]:
    """A row of pictures for each weight of a patch projection (D, patch * patch * 3): its `count` strongest filters,
    the principal directions of its rows, each stretched round grey; above each its share of the weight's energy."""
    figure, axes = plt.subplots(
        len(maps), count, figsize=(1.05 * count, 1.45 * len(maps)), squeeze=False, layout="constrained"
    )
    told = []
    for row, (name, weight) in zip(axes, maps.items(), strict=True):
        _, strengths, directions = torch.linalg.svd(weight.detach().cpu().float(), full_matrices=False)
        shares = (strengths.square() / strengths.square().sum()).tolist()
        for ax, direction, share in zip(row, directions, shares, strict=False):
            filtered = direction.unflatten(0, (patch_size, patch_size, 3))  # rows, columns, colours
            ax.imshow(0.5 + 0.5 * filtered / filtered.abs().max(), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{share:.1%}", fontsize=8)
        row[0].set_ylabel(name, fontsize=9)
        told.append(
            f"{name}: the strongest of {len(strengths)} filters has {shares[0]:.1%} of the energy, the {count} "
            f"strongest {sum(shares[:count]):.0%}; {colour_share(weight, patch_size):.0%} looks at nothing but a "
            f"patch's mean colour"
        )
    return figure, f"{'; '.join(told)}."


def colour_share(weight: Float[Tensor, "D F"], patch_size: int) -> float:
    """The share of a patch projection's energy that a patch of one colour throughout would meet."""
    by_colour = weight.detach().unflatten(1, (patch_size**2, 3)).sum(dim=1) / patch_size  # (D, 3): on unit vectors
    return float(by_colour.square().sum() / weight.detach().square().sum())


def panels(
    series: Mapping[str, Mapping[str, Runs]], x: str, y: str, shaded: Collection[float] = (), log: bool = False
) -> tuple[Figure, str]:
    """A panel for each task of `series`, task -> line -> what each seed measured at each x: the mean over seeds with
    its 95 % interval. `shaded` places are marked by grey bands; `log` stretches the x axis."""
    figure, axes = plt.subplots(
        1, len(series), figsize=(0.6 + 2.9 * len(series), 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    told = []
    for ax, (task, named) in zip(axes[0], series.items(), strict=True):
        for place in shaded:
            ax.axvline(place, color="#dddddd", linewidth=6, zorder=0)
        for (name, runs), colour in zip(named.items(), colours(named), strict=True):
            middle, half = zip(*map(interval, runs.values()), strict=True)
            ax.errorbar(list(runs), middle, half, color=colour, marker="o", markersize=4, capsize=2, label=name)
            at = ", ".join(f"{value:.0%} at {place:,.4g}" for place, value in zip(runs, middle, strict=True))
            told.append(f"{task}, {name}: {at}")
        ax.set(title=task, xscale="log" if log else "linear", ylim=(0, 1.03))
    bands = f" Grey bands at {', '.join(f'{place:g}' for place in shaded)}." if shaded else ""
    figure.supxlabel(x, fontsize=10)
    axes[0, 0].set_ylabel(y)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    return figure, f"{y[:1].upper()}{y[1:]} against {x}: {'; '.join(told)}.{bands}"
