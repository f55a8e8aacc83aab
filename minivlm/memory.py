"""Memory: how many bytes a pass takes at its most, counted tensor by tensor, and a bound that it must not cross.

Counted is every tensor that comes into being, for as long as anybody holds it: states, what is kept for the backward
pass, gradients, keys and values. So the number is the same on every machine. Not counted: what was there before
(weights, the batch), what a kernel needs within itself, and what an allocator rounds up.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minivlm.batch import IGNORE, Batch
from minivlm.model import VLM


class Memory(TorchDispatchMode):
    """While it is entered: `live` bytes of new tensors now, and the `peak` of that so far. MemoryError as soon as they
    are more than `room` (None: any number may live). ValueError for room of less than a byte."""

    def __init__(self, room: int | None = None):
        super().__init__()
        if room is not None and room < 1:
            raise ValueError(f"room must be 1 byte or more, or None for any number, got {room}")
        self.room, self.live, self.peak = room, 0, 0
        self._known: dict[int, weakref.ref] = {}  # storages, of which several tensors may be views

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        before = {id(given.untyped_storage()) for given in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for made in _tensors(result):
            storage = made.untyped_storage()
            if id(storage) not in before and id(storage) not in self._known:
                self._count(storage)
        if self.room is not None and self.live > self.room:
            raise MemoryError(f"{self.live:,} bytes are needed, there is room for {self.room:,}: hand on fewer tokens")
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def forget(_: weakref.ref) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def training_memory(model: VLM, batch: Batch, room: int | None = None) -> int:
    """Bytes that one forward and backward pass takes at its most, gradients of what trains among them. MemoryError
    where there is not so much `room`; ValueError for a batch without labels. No gradient is left behind."""
    if batch.labels is None or not (batch.labels != IGNORE).any():
        raise ValueError("nothing to learn: give a batch with labels")
    try:
        with Memory(room) as memory:
            model(batch).loss.backward()
    finally:
        model.zero_grad()
    return memory.peak


def answering_memory(model: VLM, batch: Batch, words: int = 4, room: int | None = None) -> int:
    """Bytes that saying up to so many `words` takes at its most, cache among them. MemoryError as `training_memory`."""
    with Memory(room) as memory:
        model.generate(replace(batch, labels=None), words)
    return memory.peak
