"""An explorer of grounding: pick an object, see the true box, the box that a model said, and where it looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.explore.base import Explorer, buttons
from minivlm.figures.grounding import said_and_seen
from minivlm.grounding import Located


def grounding_explorer(
    images: Float[Tensor, "N 3 H W"], located: Sequence[Located], heats: Mapping[str, Float[Tensor, "N rows cols"]]
) -> Explorer:
    """One answer at a time: picture n belongs to `located[n]`, and to row n of each kind of heat. ValueError for other
    numbers of them, or for none."""
    counts = [len(images), len(located), *map(len, heats.values())]
    if len(set(counts)) > 1 or not located:
        raise ValueError(f"pictures, answers and heats must be as many, at least one; got {counts}")
    names = [(f"{n + 1}: {item.referent.phrase}", n) for n, item in enumerate(located)]
    controls = {"sample": buttons("Where is", names)}
    if heats:
        controls["heat"] = buttons("Heat", [(name, name) for name in heats])

    def draw(sample: int, heat: str | None = None) -> tuple[Figure, str]:
        item = located[sample]
        seen = {} if heat is None else {heat: heats[heat][sample]}
        figure, told = said_and_seen(images[sample], {"true": item.referent.box, "said": item.said}, seen)
        return figure, f"Where is {item.referent.phrase}? {told}"

    return Explorer("Grounding explorer", controls, draw)
