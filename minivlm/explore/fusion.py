"""An explorer of gates: what a model says, and how much of it is right, while its gates are forced.

It reads `Output`s and scores that are there; none runs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from minivlm.batch import Batch
from minivlm.evaluate import Score
from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.experts import likely_answers
from minivlm.model import Output


def gates_explorer(
    batch: Batch, outputs: Mapping[float, Output], scores: Mapping[float, Score], decode: Callable[[list[int]], str]
) -> Explorer:
    """The likeliest answers to the question of each sample of `batch` (one picture, one question), with all gates so
    many times as far open as they were learned to be.

    `outputs` of the batch, and `scores` on many other questions, are by that number. ValueError for other numbers here
    than there, or for none.
    """
    if not outputs or outputs.keys() != scores.keys():
        numbers = (", ".join(f"{times:g}" for times in given) or "none" for given in (outputs, scores))
        raise ValueError("outputs are of gates x {}, scores of gates x {}: give both of each".format(*numbers))
    controls = {
        "times": slider("Gates", [(f"x {times:g}", times) for times in sorted(outputs)], max(outputs)),
        "sample": buttons("Picture", [(str(n + 1), n) for n in range(len(batch))]),
    }

    def draw(times: float, sample: int) -> tuple[Figure, str]:
        name = f"gates x {times:g}, {scores[times].accuracy:.0%} right"
        figure, told = likely_answers(batch, {name: outputs[times]}, decode, sample)
        many = f"Of {scores[times].total} questions {scores[times].accuracy:.1%} are answered right."
        return figure, f"Picture {sample + 1}. {told} {many}"

    return Explorer("Gates explorer", controls, draw)
