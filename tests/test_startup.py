"""What it takes to begin: nothing is loaded before it is used, so importing the package is little more than importing
torch, and a list of designs comes at once."""

from __future__ import annotations

import resource
import statistics
import subprocess

import pytest
import tiny

HEAVY = ("transformers", "open_clip", "IPython", "ipywidgets", "matplotlib", "accelerate", "torchvision", "gguf")
TORCH_S_OWN = ("sympy", "torch._dynamo", "torch.utils.flop_counter")  # as long to load as all the rest
BEGIN = "import sys, minivlm"
LIST = f"{BEGIN}; from minivlm.__main__ import main; main(['designs'])"


def python(code: str) -> str:
    return subprocess.run(**tiny.command("-c", code), capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("code", [BEGIN, LIST], ids=["import minivlm", "python -m minivlm designs"])
def test_nothing_is_loaded_before_it_is_used(code):
    last = python(f"{code}; print(*(name for name in {HEAVY + TORCH_S_OWN} if name in sys.modules))").splitlines()[-1]
    assert last == "", f"loaded without need: {last}"


def test_beginning_takes_little_longer_than_torch():
    """Seconds of a processor's work, medians of pairs that take turns: they do not grow where others are at work."""
    seconds = {code: [] for code in ("import torch", BEGIN, LIST)}
    for _ in range(3):
        for code, taken in seconds.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            python(code)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    torch, package, listing = (statistics.median(taken) for taken in seconds.values())
    assert package < 1.3 * torch
    assert listing < 2 * torch  # which takes about 1.6 s
