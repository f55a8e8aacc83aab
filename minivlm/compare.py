"""Designs side by side: the same encoder, decoder, pictures, questions and steps, so that only the design differs.

Every run is one design with one budget of tokens and one seed; its result is a small file, and a run whose file is
there is not run again.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.resources import files
from pathlib import Path

import torch

from minivlm.data.scenes import Scenes, sample_scenes
from minivlm.data.tasks import TASKS, Question, evaluation_bank
from minivlm.designs import at_budget, configure
from minivlm.evaluate import evaluate
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLMConfig
from minivlm.recipes import VLM_SIZES, Size, vlm_stages
from minivlm.runtime import pick_device, pick_scale
from minivlm.storage import warm_start, whole
from minivlm.streams import Bank, Dialogs, generator
from minivlm.train import Stage, train

BLIND = "blind"  # the row of a decoder that is trained and asked without any picture
PER_TASK = {"smoke": 10, "cpu": 500, "gpu": 2000}  # questions a task
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Result:
    """One run: what was trained, for how long, and the share of right answers a task."""

    design: str
    tokens: int
    seed: int
    scale: str
    steps: int
    connector_weights: int
    accuracy: dict[str, float]
    machine: dict[str, str]


def compare(
    designs: Sequence[str],
    tokens: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    scale: str | None = None,
    steps: int | None = None,
    folder: str | Path = "runs/compare",
    precision: str | None = None,
) -> list[Result]:
    """Train every design with every seed, and the blind decoder; returns their results, also those found in `folder`.

    `tokens` a picture for all (None: each design's own); `steps` replaces those of the second stage; `precision` is
    `train`'s. ValueError for a design that answers no questions, or cannot make so many tokens, before anything is
    trained.
    """
    scale, folder = scale or pick_scale(pick_device()), Path(folder)
    if scale not in VLM_SIZES:
        raise ValueError(f"unknown scale {scale!r}; choose one of {', '.join(VLM_SIZES)}")
    steps = VLM_SIZES[scale].steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    configs = {name: _budgeted(name, tokens) for name in designs if name != BLIND}
    results, test = [], None
    for seed in dict.fromkeys(seeds):
        bank = None
        for name in (*configs, BLIND):
            count = 0 if name == BLIND else configs[name].num_tokens
            path = folder / f"{name}-{count}-{scale}-{steps}-seed{seed}.json"
            if not path.exists():
                bank = bank or _seen(sample_scenes(VLM_SIZES[scale].scenes, generator(seed, 0)))
                test = test or _Test.make(scale)
                result = _run(name, configs.get(name, configure("llava15")), bank, test, seed, scale, steps, precision)
                with whole(path) as unfinished:
                    unfinished.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
                print(f"{name}, {count} tokens, seed {seed}: mean {_mean_accuracy(result, TASKS):.1%}")
            results.append(_read(path))
    return results


def _budgeted(name: str, tokens: int | None) -> VLMConfig:
    """The mini configuration of that design with so many tokens a picture."""
    config = configure(name)
    if not isinstance(config, VLMConfig):
        raise ValueError(f"{name} answers no questions, so it cannot be compared on them")
    try:
        return config if tokens is None else at_budget(config, tokens)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _seen(scenes: Scenes) -> Bank:
    """Scenes, and what the encoder that all designs share makes of their pictures."""
    return Bank.make(warm_start(configure("llava15").build()).to(pick_device()), scenes)


@dataclass(frozen=True)
class _Test:
    """The fixed bank of test pictures and their questions, the same for every run."""

    bank: Bank
    questions: list[list[Question]]

    @classmethod
    def make(cls, scale: str) -> _Test:
        scenes, questions = evaluation_bank(per_task=PER_TASK[scale])
        return cls(_seen(scenes), questions)


def _run(
    name: str, config: VLMConfig, bank: Bank, test: _Test, seed: int, scale: str, steps: int, precision: str | None
) -> Result:
    """Train one design from the shared parts, and ask it the test questions."""
    torch.manual_seed(seed)
    model = warm_start(config.build()).to(pick_device())
    size = replace(VLM_SIZES[scale], steps=steps)
    stages = _blind_stages(size, bank, seed) if name == BLIND else vlm_stages(model, size, seed, bank=bank)
    train(model, stages, precision=precision, quiet=True)
    scores = evaluate(model, mini_tokenizer(), test.questions, test.bank.features, blind=name == BLIND)
    return Result(
        name,
        0 if name == BLIND else config.num_tokens,
        seed,
        scale,
        steps,
        0 if name == BLIND else sum(p.numel() for p in model.connector.parameters()),
        {task: score.accuracy for task, score in scores.items()},
        {**_machine(), "precision": precision or "default"},
    )


def _blind_stages(size: Size, bank: Bank, seed: int) -> list[Stage]:
    """The second stage alone, on the same questions, without their pictures."""
    questions = Dialogs(mini_tokenizer(), bank, size.batch_size, TASKS, size.per_scene, blind=True, seed=seed + 1)
    return [Stage("instruct", questions, size.steps, lr=1e-3, trains=("language",))]


def _machine() -> dict[str, str]:
    """Where and with what a result came to be."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version(), "date": str(date.today())}


def _read(path: Path) -> Result:
    return Result(**json.loads(path.read_text(encoding="utf-8")))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval over seeds (Student's t); NaN for the width of a single one."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan
    free = len(values) - 1
    factor = _STUDENT.get(free, 1.96 + 2.37 / free + 2.82 / free**2)  # Fisher's expansion, good beyond the table
    return mean, factor * statistics.stdev(values) / math.sqrt(len(values))


def table(results: Iterable[Result], tasks: Sequence[str] = TASKS) -> str:
    """A Markdown table, a row for each design and number of tokens, best mean first, the blind one last: accuracy in
    per cent, mean over seeds and half of the 95 % interval of that mean (Student's t). ValueError for two results of
    one row and seed: they were made in different settings."""
    rows: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        runs = rows.setdefault((result.design, result.tokens), [])
        if any(run.seed == result.seed for run in runs):
            name = f"{result.design} with {result.tokens} tokens and seed {result.seed}"
            raise ValueError(f"two results of {name}: compare those of one scale and one number of steps")
        runs.append(result)
    mean = {key: statistics.mean(_mean_accuracy(r, tasks) for r in runs) for key, runs in rows.items()}
    order = sorted(rows, key=lambda key: (key[0] == BLIND, -mean[key]))
    lines = [
        f"| design | tokens | connector weights | {' | '.join(tasks)} | mean |",
        f"| --- | ---: | ---: | {' | '.join('---:' for _ in tasks)} | ---: |",
    ]
    for name, tokens in order:
        runs = rows[name, tokens]
        cells = [_cell([run.accuracy[task] for run in runs]) for task in tasks]
        cells.append(_cell([_mean_accuracy(run, tasks) for run in runs]))
        weights = f"{runs[0].connector_weights / 1e3:,.0f} k" if name != BLIND else "-"
        lines.append(f"| {name} | {tokens or '-'} | {weights} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_accuracy(result: Result, tasks: Sequence[str]) -> float:
    """The mean over tasks of one run, each task counting the same."""
    return statistics.mean(result.accuracy[task] for task in tasks)


def _cell(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{100 * mean:.0f}" if math.isnan(half) else f"{100 * mean:.0f} ± {100 * half:.0f}"


def setting(results: Sequence[Result]) -> str:
    """With what, where and when these results were made, in a sentence; ValueError where there are none."""
    if not results:
        raise ValueError("no results, so no setting")
    seeds, steps, scales = (sorted({getattr(run, name) for run in results}) for name in ("seed", "steps", "scale"))
    device, torch_version, dates = (
        sorted({result.machine[name] for result in results}) for name in ("device", "torch", "date")
    )
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return (
        f"{', '.join(map(str, steps))} steps at scale {', '.join(scales)}, seeds {', '.join(map(str, seeds))}; "
        f"{', '.join(device)}, torch {', '.join(torch_version)}, {when}"
    )


def bundled_results(scale: str = "cpu") -> list[Result]:
    """The runs whose results come with the package; an empty list for a scale that none were made at."""
    file = files("minivlm").joinpath("results", f"{scale}.json")
    return [Result(**stored) for stored in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []


def collect(folder: str | Path, scale: str, out: Path) -> list[Result]:
    """All results of that scale in `folder`, written as one file to `out` for `bundled_results` to read."""
    found = [_read(path) for path in sorted(Path(folder).glob(f"*-{scale}-*.json"))]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(result) for result in found], indent=1) + "\n", encoding="utf-8")
    return found
