"""An explorer of raw patches: how a picture of another size is cut, how many tokens it becomes, and what is answered.

It reads `Output`s that are there; none is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from minivlm.batch import Batch
from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.experts import likely_answers
from minivlm.figures.raw import rasters
from minivlm.model import Output


def raw_explorer(
    batches: Mapping[int, Batch],
    outputs: Mapping[str, Mapping[int, Output]],
    decode: Callable[[list[int]], str],
    patch_size: int,
) -> Explorer:
    """The raster of a picture by its side in pixels, and what each model answers to the first question on it.

    `batches` hold the same samples at each side, `outputs` what each model made of them; ValueError for models that
    were not asked at the sides that the batches have, and where there are none."""
    if not outputs or any(set(made) != set(batches) for made in outputs.values()):
        asked = "; ".join(f"{name} at {sorted(made)}" for name, made in outputs.items()) or "no model"
        raise ValueError(f"batches are of sides {sorted(batches)}, outputs of {asked}: ask each model at each side")
    sides = sorted(batches)
    controls = {
        "side": slider("Picture side", [(f"{side} pixels", side) for side in sides], sides[len(sides) // 2]),
        "sample": buttons("Picture", [(str(sample + 1), sample) for sample in range(len(batches[sides[0]]))]),
    }

    def draw(side: int, sample: int) -> tuple[Figure, str]:
        batch, made = batches[side], {name: by_side[side] for name, by_side in outputs.items()}
        figure, told = rasters([(batch, next(iter(made.values())))], patch_size, sample)
        _, answers = likely_answers(batch, made, decode, sample)
        return figure, f"{told} {answers}"

    return Explorer("Raw patches explorer", controls, draw)
