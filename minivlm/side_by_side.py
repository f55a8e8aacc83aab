"""Two models that should be one, side by side: what each of their layers makes of the same input, and where they part.

Which layer of theirs is which of ours is not typed: a converter hands weights on as they are, so a layer is known by
its weights. What it splits, joins or turns has no twin, and the layers around it tell enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minivlm.outputs import layer_outputs
from minivlm.pretrained.converters import CONVERTERS

TOLERANCE = 1e-3  # of the size of a layer's output: rounding stays a thousand times below it, a wrong rule above


def twins(theirs: nn.Module) -> dict[str, str]:
    """Of a model of transformers or open_clip: the name of each layer of ours that has one of its weights, and the name
    of that layer in theirs. KeyError for a class that `from_transformers` does not know."""
    homes: dict[tuple, list[str]] = {}  # a tied weight has several
    for key, value in theirs.state_dict().items():
        homes.setdefault(_identity(value), []).append(key)
    named = {}
    for ours, value in CONVERTERS[type(theirs).__name__](theirs)[1].items():
        layer, _, kind = ours.rpartition(".")
        keys = homes.get(_identity(value), [])
        if kind == "weight" and keys:
            named[layer] = keys.pop(0).rpartition(".")[0]
    return named


def _identity(value: Tensor) -> tuple:
    return value.data_ptr(), value.shape, value.stride()


@torch.no_grad()
def outputs(model: nn.Module, names: Iterable[str], run: Callable[[], Any]) -> dict[str, Tensor]:
    """What the layers of these names give while `run` runs, as `layer_outputs` keeps it."""
    with layer_outputs(model, names) as given:
        run()
    return given


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The root mean square of the difference, as a share of that of `theirs`."""
    return float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], named: Mapping[str, str]) -> dict[str, float]:
    """How far apart the layers of two models are, in the order of ours, by `outputs` of both and the `twins` of their
    names. Left out: layers that theirs did not run, or whose outputs have another shape, as words have before and
    after a picture has taken its places."""
    both = {name: (value, theirs[named[name]]) for name, value in ours.items() if named[name] in theirs}
    return {name: apart(*pair) for name, pair in both.items() if pair[0].shape == pair[1].shape}


def parting(found: Mapping[str, float], tolerance: float = TOLERANCE) -> str | None:
    """The first layer whose difference is above the tolerance; None where there is none."""
    return next((name for name, value in found.items() if value > tolerance), None)


def differences_table(found: Mapping[str, float], named: Mapping[str, str], around: int = 3) -> str:
    """The layers before and after the parting, so many each, as a Markdown table; the last ones where nothing parts."""
    names, first = list(found), parting(found)
    middle = names.index(first) if first else len(names)
    lines = ["| layer | theirs | difference |", "| --- | --- | ---: |"]
    for name in names[max(0, middle - around) : middle + around]:
        mark = " **parts**" if name == first else ""
        lines.append(f"| `{name}` | `{named[name]}` | {found[name]:.1e}{mark} |")
    return "\n".join(lines)
