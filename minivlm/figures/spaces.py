"""Embedding graphs as pictures: what leads into which space, and so who can be compared with whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minivlm.figures.common import PALETTE

Ways = Sequence[tuple[str, str]]  # of a modality or a space, and the space that it leads to

SHOWN = {
    "audio": ("sound", PALETTE["orange"]),
    "image": ("picture", PALETTE["sky"]),
    "text": ("caption", PALETTE["green"]),
}
TRAINED = (("audio", "image"), ("image", "text"))
_PLACES = {
    "audio": (0, 2),
    "image": (0, 1),
    "text": (0, 0),
    "fine": (1.2, 1.5),
    "coarse": (2.2, 0.5),
    "shared": (1.7, 1),
}


def embedding_graphs(graphs: Mapping[str, Ways]) -> tuple[Figure, str]:
    """A panel a graph: arrows are projections, boxes are spaces. Below, for each two of sound, picture and caption, the
    space in which they can be compared, and whether they were trained to be. ValueError for no graph."""
    if not graphs:
        raise ValueError("no graphs: give the ways of one or more")
    figure, axes = plt.subplots(1, len(graphs), figsize=(3.5 * len(graphs), 3.4), squeeze=False, layout="constrained")
    told = []
    for ax, (name, ways) in zip(axes[0], graphs.items(), strict=True):
        _draw(ax, ways)
        lines = [_compared(ways, *pair) for pair in combinations(SHOWN, 2)]
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("\n".join(lines), fontsize=9)
        told.append(f"{name}: {'; '.join(lines)}")
    return figure, f"{'. '.join(told)}."


def meeting(ways: Ways, one: str, other: str) -> str | None:
    """The first space on the way in which both can be compared; None if there is none."""
    both = _reached(ways, one) & _reached(ways, other)
    return max(both, key=lambda space: len(_reached(ways, space)), default=None)


def _reached(ways: Ways, start: str) -> set[str]:
    """All spaces that lie on a way from there."""
    nexts = {end for begin, end in ways if begin == start}
    return nexts.union(*(_reached(ways, space) for space in nexts))


def _compared(ways: Ways, one: str, other: str) -> str:
    space = meeting(ways, one, other)
    names = f"{SHOWN[one][0]} and {SHOWN[other][0]}"
    if space is None:
        return f"{names}: no way"
    return f"{names}: {space} space, {'trained' if (one, other) in TRAINED else 'never trained'}"


def _draw(axes: Axes, ways: Ways) -> None:
    axes.set(xlim=(-0.45, 2.65), ylim=(-0.4, 2.4), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    for begin, end in ways:
        arrow = dict(arrowstyle="-|>", color="#555555", shrinkA=24, shrinkB=24, linewidth=1.4)
        axes.annotate("", _PLACES[end], _PLACES[begin], arrowprops=arrow)
    for node in dict.fromkeys(node for way in ways for node in way):
        name, colour = SHOWN.get(node, (f"{node}\nspace", "white"))
        box = dict(boxstyle="round,pad=0.5", facecolor=colour, edgecolor="#555555")
        axes.text(*_PLACES[node], name, ha="center", va="center", fontsize=9, bbox=box)
