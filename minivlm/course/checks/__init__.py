"""What the exercises ask for, a file a lesson: `lNN.EXERCISES` maps an id to its `ExerciseSpec`.

A check compares an answer with the reference on small random inputs, and with what the classic mistakes would give, so
that it can name them. Inputs lie on the device of the lesson: what would fail in the lesson fails in the check.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivlm.course.exercise import ExerciseSpec, Mistake
from minivlm.runtime import pick_device


def exercises_of(lesson: str) -> dict[str, ExerciseSpec]:
    """The exercises of lesson "01"; empty if it has none."""
    return import_module(f"minivlm.course.checks.l{lesson}").EXERCISES if lesson in _lessons() else {}


def known_ids() -> list[str]:
    """The id of every exercise of the course."""
    return [id for lesson in _lessons() for id in exercises_of(lesson)]


def _lessons() -> list[str]:
    return sorted(path.stem[1:] for path in Path(__file__).parent.glob("l[0-9][0-9].py"))


def draw(*shape: int, seed: int) -> Tensor:
    """Normal random numbers of their own seed, on the lesson's device."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(pick_device())


class Norm(nn.Module):
    """A LayerNorm with gains and biases of its own, so that it shows whose norm was taken."""

    def __init__(self, seed: int):
        super().__init__()
        self.gain, self.bias = 1 + 0.5 * draw(6, seed=seed), draw(6, seed=seed + 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]) * self.gain + self.bias


def compare(got: object, want: Tensor, classics: Mapping[str, Tensor]) -> None:
    """Pass if `got` equals `want` to 1e-4. Else raise Mistake: the message of the classic mistake that gives `got`, or
    what is wrong with its shape, its type or its numbers."""
    if not isinstance(got, Tensor):
        raise Mistake(f"It must return a tensor, got {type(got).__name__}.")
    same_kind = got.is_floating_point() == want.is_floating_point()
    if same_kind and near(got, want):
        return
    for message, wrong in classics.items():
        if near(got, wrong):
            raise Mistake(message)
    if got.shape != want.shape:
        raise Mistake(f"The result must have shape {tuple(want.shape)}, got {tuple(got.shape)}.")
    if not same_kind:
        raise Mistake(f"The result must be of type {want.dtype}, got {got.dtype}.")
    wrong = ~got.detach().cpu().double().isclose(want.cpu().double(), rtol=1e-4, atol=1e-4)
    raise Mistake(f"{int(wrong.sum())} of {wrong.numel()} numbers are wrong, and no classic mistake gives these.")


def near(got: Tensor, other: Tensor) -> bool:
    """Equal shapes, and numbers equal to 1e-4."""
    if got.shape != other.shape:
        return False
    return torch.allclose(got.detach().cpu().double(), other.detach().cpu().double(), rtol=1e-4, atol=1e-4)
