"""One run of a comparison: a design trained, asked and counted, and what that came to."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch
from minivlm.evaluate import Graded, grade, scores
from minivlm.material import Exam, Material
from minivlm.model import VLM, VLMConfig
from minivlm.recipes import LORA_RANK
from minivlm.runtime import machine, pick_device
from minivlm.spending import encoder_flops, question_costs, training_flops
from minivlm.storage import warm_start
from minivlm.tables import BLIND, Run
from minivlm.train import Stage, train_whole

KEPT_MARGINS = 100  # a task


@dataclass(frozen=True)
class Job:
    """A run that is to be made."""

    design: str
    config: VLMConfig
    seed: int
    scale: str
    material: Material
    language: str
    precision: str | None

    @property
    def about(self) -> dict[str, Any]:
        """What a `Compared` says of it beforehand."""
        tokens = 0 if self.design == BLIND else self.config.num_tokens
        run = Run(self.design, tokens, self.seed, self.scale, self.material.size.steps)
        parts = hashlib.sha256(repr(self.config).encode()).hexdigest()[:12]
        return {**asdict(run), "language": self.language, "data": self.material.name, "parts": parts}


def encoder_of(config: VLMConfig) -> tuple:
    """What decides which features are made of a picture."""
    return config.vision, config.layer, config.class_token


def maker() -> Callable[[Job], dict[str, Any]]:
    """A function that makes runs, one after the other, and keeps what the next may share with the last."""
    return partial(_attempt, Shared())


def _attempt(shared: Shared, job: Job) -> dict[str, Any]:
    try:
        with redirect_stdout(io.StringIO()):
            return _run(shared, job)
    except Exception as error:  # whatever it is, the other runs go on
        return failure(job, error)


def failure(job: Job, error: Exception) -> dict[str, Any]:
    """What the ledger keeps of a run that failed: what it was, and the error's first line."""
    line = next(iter(str(error).splitlines()), "")
    return {**job.about, "failed": f"{type(error).__name__}: {line}", "machine": machine(job.precision)}


class Shared:
    """The training pictures of the newest seed and encoder, and the test pictures of the newest encoder."""

    def __init__(self):
        self._newest: dict[str, tuple[Any, Any]] = {}

    def get(self, what: str, key: Any, make: Callable[[], Any]) -> Any:
        if self._newest.get(what, (None,))[0] != key:
            self._newest.pop(what, None)  # room for the new
            self._newest[what] = key, make()
        return self._newest[what][1]


def _run(shared: Shared, job: Job) -> dict[str, Any]:
    """Train one design from the shared parts, ask it the test questions, and count what that cost."""
    start, material, blind = time.monotonic(), job.material, job.design == BLIND
    torch.manual_seed(job.seed)
    model = warm_start(job.config.build()).to(pick_device())
    pictures = (material, encoder_of(job.config))
    bank = shared.get("bank", (pictures, job.seed), lambda: material.bank(model, job.seed))
    exam = shared.get("exam", pictures, lambda: material.exam(model))
    if job.language == "lora":
        model.adapt_language(LORA_RANK)
    stages = material.blind_stages(bank, job.seed) if blind else material.stages(model, bank, job.seed, job.language)
    train_whole(model, stages, precision=job.precision, quiet=True)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seen = _graded(model, job, exam, None if blind else exam.features)
    told = _graded(model, job, exam, None, exam.told) if exam.told else []
    return {
        **job.about,
        "connector_weights": 0 if blind else sum(p.numel() for p in model.connector.parameters()),
        "trained_weights": learned,
        "weights": sum(p.numel() for p in model.parameters()),
        "accuracy": {task: round(score.accuracy, 5) for task, score in scores(seen).items()},
        "told": {task: round(score.accuracy, 5) for task, score in scores(told).items()},
        "margins": first_margins(seen),
        **_costs(model, stages, job, exam),
        "seconds": round(time.monotonic() - start, 1),
        "machine": machine(job.precision),
    }


def _graded(
    model: VLM, job: Job, exam: Exam, features: Float[Tensor, "S 1 N D"] | None, told: Sequence[str] | None = None
) -> list[Graded]:
    """The test questions on pictures, or on what is `told` of them, or on nothing."""
    return grade(model, job.material.tokenizer, exam.questions, features, blind=features is None, told=told)


def first_margins(graded: Sequence[Graded]) -> dict[str, list[float]]:
    """The margins of the first `KEPT_MARGINS` questions of each task, to a hundredth."""
    kept: dict[str, list[float]] = {}
    for one in graded:
        kept.setdefault(one.question.task, []).append(round(one.margin, 2))
    return {task: margins[:KEPT_MARGINS] for task, margins in sorted(kept.items())}


def _costs(model: VLM, stages: Sequence[Stage], job: Job, exam: Exam) -> dict[str, Any]:
    """What a `Compared` says of training and of the first test question."""
    picture = None if job.design == BLIND else exam.picture.to(next(model.parameters()).device)
    asked = next(sample[0] for sample in exam.questions if sample)
    batch = replace(Batch.pack(job.material.tokenizer, [[(asked.text, "")]], images=picture), labels=None)
    trained = training_flops(model, stages)
    model.requires_grad_(False)  # of a view of a weight that learns the counter would look for a history
    once = 0 if picture is None else encoder_flops(model, picture) * job.material.size.scenes
    return {
        "samples": sum(stage.steps * stage.source.batch_size for stage in stages),
        "train_flops": trained + once,
        **question_costs(model, batch.to(next(model.parameters()).device)),
    }
