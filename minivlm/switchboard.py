"""A switchboard: designs as settings of four switches (vision, connector, fusion, decoder), any of which may be thrown
alone.

Which parts there are, and who has them, is read from the mini configurations of `DESIGNS`; that two designs are one
swap apart is found by comparing these, never typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from minivlm.designs import DESIGNS
from minivlm.model import VLMConfig

PARTS = ("vision", "connector", "fusion", "decoder")


@dataclass(frozen=True)
class Swap:
    """Two designs that are the same but for one part."""

    part: str
    before: str
    after: str


@cache
def answering() -> dict[str, VLMConfig]:
    """The mini configuration of every design that answers questions."""
    return {name: design.mini() for name, design in DESIGNS.items() if design.answers}


def parts_of(config: VLMConfig) -> dict[str, Any]:
    """What stands at each switch. Of vision also which layer is read and what separates rows and views; of the decoder
    also whether its blocks are routed."""
    seen = (config.vision, config.layer, config.class_token, config.separators)
    return dict(zip(PARTS, (seen, config.connector, config.fusion, config.language), strict=True))


@cache
def options() -> dict[str, dict[str, Any]]:
    """For each switch its settings, by a label that names the first design that has it: "Q-Former (blip2)"."""
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, config in answering().items():
        for part, own in parts_of(config).items():
            if own not in found[part].values():
                found[part][f"{_said(name, config, part)} ({name})"] = own
    return found


def _said(name: str, config: VLMConfig, part: str) -> str:
    if part == "decoder":
        return type(config.language).__name__.removesuffix("Config")
    return getattr(DESIGNS[name], part).partition(",")[0]  # the newline of rows is said, and set, with vision


def combine(vision: str, connector: str, fusion: str, decoder: str) -> VLMConfig:
    """The configuration with these settings (labels of `options`), for `compare` or to build. ValueError for a label
    that there is not, and for parts that do not go together, with the reason."""
    wanted = dict(zip(PARTS, (vision, connector, fusion, decoder), strict=True))
    there = options()
    for part, label in wanted.items():
        if label not in there[part]:
            raise ValueError(f"no {part} {label!r}; choose one of {', '.join(there[part])}")
    (tower, layer, class_token, separators), *rest = (there[part][label] for part, label in wanted.items())
    config = replace(
        next(iter(answering().values())),
        **dict(zip(("connector", "fusion", "language"), rest, strict=True)),
        **dict(vision=tower, layer=layer, class_token=class_token, separators=separators),
    )
    with torch.device("meta"):
        config.build()
    return config


def names_of(config: VLMConfig) -> list[str]:
    """The designs that have this very configuration."""
    return [name for name, other in answering().items() if other == config]


def differing(one: VLMConfig, other: VLMConfig) -> list[str]:
    """The switches that stand otherwise."""
    theirs = parts_of(other)
    return [part for part, own in parts_of(one).items() if own != theirs[part]]


def different(configs: Mapping[str, VLMConfig]) -> dict[str, VLMConfig]:
    """Of those that are the same in all parts the first."""
    found: dict[str, VLMConfig] = {}
    for name, config in configs.items():
        if config not in found.values():
            found[name] = config
    return found


def swaps(configs: Mapping[str, VLMConfig]) -> list[Swap]:
    """What can be learned of single parts from these designs, part by part: among those that are the same but for one
    part, the first against each of the others."""
    found, configs = [], different(configs)
    for part in PARTS:
        begun: list[str] = []  # the first of each group
        for name, config in configs.items():
            before = next((first for first in begun if differing(configs[first], config) == [part]), None)
            if before is None:
                begun.append(name)
            else:
                found.append(Swap(part, before, name))
    return found
