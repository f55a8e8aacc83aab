"""Models that are built without memory for their weights, and filled with some that exist, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from minivlm.pretrained.keys import State, check_fit


@contextmanager
def weightless() -> Iterator[None]:
    """Parameters registered herein are on the meta device; what a model computes from its configuration and keeps as a
    buffer is not, for no file holds it. Not to be entered by two threads at once."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = registered
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def filled(
    config: Any, state: State, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> nn.Module:
    """The model that `config` builds, with the weights of `state`, which is used up on the way: at no time is there
    more than the model and one tensor. Weights that are on `device` in that `dtype` (None: their own) already are taken
    as they are, not copied. ValueError as of `load_exactly`."""
    with weightless(), torch.device("cpu"):
        model = config.build()
    check_fit(model, state)
    homes: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}  # a tied weight has several
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            homes.setdefault(parameter, []).append((module, name))
    for key, parameter in list(model.named_parameters()):
        value = nn.Parameter(state.pop(key).detach().to(device, dtype).contiguous(), parameter.requires_grad)
        for module, name in homes[parameter]:
            setattr(module, name, value)
    return model.to(device, dtype)
