"""An explorer of what accuracy costs: any price against any task."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.frontier import COSTS, MEAN, frontiers
from minivlm.tables import Compared


def frontier_explorer(results: Sequence[Compared]) -> Explorer:
    """Designs by a price and by their accuracy on a task, or in the mean, and those that nothing beats. ValueError
    where there are no results."""
    if not results:
        raise ValueError("no results to explore: run `python -m minivlm compare`")
    controls = {
        "cost": buttons("Price", [(name, name) for name in COSTS]),
        "task": slider("Task", [(name, name) for name in (MEAN, *results[0].accuracy)]),
    }

    def draw(cost: str, task: str) -> tuple[Figure, str]:
        return frontiers(results, [cost], task)

    return Explorer("Frontier explorer", controls, draw)
