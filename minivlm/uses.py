"""Uses: what somebody wants of a model, which results answer that, which design wins there, by how much, at what cost.

Who wins is decided by a rule: the best mean over seeds, and its lead on each other design, seed by seed. A lead whose
95 % interval holds 0 is a tie; with a single seed there is no interval, so nobody wins.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from minivlm.data.videos import BEATS
from minivlm.data.watching import VIDEO_TASKS
from minivlm.ground import bundled_grounding
from minivlm.reading import bundled_readings
from minivlm.shots import bundled_shots
from minivlm.tables import BLIND, Compared, Run, interval, mean_of
from minivlm.watch import bundled_watching

MOST_SHOTS = -1  # the last of `shots.COUNTS`


@dataclass(frozen=True)
class Entry:
    """What a run is worth for a use: a share, the higher the better, and its price."""

    design: str
    seed: int
    value: float
    cost: float


@dataclass(frozen=True)
class Use:
    """
    asks     what it asks of a design
    measure  what an entry's value is the share of
    price    what its cost is
    entries  of results of `compare`, or of others that come with the package; what does not look is called `BLIND`
    at_most  designs of a higher price do not count
    """

    name: str
    asks: str
    measure: str
    price: str
    entries: Callable[[Sequence[Compared]], list[Entry]]
    at_most: float = math.inf


@dataclass(frozen=True)
class Standing:
    """A design's mean over seeds with half of its 95 % interval, its median price, and how far it is behind the best,
    seed by seed, with half of that interval. Halves are NaN where there is but one seed."""

    mean: float
    half: float
    cost: float
    behind: float
    behind_half: float

    @property
    def tied(self) -> bool:
        """Not told apart from the best: the interval holds 0, or is not known."""
        return not self.behind > self.behind_half


@dataclass(frozen=True)
class Verdict:
    """How designs stand in a use, the best first; empty where there are no results. `blind`: what does not look."""

    use: Use
    standings: dict[str, Standing]
    blind: Standing | None

    @property
    def best(self) -> str:
        return next(iter(self.standings))

    @property
    def sure(self) -> bool:
        """Are there seeds enough to tell designs apart?"""
        return not math.isnan(self.standings[self.best].behind_half)

    @property
    def tied(self) -> list[str]:
        """The best and those that are not told apart from it."""
        return [name for name, standing in self.standings.items() if standing.tied]

    @property
    def cheapest(self) -> str:
        """Of these the one with the lowest price."""
        return min(self.tied, key=lambda name: self.standings[name].cost)

    def __str__(self) -> str:
        if not self.standings:
            return f"{self.use.name}: no results yet"
        said = f"{self.use.name}: {self._priced(self.best)}, {self._won()}"
        if self.sure and len(self.tied) > 1:
            said += f"; cheapest of the tied: {self._priced(self.cheapest)}"
        if self.blind:
            said += f". Blind {_points(self.blind.mean, self.blind.half)} %"
            said += ", not told apart from the best" if self.sure and self.blind.tied else ""
        return said

    def _priced(self, name: str) -> str:
        standing = self.standings[name]
        return f"{name} ({_points(standing.mean, standing.half)} %, {_rounded(standing.cost)} {self.use.price})"

    def _won(self) -> str:
        if len(self.standings) < 2:
            return "the only one measured"
        second = list(self.standings)[1]
        ahead = self.standings[second]
        lead = f"{_points(ahead.behind, ahead.behind_half)} points before {second}"
        if not self.sure:
            return f"is {lead}; with one seed nobody knows whether it wins"
        others = len(self.tied) - 1
        return f"ties with {others} of {len(self.standings) - 1}, {lead}" if others else f"wins, {lead}"


def judge(use: Use, results: Sequence[Compared]) -> Verdict:
    """How designs stand in a use, by these results of `compare` or those that come with the package. ValueError for
    two entries of one design and seed."""
    entries: dict[str, list[Entry]] = {}
    for entry in use.entries(results):
        own = entries.setdefault(entry.design, [])
        if any(other.seed == entry.seed for other in own):
            raise ValueError(f"{use.name}: two results of {entry.design} with seed {entry.seed}, of two settings")
        own.append(entry)
    blind = entries.pop(BLIND, [])
    cost = {name: statistics.median(entry.cost for entry in own) for name, own in entries.items()}
    chosen = [name for name in entries if cost[name] <= use.at_most]
    order = sorted(chosen, key=lambda name: -statistics.mean(entry.value for entry in entries[name]))
    best = entries[order[0]] if order else []
    standings = {name: _standing(entries[name], best) for name in order}
    return Verdict(use, standings, _standing(blind, best) if blind and best else None)


def _standing(own: Sequence[Entry], best: Sequence[Entry]) -> Standing:
    reached = {entry.seed: entry.value for entry in best}
    leads = [reached[entry.seed] - entry.value for entry in own if entry.seed in reached]
    behind = interval(leads) if leads else (math.nan, math.nan)
    cost = statistics.median(entry.cost for entry in own)
    return Standing(*interval([entry.value for entry in own]), cost, *behind)


def _points(mean: float, half: float) -> str:
    return f"{100 * mean:.1f}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}"


def _rounded(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def distinct(results: Iterable[Compared]) -> list[Compared]:
    """Without the runs of designs that have the very parts of one before them: they would tie with themselves."""
    first: dict[str, str] = {}
    return [run for run in results if run.design == BLIND or first.setdefault(run.parts, run.design) == run.design]


def _of_scenes(
    results: Sequence[Compared], tasks: Sequence[str] | None, cost: Callable[[Compared], float]
) -> list[Entry]:
    """The mean over some tasks of `compare`, or all."""
    return [
        Entry(run.design, run.seed, mean_of(run.accuracy, tasks or list(run.accuracy)), cost(run))
        for run in distinct(results)
    ]


def _of_pages(_: Sequence[Compared]) -> list[Entry]:
    return [Entry(run.design, run.seed, run.accuracy["NEEDLE"], run.tokens) for run in bundled_readings()]


def _of_videos(_: Sequence[Compared]) -> list[Entry]:
    """Of videos of one length, and the longest training of them."""
    runs = [run for run in bundled_watching() if run.frames == BEATS]
    steps = max((run.steps for run in runs), default=0)
    return [
        Entry(_a_frame(run.design, run.a_frame), run.seed, mean_of(run.accuracy, VIDEO_TASKS), run.a_frame)
        for run in runs
        if run.steps == steps
    ]


def _a_frame(design: str, tokens: float) -> str:
    return design if design == BLIND else f"{design} at {tokens:g} a frame"


def _of_boxes(_: Sequence[Compared]) -> list[Entry]:
    runs = bundled_grounding()
    seen = [Entry(run.design, run.seed, run.iou, run.tokens) for run in runs]
    return seen + _without(runs, lambda run: run.blind)


def _of_shots(_: Sequence[Compared]) -> list[Entry]:
    def share(run: Run, count: int) -> float:
        return statistics.mean(shares[count] for shares in run.seen.values())

    runs = bundled_shots()
    seen = [Entry(run.design, run.seed, share(run, MOST_SHOTS), run.tokens) for run in runs]
    return seen + _without(runs, lambda run: share(run, 0))


def _without(runs: Sequence[Run], value: Callable[[Run], float]) -> list[Entry]:
    """What designs reach, in the mean of all, when what the use is about is kept from them."""
    seeds = sorted({run.seed for run in runs})
    return [Entry(BLIND, seed, statistics.mean(value(run) for run in runs if run.seed == seed), 0) for seed in seeds]


def _operations(run: Compared) -> float:
    return run.flops / 1e6


def _kept(run: Compared) -> float:
    return run.cache_bytes / 1e3


SCARCE = 64  # kB: room for 31 places in a mini decoder
LOOKS = ("COLOR", "SHAPE", "EXIST", "BIND")
USES: tuple[Use, ...] = (
    Use("captions", "Does it name what is there, and what looks how?", f"right answers ({', '.join(LOOKS)})",
        "MFLOP a question", partial(_of_scenes, tasks=LOOKS, cost=_operations)),
    Use("counting", "How many are there, and which is the second?", "right answers (COUNT, NTH)",
        "MFLOP a question", partial(_of_scenes, tasks=("COUNT", "NTH"), cost=_operations)),
    Use("documents", "What does the small print say?", "right answers (NEEDLE)", "tokens a page", _of_pages),
    Use("video", "What moved, when, and in which order?", "right answers, mean of all tasks", "tokens a frame",
        _of_videos),
    Use("grounding", "Where is it, as a box?", "overlap of said and true box (mean IoU)", "tokens a picture",
        _of_boxes),
    Use("few shots", "Does it follow eight examples? (Blind: it was shown none.)", "right labels", "tokens a shot",
        _of_shots),
    Use("tight memory", f"What is best among those that keep at most {SCARCE} kB of a question?",
        "right answers, mean of all tasks", "kB of keys and values", partial(_of_scenes, tasks=None, cost=_kept),
        SCARCE),
)  # fmt: skip
