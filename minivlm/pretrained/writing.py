"""Weights out: a folder that transformers opens again, of a model of ours and a folder of the system that it is.

A converter only moves numbers, so it need not be written a second time the other way round: the gradient of what it
makes, taken with our weights for the gradient that arrives, is our weights in the places that they came from.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivlm.pretrained.converters import CONVERTERS
from minivlm.pretrained.files import Weights, json_of
from minivlm.pretrained.folders import OWN, kind_of, unfilled
from minivlm.pretrained.hub import folder_of
from minivlm.pretrained.keys import State
from minivlm.pretrained.layouts import in_memory

_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja")


def write_like(weights: State, config: Any, folder: Path, like: str | Path) -> None:
    """Write `weights`, of the model that our `config` builds, to a new `folder` in the form of `like`, a folder or a
    name on the hub: its configuration, its keys, its tokenizer and processor.

    ValueError where transformers has no class of that kind, where `like` describes another model than `config`, or
    where its converter does more than move numbers; FileExistsError for a folder that holds something.
    """
    like = Path(like) if Path(like).is_dir() else folder_of(str(like))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty: name a new folder")
    kind = kind_of(like, json_of(like / "config.json"))
    if kind in OWN:
        raise ValueError(f"transformers has no class {kind}: save without `like`, to a file of ours")
    theirs = unfilled(like, kind)
    state = _moved_back(theirs, weights, config, kind)
    state |= _of_theirs_alone([key for key, value in state.items() if value is None], like, kind)
    theirs.load_state_dict(state, assign=True)
    theirs.tie_weights()
    unfinished = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(unfinished, ignore_errors=True)
    theirs.save_pretrained(unfinished)
    _copy_the_rest(like, unfinished)
    unfinished.replace(folder)


def _moved_back(theirs: nn.Module, weights: State, config: Any, kind: str) -> dict[str, Tensor | None]:
    """Our weights by the names of theirs in memory; None for what ours does not have."""
    dtype = next(iter(weights.values())).dtype
    leaves = {  # of any size, and of no memory
        key: torch.zeros((), dtype=dtype).expand(value.shape).requires_grad_()
        for key, value in theirs.state_dict().items()
    }
    made_config, made = _convert(theirs, leaves, kind)
    if made_config != config:
        raise ValueError(
            f"`like` is a {made_config}, and the model to be saved is a {config}: name the folder it is of"
        )
    into = [weights[key].cpu() for key in made]
    back = torch.autograd.grad(list(made.values()), list(leaves.values()), into, allow_unused=True)
    state = dict(zip(leaves, back, strict=True))
    again = _convert(theirs, {key: leaves[key] if value is None else value for key, value in state.items()}, kind)[1]
    changed = [key for key, value in again.items() if not torch.equal(value, weights[key].cpu())]
    if changed:
        raise ValueError(f"{kind} would not read these weights as they are, it computes them: {', '.join(changed)}")
    return state


def _convert(theirs: nn.Module, state: Mapping[str, Tensor], kind: str) -> tuple[Any, State]:
    """What the converter makes of a model of theirs that has these weights."""
    theirs.state_dict = lambda: dict(state)
    try:
        with torch.enable_grad():
            return CONVERTERS[kind](theirs)
    finally:
        del theirs.state_dict


def _of_theirs_alone(keys: list[str], like: Path, kind: str) -> State:
    """Weights that theirs has and ours does not, as they are in `like`."""
    if not keys:
        return {}
    weights = Weights(like)
    named = in_memory(weights, kind)
    missing = [key for key in keys if key not in named]
    if missing:
        raise ValueError(f"ours has no {', '.join(missing)}, nor has {like}: name the folder that the model came from")
    return {key: weights[named[key]] for key in keys}


def _copy_the_rest(like: Path, folder: Path) -> None:
    for path in (path for pattern in _BESIDE for path in like.glob(pattern)):
        if not (folder / path.name).exists() and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)
