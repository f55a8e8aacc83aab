"""Published systems beside ours: where their weights lie, and where a wrong conversion leaves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import nn

from minivlm.figures.common import PALETTE, colours
from minivlm.model import VLM
from minivlm.side_by_side import TOLERANCE, parting

ROOMS = {
    "vision": PALETTE["sky"], "connector": PALETTE["orange"], "separators": PALETTE["yellow"],
    "fusion": PALETTE["green"], "language": PALETTE["blue"],
}  # fmt: skip
LOWEST = 1e-8  # of what is drawn: below it layers are equal


def parameter_map(models: Mapping[str, VLM], per_row: int = 4) -> tuple[Figure, str]:
    """A square a model, its area the number of weights, on one scale for all: cut into rooms (columns), and these into
    their layers (strips), from the first at the top to the last. Models may be on the meta device. ValueError for none.
    """
    if not models:
        raise ValueError("no model to map: give one or more")
    counted = {name: {room: _layers(getattr(model, room)) for room in model.parts} for name, model in models.items()}
    totals = {name: sum(map(sum, rooms.values())) for name, rooms in counted.items()}
    sides = {name: (total / max(totals.values())) ** 0.5 for name, total in totals.items()}
    cols = min(per_row, len(models))
    high = [max(list(sides.values())[n : n + cols]) for n in range(0, len(models), cols)]  # a row: its largest square
    size = (2.6 * cols, 2.6 * sum(high) + 0.5 * len(high) + 0.4)
    figure, axes = plt.subplots(len(high), cols, figsize=size, squeeze=False, height_ratios=high, layout="constrained")
    for n, ax in enumerate(axes.flat):
        ax.set(xlim=(-0.02, 1), ylim=(high[n // cols], 0), aspect="equal")
        ax.axis("off")
    for ax, (name, rooms) in zip(axes.flat, counted.items(), strict=False):
        _square(ax, rooms, sides[name])
        ax.set_title(f"{name}\n{_short(totals[name])} weights", fontsize=9, loc="left")
    seen = [room for room in ROOMS if any(room in rooms for rooms in counted.values())]
    figure.legend(handles=[Patch(color=ROOMS[room], label=room) for room in seen], frameon=False,
                  loc="outside lower center", ncols=len(seen))  # fmt: skip
    return figure, " ".join(_told(name, rooms, totals[name]) for name, rooms in counted.items())


def _layers(part: nn.Module) -> list[int]:
    """The weights of each layer of a part in its order, the blocks one by one; a tied weight counts once, what is not
    in a layer comes first."""
    seen: set[nn.Parameter] = set()
    counts = [sum(p.numel() for p in part.parameters(recurse=False))]
    for layer in _children(part):
        new = set(layer.parameters()) - seen
        counts.append(sum(p.numel() for p in new))
        seen |= new
    return [count for count in counts if count]


def _children(part: nn.Module) -> Iterator[nn.Module]:
    for child in part.children():
        yield from child if isinstance(child, nn.ModuleList) else [child]


def _square(axes: Axes, rooms: Mapping[str, list[int]], side: float) -> None:
    """From the upper left corner, its sides so long."""
    left, total = 0.0, sum(map(sum, rooms.values()))
    for room, layers in rooms.items():
        width, top = side * sum(layers) / total, 0.0
        for count in layers:
            height = side * count / sum(layers)
            look = dict(facecolor=ROOMS[room], edgecolor="white", linewidth=0.3)
            axes.add_patch(Rectangle((left, top), width, height, **look))
            top += height
        seen = dict(color=ROOMS[room], linewidth=1.2, zorder=3 - sum(layers) / total)  # else a small room is not
        axes.plot([left, left], [0, side], **seen)
        left += width


def _told(name: str, rooms: Mapping[str, list[int]], total: int) -> str:
    parts = ", ".join(f"{room} {_share(sum(layers) / total)}" for room, layers in rooms.items())
    return f"{name}: {_short(total)} weights, of which {parts}."


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.1 else f"{100 * part:.2g}%"


def _short(count: int) -> str:
    return f"{count / 1e9:,.1f} billion" if count >= 1e9 else f"{count / 1e6:,.3g} million"


def parting_lines(models: Mapping[str, Mapping[str, float]], tolerance: float = TOLERANCE) -> tuple[Figure, str]:
    """For each model, the `differences` of its layers from those of the reference, in their order; a cross marks the
    first above the tolerance (dashed). Layers of all models must be of one network, of which one may run more.
    ValueError for none."""
    longest = max(models.values(), key=len, default={})
    if not longest:
        raise ValueError("nothing to draw: give the differences of one model or more")
    place = {name: number for number, name in enumerate(longest)}
    blocks = list(map(_block, longest))
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    told = []
    for (name, found), colour in zip(models.items(), colours(models), strict=True):
        xs, ys = [place[layer] for layer in found], [max(value, LOWEST) for value in found.values()]
        axes.plot(xs, ys, color=colour, marker="o", markersize=2.5, linewidth=1, label=name)
        first, *_, last = parting(found, tolerance), *found.values()
        if first:
            axes.plot([place[first]], [found[first]], color=colour, marker="X", markersize=9)
        where = f"parts at {first} ({found[first]:.1e})" if first else f"parts nowhere (at most {max(ys):.0e})"
        told.append(f"{name} {where} and ends {last:.1e} apart")
    axes.axhline(tolerance, color="black", linestyle="dashed", linewidth=1)
    starts = [n for n, block in enumerate(blocks) if n == 0 or block != blocks[n - 1]]
    axes.set_xticks(starts, [blocks[n] for n in starts], rotation=50, ha="right", fontsize=7)
    axes.set(yscale="log", ylim=(0.7 * LOWEST, 4), ylabel="difference, of the output's size")
    axes.grid(axis="x", linewidth=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, f"Difference from the reference, layer by layer: {'; '.join(told)}."


def _block(layer: str) -> str:
    """The block that a layer is in, else its part of the model: "vision.blocks.0", "connector"."""
    words = layer.split(".")
    return ".".join(words[:3] if "blocks" in words else words[:1])
