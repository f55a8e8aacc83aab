"""An explorer of the arena: two designs, in one task or in all, and who wins how often.

It counts battles of margins that are there; no model is run.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.arena import Margins
from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.arena import duel_panels

ALL = "all tasks"


def arena_explorer(margins: Margins) -> Explorer:
    """The battles of any design of `margins` against any other, within a task or over all, each of which weighs the
    same. It begins with the first two designs."""
    designs = [(name, name) for name in margins.designs]
    tasks = [ALL, *margins.kinds] if len(margins.kinds) > 1 else list(margins.kinds)
    controls = {
        "first": slider("Design", designs),
        "second": slider("Against", designs, margins.designs[1]),
        "task": buttons("Task", [(task, task) for task in tasks]),
    }

    def draw(first: str, second: str, task: str) -> tuple[Figure, str]:
        if first == second:
            return plt.figure(figsize=(2, 0.2)), f"{first} against itself: every battle is a tie. Choose another."
        chosen = margins if task == ALL else margins.only(task)
        figure, told = duel_panels(chosen, first, second)
        return figure, f"{task[:1].upper()}{task[1:]}: {told}"

    return Explorer("Arena explorer", controls, draw)
