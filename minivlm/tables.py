"""Results of trained designs: files of them, tables, and differences with their intervals."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from minivlm.data.tasks import TASKS
from minivlm.storage import whole

BLIND = "blind"  # the row of a decoder that is trained and asked without any picture
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Run:
    """What was trained, with which chance, and for how long."""

    design: str
    tokens: int
    seed: int
    scale: str
    steps: int


@dataclass(frozen=True)
class Result(Run):
    """What one run came to: the share of right answers a task.

    language         what of the decoder learned: "tuned", "lora" or "frozen"
    trained_weights  how many weights learned in the second stage
    accuracy         on pictures
    told             on the same scenes told in words, without pictures: what the decoder can still read; empty in
                     results made before this was asked
    """

    language: str
    connector_weights: int
    trained_weights: int
    accuracy: dict[str, float]
    told: dict[str, float]
    machine: dict[str, str]


@dataclass(frozen=True)
class Compared(Result):
    """A result of `compare`, with what it cost.

    data            "scenes", or the name of a user's own folder and the fingerprint of what is in it
    parts           fingerprint of the configuration: under the same name, another one is another design
    weights         of the whole model
    samples         pictures seen in training, each as often as it was
    train_flops     floating-point operations of all training: of one real step of each stage, forward and backward,
                    attention written out, times its steps, and of the frozen encoder once over all pictures
    seconds         of training, asking and counting
    flops           of reading one picture and one question, the encoder's among them
    cache_bytes     keys and values that are then kept, at two bytes a number
    milliseconds    it takes, the median of several times, on `machine`
    margins         `evaluate.margins` of the first test questions of each task, always the same
    """

    data: str
    parts: str
    weights: int
    samples: int
    train_flops: int
    seconds: float
    flops: int
    cache_bytes: int
    milliseconds: float
    margins: dict[str, list[float]]


Kind = TypeVar("Kind", bound=Run)


def write(result: Run, path: Path) -> None:
    """Keep a result in a file of its own, whole or not at all."""
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")


def read(path: Path, kind: type[Kind] = Result) -> Kind:
    """The result that `write` kept there."""
    return kind(**json.loads(path.read_text(encoding="utf-8")))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval over seeds (Student's t); NaN for the width of a single one."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan
    free = len(values) - 1
    factor = _STUDENT.get(free, 1.96 + 2.37 / free + 2.82 / free**2)  # Fisher's expansion, good beyond the table
    return mean, factor * statistics.stdev(values) / math.sqrt(len(values))


def table(results: Iterable[Result], tasks: Sequence[str] = TASKS) -> str:
    """A Markdown table, a row for each design, number of tokens and kind of learning, best mean first, the blind one
    last: accuracy in per cent, mean over seeds and half of the 95 % interval of that mean (Student's t). ValueError for
    two results of one row and seed: they were made in different settings."""
    rows: dict[tuple[str, int, str], list[Result]] = {}
    for result in results:
        runs = rows.setdefault((result.design, result.tokens, result.language), [])
        if any(run.seed == result.seed for run in runs):
            name = f"{result.design}, {result.language}, with {result.tokens} tokens and seed {result.seed}"
            raise ValueError(f"two results of {name}: compare those of one scale and one number of steps")
        runs.append(result)
    mean = {key: statistics.mean(mean_of(run.accuracy, tasks) for run in runs) for key, runs in rows.items()}
    order = sorted(rows, key=lambda key: (key[0] == BLIND, -mean[key]))
    about = "design | tokens | decoder | connector weights | weights that learn"
    lines = [
        f"| {about} | {' | '.join(tasks)} | mean | told in words |",
        f"| --- | ---: | --- | ---: | ---: | {' | '.join('---:' for _ in tasks)} | ---: | ---: |",
    ]
    for name, tokens, language in order:
        runs = rows[name, tokens, language]
        cells = [percent([run.accuracy[task] for run in runs]) for task in tasks]
        cells.append(percent([mean_of(run.accuracy, tasks) for run in runs]))
        cells.append(percent([mean_of(run.told, tasks) for run in runs]) if all(run.told for run in runs) else "-")
        weights = f"{runs[0].connector_weights / 1e3:,.0f} k" if name != BLIND else "-"
        learned = f"{runs[0].trained_weights / 1e3:,.0f} k"
        lines.append(f"| {name} | {tokens or '-'} | {language} | {weights} | {learned} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_of(accuracy: Mapping[str, float], tasks: Sequence[str] = TASKS) -> float:
    """The mean over tasks, each counting the same."""
    return statistics.mean(accuracy[task] for task in tasks)


def paired(some: Iterable[Kind], others: Iterable[Kind], measure: Callable[[Kind], float]) -> list[float]:
    """How much higher `measure` is for `some` than for `others`, seed by seed, of those seeds that both have."""
    ours, theirs = ({run.seed: measure(run) for run in runs} for runs in (some, others))
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def percent(values: Sequence[float]) -> str:
    """Mean over seeds, and half of its 95 % interval where there are several, in per cent."""
    mean, half = interval(values)
    return f"{100 * mean:.0f}" if math.isnan(half) else f"{100 * mean:.0f} ± {100 * half:.0f}"


def setting(results: Sequence[Run]) -> str:
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


def bundled_results(scale: str = "cpu", kind: type[Kind] = Result, prefix: str = "") -> list[Kind]:
    """The runs whose results come with the package; an empty list for a scale that none were made at. Those of another
    `kind` are in files whose names begin with its `prefix`."""
    file = files("minivlm").joinpath("results", f"{prefix}{scale}.json")
    return [kind(**stored) for stored in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []


IDENTITY = ("design", "tokens", "seed", "scale", "steps", "language", "data", "parts")  # what makes a run another run


def identity(entry: Mapping[str, Any]) -> tuple:
    """Which run an entry of a ledger is of."""
    return tuple(entry[key] for key in IDENTITY)


def finished(entries: Iterable[Mapping[str, Any]]) -> dict[tuple, Compared]:
    """The results among the entries of a ledger, by `identity`, the newest of each."""
    return {identity(entry): Compared(**entry) for entry in entries if "failed" not in entry}
