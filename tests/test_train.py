"""The training loop: killed and resumed is as never killed, split is as whole, frozen is frozen, trouble is named."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from references import assert_same
from safetensors.torch import load_file
from torch import nn

import minivlm.checkpoints as saving
from minivlm import load, save
from minivlm.checkpoints import Checkpoints
from minivlm.streams import Dialogs
from minivlm.train import Stage, make_optimizer, train

TWO_STAGES = 11  # steps that `tiny.vlm_stages` takes


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Bit for bit is promised for the same number of threads, and the other processes here have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def trained(folder: Path | None = None, save_every: int = 2) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Records and weights of a run through both stages, in this process."""
    model = tiny.vlm()
    records = train(model, tiny.vlm_stages(model), folder, save_every=save_every, quiet=True)
    return records, weights(model)


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[dict], dict[str, torch.Tensor]]:
    records, learned = trained()
    assert [record["stage"] for record in records] == [0] * 5 + [1] * 6
    return records, learned


def assert_same_run(run: tuple, other: tuple) -> None:
    """Bit for bit: every record and every weight."""
    assert run[0] == other[0]
    assert [name for name, value in run[1].items() if not torch.equal(value, other[1][name])] == []


# --- killed ---------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from dataclasses import replace

import tiny

from minivlm.train import train

folder, save_every, stage, step = sys.argv[1], *map(int, sys.argv[2:])
model = tiny.vlm()
stages = tiny.vlm_stages(model)
trap = tiny.Trap(stages[stage].source, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
stages[stage] = replace(stages[stage], source=trap)
train(model, stages, folder, save_every=save_every, quiet=True)
"""


@pytest.mark.parametrize(
    ("stage", "step", "kept"), [(0, 3, 2), (1, 1, 5), (1, 5, 9)], ids=["stage 1", "just after the change", "stage 2"]
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, undisturbed, stage, step, kept):
    (tmp_path / "run.py").write_text(KILLED)
    folder = tmp_path / "checkpoints"
    ended = subprocess.run(**tiny.command(tmp_path / "run.py", folder, 2, stage, step))
    assert ended.returncode == -signal.SIGKILL
    assert Checkpoints(folder).latest().name == f"step-{kept:08d}"
    assert_same_run(trained(folder), undisturbed)


def test_a_run_killed_from_outside_at_any_instant_goes_on(tmp_path, undisturbed):
    (tmp_path / "run.py").write_text(KILLED)
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen(**tiny.command(tmp_path / "run.py", folder, 1, 0, -1))
    while process.poll() is None and not (folder / "step-00000003").exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert folder.joinpath(f"step-{TWO_STAGES:08d}").exists() is False
    assert_same_run(trained(folder), undisturbed)


def failing(function, call: int, after: bool):
    """`function`, but its `call`-th call fails, `after` its work or before."""
    calls = itertools.count(1)

    def fails(*args, **kwargs):
        now = next(calls) == call
        if now and not after:
            raise OSError("disk full")
        result = function(*args, **kwargs)
        if now:
            raise OSError("disk full")
        return result

    return fails


@pytest.mark.parametrize(
    ("owner", "name", "call", "after", "kept"),
    [
        (saving, "save_file", 3, True, 2),  # the model of the second checkpoint is written, its optimizer is not
        (saving, "save_file", 4, True, 2),  # its state is not
        (os, "rename", 2, False, 2),  # all is written but not yet in its place
        (os, "rename", 2, True, 4),  # in its place, but older ones are still there
        (saving, "save_file", 7, True, 5),  # the first checkpoint of the second stage
    ],
)
def test_a_crash_while_saving_leaves_the_last_checkpoint(
    tmp_path, monkeypatch, undisturbed, owner, name, call, after, kept
):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(getattr(owner, name), call, after))
        with pytest.raises(OSError, match="disk full"):
            trained(tmp_path)
    assert Checkpoints(tmp_path).latest().name == f"step-{kept:08d}"
    assert_same_run(trained(tmp_path), undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009", "step-00000011"]


def test_opening_a_folder_removes_what_a_kill_left_half_written(tmp_path):
    half = tmp_path / ".writing-step-00000002"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert Checkpoints(tmp_path).latest() is None
    assert not half.exists()


def test_a_finished_run_is_loaded_and_not_run_again(tmp_path, undisturbed):
    trained(tmp_path)
    model = tiny.vlm()
    stages = [replace(stage, source=tiny.Trap(stage.source, 0, pytest.fail)) for stage in tiny.vlm_stages(model)]
    assert_same_run((train(model, stages, tmp_path, quiet=True), weights(model)), undisturbed)


# --- interrupted, or in trouble -------------------------------------------------------------------------------------


def interrupt() -> None:
    raise KeyboardInterrupt


def test_interrupting_keeps_what_was_learned(tmp_path, undisturbed, capsys):
    model = tiny.vlm()
    first, second = tiny.vlm_stages(model)
    records = train(model, [first, replace(second, source=tiny.Trap(second.source, 3, interrupt))], quiet=True)
    assert records == undisturbed[0][:8]
    assert "stopped after 8 steps" in capsys.readouterr().out
    assert not model.training
    trained(tmp_path, save_every=3)
    kept = load_file(tmp_path / "step-00000008" / "model.safetensors")  # the same eight steps, uninterrupted
    assert [name for name, value in weights(model).items() if not torch.equal(value, kept[name])] == []


def test_an_interrupted_step_leaves_no_gradient_behind():
    """Interrupted between two micro-batches: what the first has taught must not reach the next training."""
    model = tiny.vlm()
    stage = replace(tiny.vlm_stages(model)[1], steps=1, micro_batches=2)

    def interrupt_when_taught(*_) -> None:
        if model.connector[0].weight.grad is not None:
            interrupt()

    hook = model.connector.register_forward_hook(interrupt_when_taught)
    assert train(model, [stage], quiet=True) == []
    hook.remove()
    assert all(value.grad is None for value in model.parameters())


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path):
    model = tiny.vlm()
    first, second = tiny.vlm_stages(model)
    trap = tiny.Trap(second.source, 3, lambda: model.connector[0].bias.data.fill_(math.nan))
    message = r"loss is nan at step 3 of stage 'instruct' .*source\(3, range\(4\)\).*lower lr than 0.001"
    with pytest.raises(FloatingPointError, match=message):
        train(model, [first, replace(second, source=trap)], tmp_path, save_every=2, quiet=True)
    assert Checkpoints(tmp_path).latest().name == "step-00000007"  # from before


def test_a_gradient_that_is_not_finite_spoils_no_weight():
    """A kernel's backward may fail where its forward did not."""
    model = tiny.vlm()
    first = tiny.vlm_stages(model)[0]
    seen = {}

    def break_backward() -> None:
        seen.update(weights(model))
        model.connector[0].bias.register_hook(lambda gradient: gradient * math.nan)

    trap = tiny.Trap(first.source, 2, break_backward)
    with pytest.raises(FloatingPointError, match=r"gradient is nan at step 2 of stage 'align' .*source\(2, range"):
        train(model, [replace(first, source=trap)], quiet=True)
    assert all(torch.equal(value, seen[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize("other", ["wider", "CLIP"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, other):
    trained(tmp_path)
    stages = tiny.vlm_stages(tiny.vlm())
    model = tiny.vlm(width=24) if other == "wider" else tiny.towers("clip")
    before = weights(model)
    with pytest.raises(ValueError, match=r"step-00000011 is a checkpoint of another model: choose another folder"):
        train(model, stages, tmp_path, quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize("change", [dict(steps=4), dict(steps=60), dict(lr=1e-2), dict(warmup=0.5), None], ids=str)
def test_a_checkpoint_of_other_stages_is_refused(tmp_path, change):
    trained(tmp_path)
    model = tiny.vlm()
    stages = tiny.vlm_stages(model)
    stages = stages[:1] if change is None else [replace(stages[0], **change), stages[1]]
    with pytest.raises(ValueError, match="step-00000011 is of a run with other stages: choose another folder"):
        train(model, stages, tmp_path, quiet=True)


def test_a_folder_that_cannot_be_one_is_reported_before_training(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    model = tiny.vlm()
    stages = [replace(stage, source=tiny.Trap(stage.source, 0, pytest.fail)) for stage in tiny.vlm_stages(model)]
    with pytest.raises(OSError, match="checkpoints"):
        train(model, stages, tmp_path / "checkpoints")


def test_a_folder_that_cannot_be_written_is_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # whoever is root may write everywhere
    with pytest.raises(PermissionError, match=f"{re.escape(str(tmp_path))}: choose another folder"):
        trained(tmp_path)


def test_a_batch_that_does_not_split_is_refused():
    model = tiny.vlm()
    stage = replace(tiny.vlm_stages(model)[0], micro_batches=3)
    with pytest.raises(ValueError, match="a batch of 4 does not split over 1 processes and 3 micro-batches: .* of 3"):
        train(model, [stage], quiet=True)


@pytest.mark.parametrize("wrong", [dict(steps=0), dict(lr=0.0), dict(lr=-1.0), dict(micro_batches=0)], ids=str)
def test_a_stage_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="stage 'align' needs steps >= 1, lr > 0 and micro_batches >= 1"):
        Stage(**{**dict(name="align", source=tiny.pairs(), steps=3, lr=1e-3), **wrong})


# --- what a step does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.505), (99, 0.01030154)],
    ids=["first", "half-way up", "up", "from here down", "half-way down", "last"],
)
def test_learning_rate(step, share):
    assert Stage("a", tiny.pairs(), steps=100, lr=2e-3, warmup=0.1).lr_at(step) == pytest.approx(2e-3 * share)


def test_the_learning_rate_of_one_step_is_whole():
    assert Stage("a", tiny.pairs(), steps=1, lr=2e-3).lr_at(0) == 2e-3


def test_the_learning_rate_is_the_one_recorded_and_used(undisturbed):
    model = tiny.vlm()
    stages = tiny.vlm_stages(model)
    assert [record["lr"] for record in undisturbed[0]] == [
        stage.lr_at(step) for stage in stages for step in range(stage.steps)
    ]
    before = weights(model)
    slow = replace(stages[0], steps=2, warmup=1.0, weight_decay=0.0)  # half the rate in the first step
    train(model, [replace(slow, source=tiny.Trap(slow.source, 1, interrupt))], quiet=True)
    moved = [(value - before[name]).abs().max() for name, value in model.connector.named_parameters("connector")]
    assert_same(torch.stack(moved), torch.full((len(moved),), slow.lr / 2), 1e-6)  # Adam's first step is the rate


@pytest.mark.parametrize("trains", [("connector",), ("language",), ("connector", "language")], ids="+".join)
def test_the_frozen_stay_and_the_rest_moves(trains):
    model = tiny.vlm()
    before = weights(model)
    train(model, [replace(tiny.vlm_stages(model)[1], trains=trains, steps=2)], quiet=True)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (name.split(".")[0] not in trains), name


def test_only_matrices_decay():
    model = tiny.vlm()
    optimizer = make_optimizer(model, Stage("a", tiny.pairs(), steps=1, lr=1e-3, weight_decay=0.3))
    decays = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert {name: decays[id(value)] for name, value in model.named_parameters()} == {
        name: 0.3 if value.ndim >= 2 else 0.0 for name, value in model.named_parameters()
    }


def test_only_what_learns_is_in_the_optimizer():
    model = tiny.vlm()
    model.train_only("connector")
    optimizer = make_optimizer(model, tiny.vlm_stages(model)[0])
    held = {id(value) for group in optimizer.param_groups for value in group["params"]}
    assert held == {id(value) for value in model.connector.parameters()}


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_are_one_batch(micro_batches):
    whole, split = tiny.vlm(), tiny.vlm()
    stage = tiny.vlm_stages(whole)[1]
    share = stage.source.batch_size // micro_batches
    parts = [stage.source(0, range(start, start + share)).weight for start in range(0, 4, share)]
    assert len(set(parts)) > 1  # or their mean would be the whole's mean without any weighing
    records = train(whole, [stage], quiet=True)
    split_records = train(split, [replace(stage, micro_batches=micro_batches)], quiet=True)
    assert [r["loss"] for r in split_records] == pytest.approx([r["loss"] for r in records], abs=1e-5)
    for name, value in split.named_parameters():
        assert_same(value, whole.get_parameter(name))


def test_gradients_are_clipped():
    """With plain descent's step in place of Adam's, a step is as long as the rate times the clipped gradient."""
    moved = {}
    for clip in (5e-3, 1e3):
        model = tiny.vlm()
        stage = replace(tiny.vlm_stages(model)[0], steps=1, clip=clip, weight_decay=0.0)
        before = weights(model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "minivlm.train.make_optimizer",
                lambda model, stage: torch.optim.SGD([p for p in model.parameters() if p.requires_grad], stage.lr),
            )
            train(model, [stage], quiet=True)
        steps = [value.detach() - before[name] for name, value in model.named_parameters()]
        moved[clip] = float(torch.cat([step.flatten() for step in steps]).norm()) / stage.lr
    assert moved[5e-3] == pytest.approx(5e-3, rel=1e-3)
    assert moved[1e3] > 1e-2


# --- afterwards -----------------------------------------------------------------------------------------------------


def test_a_model_trained_in_mixed_precision_is_a_plain_one_afterwards(tmp_path):
    model = tiny.vlm()
    stages = tiny.vlm_stages(model)
    train(model, stages, precision="bf16", quiet=True)
    assert not model.training and {value.dtype for value in model.parameters()} == {torch.float32}
    save(model, tmp_path / "model.safetensors")
    batch = stages[1].source(0, range(4)).inputs[0]
    with torch.no_grad():
        assert torch.equal(model(batch).logits, load(tmp_path / "model.safetensors", "cpu")(batch).logits)


def test_precisions_may_follow_each_other(undisturbed):
    model = tiny.towers("clip")
    train(model, [Stage("contrast", tiny.pairs(), steps=1, lr=1e-3)], precision="bf16", quiet=True)
    assert_same_run(trained(), undisturbed)


def test_a_tiny_model_learns_what_it_is_shown():
    model = tiny.vlm(width=32)
    questions = Dialogs(tiny.TOKENIZER, tiny.bank(model, scenes=2), 8, tasks=("COLOR", "SHAPE", "LOC"))
    stage = Stage("overfit", questions, steps=80, lr=1e-2, trains=("connector", "language"))
    losses = [record["loss"] for record in train(model, [stage], quiet=True)]
    assert losses[0] > 5  # it knows none of the words
    assert sum(losses[-10:]) / 10 < 1
