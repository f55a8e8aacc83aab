"""Checkpoints: the states of a training run on disk, each whole or not at all, so that a kill loses little."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minivlm.sharding import part_of, wholes


@runtime_checkable
class Stage(Protocol):
    """What a checkpoint knows of a stage; `minivlm.train.Stage` has it all."""

    steps: int

    def lr_at(self, step: int) -> float: ...


class Checkpoints:
    """The states of a run, in `folder/step-<n>/`: model, optimizer and records. A folder exists whole or not at all."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"cannot write checkpoints into {folder}: choose another folder")
        for unfinished in folder.glob(".writing-*"):
            shutil.rmtree(unfinished, ignore_errors=True)  # another process of this run may be at it too

    def latest(self) -> Path | None:
        return max(self.folder.glob("step-*"), default=None)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, records: list, writes: bool = True) -> None:
        """Write a new state beside the last one, then remove older ones: a kill at any instant leaves one whole.

        All processes call this, as each may have a part of the state; one of them `writes`.
        """
        weights, moments = wholes(remembered(model), writes), wholes(_moments(optimizer), writes)
        if not writes:
            return
        final = self.folder / f"step-{len(records):08d}"
        writing = self.folder / f".writing-{final.name}"
        writing.mkdir()
        save_file({key: value.contiguous() for key, value in weights.items()}, writing / "model.safetensors")
        save_file(moments, writing / "optimizer.safetensors")
        (writing / "state.json").write_text(json.dumps({"records": records}))
        shutil.rmtree(final, ignore_errors=True)
        os.rename(writing, final)
        for old in sorted(self.folder.glob("step-*"))[:-2]:
            shutil.rmtree(old)

    def restore(self, model: nn.Module, stages: Sequence[Stage]) -> list[dict[str, Any]]:
        """Bring the model back to the latest state, if there is one; returns the records of the steps up to it."""
        latest = self.latest()
        if latest is None:
            return []
        records = json.loads((latest / "state.json").read_text())["records"]
        if not all(_belongs(record, stages) for record in records):
            raise ValueError(f"{latest} is of a run with other stages: choose another folder, or remove it")
        state, wanted = load_file(latest / "model.safetensors"), remembered(model)
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
            raise ValueError(f"{latest} is a checkpoint of another model: choose another folder, or remove it")
        model.load_state_dict(state, strict=False)
        return records

    def restore_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the optimizer of the stage that was under way back to the latest state."""
        _set_moments(optimizer, load_file(self.latest() / "optimizer.safetensors"))


def _belongs(record: dict[str, Any], stages: Sequence[Stage]) -> bool:
    """Would a run of these stages have had this learning rate at this step? It depends on their length and their lr."""
    if record["stage"] >= len(stages) or record["step"] >= stages[record["stage"]].steps:
        return False
    return math.isclose(record["lr"], stages[record["stage"]].lr_at(record["step"]))


def remembered(model: nn.Module) -> dict[str, Tensor]:
    """The weights, each once (a tied output layer is the embedding table under another name), and the running averages
    of norms."""
    averages = {key: value for key, value in model.state_dict().items() if key in dict(model.named_buffers())}
    return dict(model.named_parameters()) | averages


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def _set_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    learning = [value for group in optimizer.param_groups for value in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".")
        like = learning[int(index)]
        state.setdefault(int(index), {})[name] = part_of(value, like) if value.shape == like.shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
