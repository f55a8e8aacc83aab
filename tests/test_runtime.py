"""Set-up: the same seed gives the same numbers, and what the environment asks for is what is done."""

from __future__ import annotations

import random

import pytest
import torch

from minivlm import setup
from minivlm.runtime import pick_device, pick_dtype, pick_scale

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("MINIVLM_SCALE", raising=False)
    monkeypatch.delenv("MINIVLM_SEED", raising=False)


def drawn(seed: int | None = None) -> tuple[float, float]:
    setup(seed, "cpu")
    return random.random(), float(torch.rand(()))


def test_one_seed_one_chance():
    assert drawn(3) == drawn(3)
    assert drawn(3)[0] != drawn(4)[0] and drawn(3)[1] != drawn(4)[1]


def test_the_seed_comes_from_the_environment_unless_it_is_given(monkeypatch):
    assert setup(device="cpu").seed == 0
    monkeypatch.setenv("MINIVLM_SEED", "7")
    assert setup(device="cpu").seed == 7 and drawn() == drawn(7)
    assert setup(2, "cpu").seed == 2


def test_the_scale_comes_from_the_environment_or_the_device(monkeypatch):
    assert pick_scale(CPU) == "cpu" and pick_scale(torch.device("cuda")) == "gpu"
    monkeypatch.setenv("MINIVLM_SCALE", "smoke")
    assert pick_scale(CPU) == pick_scale(torch.device("cuda")) == "smoke"
    assert setup(device="cpu").scale == "smoke"
    monkeypatch.setenv("MINIVLM_SCALE", "Smoke")
    with pytest.raises(ValueError, match="smoke, cpu, gpu"):
        pick_scale(CPU)


@pytest.mark.parametrize(("cuda", "mps", "wanted"), [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_best_device_is_taken(monkeypatch, cuda, mps, wanted):
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(cuda))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: bool(mps))
    assert pick_device().type == wanted
    assert pick_device("cpu") == CPU


def test_the_cpu_trains_in_full_precision():
    assert pick_dtype(CPU) == torch.float32


def test_it_says_what_the_lesson_runs_on(capsys):
    found = setup(5, "cpu")
    told = capsys.readouterr().out
    assert torch.__version__ in told and f"scale: {found.scale}" in told and "seed: 5" in told and "device: cpu" in told
