"""Raw patches: what does a design without an encoder learn, at which sizes does it hold, and what is the encoder worth?

Three arms, one decoder, one stream of questions on scenes of a single object. Raw patches of one size (Fuyu) and of
several (OtterHD) are asked at sizes that they saw and did not see. Patches of the bundled encoder (LLaVA) learn from
the same pictures, and are charged what that encoder's own training cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minivlm.batch import Batch
from minivlm.budget import budget
from minivlm.data.scenes import Scenes, render, sample_scenes
from minivlm.data.tasks import Question, ask
from minivlm.designs import build
from minivlm.evaluate import answered
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.sized import SizedDialogs
from minivlm.storage import warm_start
from minivlm.streams import generator
from minivlm.tables import Run, bundled_results, read, write
from minivlm.train import Source, Stage, Step, train_whole

SIDE = 64  # of the pictures that all arms are asked about while they learn
TEST_SIDES = (32, 40, 48, 56, 64, 80, 96)
TASKS = ("COLOR", "SHAPE", "LOC")
ENCODER_PICTURES = 128 * (900 + 800 + 1600)  # that `pretraining.pretrain_clip` trains the encoder on
READ_LEARN = 3  # a part that learns costs its reading three times: once forward, twice back


@dataclass(frozen=True)
class Arm:
    """A design, the sides in pixels of the pictures that it learns from, and what share of the steps it is given."""

    design: str
    sizes: tuple[int, ...] = (SIDE,)
    share: float = 1.0


ARMS = {
    "one size": Arm("fuyu"),
    "several sizes": Arm("otterhd", (32, 48, 64)),
    "encoder": Arm("llava", share=0.2),  # it needs no more
}


@dataclass(frozen=True)
class Size:
    """Batch, questions a picture, steps, after how many of them each look is taken, and pictures in the test."""

    batch_size: int
    per_scene: int
    steps: int
    look: int
    test: int

    def shared(self, share: float) -> Size:
        """The same with that share of the steps, and as many looks."""
        return replace(self, steps=round(share * self.steps), look=round(share * self.look))


SIZES = {
    "smoke": Size(batch_size=4, per_scene=3, steps=10, look=5, test=20),
    "cpu": Size(batch_size=32, per_scene=4, steps=500, look=100, test=400),
    "gpu": Size(batch_size=256, per_scene=4, steps=2000, look=200, test=2000),
}


@dataclass(frozen=True)
class RawResult(Run):
    """What one run came to.

    arm       a key of `ARMS`
    sizes     sides of the pictures it learned from, in pixels
    at_step   the share of right answers by task, on pictures of 64 pixels, by the steps taken before
    at_size   the same after all steps, by side of the pictures; the encoder reads one size only
    flops     floating-point operations of a step, and of what the encoder had learned before
    """

    arm: str
    sizes: list[int]
    at_step: dict[str, dict[str, float]]
    at_size: dict[str, dict[str, float]]
    flops: dict[str, int]
    machine: dict[str, str]

    def spent(self, step: int) -> int:
        """Operations by then, the encoder's own training included."""
        return self.flops["before"] + step * self.flops["step"]


@dataclass(frozen=True)
class Watched:
    """A source that has `look` look at each `every`-th step, before it gives that step's batch."""

    source: Source
    every: int
    look: Callable[[int], None]

    @property
    def batch_size(self) -> int:
        return self.source.batch_size

    def __call__(self, step: int, rows: range) -> Step:
        if step % self.every == 0:
            self.look(step)
        return self.source(step, rows)


def raw_run(
    arm: str, seed: int, scale: str | None = None, folder: str | Path = "runs/raw", precision: str | None = None
) -> RawResult:
    """Train an arm and test it; what is found in `folder` is not run again."""
    scale = choose_scale(scale, SIZES)
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; choose one of {', '.join(ARMS)}")
    path = Path(folder) / f"{arm.replace(' ', '-')}-{scale}-seed{seed}.json"
    if not path.exists():
        write(_run(arm, seed, scale, precision), path)
    return read(path, RawResult)


def _run(arm: str, seed: int, scale: str, precision: str | None) -> RawResult:
    design, sizes, size = ARMS[arm].design, ARMS[arm].sizes, SIZES[scale].shared(ARMS[arm].share)
    model, tests = begun(design, seed), questions(size.test)
    at_step: dict[str, dict[str, float]] = {}

    def look(step: int) -> None:
        at_step[str(step)] = examine(model, *tests, SIDE)

    source = Watched(stream(size, sizes, seed, next(model.parameters()).device), size.look, look)
    train_whole(model, [stage(source, size.steps)], precision=precision)
    look(size.steps)
    sides = (SIDE,) if "vision" in model.parts else TEST_SIDES  # what has an encoder reads that one's size
    at_size = {str(side): examine(model, *tests, side) for side in sides}
    tokens = model.config.tokens_of((SIDE, SIDE))
    run = Run(design, tokens, seed, scale, size.steps)
    return RawResult(**vars(run), arm=arm, sizes=list(sizes), at_step=at_step, at_size=at_size,
                     flops=flops(design, size), machine=machine(precision))  # fmt: skip


def begun(design: str, seed: int) -> VLM:
    """A mini design as it begins: the bundled decoder (and encoder, where it has one), a connector that is new."""
    torch.manual_seed(seed)
    return warm_start(build(design, device="cpu")).to(pick_device())


def stream(size: Size, sizes: tuple[int, ...], seed: int, device: torch.device | str) -> SizedDialogs:
    """Questions on fresh scenes of one object, as pictures of those sizes."""
    return SizedDialogs(mini_tokenizer(), size.batch_size, sizes, TASKS, size.per_scene, (1, 1), seed, device)


def stage(source: Source, steps: int) -> Stage:
    """Connector and decoder learn; an encoder, if there is one, is frozen."""
    return Stage("raw", source, steps, lr=2e-3, trains=("connector", "language"))


def questions(count: int, tasks: Sequence[str] = TASKS) -> tuple[Scenes, list[list[Question]]]:
    """The test: fixed scenes of one object, drawn apart from those of training, and three questions on each."""
    chance = generator(81, 0)
    scenes = sample_scenes(count, chance, max_objects=1)
    return scenes, ask(scenes, chance, tasks, per_scene=3)


@torch.no_grad()
def examine(model: VLM, scenes: Scenes, asked: Sequence[Sequence[Question]], side: int) -> dict[str, float]:
    """The share of right answers by task, on the scenes drawn `side` pixels high and wide."""
    device = next(model.parameters()).device
    hits = {task: [] for task in sorted({question.task for sample in asked for question in sample})}
    for start in range(0, len(scenes), 50):
        some, images = asked[start : start + 50], render(scenes[start : start + 50], side)[:, None]
        batch = Batch.pack(mini_tokenizer(), [[(q.text, q.answer) for q in sample] for sample in some], images=images)
        batch = batch.to(device)
        for sample, right in zip(some, answered(model(batch), batch), strict=True):
            for question, hit in zip(sample, right, strict=True):
                hits[question.task].append(hit)
    return {task: sum(found) / len(found) for task, found in hits.items()}


def flops(design: str, size: Size) -> dict[str, int]:
    """Operations of a training step at 64 pixels, a question and its answer taking eight places; and those of the
    encoder's own training, three readings of each of its pictures."""
    one = budget(design, "mini", words=1 + 8 * size.per_scene, image_size=SIDE).flops
    encoder = one.get("vision", 0)
    learning = sum(count for part, count in one.items() if part != "vision")
    return {
        "step": size.batch_size * (encoder + READ_LEARN * learning),
        "before": READ_LEARN * ENCODER_PICTURES * encoder,
    }


def table(results: Sequence[RawResult]) -> str:
    """A Markdown table, a row a run: the share of right answers by task, that of places by side of the pictures."""
    sides = sorted({int(side) for run in results for side in run.at_size})
    heads = [f"COLOR, {SIDE} px", f"SHAPE, {SIDE} px", *(f"LOC, {side} px" for side in sides)]
    lines = [f"| learns from | seed | {' | '.join(heads)} |", f"| --- | ---: |{' ---: |' * len(heads)}"]
    for run in results:
        shares = [run.at_size[str(SIDE)][task] for task in ("COLOR", "SHAPE")]
        shares += [run.at_size[str(side)]["LOC"] if str(side) in run.at_size else None for side in sides]
        cells = " | ".join("-" if share is None else f"{100 * share:.0f}" for share in shares)
        lines.append(f"| {run.arm} | {run.seed} | {cells} |")
    return "\n".join(lines)


def bundled_raw(scale: str = "cpu") -> list[RawResult]:
    """The runs of raw patches that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, RawResult, "raw-")
