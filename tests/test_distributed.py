"""Two processes learn what one learns from all their samples, whatever each of them was given."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import shards
import tiny
import torch
from accelerate.state import DistributedType, PartialState
from references import assert_same
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import minivlm
from minivlm import VLM
from minivlm.__main__ import main
from minivlm.checkpoints import Checkpoints, remembered
from minivlm.data.hub import Lanes, Shards
from minivlm.hearing import Triples
from minivlm.hub import HubDialogs
from minivlm.train import Source, Stage, train

SCRIPT = """
import sys
from pathlib import Path

import test_distributed

getattr(test_distributed, sys.argv[1])(*map(Path, sys.argv[2:]))
"""
KINDS = ("clip", "siglip")
LAUNCH = Path(minivlm.__file__).parent / "launch"
BEFORE_THE_END = {"vlm": "step-00000009", "shards": "step-00000004"}  # checkpoints of runs that have words to learn
if not os.environ.get("CI") and importlib.util.find_spec("datasets") is None:
    del BEFORE_THE_END["shards"]


def learn_all(folder: Path, data: Path) -> None:
    """Train one model of each kind, with what processes there are; the first writes what came of it."""
    learn_with_words(folder, data)
    for kind in KINDS:
        towers = tiny.towers(kind)
        keep(folder, kind, towers, train(towers, [Stage("contrast", tiny.pairs(), steps=4, lr=1e-3)], quiet=True))
        keep(folder, f"{kind} gradients", *gradients(tiny.towers(kind), tiny.pairs()))
    keep(folder, "mmv gradients", *gradients(tiny.mmv(), Triples(tiny.TOKENIZER, 8, context=40)))
    main(["train", "clip", "--scale", "smoke", "--out", str(folder / "by command")])


def learn_with_words(folder: Path, data: Path) -> None:
    """Two stages on scenes and one on data in shards, with checkpoints, and a batch in two pieces."""
    for name in BEFORE_THE_END:
        vlm = tiny.vlm()
        keep(folder, name, vlm, train(vlm, stages(name, vlm, data), folder / f"{name} run", save_every=2, quiet=True))
    split = tiny.vlm()
    stage = replace(tiny.vlm_stages(split)[1], micro_batches=2)
    keep(folder, "split", split, train(split, [stage], quiet=True))


def stages(name: str, vlm: VLM, data: Path) -> list[Stage]:
    if name == "vlm":
        return tiny.vlm_stages(vlm)
    source = HubDialogs(tiny.TOKENIZER, Lanes(Shards(data), 4), (16, 16))
    return [Stage("shards", source, 6, lr=1e-3, trains=("connector", "language"))]


def go_on(folder: Path, other: Path, data: Path) -> None:
    """From checkpoints of `other` processes to the end."""
    for name, step in BEFORE_THE_END.items():
        shutil.copytree(other / f"{name} run" / step, folder / f"{name} run" / step, dirs_exist_ok=True)
        vlm = tiny.vlm()
        keep(folder, name, vlm, train(vlm, stages(name, vlm, data), folder / f"{name} run", quiet=True))


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
    if "shards" in BEFORE_THE_END:
        shards.write_parquet(folder / "data")
    learn_all(folder, folder / "data")
    return folder


def launched(config: str, function: str, *folders: Path) -> None:
    """A function of this file, by two processes that are started as the configuration says."""
    script = folders[0] / "script.py"
    script.write_text(SCRIPT)
    how = f"--config_file {LAUNCH / config} --num_processes 2 --main_process_port 0".split()
    call = tiny.command("-m", "accelerate.commands.launch", *how, script, function, *folders)
    ended = subprocess.run(**call, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (folders[0] / "told").write_text(ended.stdout)


def by_two(folder: Path, other: Path) -> None:
    learn_all(folder, other / "data")
    go_on(folder / "resumed", other, other / "data")


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
    learn_with_words(folder, other / "data")
    go_on(folder / "resumed", other, other / "data")


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


@pytest.mark.parametrize("name", [*BEFORE_THE_END, "split", *KINDS])
def test_two_processes_are_one(one, two, name):
    assert_same_run(name, one, two)


@pytest.mark.parametrize("kind", [*KINDS, "mmv"])
def test_gradients_of_a_loss_over_all_pairs_are_those_of_one_process(one, two, kind):
    assert_same_run(f"{kind} gradients", one, two, 1e-9)


@pytest.mark.parametrize("name", [*BEFORE_THE_END, "split"])
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
    go_on(tmp_path, request.getfixturevalue(how), one / "data")
    for name in BEFORE_THE_END:
        assert_same(kept(tmp_path, name, 1)[0], kept(one, name, 1)[0])


@pytest.mark.parametrize("name", BEFORE_THE_END)
@pytest.mark.parametrize("how", ["two", "parts"])
def test_two_processes_go_on_where_one_has_stopped(one, how, name, request):
    assert_same_run(name, one, request.getfixturevalue(how) / "resumed")


def test_the_command_saves_once_what_all_have_learned(one, two):
    assert (two / "told").read_text().count("saved") == 1
    last = "by command/step-00000005"
    losses = [json.loads((folder / last / "state.json").read_text())["records"] for folder in (one, two)]
    assert_same(*(torch.tensor([record["loss"] for record in run]) for run in losses))
    saved, learned = (load_file(two / name / "model.safetensors") for name in ("by command", last))
    assert saved.keys() == learned.keys()
    assert [key for key, value in saved.items() if not torch.equal(value, learned[key])] == []
