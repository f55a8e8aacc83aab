"""The benchmark's report: everything measured in one run, the file it is kept in, and its table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import torch

from minivlm.bench.growth import GROWING, Growth, growth
from minivlm.bench.loading import Peak, loading
from minivlm.bench.peak import Share, share_of_peak
from minivlm.bench.saying import saying
from minivlm.bench.timing import Ratio
from minivlm.bench.training import clip_steps, compiled_step, llava_step, no_compiler, pairs
from minivlm.decoding import captured
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.storage import whole


@dataclass(frozen=True)
class Size:
    """How much is done: samples of a step, rounds; scenes whose questions are packed; words said; sizes of what grows;
    samples of the step whose share of the peak is taken, and the side of the matrices beside it; the width of the
    decoder that is opened from a folder."""

    samples: int
    rounds: int
    scenes: int
    words: int
    growing: dict[str, list[int]]
    many: int
    side: int
    opened: int


FEW = {"visual tokens": [4, 16, 64], "frames": [1, 2, 4], "words": [8, 16, 32]}
ALL = {"visual tokens": [16, 64, 256, 1024], "frames": [1, 4, 16, 64], "words": [16, 64, 256, 1024]}
SIZES = {
    "smoke": Size(2, 1, 2, 3, FEW, many=2, side=64, opened=128),
    "cpu": Size(32, 9, 16, 32, ALL, many=32, side=1024, opened=768),
    "gpu": Size(64, 25, 128, 32, ALL, many=1024, side=8192, opened=768),
}


@dataclass(frozen=True)
class Bench:
    """One run: where and with what, what was measured, and what was not and why."""

    scale: str
    machine: dict[str, str]
    ratios: list[Ratio]
    growth: list[Growth]
    shares: list[Share]
    skipped: dict[str, str]
    peaks: list[Peak] = field(default_factory=list)


def bench(scale: str | None = None, folder: str | Path = "runs/bench") -> Bench:
    """Measure everything, and keep it in `folder` as bench-<scale>.json. What cannot run here is left out, with the
    reason; so is, at smoke scale, what must be compiled."""
    scale, device = choose_scale(scale, SIZES), pick_device().type
    size, measures = SIZES[scale], _ratios(SIZES[scale], device)
    reasons = {name: _why_not(name, scale, device) for name in measures}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    ratios = [_said(made) for name in measures if name not in skipped for made in measures[name]()]
    grown = [growth(what, size.growing[what], size.rounds, device) for what in GROWING]
    shares = [share_of_peak(size.many, size.side, size.rounds, 0.25, device)]
    opening, peak = loading(size.opened, size.rounds)
    done = Bench(scale, made_on(), [*ratios, _said(opening)], grown, shares, skipped, [peak])
    write(done, Path(folder) / f"bench-{scale}.json")
    return done


def _said(made: Ratio) -> Ratio:
    print(f"{made.what}: {made.ours} {made.ratio:.2f} times as fast as {made.rival}", flush=True)
    return made


def _ratios(size: Size, device: str) -> dict[str, Callable[[], Sequence[Ratio]]]:
    how = dict(rounds=size.rounds, device=device)
    step = dict(samples=size.samples, **how)
    eager, captures = {"llava15": (None, 1.3)}, {"llava15, captured": (captured, 10.0)}
    quick = {wanted: {"llava15, compiled": (torch.compile, wanted)} for wanted in (2.0, 1.3)}
    return {
        "training": lambda: [llava_step(**step, wanted=1.0 if device == "cpu" else 3.0)],
        "packed": lambda: [pairs(size.scenes, **how)],
        "CLIP": lambda: clip_steps(**step),
        "compiled training": lambda: [compiled_step(**step)],
        "saying": lambda: saying(1, size.words, ways=eager, **how),
        "saying, a batch": lambda: saying(size.samples, size.words, ways=eager, **how),
        "saying, compiled": lambda: saying(1, size.words, ways=quick[2.0], **how),
        "saying, a batch, compiled": lambda: saying(size.samples, size.words, ways=quick[1.3], **how),
        "saying, captured": lambda: saying(1, size.words, ways=captures, **how),
    }


def _why_not(name: str, scale: str, device: str) -> str | None:
    if "captured" in name and device != "cuda":
        return "graphs are captured on a CUDA GPU, and there is none"
    if "compiled" in name:
        return "compiling takes longer than all else" if scale == "smoke" else no_compiler()
    return None


def made_on() -> dict[str, str]:
    """Where and with what a run was made."""
    return machine(None) | {"threads": str(torch.get_num_threads()), "open_clip_torch": version("open_clip_torch")}


def write(done: Bench, path: Path) -> None:
    """Keep a run in a file, whole or not at all."""
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Bench:
    """The run that `write` kept there."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    for name, kind in (("ratios", Ratio), ("growth", Growth), ("shares", Share), ("peaks", Peak)):
        kept[name] = [kind(**one) for one in kept.get(name, [])]
    return Bench(**kept)


def bundled_bench(scale: str = "cpu") -> Bench | None:
    """The run that comes with the package; None for a scale at which none does."""
    file = files("minivlm").joinpath("results", f"bench-{scale}.json")
    return read(Path(str(file))) if file.is_file() else None


def bench_table(done: Bench) -> str:
    """The ratios as a Markdown table, and below it growth, the share of the peak, what was left out, and the setting,
    a sentence each."""
    lines = [
        "| work | ours | ms | beside | ms | times as fast | quartiles | wanted |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for one in done.ratios:
        (own, theirs), (low, high) = one.milliseconds, one.spread
        cells = (one.what, one.ours, f"{own:,.1f}", one.rival, f"{theirs:,.1f}", f"{one.ratio:.2f}")
        lines.append(f"| {' | '.join(cells)} | {low:.2f} to {high:.2f} | {one.wanted:.3g} |")
    return "\n".join([*lines, "", *told(done)])


def told(done: Bench) -> list[str]:
    """What a run says beside its ratios, in sentences."""
    grown = "; ".join(
        f"{one.sizes[0]:,} to {one.sizes[-1]:,} {one.what}: {one.fixed:.1f} ms + {1e9 * one.rate:.1f} ms a GFLOP, "
        f"off by at most {one.misfit:.0%}"
        for one in done.growth
    )
    shares = "; ".join(
        f"{one.what}: {one.share:.0%} of {one.peak * 1000:,.0f} GFLOPs a second, those of one large product (wanted "
        f"{one.wanted:.0%})"
        for one in done.shares
    )
    peaks = [
        f"The most memory that {one.what} takes: {one.ours:,.0f} MB beside transformers' {one.theirs:,.0f} MB, "
        f"{one.share:.0%} of it (wanted {one.wanted:.0%} at most)."
        for one in done.peaks
    ]
    where = f"{done.machine['device']}, threads: {done.machine['threads']}"
    versions = ", ".join(f"{name} {done.machine[name]}" for name in ("torch", "transformers", "open_clip_torch"))
    left = [f"Left out: {'; '.join(f'{name} ({why})' for name, why in done.skipped.items())}."] if done.skipped else []
    return [
        f"A training step's time against its operations, {grown}.",
        f"A training step's share of what the machine multiplies, {shares}.",
        *peaks,
        *left,
        f"Scale {done.scale}; {where}, {versions}, {done.machine['date']}.",
    ]
