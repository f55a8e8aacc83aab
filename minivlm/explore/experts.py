"""An explorer of experts: what a model answers while its experts are blended back into the weights that they began as.

It reads `Output`s that are there; none is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from minivlm.batch import IGNORE, Batch
from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.experts import likely_answers
from minivlm.model import Output


def experts_explorer(batch: Batch, outputs: Mapping[float, Output], decode: Callable[[list[int]], str]) -> Explorer:
    """What is likeliest to be answered to each question of `batch`, for experts that lie a share of the way from the
    decoder's weights (0) to what they have become (1). `outputs` of the batch are by that share; ValueError without."""
    if not outputs:
        raise ValueError("nothing to blend: outputs are empty")
    named = {f"{share:.0%}": outputs[share] for share in sorted(outputs)}
    pictures = [(str(sample + 1), sample) for sample in range(len(batch))]
    controls = {
        "share": slider("Experts", [(name, name) for name in named], list(named)[-1]),
        "sample": buttons("Picture", pictures),
        **{f"question of {sample}": buttons("Question", _questions(batch, decode, sample)) for _, sample in pictures},
    }

    def hidden(sample: int, **_: object) -> set[str]:
        return {key for key in controls if " of " in key and key != f"question of {sample}"}

    def draw(share: str, sample: int, **chosen: int) -> tuple[Figure, str]:
        [question] = chosen.values()
        figure, told = likely_answers(batch, {f"experts at {share}": named[share]}, decode, sample, question)
        return figure, f"Picture {sample + 1}. {told}"

    return Explorer("Experts explorer", controls, draw, hidden)


def _questions(batch: Batch, decode: Callable[[list[int]], str], sample: int) -> list[tuple[str, int]]:
    """Every question of a sample, and its number, counted from 0."""
    ids, segments, learned = batch.input_ids[sample], batch.segments[sample], batch.labels[sample] != IGNORE
    numbers = segments[learned].unique().tolist()
    words = batch.text_mask[sample] & ~learned
    return [(decode(ids[words & (segments == number)].tolist()), number - 1) for number in numbers]
