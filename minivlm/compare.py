"""Designs side by side: the same encoder, decoder, pictures, questions and steps, so that only the design differs.

Every run is one design with one budget of tokens and one seed. What it came to is a line of a ledger, added when it is
done, and a run that is there is not made again. A run that fails is a line too, and the others go on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from minivlm.designs import DESIGNS, VARIANTS, at_budget, configure
from minivlm.jobs import Died, several
from minivlm.ledger import Ledger
from minivlm.material import SIZES, scenes
from minivlm.model import VLMConfig
from minivlm.own_data import own_material
from minivlm.recipes import learning
from minivlm.runs import Job, encoder_of, failure, maker
from minivlm.runtime import choose_scale
from minivlm.tables import BLIND, Compared, finished, identity, mean_of

LINE = 16_384  # bytes, more than a line of the ledger takes


def compare(
    designs: Sequence[str] | Mapping[str, VLMConfig | Callable[[], VLMConfig] | None] | None = None,
    tokens: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    scale: str | None = None,
    steps: int | None = None,
    folder: str | Path = "runs/compare",
    precision: str | None = None,
    language: str = "tuned",
    data: str | Path | None = None,
    jobs: int = 1,
    quiet: bool = False,
) -> list[Compared]:
    """Train every design with every seed, and the blind decoder; returns their results, also those found in
    `folder/runs.jsonl`, without those that failed, which are printed and will be made again.

    `designs`: names, of variants too (`mini.VARIANTS`), by default of all that answer questions; or name -> the
    configuration of a design of your own, or a function that makes it (None: the design of that name). `tokens` a
    picture for all (None: each design's own); `steps` replaces those of the second stage; `precision` is `train`'s.
    `language`: what of the decoder learns in the second stage, all of it ("tuned"), an adapter beside it ("lora") or
    nothing ("frozen"); the blind decoder is trained only where it is tuned. `data`: a folder of your own
    (`own_data.own_material`) instead of scenes. `jobs`: how many runs at once, in processes of their own.
    `quiet`: a line a run says what it came to, not how long the others will take.
    ValueError for what cannot be compared, OSError for a folder that cannot be written, before anything is trained.
    """
    scale = choose_scale(scale, SIZES)
    if jobs < 1 or (steps is not None and steps < 1):
        raise ValueError(f"steps and jobs must be at least 1, got {steps} and {jobs}")
    learning(language)
    configs = {name: budgeted(name, tokens, config) for name, config in _named(designs).items()}
    configs |= {BLIND: configure("llava15")} if language == "tuned" else {}
    material = scenes(scale, steps) if data is None else own_material(data, scale, steps)
    wanted = [Job(*one, scale, material, language, precision) for one in _pairs(configs, seeds)]
    ledger = Ledger(Path(folder) / "runs.jsonl", LINE * len(wanted))
    done = finished(ledger.entries())
    missing = [job for job in wanted if identity(job.about) not in done]
    failed = list(_made(missing, ledger, jobs, quiet))
    for number, entry in enumerate(failed, start=1):
        print(f"failed {number} of {len(missing)}: {entry['design']}, seed {entry['seed']}: {entry['failed']}")
    done = finished(ledger.entries()) if missing else done
    return [done[identity(job.about)] for job in wanted if identity(job.about) in done]


def _named(designs: Sequence[str] | Mapping | None) -> dict[str, Any]:
    """Name -> configuration, or None for those known by that name; the blind one apart."""
    if designs is None:
        designs = [name for name, design in DESIGNS.items() if design.answers]
    named = dict(designs) if isinstance(designs, Mapping) else dict.fromkeys(designs)
    taken = [name for name, own in named.items() if own is not None and name in {*DESIGNS, *VARIANTS, BLIND}]
    if taken:
        raise ValueError(f"{taken[0]!r} is the name of a known design: give yours another")
    return {name: own for name, own in named.items() if name != BLIND}


def budgeted(name: str, tokens: int | None, own: VLMConfig | Callable[[], VLMConfig] | None = None) -> VLMConfig:
    """The mini configuration of that design, or of one's own, with so many tokens a picture."""
    config = configure(name) if own is None else own() if callable(own) else own
    if not isinstance(config, VLMConfig):
        kind = "" if own is None else f": want a VLMConfig or a function that makes one, got {type(config).__name__}"
        raise ValueError(f"{name} answers no questions, so it cannot be compared on them{kind}")
    try:
        return config if tokens is None else at_budget(config, tokens)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def imported(name: str) -> Callable[[], VLMConfig]:
    """The function that "module:function" names; modules are looked for in the working directory too. ValueError where
    there is none."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"want module:function, got {name!r}")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no design {name!r}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())


def _pairs(configs: Mapping[str, VLMConfig], seeds: Sequence[int]) -> Iterator[tuple[str, VLMConfig, int]]:
    """All runs, seed by seed, those that share an encoder one after the other."""
    encoders = list(dict.fromkeys(map(encoder_of, configs.values())))
    for seed in dict.fromkeys(seeds):
        for name, config in sorted(configs.items(), key=lambda item: encoders.index(encoder_of(item[1]))):
            yield name, config, seed


def _made(missing: Sequence[Job], ledger: Ledger, jobs: int, quiet: bool) -> Iterator[dict[str, Any]]:
    """Make these runs, keep what they came to, and yield those that failed."""
    start = time.monotonic()
    for number, (job, entry) in enumerate(_results(missing, jobs), start=1):
        if isinstance(entry, Died):
            entry = failure(job, entry)
        ledger.add(entry)
        if "failed" in entry:
            yield entry
            continue
        mean = mean_of(entry["accuracy"], list(entry["accuracy"]))
        left = (time.monotonic() - start) / number * (len(missing) - number)
        told = f"{job.design}, {entry['tokens']} tokens, {job.language}, seed {job.seed}: mean {mean:.1%}"
        print(told if quiet else f"{told} ({number} of {len(missing)}, {left / 60:.0f} minutes left)", flush=True)


def _results(missing: Sequence[Job], jobs: int) -> Iterator[tuple[Job, dict[str, Any] | Died]]:
    if jobs == 1:
        make = maker()
        return ((job, make(job)) for job in missing)
    return several(maker, missing, min(jobs, max(1, len(missing))))
