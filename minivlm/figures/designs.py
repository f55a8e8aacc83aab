"""The map of designs: what each answers to the three questions, when it came, and the tokens it spends on a picture."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.budget import Budget
from minivlm.designs import Design
from minivlm.figures.common import colours


def design_map(designs: Mapping[str, Design], budgets: Mapping[str, Budget]) -> tuple[Figure, str]:
    """A row a design, oldest first: its answers in words, and a bar of its visual tokens, coloured by fusion.

    A design without a budget makes one vector of a picture, so its bar is one token long.
    """
    ordered = sorted(designs.items(), key=lambda item: item[1].year)
    tokens = [budgets[name].visual_tokens if name in budgets else 1 for name, _ in ordered]
    fusions = list(dict.fromkeys(design.fusion for _, design in ordered))
    colour = dict(zip(fusions, colours(fusions), strict=True))
    figure, axes = plt.subplots(figsize=(9.5, 0.9 + 0.42 * len(ordered)), layout="constrained")
    seen = set()
    for place, ((_, design), count) in enumerate(zip(ordered, tokens, strict=True)):
        label = None if design.fusion in seen else design.fusion
        seen.add(design.fusion)
        axes.barh(place, count, color=colour[design.fusion], height=0.7, label=label)
        said = f"{count:,} tokens" if count > 1 else "one vector"
        axes.text(count * 1.15, place, f"{said}: {design.vision}, {design.connector}", va="center", fontsize=8)
    axes.set(xscale="log", xlim=(0.7, 4e6), ylim=(len(ordered) - 0.4, -0.6), xlabel="visual tokens a picture")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set_yticks(range(len(ordered)), [f"{design.title} ({design.year})" for _, design in ordered])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8, loc="upper right", title="fusion")
    told = "; ".join(
        f"{design.title} ({design.year}) {count:,} ({design.vision}, {design.connector}, {design.fusion})"
        for (_, design), count in zip(ordered, tokens, strict=True)
    )
    return figure, f"Visual tokens of a picture in the published systems: {told}."
