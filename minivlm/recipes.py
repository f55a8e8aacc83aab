"""Recipes: what each kind of design is trained on, for how long, at each scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm import hearing
from minivlm.batch import Batch
from minivlm.contrastive.mmv import MMV
from minivlm.data.scenes import sample_scenes
from minivlm.data.tasks import TASKS, evaluation_bank
from minivlm.designs import build
from minivlm.evaluate import evaluate, mean_accuracy, table
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.model import VLM
from minivlm.runtime import pick_device, pick_scale
from minivlm.storage import warm_start
from minivlm.streams import Bank, CaptionPairs, Dialogs, generator
from minivlm.train import Source, Stage, train


@dataclass(frozen=True)
class Size:
    """How much a recipe does at one scale: scenes in the bank, batch, steps of each stage, questions a scene."""

    scenes: int
    batch_size: int
    align_steps: int
    steps: int
    per_scene: int = 8


VLM_SIZES = {
    "smoke": Size(scenes=64, batch_size=8, align_steps=3, steps=6),
    "cpu": Size(scenes=6000, batch_size=16, align_steps=100, steps=1200, per_scene=12),
    "gpu": Size(scenes=60000, batch_size=256, align_steps=200, steps=3000, per_scene=12),
}
CLIP_SIZES = {
    "smoke": Size(scenes=64, batch_size=32, align_steps=0, steps=5),
    "cpu": Size(scenes=0, batch_size=128, align_steps=0, steps=120),
    "gpu": Size(scenes=0, batch_size=1024, align_steps=0, steps=3000),
}

LANGUAGE = {"tuned": ("language",), "lora": ("adapter",), "frozen": ()}  # the parts that learn of the decoder
LORA_RANK = 8


def new_parts(model: VLM) -> tuple[str, ...]:
    """Its parts that are not pretrained: the connector, learned separators, and what the fusion adds."""
    return tuple(part for part in model.parts if part in ("connector", "separators", "fusion"))


def vlm_stages(
    model: VLM,
    size: Size,
    seed: int = 0,
    tasks: tuple[str, ...] = TASKS,
    bank: Bank | None = None,
    language: str = "tuned",
) -> list[Stage]:
    """`two_stages` on scenes.

    `bank`: scenes and features made earlier, for models that share an encoder (default: made here). `language`: what
    of the decoder learns in the second stage, a key of `LANGUAGE`; ValueError for another.
    """
    tokenizer = mini_tokenizer()
    bank = bank or Bank.make(model, sample_scenes(size.scenes, generator(seed, 0)))
    captions = Dialogs(tokenizer, bank, size.batch_size, captions=True, seed=seed)
    apart = model.connector.conditioned
    questions = Dialogs(tokenizer, bank, size.batch_size, tasks, size.per_scene, apart=apart, seed=seed + 1)
    return two_stages(model, captions, questions, size, language)


def two_stages(model: VLM, captions: Source, questions: Source, size: Size, language: str = "tuned") -> list[Stage]:
    """LLaVA's two stages: first the decoder stays as it is while all that is new (the connector, and what the fusion
    adds) learns to pass captions on, then the decoder learns to answer as well."""
    new = new_parts(model)
    return [
        Stage("align", captions, size.align_steps, lr=3e-3, trains=new),
        Stage("instruct", questions, size.steps, lr=1e-3, trains=(*new, *learning(language))),
    ]


def learning(language: str) -> tuple[str, ...]:
    """The parts of the decoder that learn in the second stage; ValueError for what is no key of `LANGUAGE`."""
    if language not in LANGUAGE:
        raise ValueError(f"unknown language {language!r}; choose one of {', '.join(LANGUAGE)}")
    return LANGUAGE[language]


def train_design(
    name: str, scale: str | None, seed: int, folder: str | Path, steps: int | None, data: str | None = None
) -> torch.nn.Module:
    """Train a mini design by its recipe, with checkpoints in `folder`. `steps` replaces those of every stage; `data`
    names a dataset on the hub, or a folder of shards, to learn from instead of scenes."""
    device = pick_device()
    scale = scale or pick_scale(device)
    torch.manual_seed(seed)
    model = _started(build(name, device="cpu")).to(device)
    if data is None:
        stages = _scene_stages(model, scale, seed)
    else:
        from minivlm.hub import hub_stages

        stages = hub_stages(model, data, scale, seed)
    if steps is not None:
        stages = [replace(stage, steps=steps) for stage in stages]
    train(model, stages, folder)
    return model


def _started(model: torch.nn.Module) -> torch.nn.Module:
    """With the pretrained parts that its kind begins with."""
    if isinstance(model, VLM):
        return warm_start(model)
    return hearing.start(model) if isinstance(model, MMV) else model


def _scene_stages(model: torch.nn.Module, scale: str, seed: int) -> list[Stage]:
    if isinstance(model, VLM):
        return vlm_stages(model, VLM_SIZES[scale], seed)
    if isinstance(model, MMV):
        return hearing.stages(model, hearing.SIZES[scale], seed)
    size, context, device = CLIP_SIZES[scale], model.config.text.context, next(model.parameters()).device
    pairs = CaptionPairs(mini_tokenizer(), size.batch_size, context, seed, device=device)
    return [Stage("contrast", pairs, size.steps, lr=1e-3)]


def evaluation_table(model: VLM, per_task: int) -> str:
    """Accuracy per task on the fixed bank of test questions, beside the same model without the pictures."""
    scenes, questions = evaluation_bank(per_task=per_task)
    features = Bank.make(model, scenes).features
    tokenizer = mini_tokenizer()
    sees = evaluate(model, tokenizer, questions, features)
    blind = evaluate(model, tokenizer, questions, features, blind=True)
    return f"{table(sees, blind)}\nmean {mean_accuracy(sees):.1%}, blind {mean_accuracy(blind):.1%}"


def answer(model: VLM, tokenizer: Tokenizer, image: Float[Tensor, "3 H W"], question: str) -> str:
    """What a model says to one question about one picture."""
    if not question.strip():
        raise ValueError('an empty question: ask something like "what color is the circle ?"')
    batch = Batch.pack(tokenizer, [[(question, "")]], images=image[None, None])
    return tokenizer.decode(model.generate(batch.to(next(model.parameters()).device))[0].tolist())
