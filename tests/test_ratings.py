"""Ratings: where the truth is known, intervals hold it as often as they say, and so do ranks."""

from __future__ import annotations

import math

import arenas
import numpy as np
import pytest
import torch

from minivlm.arena import Margins, bradley_terry, points, win_shares
from minivlm.ratings import Ratings, _other_seeds, by_task, duel, rate, said_rank, shrunk, table

STUDIES, TASKS, EACH = 50, 4, 60


def resampled(margins: Margins, counts: np.ndarray) -> np.ndarray:
    """Half widths of the intervals to which draws lead that count battles (draws, seeds, questions) as often as this,
    each task as often as every other."""
    made, many = points(margins), int(counts[0].sum())
    means = np.einsum("dsq,bsq->bd", made, counts, optimize=True) / many
    off = bradley_terry(means, many) - bradley_terry(made.mean(axis=(1, 2)), many)
    return np.quantile(np.abs(off), 0.95, axis=0)


def single_battles(chance: np.random.Generator, seeds: int, draws: int = 100) -> np.ndarray:
    """Counts of battles drawn one by one within each task, as if they were independent."""
    many = seeds * EACH
    counts = chance.multinomial(many, [1 / many] * many, size=(draws, TASKS))
    return counts.reshape(draws, TASKS, seeds, EACH).swapaxes(1, 2).reshape(draws, seeds, -1)


def seeds_and_questions(chance: np.random.Generator, seeds: int, draws: int = 100) -> np.ndarray:
    """Counts of battles where seeds, and questions within each task, are drawn from those there are."""
    asked = chance.multinomial(EACH, [1 / EACH] * EACH, size=(draws, TASKS)).reshape(draws, 1, -1)
    return chance.multinomial(seeds, [1 / seeds] * seeds, size=draws)[:, :, None] * asked


@pytest.mark.parametrize("uneven", [0.0, 0.8])
@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_intervals_hold_the_truth_as_often_as_they_say_and_ranks_do_in_every_study(seeds, uneven):
    """Five designs of known ability, two of them alike; what seeds do is as large for each, or `uneven`, as it is among
    trained designs. Drawing single battles holds the truth far less often, and so does drawing three seeds as they
    are."""
    chance, held, ranked = np.random.default_rng(seeds), {"ours": [], "battles": [], "seeds": []}, []
    for _ in range(STUDIES):
        able, spread = arenas.abilities(chance, 5, TASKS), 0.25 * np.exp(uneven * chance.normal(size=5))
        truth, margins = arenas.true_ratings(able, spread), arenas.played(chance, able, spread, seeds, EACH)
        found = rate(margins, draws=400)
        halves = (found.half, resampled(margins, single_battles(chance, seeds)))
        halves += (resampled(margins, seeds_and_questions(chance, seeds)),)
        for name, half in zip(held, halves, strict=True):
            held[name].append(np.abs(found.rating - truth) <= half)
        best, worst = np.array(found.ranks).T
        above, below = ((side > 1e-6).sum(axis=1) for side in (truth - truth[:, None], truth[:, None] - truth))
        ranked.append((best <= 1 + above).all() and (5 - below <= worst).all())
    covered = {name: np.mean(of) for name, of in held.items()}
    assert 0.90 <= covered["ours"] <= 0.99, covered
    assert covered["battles"] < 0.5, covered
    assert seeds > 3 or covered["seeds"] < 0.87, covered
    assert np.mean(ranked) >= 0.95


def test_of_equals_none_is_told_apart_but_in_few_studies():
    chance, wrong = np.random.default_rng(0), []
    for _ in range(60):
        margins = arenas.played(chance, np.zeros((8, 2)), np.full(8, 0.25), 5, 40)
        found = rate(margins, draws=400)
        wrong.append(found.apart.any())
        assert found.apart.any() or found.ranks == [(1, 8)] * 8
    assert 0 < np.mean(wrong) <= 0.12, "one in twenty is wanted; by single intervals it would be every third"


def test_more_seeds_and_questions_say_more():
    halves = {}
    for seeds, each in ((3, 400), (12, 400), (12, 20)):
        chance = np.random.default_rng(1)
        halves[seeds, each] = np.mean(
            [
                rate(arenas.played(chance, np.zeros((5, 2)), np.full(5, 0.3), seeds, each), draws=200).half.mean()
                for _ in range(8)
            ]
        )
    assert 1.8 < halves[3, 400] / halves[12, 400] < 3  # twice by their number, the rest by knowing their spread
    assert halves[12, 20] / halves[12, 400] > 1.2


def test_what_a_seed_or_a_question_does_to_all_designs_alike_changes_nothing():
    chance = np.random.default_rng(2)
    margins = arenas.played(chance, arenas.abilities(chance, 4, 2), np.full(4, 0.2), 3, 20)
    shift = 9 * chance.normal(size=(3, 1)) + 9 * chance.normal(size=40)
    moved = Margins(margins.tasks, {name: own + shift for name, own in margins.of.items()})
    for name in ("rating", "half", "apart", "shares"):
        np.testing.assert_array_equal(getattr(rate(margins), name), getattr(rate(moved), name))


def test_questions_are_drawn_within_their_task():
    """Where seeds agree, and a design wins all of one task and none of the other, no draw can move it."""
    tasks = ["a"] * 6 + ["b"] * 10
    sure = np.array([1.0] * 6 + [-1.0] * 10)[None].repeat(3, axis=0)
    found = rate(Margins(tasks, {"one": sure, "other": -sure}), draws=50)
    assert found.half.max() < 0.01 and found.rating == pytest.approx([1000, 1000])
    assert found.shares[0, 1] == pytest.approx(0.5), "six questions of one task weigh as much as ten of another"


def test_questions_move_ratings_as_much_as_their_variance_says():
    """Two designs, seeds alike: the logit of a share p of n questions has the deviation 1 / sqrt(n p (1 - p))."""
    won = np.where(np.arange(400) < 280, 1.0, -1.0)[None].repeat(2, axis=0)
    found = rate(Margins(["a"] * 400, {"one": won, "other": -won}), draws=4000)
    wanted = 1.96 / math.sqrt(400 * 0.7 * 0.3) * 400 / math.log(10) / 2  # half of the difference is each design's
    assert found.half == pytest.approx([wanted] * 2, rel=0.06)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 400)
    assert duel(Margins(["a"] * 400, {"one": won, "other": -won}), "one", "other") == pytest.approx(
        (0.7, 0.7 - half, 0.7 + half), abs=0.005
    )


def test_two_designs_whose_seeds_differ_have_students_interval():
    """Questions all alike, so that all comes from seeds: the logits' deviation over the root of three, by 4.30."""
    shares = (0.6, 0.7, 0.8)
    won = np.stack([np.where(np.arange(10000) < 10000 * share, 1.0, -1.0) for share in shares])
    single = np.array([math.log(share / (1 - share)) for share in shares]) * 400 / math.log(10) / 2
    margins = Margins(["a"] * 10000, {"one": won, "other": -won})
    off = np.abs(_other_seeds(margins, 100_000, np.random.default_rng(0)))
    wanted = 4.303 * single.std(ddof=1) / math.sqrt(3)
    assert (wanted <= np.quantile(off, 0.95, axis=0)).all(), "as both are drawn and not one, it is a little wider"
    assert (np.quantile(off, 0.95, axis=0) <= 1.1 * wanted).all()


def test_variances_are_drawn_to_the_usual_as_far_as_they_are_alike():
    chance = np.random.default_rng(3)
    true = 9 * 6 / chance.chisquare(6, size=4000)  # Smyth's own assumption: six degrees of freedom, usually 9
    found, free = shrunk(true * chance.chisquare(2, size=4000) / 2, 2)
    assert free == pytest.approx(2 + 6, rel=0.2)
    assert abs(np.log(found / true)).mean() < 0.6 * abs(np.log(true * chance.chisquare(2, size=4000) / 2 / true)).mean()
    assert (1 / found).mean() == pytest.approx((1 / true).mean(), rel=0.05)  # what Smyth's formula is exact for
    alike, free = shrunk(-5 * np.log(1 - np.linspace(0.05, 0.95, 10)), 2)  # quantiles of estimates of one variance, 5
    assert free == 9 * 2 and alike.max() / alike.min() < 2 and alike.mean() == pytest.approx(5, rel=0.1)
    assert shrunk(np.array([4.0, 4.0]), 2) == (pytest.approx([4, 4], rel=1e-3), pytest.approx(2, rel=1e-3))
    assert np.isfinite(shrunk(np.zeros(3), 2)[0]).all()


def test_tasks_are_rated_each_by_itself():
    chance = np.random.default_rng(4)
    margins = arenas.played(chance, np.array([[2.0, -2.0], [0.0, 0.0], [0.0, 0.0]]), np.full(3, 0.1), 3, 30)
    found = by_task(margins)
    assert list(found) == ["task 0", "task 1"]
    assert found["task 0"].ranks[0] == (1, 1) and found["task 1"].ranks[0] == (3, 3)
    assert found["task 1"].shares == pytest.approx(win_shares(margins.only("task 1")))


def test_a_duel_is_of_two_only():
    chance = np.random.default_rng(5)
    margins = arenas.played(chance, np.array([[1.0], [0.2], [-3.0]]), np.full(3, 0.2), 4, 50)
    share, low, high = duel(margins, "design 0", "design 1")
    won = np.mean(margins.of["design 0"] > margins.of["design 1"])
    assert share == pytest.approx(won, abs=0.002) and 0 < low < share < high < 1  # but for the one drawn battle
    back = duel(margins, "design 1", "design 0")
    assert back == pytest.approx((1 - share, 1 - high, 1 - low), abs=0.02)
    with pytest.raises(ValueError, match="no battle of design 0 and clip; choose two of design 0, design 1, design 2"):
        duel(margins, "design 0", "clip")
    with pytest.raises(ValueError, match="no battle of design 0 and design 0"):
        duel(margins, "design 0", "design 0")


@pytest.mark.parametrize(("seeds", "tasks", "told"), [(1, "aabb", "1 seed"), (2, "aab", "one question of b")])
def test_what_cannot_be_known_is_not_told(seeds, tasks, told):
    margins = torch.rand(2, seeds, len(tasks))
    with pytest.raises(ValueError, match=f"cannot be known from {told}: give two or more"):
        rate(Margins(list(tasks), {"one": margins[0], "other": margins[1]}))


def found(rating=(900.0, 1150.0, 950.0), apart=((0, 1), (1, 2))) -> Ratings:
    """Ratings that nobody measured."""
    told = np.zeros((3, 3), dtype=bool)
    for pair in apart:
        told[pair] = told[pair[::-1]] = True
    return Ratings(
        ("deco", "blip2", "blind"), np.array(rating), np.array([10.4, 20.0, 30.0]), told, np.full((3, 3), 0.5)
    )


def test_a_rank_is_a_range_that_counts_only_those_told_apart():
    assert found().ranks == [(2, 3), (1, 1), (2, 3)] and found().order == [1, 2, 0]
    assert found(apart=()).ranks == [(1, 3)] * 3
    assert found(apart=[(0, 1)]).ranks == [(2, 3), (1, 2), (1, 3)]
    assert [said_rank(ranks) for ranks in ((1, 1), (2, 12))] == ["1", "2-12"]


def test_a_table_has_the_best_first_and_accuracy_beside_it():
    accuracy = {"deco": [0.5, 0.7], "blip2": [0.6], "blind": [0.25, 0.25]}
    assert table(found(), accuracy, {"LOC": found((1000.0, 1000.0, 1000.0))}).splitlines() == [
        "| rank | design | rating | accuracy | LOC |",
        "| ---: | --- | ---: | ---: | ---: |",
        "| 1 | blip2 | 1150 ± 20 | 60 | 1000 ± 20 |",
        "| 2-3 | blind | 950 ± 30 | 25 ± 0 | 1000 ± 30 |",
        "| 2-3 | deco | 900 ± 10 | 60 ± 127 | 1000 ± 10 |",
    ]
    assert table(found(), accuracy).splitlines()[0] == "| rank | design | rating | accuracy |"
    with pytest.raises(ValueError, match="no accuracy of blip2, blind"):
        table(found(), {"deco": [0.5]})
