"""An explorer of depths: which patches go through a block, and what is answered, as it works on more places or fewer.

It reads `Output`s that are there; none is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from minivlm.batch import Batch
from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.depths import passed_patches
from minivlm.figures.experts import likely_answers
from minivlm.language.depths import DepthsConfig
from minivlm.model import Output


def depths_explorer(
    batch: Batch, outputs: Mapping[float, Output], config: DepthsConfig, decode: Callable[[list[int]], str]
) -> Explorer:
    """The patches that each routed block works on, and the likeliest answer to the first question on the picture.
    `outputs` of the batch, with routes captured, are by capacity; ValueError without."""
    if not outputs:
        raise ValueError("no capacity to choose: outputs are empty")
    named = {f"{capacity:.0%}": outputs[capacity] for capacity in sorted(outputs)}
    controls = {
        "capacity": slider("Capacity", [(name, name) for name in named]),
        "sample": buttons("Picture", [(str(sample + 1), sample) for sample in range(len(batch))]),
    }

    def draw(capacity: str, sample: int) -> tuple[Figure, str]:
        figure, told = passed_patches(batch, named[capacity], config, [sample])
        _, answers = likely_answers(batch, {f"capacity {capacity}": named[capacity]}, decode, sample)
        return figure, f"{told} {answers}"

    return Explorer("Depths explorer", controls, draw)
