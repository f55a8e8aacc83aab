"""What a comparison of designs came to: gathered from its ledger, kept with the package, read question by question."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from minivlm.batch import Batch
from minivlm.bench.timing import alternate
from minivlm.data.scenes import render, sample_scenes
from minivlm.designs import configure
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.ledger import Ledger
from minivlm.runtime import pick_device
from minivlm.streams import generator
from minivlm.tables import BLIND, Compared, bundled_results, finished

QUESTION = "what color is the circle ?"


def collect(ledger: str | Path, scale: str, out: Path, rounds: int = 0) -> list[Compared]:
    """All results of that scale in a ledger that `compare` wrote, the newest of each run, written as one file to `out`
    for `bundled_results` to read. Runs that failed are left out. `rounds`: the milliseconds are those of `timed`."""
    found = [run for run in finished(Ledger(ledger).entries()).values() if run.scale == scale]
    found = timed(found, rounds) if rounds else found
    lines = ",\n".join(json.dumps(asdict(run), separators=(",", ":")) for run in found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return found


@torch.no_grad()
def timed(results: Sequence[Compared], rounds: int = 30) -> list[Compared]:
    """The same, with milliseconds measured anew here and now: all designs read a picture and a question in turn, so
    many times. Runs that were made at once slowed one another, some more than others. ValueError for a design that is
    not in `DESIGNS`."""
    works = {name: _reading(name) for name in dict.fromkeys(run.design for run in results)}
    medians = {name: round(statistics.median(times), 3) for name, times in alternate(works, rounds).items()}
    return [replace(run, milliseconds=medians[run.design]) for run in results]


def _reading(name: str) -> Callable[[], object]:
    """What reads one question as that mini design does, its weights not trained; the blind one without the picture."""
    model = configure("llava15" if name == BLIND else name).build().eval().to(pick_device())
    picture = render(sample_scenes(1, generator(0, 0)), model.config.vision.image_size)[:, None]
    batch = Batch.pack(mini_tokenizer(), [[(QUESTION, "")]], images=None if name == BLIND else picture)
    return partial(model, replace(batch, labels=None).to(next(model.parameters()).device))


def bundled_comparison(scale: str = "cpu") -> list[Compared]:
    """The runs of all designs side by side that come with the package; an empty list where none were made."""
    return bundled_results(scale, Compared, "compare-")


def margins_by_design(results: Iterable[Compared]) -> tuple[list[str], dict[str, list[list[float]]]]:
    """The task of each test question, and by design its margins, a row a seed, of the seeds that all designs have.
    ValueError where there are none, or where not all were asked the same."""
    runs: dict[str, dict[int, Compared]] = {}
    for run in results:
        runs.setdefault(run.design, {})[run.seed] = run
    seeds = sorted(set.intersection(*map(set, runs.values()))) if runs else []
    if not seeds:
        raise ValueError(f"no results of a seed that all have: {', '.join(runs) or 'no designs'}")
    asked = {
        tuple((task, len(kept)) for task, kept in run.margins.items())
        for some in runs.values()
        for run in some.values()
    }
    if len(asked) > 1:
        raise ValueError("these runs were not asked the same: take those of one scale and one set of data")
    tasks = [task for task, count in asked.pop() for _ in range(count)]
    rows = {name: [sum(some[seed].margins.values(), []) for seed in seeds] for name, some in runs.items()}
    return tasks, rows
