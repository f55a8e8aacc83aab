"""Who finds whom: the three graphs of MMV trained alike, and how often a sound finds a caption it was never trained
with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minivlm import hearing
from minivlm.contrastive.graphs import GRAPHS
from minivlm.contrastive.mmv import MMV
from minivlm.data.scenes import sample_scenes
from minivlm.mini_sounds import mmv
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.streams import generator
from minivlm.tables import Run, bundled_results, percent, read, write
from minivlm.train import train_whole

BANK = 500  # scenes of the test, each with its sound and its caption
PAIRS = {
    "image to audio": ("image_fine", "audio_fine"),
    "image to text": ("image_coarse", "text"),
    "audio to text": ("audio_coarse", "text"),
    "text to audio": ("text", "audio_coarse"),
}


@dataclass(frozen=True)
class HearResult(Run):
    """What one run of the graph `design` came to: for each of `PAIRS`, the share whose own is the nearest of all of the
    `BANK` (`first`) and the mean place of their own (`rank`, 1 is best); both None where there is nothing to compare.
    """

    first: dict[str, float | None]
    rank: dict[str, float | None]
    machine: dict[str, str]


def hear(
    graph: str,
    seed: int,
    scale: str | None = None,
    folder: str | Path = "runs/hear",
    precision: str | None = None,
) -> HearResult:
    """Train the mini MMV of that graph and let all find all; what is found in `folder` is not run again."""
    scale = choose_scale(scale, hearing.SIZES)
    if graph not in GRAPHS:
        raise ValueError(f"unknown graph {graph!r}; choose one of {', '.join(GRAPHS)}")
    path = Path(folder) / f"{graph}-{scale}-seed{seed}.json"
    if not path.exists():
        torch.manual_seed(seed)
        model, size = hearing.start(mmv(graph).build()).to(pick_device()), hearing.SIZES[scale]
        train_whole(model, hearing.stages(model, size, seed), precision=precision)
        write(HearResult(graph, 1, seed, scale, size.steps, *examine(model), machine(precision)), path)
    return read(path, HearResult)


def examine(model: MMV, count: int = BANK) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """`first` and `rank` of a result, on `count` fixed scenes, drawn apart from those of training."""
    scenes = sample_scenes(count, generator(79, 0), "train", *hearing.OBJECTS)
    vectors, first, rank = hearing.embedded(model, scenes), {}, {}
    for pair, (query, answer) in PAIRS.items():
        if vectors[query] is None or vectors[answer] is None:
            first[pair] = rank[pair] = None
            continue
        places = hearing.ranks(vectors[query], vectors[answer]).float()
        first[pair], rank[pair] = float((places == 1).float().mean()), float(places.mean())
    return first, rank


def hear_table(results: Sequence[HearResult]) -> str:
    """A Markdown table, a row a graph: the share, in per cent, that finds its own first, mean over seeds and half of
    its 95 % interval, and the mean place of their own."""
    lines = [f"| graph | {' | '.join(PAIRS)} |", f"| --- |{' ---: |' * len(PAIRS)}"]
    for graph in dict.fromkeys(run.design for run in results):
        runs = [run for run in results if run.design == graph]
        lines.append(f"| {graph} | {' | '.join(_cell(runs, pair) for pair in PAIRS)} |")
    return "\n".join(lines)


def _cell(runs: Sequence[HearResult], pair: str) -> str:
    if runs[0].first[pair] is None:
        return "no way"
    place = statistics.mean(run.rank[pair] for run in runs)
    return f"{percent([run.first[pair] for run in runs])} (place {place:.1f})"


def bundled_hear(scale: str = "cpu") -> list[HearResult]:
    """The runs of the three graphs that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, HearResult, "hear-")
