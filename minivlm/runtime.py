"""Where and how big: the one place that picks device, number type and scale."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import torch

SCALES = ("smoke", "cpu", "gpu")


@dataclass(frozen=True)
class Setup:
    """What a lesson runs on: torch device, number type for training, scale, and the seed of everything random."""

    device: torch.device
    dtype: torch.dtype
    scale: str
    seed: int


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best there is: CUDA, then Apple's MPS, then the CPU. Of several processes on a
    machine, each picks a GPU of its own."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        own = os.environ.get("LOCAL_RANK")
        return torch.device("cuda" if own is None else f"cuda:{own}")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where a GPU multiplies it fast, else float32."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def pick_scale(device: torch.device) -> str:
    """`MINIVLM_SCALE` if it is set ("smoke", "cpu" or "gpu"), else "gpu" on a GPU and "cpu" without one."""
    scale = os.environ.get("MINIVLM_SCALE") or ("gpu" if device.type == "cuda" else "cpu")
    if scale not in SCALES:
        raise ValueError(f"MINIVLM_SCALE is {scale!r}; choose one of {', '.join(SCALES)}")
    return scale


def choose_scale(scale: str | None, sizes: Collection[str]) -> str:
    """The `scale` that was asked for, or what `pick_scale` picks; ValueError where there are no `sizes` for it."""
    scale = scale or pick_scale(pick_device())
    if scale not in sizes:
        raise ValueError(f"unknown scale {scale!r}; choose one of {', '.join(sizes)}")
    return scale


def setup(seed: int | None = None, device: str | None = None) -> Setup:
    """Seed everything, pick device and scale, say so, and return them. The first line of every lesson.

    `seed` defaults to `MINIVLM_SEED`, or 0: so a whole lesson can be run again with other chance.
    """
    seed = _seed() if seed is None else seed
    found = pick_device(device)
    scale = pick_scale(found)
    random.seed(seed)
    torch.manual_seed(seed)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else platform.machine()
    print(f"minivlm {_version()} | torch {torch.__version__} | Python {platform.python_version()}")
    print(f"device: {found.type} ({name}) | scale: {scale} | seed: {seed}")
    return Setup(found, pick_dtype(found), scale, seed)


def machine(precision: str | None) -> dict[str, str]:
    """Where and with what a result came to be, by `train`'s precision."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    made = {"device": name, "torch": torch.__version__, "python": platform.python_version(), "date": str(date.today())}
    versions = {"minivlm": _version(), "transformers": version("transformers")}
    return made | versions | {"precision": precision or "default"}


def _seed() -> int:
    text = os.environ.get("MINIVLM_SEED") or "0"
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"MINIVLM_SEED is {text!r}, which is no whole number; give one, for instance 0") from error


def _version() -> str:
    from minivlm import __version__

    return __version__
