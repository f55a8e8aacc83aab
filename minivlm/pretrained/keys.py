"""Keys of one model to keys of another: every key and every shape accounted for, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from minivlm.layers import ACTIVATIONS

State = dict[str, Tensor]
Rules = list[tuple[str, str]]  # (regular expression over a whole key of theirs, our key)

WB = r"\.(weight|bias)"
REST = (
    r".*",
    r"\g<0>",
)  # last of a model's rules: an unknown key keeps its name, to be listed with all that is missing
_THEIR_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


def rename(state: Mapping[str, Tensor], rules: Rules, prefix: str = "", into: str = "") -> State:
    """The part of `state` under `prefix`, renamed by the first rule that matches a whole key, put under `into`.

    Raises ValueError naming the keys that no rule knows.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        if not key.startswith(prefix):
            continue
        hits = (re.sub(pattern, ours, rest) for rest in [key[len(prefix) :]] for pattern, ours in rules
                if re.fullmatch(pattern, rest))  # fmt: skip
        ours = next(hits, None)
        if ours is None:
            unknown.append(key)
        else:
            renamed[into + ours] = value
    if unknown:
        raise ValueError(f"no place for {len(unknown)} keys: {', '.join(unknown)}")
    return renamed


def under(theirs: str, rules: Rules, ours: str) -> Rules:
    """The same rules for keys that begin with `theirs`, a regular expression without groups, and are to begin with
    `ours`."""
    return [(theirs + pattern, ours + name) for pattern, name in rules]


def load_exactly(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `model`; ValueError listing every missing key, surplus key and differing shape."""
    check_fit(model, state)
    model.load_state_dict(state)


def check_fit(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """ValueError listing every key that `model` misses in `state`, every surplus one and every differing shape."""
    wanted = model.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"surplus {key}" for key in state if key not in wanted]
    problems += [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        raise ValueError(f"the weights do not fit this {type(model).__name__}:\n  " + "\n  ".join(problems))


def activation(name: str) -> str:
    name = _THEIR_ACTIVATIONS.get(name, name)
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return name


def refuse(what: str, problems: dict[str, bool]) -> None:
    """ValueError naming the variants, of those true in `problems`, that our class does not compute."""
    found = [problem for problem, present in problems.items() if present]
    if found:
        raise ValueError(f"this {what} is a variant that minivlm does not compute: {', '.join(found)}")


def split_packed(state: Mapping[str, Tensor]) -> State:
    """q, k and v apart, where a model keeps them as one `in_proj_weight` or `in_proj_bias`."""
    split: State = {}
    for key, value in state.items():
        packed = re.fullmatch(r"(.*)in_proj_(weight|bias)", key)
        if packed:
            split |= {f"{packed[1]}{name}.{packed[2]}": part for name, part in zip("qkv", value.chunk(3), strict=True)}
        else:
            split[key] = value
    return split


def split_heads(state: Mapping[str, Tensor], heads: int) -> State:
    """q, k and v apart, where a model keeps them as one `query_key_value`, head after head, each with its three."""
    split: State = {}
    for key, value in state.items():
        fused = re.fullmatch(r"(.*)query_key_value\.(weight|bias)", key)
        if fused:
            before, kind = fused.groups()
            parts = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2)  # (3, heads*d, ...)
            split |= {f"{before}{name}_proj.{kind}": part for name, part in zip("qkv", parts, strict=True)}
        else:
            split[key] = value
    return split
