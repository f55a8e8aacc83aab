"""Two processes learn what one learns from all their samples, whatever each of them was given."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from references import assert_same
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minivlm.checkpoints import remembered
from minivlm.hearing import Triples
from minivlm.train import Source, Stage, train

SCRIPT = """
import sys
from pathlib import Path

import test_distributed

test_distributed.learn_all(Path(sys.argv[1]))
"""
KINDS = ("clip", "siglip")


def learn_all(folder: Path) -> None:
    """Train one model of each kind, with what processes there are; the first writes what came of it."""
    vlm = tiny.vlm()
    keep(folder, "vlm", vlm, train(vlm, tiny.vlm_stages(vlm), folder / "checkpoints", save_every=2, quiet=True))
    split = tiny.vlm()
    stage = replace(tiny.vlm_stages(split)[1], micro_batches=2)
    keep(folder, "split", split, train(split, [stage], quiet=True))
    for kind in KINDS:
        towers = tiny.towers(kind)
        keep(folder, kind, towers, train(towers, [Stage("contrast", tiny.pairs(), steps=4, lr=1e-3)], quiet=True))
        keep(folder, f"{kind} gradients", *gradients(tiny.towers(kind), tiny.pairs()))
    keep(folder, "mmv gradients", *gradients(tiny.mmv().double(), Triples(tiny.TOKENIZER, 8, context=40)))


def place() -> tuple[int, int]:
    """Which process this is, of how many."""
    there_are_others = torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if there_are_others else (0, 1)


def gradients(model: nn.Module, source: Source) -> tuple[nn.Module, list[dict]]:
    """The model with its gradients as weights, and the mean loss, after one batch spread over all processes."""
    number, count = place()
    inputs = source(0, range(8 // count * number, 8 // count * (number + 1))).inputs
    wrapped = DistributedDataParallel(model) if count > 1 else model  # averages as long as it lives
    loss = wrapped(*inputs).loss
    loss.backward()
    total = loss.detach()
    if count > 1:
        torch.distributed.all_reduce(total)
    for value in model.parameters():
        value.data = value.grad if value.requires_grad else value.data
    return model, [{"loss": float(total) / count}]


def keep(folder: Path, name: str, model: nn.Module, records: list[dict]) -> None:
    number, count = place()
    if number == 0:
        save_file(remembered(model), folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps({"processes": count, "records": records}))


def kept(folder: Path, name: str, processes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and weights that so many processes have left."""
    run = json.loads((folder / f"{name}.json").read_text())
    assert run["processes"] == processes
    return torch.tensor([record["loss"] for record in run["records"]]), load_file(folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    learn_all(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT)
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
    ended = subprocess.run(
        **tiny.command(*launch, folder / "script.py", folder), timeout=300, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("name", ["vlm", "split", *KINDS, *(f"{kind} gradients" for kind in (*KINDS, "mmv"))])
def test_two_processes_are_one(one, two, name):
    (losses, weights), (losses_of_two, weights_of_two) = kept(one, name, 1), kept(two, name, 2)
    assert_same(losses_of_two, losses)
    assert weights_of_two.keys() == weights.keys()
    for key, value in weights.items():
        if not key.endswith(".k.bias"):  # nothing depends on it: its gradient is rounding, which Adam blows up
            assert_same(weights_of_two[key], value)


def test_the_processes_have_different_numbers_of_words_to_learn():
    for stage in tiny.vlm_stages(tiny.vlm()):
        halves = [stage.source(0, rows).weight for rows in (range(2), range(2, 4))]
        assert halves[0] != halves[1]


def test_one_process_goes_on_where_two_have_stopped(one, two, tmp_path):
    shutil.copytree(two / "checkpoints" / "step-00000009", tmp_path / "step-00000009")
    model = tiny.vlm()
    records = train(model, tiny.vlm_stages(model), tmp_path, quiet=True)
    assert_same(torch.tensor([record["loss"] for record in records]), kept(one, "vlm", 1)[0])
