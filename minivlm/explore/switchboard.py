"""A switchboard to throw: vision, connector, fusion and decoder, any of them alone, and what is known of the result.

It reads results that are there and builds on the meta device; no model is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.budget import budget
from minivlm.explore.base import Explorer, buttons
from minivlm.figures.frontier import MEAN
from minivlm.figures.swaps import neighbours
from minivlm.switchboard import combine, names_of, options
from minivlm.tables import Compared

WORDS = 8  # of a question


def switchboard_explorer(results: Sequence[Compared]) -> Explorer:
    """A switch for each part and one for the task; it begins at the first setting of each (LLaVA's). ValueError where
    there are no results."""
    if not results:
        raise ValueError("no results to explore: run `python -m minivlm compare`")
    controls = {part: buttons(part.capitalize(), _same(labels)) for part, labels in options().items()}
    controls["task"] = buttons("Task", _same([MEAN, *results[0].accuracy]))

    def draw(task: str, **chosen: str) -> tuple[Figure, str]:
        title = " + ".join(chosen.values())
        try:
            config = combine(**chosen)
        except ValueError as error:
            refused = f"{title} do not go together, whatever the task ({task})"
            figure = plt.figure(figsize=(8, 0.6))
            figure.text(0.5, 0.5, refused, ha="center", va="center", fontsize=8, wrap=True)
            return figure, f"{refused}: {error}."
        figure, told = neighbours(results, config, title, task)
        cost = budget(config, words=WORDS)
        whose = " and ".join(names_of(config)) or "nobody's design, `compare` can run it"
        return figure, f"{whose}: {cost.visual_tokens} tokens, {sum(cost.weights.values()):,} weights. {told}"

    return Explorer("Switchboard", controls, draw)


def _same(labels: Iterable[str]) -> list[tuple[str, str]]:
    return [(label, label) for label in labels]
