"""Timing two ways of doing the same: in turns, so that whatever else the machine does meanwhile, it does to both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one way is as another.

    what          the work, the same for both
    ours, rival   who does it, and in how many `milliseconds`, the median: of ours and of the rival
    ratio         the median, over rounds, of the rival's time over ours in that round
    spread        the quartiles of that
    wanted        what the ratio should be at least
    """

    what: str
    ours: str
    rival: str
    milliseconds: list[float]
    ratio: float
    spread: list[float]
    wanted: float
    rounds: int


def alternate(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Milliseconds that each of `works` takes, round by round: all have their turn in each, in reversed order in every
    second. One round before them warms up. ValueError for less than one round."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in list(works)[:: -1 if number % 2 else 1]:
            took[name].append(milliseconds(works[name]))
    return {name: times[1:] for name, times in took.items()}


def milliseconds(work: Work) -> float:
    """How long it takes once, on the CPU or, to its end, on a GPU."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return 1000 * (time.perf_counter() - start)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(what: str, ours: tuple[str, Sequence[float]], rival: tuple[str, Sequence[float]], wanted: float) -> Ratio:
    """What the times of both, round by round, come to; ValueError where they are not those of the same rounds."""
    (our_name, our_times), (rival_name, rival_times) = ours, rival
    if not our_times or len(our_times) != len(rival_times):
        raise ValueError(f"{what}: {len(our_times)} and {len(rival_times)} rounds: time both in the same, at least one")
    paired = [theirs / own for own, theirs in zip(our_times, rival_times, strict=True)]
    quartiles = statistics.quantiles(paired, n=4, method="inclusive") if len(paired) > 1 else paired * 3
    return Ratio(
        what,
        our_name,
        rival_name,
        [statistics.median(our_times), statistics.median(rival_times)],
        statistics.median(paired),
        [quartiles[0], quartiles[2]],
        wanted,
        len(paired),
    )
