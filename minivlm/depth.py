"""Depths: is a router that learns worth more than a lot, and what does skipping save?

All arms begin with the bundled encoder and decoder and are asked the same questions for as many steps. Whatever rule a
routed one has in the end, in its first stage places are drawn by lot. A score is learned where its place is picked;
scores that nobody has trained pick all of the picture and no word, or the other way round, and what is never picked
never learns what it would be worth.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from minivlm.compare import budgeted
from minivlm.data.scenes import sample_scenes
from minivlm.data.tasks import evaluation_bank
from minivlm.evaluate import evaluate
from minivlm.language.depths import DepthsConfig
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM, VLMConfig
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.skipping import long_batch, milliseconds, operations, shares_worked
from minivlm.storage import warm_start
from minivlm.streams import Bank, Dialogs, generator
from minivlm.tables import Run, bundled_results, mean_of, percent, read, write
from minivlm.train import Stage, train_whole

TASKS = ("COLOR", "SHAPE", "EXIST")
PLAIN = "llava15"  # the arm whose blocks all work on every place
ARMS = (PLAIN, "mod", "mod_auxiliary", "mod_random")


@dataclass(frozen=True)
class Size:
    """Scenes in the bank, batch, questions a scene; steps of captions, of questions with places drawn by lot, and of
    questions with the rule; test questions a task; pictures in the sequence that is timed, and rounds of timing."""

    scenes: int
    batch_size: int
    per_scene: int
    align_steps: int
    lot_steps: int
    steps: int
    per_task: int
    pictures: int
    rounds: int


SIZES = {
    "smoke": Size(24, 4, 4, align_steps=2, lot_steps=2, steps=2, per_task=6, pictures=2, rounds=1),
    "cpu": Size(1500, 16, 8, align_steps=60, lot_steps=140, steps=160, per_task=200, pictures=16, rounds=15),
    "gpu": Size(20000, 128, 8, align_steps=100, lot_steps=600, steps=1000, per_task=2000, pictures=64, rounds=50),
}


@dataclass(frozen=True)
class DepthResult(Run):
    """What one run came to.

    capacity, every  of the `DepthsConfig`; 1 and 0 for the plain decoder
    accuracy         the share of right answers a task
    worked           of all places of "pictures" and of "words" in the test, the share that a routed block works on
    flops            operations of reading some pictures and a question (`long_batch`), its "own" and the "plain"
                     decoder's
    milliseconds     of the same, both in turn, the median
    """

    capacity: float
    every: int
    accuracy: dict[str, float]
    worked: dict[str, float]
    flops: dict[str, int]
    milliseconds: dict[str, float]
    machine: dict[str, str]

    @property
    def mean(self) -> float:
        """Over tasks."""
        return mean_of(self.accuracy, TASKS)

    def left(self, what: str) -> float:
        """Its own share of the plain decoder's "flops" or "milliseconds"."""
        cost = getattr(self, what)
        return cost["own"] / cost["plain"]


def depth_run(
    design: str,
    seed: int,
    capacity: float = 0.125,
    every: int = 2,
    scale: str | None = None,
    folder: str | Path = "runs/depth",
    precision: str | None = None,
) -> DepthResult:
    """Train one of the `ARMS`, and test it; what is found in `folder` is not run again."""
    scale = choose_scale(scale, SIZES)
    if design not in ARMS:
        raise ValueError(f"unknown arm {design!r}; choose one of {', '.join(ARMS)}")
    config, size = deepened(design, capacity, every), SIZES[scale]
    capacity, every = (1.0, 0) if design == PLAIN else (capacity, every)
    which = f"{capacity:g}-{every}-{scale}-seed{seed}"
    path = Path(folder) / f"{design}-{which}.json"
    if not path.exists():
        model = begun(config, seed)
        bank = Bank.make(model, sample_scenes(size.scenes, generator(seed, 0)))
        *first, last = stages(bank, size, seed)
        train_whole(model, first, Path(folder) / f"lots-{which}", precision)  # the same for all arms that have a router
        model = ruled(model, config)
        train_whole(model, [last], precision=precision)
        run = Run(design, config.num_tokens, seed, scale, size.align_steps + size.lot_steps + size.steps)
        result = DepthResult(**asdict(run), capacity=capacity, every=every, **examine(model, size),
                             machine=machine(precision))  # fmt: skip
        write(result, path)
    return read(path, DepthResult)


def deepened(design: str, capacity: float, every: int) -> VLMConfig:
    """The mini configuration of an arm, with other depths than its own; the plain decoder has none."""
    config = budgeted(design, None)
    if design == PLAIN:
        return config
    return replace(config, language=replace(config.language, capacity=capacity, every=every))


def begun(config: VLMConfig, seed: int) -> VLM:
    """A model as all arms begin: bundled encoder and decoder, a new connector, and routers that draw lots."""
    torch.manual_seed(seed)
    if isinstance(config.language, DepthsConfig):
        config = replace(config, language=replace(config.language, rule="random"))
    return warm_start(config.build()).to(pick_device())


def ruled(model: VLM, config: VLMConfig) -> VLM:
    """A model of `config` with the weights of `model`, whose rule may be another; what only the new rule has is new."""
    other = config.build().to(next(model.parameters()).device)
    other.load_state_dict(other.state_dict() | model.state_dict())
    return other


def stages(bank: Bank, size: Size, seed: int) -> list[Stage]:
    """Captions for the connector, questions while places are drawn by lot, questions by the rule."""
    captions = Dialogs(mini_tokenizer(), bank, size.batch_size, captions=True, seed=seed)
    questions = Dialogs(mini_tokenizer(), bank, size.batch_size, TASKS, size.per_scene, seed=seed + 1)
    both = ("connector", "language")
    return [
        Stage("align", captions, size.align_steps, lr=3e-3, trains=("connector",)),
        Stage("lots", questions, size.lot_steps, lr=1e-3, trains=both),
        Stage("rule", replace(questions, seed=seed + 2), size.steps, lr=1e-3, trains=both),
    ]


def examine(model: VLM, size: Size) -> dict[str, dict]:
    """What a `DepthResult` says of a trained model, on test scenes that are always the same, of known combinations."""
    scenes, asked = evaluation_bank(TASKS, size.per_task, split="train")
    bank = Bank.make(model, scenes)
    scores = evaluate(model.eval(), mini_tokenizer(), asked, bank.features)
    plain = begun(budgeted(PLAIN, None), 0).eval()
    long = long_batch(bank, size.pictures).to(next(model.parameters()).device)
    return {
        "accuracy": {task: score.accuracy for task, score in scores.items()},
        "worked": shares_worked(model, bank.features[:64], asked[:64]),
        "flops": {"own": operations(model, long), "plain": operations(plain, long)},
        "milliseconds": milliseconds({"own": model, "plain": plain}, long, size.rounds),
    }


def bundled_depths(scale: str = "cpu") -> list[DepthResult]:
    """The runs of depths that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, DepthResult, "depths-")


def depths_table(results: Iterable[DepthResult]) -> str:
    """A Markdown table, a row an arm and its depths: accuracy by task in per cent, mean over seeds and half of its 95 %
    interval; the shares of places that routed blocks work on; operations and time of a long sequence, of the plain
    decoder's."""
    rows: dict[tuple, list[DepthResult]] = {}
    for run in results:
        rows.setdefault((run.design, f"{run.capacity:.1%}", run.every or "-"), []).append(run)
    head = ("design", "capacity", "every", *TASKS, "mean", "pictures", "words", "operations", "time")
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    ranked = sorted(rows.items(), key=lambda row: -statistics.mean(run.mean for run in row[1]))
    for what, runs in ranked:
        measures = [[run.accuracy[task] for run in runs] for task in TASKS] + [[run.mean for run in runs]]
        measures += [[run.worked[kind] for run in runs] for kind in ("pictures", "words")]
        measures += [[run.left(cost) for run in runs] for cost in ("flops", "milliseconds")]
        lines.append(f"| {' | '.join(map(str, what))} | {' | '.join(map(percent, measures))} |")
    return "\n".join(lines)
