"""A folder as transformers saves it becomes our model: its configuration says which, its class says which weights there
must be, and a converter makes ours of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minivlm.pretrained.cogvlm import cogvlm
from minivlm.pretrained.converters import CONVERTERS
from minivlm.pretrained.empty import filled
from minivlm.pretrained.files import Weights, json_of
from minivlm.pretrained.hub import OPEN_CLIP, folder_of
from minivlm.pretrained.keys import State, check_fit
from minivlm.pretrained.layouts import in_memory
from minivlm.pretrained.moondream import moondream
from minivlm.pretrained.openclip import OPEN_CLIP_CONFIG, open_clip_folder, open_clip_pretrained
from minivlm.pretrained.qwen_vl import qwen_vl
from minivlm.pretrained.yi_vl import yi_vl

KINDS = [kind for kind in CONVERTERS if kind not in ("CLIP", "Kosmos2TextForCausalLM")]  # those have no folders
# Systems of which transformers has no class, by what their configurations call theirs.
OWN: dict[str, Callable[[Path, dict[str, Any]], tuple[Any, State]]] = {
    "CogVLMForCausalLM": cogvlm,
    "LlavaLlamaForCausalLM": yi_vl,
    "Moondream": moondream,
    "QWenLMHeadModel": qwen_vl,
}


def open_published(
    name: str | Path, device: torch.device | str, dtype: torch.dtype | None, revision: str | None = None
) -> nn.Module:
    """The model of a folder, or of a name on the hub or of open_clip, ready to be asked. Raises as `minivlm.load`."""
    if str(name).startswith(OPEN_CLIP):
        config, state = open_clip_pretrained(str(name).removeprefix(OPEN_CLIP))
    else:
        config, state = converted(Path(name) if Path(name).is_dir() else folder_of(str(name), revision))
    return filled(config, state, device, dtype).eval()


def converted(folder: Path) -> tuple[Any, State]:
    """Our configuration of a folder's model, and its weights by our names, not yet read."""
    if not (folder / "config.json").is_file() and (folder / OPEN_CLIP_CONFIG).is_file():
        return open_clip_folder(folder)
    told = json_of(folder / "config.json")
    kind = kind_of(folder, told)
    if kind in OWN:
        return OWN[kind](folder, told)
    theirs = unfilled(folder, kind)
    fill(theirs, Weights(folder))
    return CONVERTERS[kind](theirs)


def kind_of(folder: Path, told: dict[str, Any]) -> str:
    """The class that a configuration asks for; ValueError if there is none or it is not ours."""
    asked = told.get("architectures") or []
    kinds = [kind for kind in asked if kind in KINDS or kind in OWN]
    if not kinds:
        what = ", ".join(asked) or f"a model of type {told.get('model_type')!r} that does not name its class"
        raise ValueError(f"{folder} holds {what}; there are: {', '.join([*KINDS, *OWN])}")
    return kinds[0]


def unfilled(folder: Path, kind: str) -> nn.Module:
    """The model of transformers that a folder's configuration describes, on the meta device."""
    import transformers

    theirs = getattr(transformers, kind)
    config = theirs.config_class.from_pretrained(folder)
    with torch.device("meta"):
        return theirs(config).eval()


def fill(theirs: nn.Module, weights: Weights) -> None:
    """Give a model of transformers a file's weights as they are, not yet read; ValueError listing all that do not fit.
    A weight that the model has twice may be in the file once."""
    named = in_memory(weights, type(theirs).__name__)
    state = {name: weights[key] for name, key in named.items()}
    check_fit(theirs, {name: state[other] for name, other in _tied(theirs).items() if other in state} | state)
    theirs.load_state_dict(state, strict=False, assign=True)
    theirs.tie_weights()


def _tied(model: nn.Module) -> dict[str, str]:
    """Names under which a weight appears a second time, and the other of both."""
    first: dict[nn.Parameter, str] = {}
    pairs = [(name, first.setdefault(p, name)) for name, p in model.named_parameters(remove_duplicate=False)]
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    return dict(pairs) | {other: name for name, other in pairs}
