"""Uses: the winner is who a slow look at every pair names, and nobody wins by chance alone."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from comparisons import MACHINE, compared

from minivlm import uses
from minivlm.data.watching import VIDEO_TASKS
from minivlm.ground import GroundResult
from minivlm.reading import ReadingResult
from minivlm.shots import ShotResult
from minivlm.uses import USES, Entry, Use, distinct, judge
from minivlm.watch import WatchResult

NAMED = {use.name: use for use in USES}
STUDENT = {2: 12.706, 3: 4.303}


def use(entries: list[Entry], **changes) -> Use:
    return Use("walls", "What colour?", "right answers", "tokens", lambda _: entries, **changes)


def entries(shares: dict[str, tuple[float, ...]], costs: dict[str, float] | None = None) -> list[Entry]:
    return [
        Entry(name, seed, share, (costs or {}).get(name, 1.0))
        for name, own in shares.items()
        for seed, share in enumerate(own)
    ]


def slow_ties(shares: dict[str, list[float]]) -> tuple[str, set[str]]:
    """The best mean, and all whose distance from it, seed by seed, is within Student's interval."""
    best = max(shares, key=lambda name: sum(shares[name]))
    tied = set()
    for name, own in shares.items():
        leads = [a - b for a, b in zip(shares[best], own, strict=True)]
        half = STUDENT[len(leads)] * statistics.stdev(leads) / math.sqrt(len(leads))
        tied |= {name} if sum(leads) / len(leads) <= half else set()
    return best, tied


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_winner_and_the_tied_are_those_of_a_slow_look_and_the_cheapest_is_among_them(seeds):
    chance, sizes = random.Random(seeds), set()
    for _ in range(100):
        common = [chance.gauss(0, 0.1) for _ in range(seeds)]
        level = {name: chance.gauss(0.5, 0.02 if chance.random() < 0.5 else 0.2) for name in "abcde"}
        shares = {n: [a + c + chance.gauss(0, 0.01) for c in common] for n, a in level.items()}
        costs = {name: chance.random() for name in shares}
        verdict = judge(use(entries(shares, costs)), [])
        best, tied = slow_ties(shares)
        assert verdict.best == best and set(verdict.tied) == tied
        assert verdict.cheapest == min(tied, key=lambda name: costs[name])
        assert list(verdict.standings) == sorted(shares, key=lambda name: -sum(shares[name]))
        sizes.add(len(tied))
    assert len(sizes) > 2


def test_a_win_is_said_with_its_lead_its_price_and_the_blind_row():
    shares = {"a": (0.5, 0.6, 0.7), "b": (0.41, 0.5, 0.59), "blind": (0.1, 0.1, 0.1)}
    verdict = judge(use(entries(shares, {"a": 64.0, "b": 16.0})), [])
    half = 430.3 * statistics.stdev((0.09, 0.1, 0.11)) / math.sqrt(3)
    assert str(verdict) == (
        f"walls: a (60.0 ± {430.3 * 0.1 / math.sqrt(3):.1f} %, 64 tokens), wins, 10.0 ± {half:.1f} points before b. "
        "Blind 10.0 ± 0.0 %"
    )
    assert verdict.sure and verdict.tied == ["a"] and "blind" not in verdict.standings


def test_a_tie_is_said_with_the_cheapest_of_the_tied():
    shares = {"a": (0.5, 0.6, 0.7), "b": (0.6, 0.59, 0.58), "c": (0.1, 0.2, 0.3)}
    verdict = judge(use(entries(shares, {"a": 1234.0, "b": 0.5, "c": 0.1})), [])
    assert verdict.tied == ["a", "b"] and verdict.cheapest == "b"
    assert "a (60.0 ± 24.8 %, 1,234 tokens), ties with 1 of 2, 1.0 ± " in str(verdict)
    assert "; cheapest of the tied: b (59.0 ± 2.5 %, 0.5 tokens)" in str(verdict)


def test_who_is_worse_in_the_shared_seeds_is_tied_and_never_behind():
    """The best mean may rest on a seed that the other lacks."""
    shares = {"a": (0.5, 0.5, 0.9), "b": (0.52, 0.521)}
    verdict = judge(use(entries(shares)), [])
    assert verdict.best == "a" and verdict.standings["b"].behind < 0 and verdict.tied == ["a", "b"]


def test_with_one_seed_nobody_wins():
    verdict = judge(use(entries({"a": (0.6,), "b": (0.2,), "blind": (0.1,)})), [])
    assert not verdict.sure and verdict.tied == ["a", "b"]
    assert str(verdict) == (
        "walls: a (60.0 %, 1 tokens), is 40.0 points before b; with one seed nobody knows whether it wins. Blind 10.0 %"
    )


def test_no_lead_on_the_blind_row_is_said():
    tied = judge(use(entries({"a": (0.3, 0.5, 0.4), "blind": (0.4, 0.4, 0.3)})), [])
    assert str(tied).endswith("%, not told apart from the best") and "the only one measured" in str(tied)
    assert not str(judge(use(entries({"a": (0.8, 0.8, 0.8), "blind": (0.4, 0.4, 0.3)})), [])).endswith("the best")


def test_who_costs_too_much_does_not_count():
    shares, costs = {"a": (0.9, 0.9), "b": (0.5, 0.6), "c": (0.1, 0.2)}, {"a": 9.0, "b": 4.0, "c": 1.0}
    assert list(judge(use(entries(shares, costs), at_most=4.0), []).standings) == ["b", "c"]
    nobody = judge(use(entries(shares, costs), at_most=0.5), [])
    assert nobody.standings == {} and nobody.blind is None and str(nobody) == "walls: no results yet"


def test_two_results_of_one_seed_are_refused():
    with pytest.raises(ValueError, match="walls: two results of a with seed 0, of two settings"):
        judge(use([Entry("a", 0, 0.1, 1), Entry("a", 0, 0.2, 1)]), [])


def test_a_design_of_the_same_parts_is_there_once_and_the_blind_row_stays():
    runs = [compared(name, seed, parts=parts) for name, parts in (("a", "1"), ("b", "2"), ("c", "1"), ("blind", "2"))
            for seed in (0, 1)]  # fmt: skip
    assert [run.design for run in distinct(runs)] == ["a", "a", "b", "b", "blind", "blind"]


def test_uses_of_the_comparison_read_their_tasks_and_prices():
    run = compared(flops=3_000_000, cache_bytes=4000)
    run.accuracy.update(COLOR=0.1, SHAPE=0.2, EXIST=0.3, BIND=0.8, COUNT=0.0, NTH=1.0)
    mean = statistics.mean(run.accuracy.values())
    for name, value, cost in (("captions", 0.35, 3), ("counting", 0.5, 3), ("tight memory", mean, 4)):
        [entry] = NAMED[name].entries([run])
        assert (entry.design, entry.seed, entry.cost) == ("deco", 0, cost), name
        assert entry.value == pytest.approx(value), name
    assert NAMED["tight memory"].at_most == 64 and NAMED["counting"].at_most == math.inf


def test_uses_of_other_results_read_theirs(monkeypatch):
    page = ReadingResult("a", 64, 1, "cpu", 9, 9, {"OCR": 0.1, "NEEDLE": 0.7, "KEY": 0.2, "COARSE": 0.3}, MACHINE)
    seen = {task: n / 10 for n, task in enumerate(VIDEO_TASKS)}
    film = WatchResult("a", 32, 1, "cpu", 9, 8, 9, seen, MACHINE)
    films = [film, replace(film, frames=16), replace(film, steps=8), replace(film, design="blind", tokens=0)]
    box = GroundResult("a", 16, 1, "cpu", 9, 9, iou=0.6, found=0.9, novel=0.8, blind=0.1, named=0.7, machine=MACHINE)
    shot = ShotResult("a", 4, 1, "cpu", 9, {"color": [0.4, 0.5, 0.7], "shape": [0.5, 0.6, 0.9]}, {}, MACHINE)
    monkeypatch.setattr(uses, "bundled_readings", lambda: [page])
    monkeypatch.setattr(uses, "bundled_watching", lambda: films)
    monkeypatch.setattr(uses, "bundled_grounding", lambda: [box, replace(box, design="b", blind=0.3)])
    monkeypatch.setattr(uses, "bundled_shots", lambda: [shot])
    mean = statistics.mean(seen.values())
    wanted = {
        "documents": [("a", 0.7, 64)],
        "video": [("a at 4 a frame", mean, 4), ("blind", mean, 0)],
        "grounding": [("a", 0.6, 16), ("b", 0.6, 16), ("blind", 0.2, 0)],
        "few shots": [("a", 0.8, 4), ("blind", 0.45, 0)],
    }
    for name, rows in wanted.items():
        found = [(entry.design, round(entry.value, 9), entry.cost) for entry in NAMED[name].entries([])]
        assert found == [(design, round(value, 9), cost) for design, value, cost in rows], name
        assert {entry.seed for entry in NAMED[name].entries([])} == {1}


def test_where_nothing_was_measured_that_is_said(monkeypatch):
    for name in ("bundled_readings", "bundled_watching", "bundled_grounding", "bundled_shots"):
        monkeypatch.setattr(uses, name, list)
    assert [str(judge(one, [])) for one in USES] == [f"{one.name}: no results yet" for one in USES]
