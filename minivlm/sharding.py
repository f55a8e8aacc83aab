"""Sharded weights (FSDP2): each process holds a part of every weight, and what is kept or handed back is whole.

Everybody has to ask for a whole at once, as each gives its part to all others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def whole(tensor: Tensor) -> Tensor:
    """All of it, where this process has only a part."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def wholes(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """All of each, one after the other, in this machine's memory; nothing unless this process is to `keep` them."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            kept[name] = full.cpu() if full is not tensor else tensor
    return kept


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole that belongs to this process, where it has only a part of `like`, of the same shape."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


@torch.no_grad()
def hand_back(learner: nn.Module, model: nn.Module) -> None:
    """What a sharded copy has learned, into the model that it was made of: weights, and running averages."""
    learned = learner.state_dict()
    for name, value in model.state_dict().items():
        value.copy_(whole(learned[name]))
