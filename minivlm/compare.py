"""Designs side by side: the same encoder, decoder, pictures, questions and steps, so that only the design differs.

Every run is one design with one budget of tokens and one seed; its result is a small file, and a run whose file is
there is not run again.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import torch

from minivlm.data.captions import caption
from minivlm.data.scenes import Scenes, sample_scenes
from minivlm.data.tasks import TASKS, Question, evaluation_bank
from minivlm.designs import at_budget, configure
from minivlm.evaluate import evaluate
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLMConfig
from minivlm.recipes import LANGUAGE, LORA_RANK, VLM_SIZES, Size, vlm_stages
from minivlm.runtime import choose_scale, pick_device
from minivlm.storage import warm_start
from minivlm.streams import Bank, Dialogs, generator
from minivlm.tables import BLIND, Result, Run, mean_of, read, write
from minivlm.train import Stage, train

PER_TASK = {"smoke": 10, "cpu": 500, "gpu": 2000}  # questions a task


def compare(
    designs: Sequence[str],
    tokens: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    scale: str | None = None,
    steps: int | None = None,
    folder: str | Path = "runs/compare",
    precision: str | None = None,
    language: str = "tuned",
) -> list[Result]:
    """Train every design with every seed, and the blind decoder; returns their results, also those found in `folder`.

    `designs` may name variants too (`mini.VARIANTS`). `tokens` a picture for all (None: each design's own); `steps`
    replaces those of the second stage; `precision` is `train`'s. `language`: what of the decoder learns in the second
    stage, all of it ("tuned"), an adapter beside it ("lora") or nothing ("frozen"); the blind decoder is trained only
    where it is tuned.
    ValueError for a design that answers no questions, or cannot make so many tokens, before anything is trained.
    """
    scale, folder = choose_scale(scale, VLM_SIZES), Path(folder)
    steps = VLM_SIZES[scale].steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if language not in LANGUAGE:
        raise ValueError(f"unknown language {language!r}; choose one of {', '.join(LANGUAGE)}")
    configs = {name: budgeted(name, tokens) for name in designs if name != BLIND}
    results, tests = [], {}
    for seed in dict.fromkeys(seeds):
        banks = {}  # by encoder, which nearly all designs share
        for name in (*configs, *((BLIND,) if language == "tuned" else ())):
            count = 0 if name == BLIND else configs[name].num_tokens
            path = folder / f"{name}-{count}-{language}-{scale}-{steps}-seed{seed}.json"
            if not path.exists():
                run, config = Run(name, count, seed, scale, steps), configs.get(name, configure("llava15"))
                encoder = (config.vision, config.layer, config.class_token)
                if encoder not in banks:
                    banks[encoder] = _seen(config, sample_scenes(VLM_SIZES[scale].scenes, generator(seed, 0)))
                if encoder not in tests:
                    tests[encoder] = _Test.make(config, scale)
                bank, test = banks[encoder], tests[encoder]
                result = _result(run, language, config, bank, test, precision)
                write(result, path)
                print(f"{name}, {count} tokens, {language}, seed {seed}: mean {mean_of(result.accuracy):.1%}")
            results.append(read(path))
    return results


def budgeted(name: str, tokens: int | None) -> VLMConfig:
    """The mini configuration of that design with so many tokens a picture."""
    config = configure(name)
    if not isinstance(config, VLMConfig):
        raise ValueError(f"{name} answers no questions, so it cannot be compared on them")
    try:
        return config if tokens is None else at_budget(config, tokens)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _seen(config: VLMConfig, scenes: Scenes) -> Bank:
    """Scenes, and what a design's encoder makes of their pictures."""
    return Bank.make(warm_start(config.build()).to(pick_device()), scenes)


@dataclass(frozen=True)
class _Test:
    """The fixed bank of test pictures and their questions, the same for every run, and the scenes told in words."""

    bank: Bank
    questions: list[list[Question]]
    told: list[str]

    @classmethod
    def make(cls, config: VLMConfig, scale: str) -> _Test:
        scenes, questions = evaluation_bank(per_task=PER_TASK[scale])
        return cls(_seen(config, scenes), questions, [caption(scenes[i]) for i in range(len(scenes))])


def _result(run: Run, language: str, config: VLMConfig, bank: Bank, test: _Test, precision: str | None) -> Result:
    """Train one design from the shared parts, and ask it the test questions."""
    torch.manual_seed(run.seed)
    model, blind = warm_start(config.build()).to(pick_device()), run.design == BLIND
    if language == "lora":
        model.adapt_language(LORA_RANK)
    size = replace(VLM_SIZES[run.scale], steps=run.steps)
    if blind:
        stages = _blind_stages(size, bank, run.seed)
    else:
        stages = vlm_stages(model, size, run.seed, bank=bank, language=language)
    train(model, stages, precision=precision, quiet=True)
    seen = evaluate(model, mini_tokenizer(), test.questions, test.bank.features, blind=blind)
    told = evaluate(model, mini_tokenizer(), test.questions, None, told=test.told)
    return Result(
        **asdict(run),
        language=language,
        connector_weights=0 if blind else sum(p.numel() for p in model.connector.parameters()),
        trained_weights=sum(p.numel() for p in model.parameters() if p.requires_grad),
        accuracy={task: score.accuracy for task, score in seen.items()},
        told={task: score.accuracy for task, score in told.items()},
        machine=machine(precision),
    )


def _blind_stages(size: Size, bank: Bank, seed: int) -> list[Stage]:
    """The second stage alone, on the same questions, without their pictures."""
    questions = Dialogs(mini_tokenizer(), bank, size.batch_size, TASKS, size.per_scene, blind=True, seed=seed + 1)
    return [Stage("instruct", questions, size.steps, lr=1e-3, trains=("language",))]


def machine(precision: str | None) -> dict[str, str]:
    """Where and with what a result came to be, by `train`'s precision."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    made = {"device": name, "torch": torch.__version__, "python": platform.python_version(), "date": str(date.today())}
    return made | {"precision": precision or "default"}
