"""Lines: one quantity against another, for several things at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minivlm.figures.common import colours


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    marks: Mapping[str, float] | None = None,
    log: bool = False,
) -> tuple[Figure, str]:
    """`series` name -> (x values, y values), on axes named `x` and `y`. A dashed upright line for each of `marks`, name
    -> x value; `log` stretches the y axis so that small values are seen beside large ones."""
    marks = marks or {}
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    told = []
    for (name, (xs, ys)), colour in zip(series.items(), colours(series), strict=True):
        if len(xs) != len(ys) or not len(xs):
            raise ValueError(f"{name!r} has {len(xs)} x values and {len(ys)} y values: give one or more of each")
        axes.plot(xs, ys, label=name, color=colour, marker="o" if len(xs) <= 10 else None)
        low, high = (pick(range(len(ys)), key=ys.__getitem__) for pick in (min, max))
        told.append(f"{name} is lowest, {ys[low]:.3g}, at {xs[low]:.3g} and highest, {ys[high]:.3g}, at {xs[high]:.3g}")
    for name, place in marks.items():
        axes.axvline(place, color="black", linestyle="dashed", linewidth=1)
        axes.annotate(name, (place, 1), (3, -3), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                      va="top", fontsize=8)  # fmt: skip
    axes.set(xlabel=x, ylabel=y, yscale="log" if log else "linear")
    if all(float(value).is_integer() for xs, _ in series.values() for value in xs):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    marked = " Marked: " + ", ".join(f"{name} at {place:.3g}" for name, place in marks.items()) + "." if marks else ""
    return figure, f"{y[:1].upper()}{y[1:]} against {x}: {'; '.join(told)}.{marked}"
