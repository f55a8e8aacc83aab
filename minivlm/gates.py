"""Gates of gated cross attention: how far they are open, and a model with its gates forced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from minivlm.fusion.cross_attention import GatedCrossAttention
from minivlm.model import VLM


def openings(model: VLM) -> dict[str, float]:
    """How far each gate is open, tanh of the number that is learned: 0 shut, 1 or -1 wholly open. Of gates with a
    number for every channel the mean distance from shut. ValueError for a design without gates."""
    found = {name: gate.detach().tanh() for name, gate in _gates(model).items()}
    return {name: float(gate) if len(gate) == 1 else float(gate.abs().mean()) for name, gate in found.items()}


@contextmanager
def forced(model: VLM, times: float) -> Iterator[None]:
    """Within, every gate of `model` is `times` as far open as it was, but not further than wholly: at 0 the decoder is
    the untouched one. ValueError for a design without gates."""
    gates = _gates(model)
    learned = {name: gate.detach().clone() for name, gate in gates.items()}
    try:
        with torch.no_grad():
            for gate in gates.values():
                gate.copy_((times * gate.tanh()).clamp(-1, 1).atanh())  # tanh of atanh(1), infinity, is 1
        yield
    finally:
        with torch.no_grad():
            for name, gate in gates.items():
                gate.copy_(learned[name])


def _gates(model: VLM) -> dict[str, Tensor]:
    """The numbers that are learned: of each layer, the first layer's first, the gate of its look and of its MLP."""
    if not isinstance(model.fusion, GatedCrossAttention):
        raise ValueError("no gates: only designs with gated cross attention, such as flamingo, have some")
    return {
        f"layer {number}, {what}": gate
        for number, layer in enumerate(model.fusion.layers, start=1)
        for what, gate in (("look", layer.attention_gate), ("MLP", layer.mlp_gate))
    }
