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
from accelerate.state import DistributedType, PartialState
from references import assert_same
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import minivlm
from minivlm.checkpoints import Checkpoints, remembered
from minivlm.hearing import Triples
from minivlm.train import Source, Stage, train

SCRIPT = """
import sys
from pathlib import Path

import test_distributed

getattr(test_distributed, sys.argv[1])(*map(Path, sys.argv[2:]))
"""
KINDS = ("clip", "siglip")
LAUNCH = Path(minivlm.__file__).parent / "launch"
BEFORE_THE_END = "step-00000009"  # a checkpoint in the midst of the second stage


def learn_all(folder: Path) -> None:
    """Train one model of each kind, with what processes there are; the first writes what came of it."""
    learn_with_words(folder)
    for kind in KINDS:
        towers = tiny.towers(kind)
        keep(folder, kind, towers, train(towers, [Stage("contrast", tiny.pairs(), steps=4, lr=1e-3)], quiet=True))
        keep(folder, f"{kind} gradients", *gradients(tiny.towers(kind), tiny.pairs()))
    keep(folder, "mmv gradients", *gradients(tiny.mmv(), Triples(tiny.TOKENIZER, 8, context=40)))


def learn_with_words(folder: Path) -> None:
    """Two stages with checkpoints, and a batch in two pieces."""
    vlm = tiny.vlm()
    keep(folder, "vlm", vlm, train(vlm, tiny.vlm_stages(vlm), folder / "checkpoints", save_every=2, quiet=True))
    split = tiny.vlm()
    stage = replace(tiny.vlm_stages(split)[1], micro_batches=2)
    keep(folder, "split", split, train(split, [stage], quiet=True))


def go_on(folder: Path, other: Path) -> None:
    """From a checkpoint of `other` processes to the end of its second stage."""
    shutil.copytree(other / "checkpoints" / BEFORE_THE_END, folder / BEFORE_THE_END, dirs_exist_ok=True)
    vlm = tiny.vlm()
    keep(folder, "vlm", vlm, train(vlm, tiny.vlm_stages(vlm), folder, quiet=True))


def place() -> tuple[int, int]:
    """Which process this is, of how many."""
    there_are_others = torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if there_are_others else (0, 1)


def gradients(model: nn.Module, source: Source) -> tuple[nn.Module, list[dict]]:
    """The model with its gradients as weights, and the mean loss, after one batch spread over all processes; in 64
    bits, in which nothing but a wrong formula makes a difference."""
    number, count = place()
    inputs = source(0, range(8 // count * number, 8 // count * (number + 1))).inputs
    model, inputs = model.double(), [x.double() if x.is_floating_point() else x for x in inputs]
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


def launched(config: str, function: str, *folders: Path) -> None:
    """A function of this file, by two processes that are started as the configuration says."""
    script = folders[0] / "script.py"
    script.write_text(SCRIPT)
    how = f"--config_file {LAUNCH / config} --num_processes 2 --main_process_port 0".split()
    call = tiny.command("-m", "accelerate.commands.launch", *how, script, function, *folders)
    ended = subprocess.run(**call, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def by_two(folder: Path, other: Path) -> None:
    learn_all(folder)
    go_on(folder / "resumed", other)


@pytest.fixture(scope="module")
def two(one, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    launched("ddp.yaml", "by_two", folder, one)
    return folder


def by_two_in_parts(folder: Path, other: Path) -> None:
    """As `by_two`, each process with a part of every weight, on CPUs, where accelerate would not shard of itself."""
    beginning = PartialState.__init__

    def begin(self, *args, **kwargs) -> None:
        beginning(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU  # the kind that it looks for before it shards

    saving = Checkpoints.save

    def save(self, model: nn.Module, *rest) -> None:
        held = sum(value.to_local().numel() for value in model.parameters())
        (folder / f"held by {place()[0]}").write_text(str(held))
        saving(self, model, *rest)

    PartialState.__init__, Checkpoints.save = begin, save
    learn_with_words(folder)
    go_on(folder / "resumed", other)


@pytest.fixture(scope="module")
def parts(one, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    launched("fsdp.yaml", "by_two_in_parts", folder, one)
    return folder


def assert_same_run(name: str, one: Path, two: Path, tolerance: float = 1e-5) -> None:
    (losses, weights), (losses_of_two, weights_of_two) = kept(one, name, 1), kept(two, name, 2)
    assert_same(losses_of_two, losses, tolerance)
    assert weights_of_two.keys() == weights.keys()
    for key, value in weights.items():
        if not key.endswith(".k.bias"):  # nothing depends on it: its gradient is rounding, which Adam blows up
            assert_same(weights_of_two[key], value, tolerance)


@pytest.mark.parametrize("name", ["vlm", "split", *KINDS])
def test_two_processes_are_one(one, two, name):
    assert_same_run(name, one, two)


@pytest.mark.parametrize("kind", [*KINDS, "mmv"])
def test_gradients_of_a_loss_over_all_pairs_are_those_of_one_process(one, two, kind):
    assert_same_run(f"{kind} gradients", one, two, 1e-9)


@pytest.mark.parametrize("name", ["vlm", "split"])
def test_two_processes_with_half_of_each_weight_are_one(one, parts, name):
    assert_same_run(name, one, parts)


def test_each_holds_its_half(parts):
    held = [int((parts / f"held by {number}").read_text()) for number in (0, 1)]
    weights = sum(value.numel() for value in tiny.vlm().parameters())
    assert sum(held) == weights and max(held) < 0.6 * weights


def test_the_processes_have_different_numbers_of_words_to_learn():
    for stage in tiny.vlm_stages(tiny.vlm()):
        halves = [stage.source(0, rows).weight for rows in (range(2), range(2, 4))]
        assert halves[0] != halves[1]


@pytest.mark.parametrize("how", ["two", "parts"])
def test_one_process_goes_on_where_two_have_stopped(one, how, request, tmp_path):
    go_on(tmp_path, request.getfixturevalue(how))
    assert_same(kept(tmp_path, "vlm", 1)[0], kept(one, "vlm", 1)[0])


@pytest.mark.parametrize("how", ["two", "parts"])
def test_two_processes_go_on_where_one_has_stopped(one, how, request):
    assert_same_run("vlm", one, request.getfixturevalue(how) / "resumed")
