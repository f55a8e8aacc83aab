"""Training: one loop for every design, its stages given as data.

A source of batches is a function of the step alone, so a run that was killed and resumed sees what it would have seen,
and two processes see together what one would have seen alone.
"""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from minivlm.checkpoints import Checkpoints
from minivlm.sharding import hand_back


@dataclass(frozen=True)
class Step:
    """The inputs of one forward pass, and how much its mean loss weighs (the number of things it is a mean over)."""

    inputs: tuple
    weight: int


@runtime_checkable
class Source(Protocol):
    """Batches without end. `rows` is the part wanted of the `batch_size` samples of that step."""

    batch_size: int

    def __call__(self, step: int, rows: range) -> Step: ...


@dataclass(frozen=True)
class Stage:
    """One stage of training: what it reads, which parts learn (empty: all not frozen), for how long, how fast."""

    name: str
    source: Source
    steps: int
    lr: float
    trains: tuple[str, ...] = ()
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip: float = 1.0
    micro_batches: int = 1

    def __post_init__(self):
        if self.steps < 1 or self.lr <= 0 or self.micro_batches < 1:
            raise ValueError(
                f"stage {self.name!r} needs steps >= 1, lr > 0 and micro_batches >= 1, "
                f"got {self.steps}, {self.lr} and {self.micro_batches}"
            )

    def lr_at(self, step: int) -> float:
        """Up in a line over the `warmup` part of the steps, then down a cosine to a hundredth."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def train(
    model: nn.Module,
    stages: Sequence[Stage],
    folder: str | Path | None = None,
    precision: str | None = None,
    save_every: int = 200,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Train `model` in place through all `stages`; returns one record a step: stage, step, loss, lr.

    With a `folder`, checkpoints go there and a run found there goes on where it stopped; the losses are those it would
    have had. Under `accelerate launch` the processes share every batch, the model whole on each or, by FSDP2, in parts,
    and lose, keep and learn what one would; they may be more or fewer when a run goes on. `precision` is accelerate's
    ("no", "bf16", "fp16"; default: bf16 on a GPU, else no). Interrupting keeps what was learned (in parts: up to the
    last checkpoint). Raises FloatingPointError when the loss or its gradient is not finite, before any weight is
    spoiled; ValueError for a folder of another run.
    """
    device = next(model.parameters()).device
    precision = precision or ("bf16" if device.type == "cuda" else "no")
    AcceleratorState._reset_state(reset_partial_state=True)  # else an earlier call's precision is insisted on
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    keeper = Checkpoints(Path(folder)) if folder is not None else None
    records = keeper.restore(model, stages) if keeper else []
    try:
        for index, stage in enumerate(stages):
            done = sum(record["stage"] == index for record in records)
            if done < stage.steps:
                _run_stage(model, index, stage, accelerator, keeper, records, save_every, quiet)
    except KeyboardInterrupt:
        if accelerator.is_fsdp2:  # what was learned is in the last checkpoint, and in parts that others have
            raise
        print(f"\rstopped after {len(records)} steps; what was learned so far is kept")
    finally:
        model.to(device)
    return records


def train_whole(model: nn.Module, stages: Sequence[Stage], *how: Any, **more: Any) -> list[dict[str, Any]]:
    """`train`, for whoever goes on with the trained model: KeyboardInterrupt, with the model as far as it came, where
    the keyboard stopped it before its last step. Half a run is no result."""
    records = train(model, stages, *how, **more)
    if len(records) < sum(stage.steps for stage in stages):
        raise KeyboardInterrupt
    return records


def writes() -> bool:
    """Is this the process that writes what all have learned: the only one, or the first?"""
    there_are_others = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there_are_others or torch.distributed.get_rank() == 0


@atexit.register
def _leave_the_others() -> None:
    """A process that ends while its group still stands may crash on its way out (seen with gloo)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _run_stage(
    model: nn.Module,
    index: int,
    stage: Stage,
    accelerator: Accelerator,
    keeper: Checkpoints | None,
    records: list[dict[str, Any]],
    save_every: int,
    quiet: bool,
) -> None:
    if stage.trains:
        model.train_only(*stage.trains)
    learner = deepcopy(model.cpu()) if accelerator.is_fsdp2 else model  # sharding is in place, and cannot be undone
    wrapped, optimizer = accelerator.prepare(learner.train(), make_optimizer(learner, stage))
    start = sum(record["stage"] == index for record in records)
    if start:
        keeper.restore_optimizer(optimizer.optimizer)
    progress = Progress(stage, start, quiet or not accelerator.is_main_process)
    try:
        for step in range(start, stage.steps):
            loss = _take_step(wrapped, optimizer, stage, step, accelerator)
            records.append({"stage": index, "step": step, "loss": loss, "lr": stage.lr_at(step)})
            progress.update(step, loss)
            last = step + 1 == stage.steps
            if keeper and (last or (step + 1) % save_every == 0):
                keeper.save(learner, optimizer.optimizer, records, accelerator.is_main_process)
        if learner is not model:
            hand_back(learner, model)
        progress.close()
    finally:  # nothing of this stage stays behind: no half-made gradient, no mixed precision, no optimizer
        optimizer.zero_grad()
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False).eval()
        accelerator.free_memory()


def _take_step(model: nn.Module, optimizer: Any, stage: Stage, step: int, accelerator: Accelerator) -> float:
    """One update; returns the loss of the whole batch, all processes and micro-batches together."""
    for group in optimizer.param_groups:
        group["lr"] = stage.lr_at(step)
    parts = [stage.source(step, rows) for rows in _my_rows(stage, accelerator)]
    weights = torch.tensor([float(part.weight) for part in parts], device=accelerator.device)
    total = accelerator.reduce(weights.sum())
    summed = torch.zeros((), device=accelerator.device)
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            inputs = [x.to(accelerator.device) for x in part.inputs]
            with accelerator.autocast():
                loss = model(*inputs).loss
            # DDP averages gradients over processes; every labelled word shall count once, whoever read it
            accelerator.backward(loss * (part.weight * accelerator.num_processes / total))
        summed += loss.detach() * part.weight
    loss = float(accelerator.reduce(summed) / total)
    _check_finite("loss", loss, stage, step)
    norm = accelerator.clip_grad_norm_(model.parameters(), stage.clip)
    if accelerator.scaler is None:  # in fp16 a gradient may overflow: the scaler leaves that step out
        _check_finite("gradient", float(norm), stage, step)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def _check_finite(what: str, value: float, stage: Stage, step: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {what} is {value} at step {step} of stage {stage.name!r} (rebuild its batch with source({step}, "
            f"range({stage.source.batch_size}))): try a lower lr than {stage.lr}, a longer warm-up, or precision='no'"
        )


def _my_rows(stage: Stage, accelerator: Accelerator) -> list[range]:
    """This process's part of a batch, cut into micro-batches."""
    size, shares = stage.source.batch_size, accelerator.num_processes * stage.micro_batches
    if size % shares:
        raise ValueError(
            f"a batch of {size} does not split over {accelerator.num_processes} processes and {stage.micro_batches} "
            f"micro-batches: make it a multiple of {shares}"
        )
    share = size // shares
    first = accelerator.process_index * stage.micro_batches
    return [range(share * n, share * (n + 1)) for n in range(first, first + stage.micro_batches)]


def make_optimizer(model: nn.Module, stage: Stage) -> torch.optim.AdamW:
    """AdamW over what trains; matrices decay, gains and biases do not."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=stage.lr, betas=(0.9, 0.98), fused=True)


class Progress:
    """One line of text on stdout, rewritten at most once a second, replaced at the end by a line without timings."""

    def __init__(self, stage: Stage, start: int, quiet: bool):
        self.stage, self.start, self.quiet = stage, start, quiet
        self.began = self.shown = time.monotonic()
        self.first = self.mean = None

    def update(self, step: int, loss: float) -> None:
        self.first = loss if self.first is None else self.first
        self.mean = loss if self.mean is None else 0.9 * self.mean + 0.1 * loss
        now = time.monotonic()
        if self.quiet or now - self.shown < 1:
            return
        self.shown = now
        rate = (step + 1 - self.start) / (now - self.began)
        left = (self.stage.steps - step - 1) / rate
        print(
            f"\r{self.stage.name}: step {step + 1}/{self.stage.steps}  loss {self.mean:.3f}  "
            f"{rate * self.stage.source.batch_size:.0f} samples/s  {left:.0f} s left ",
            end="",
            flush=True,
        )

    def close(self) -> None:
        if not self.quiet and self.first is not None:
            line = f"{self.stage.name}: {self.stage.steps} steps, loss {self.first:.2f} -> {self.mean:.2f}"
            print("\r" + line.ljust(79))
