"""The arena: battles counted one by one, the likeliest ratings by a slow road, and what order does to Elo's."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from minivlm.arena import (
    Battles,
    Margins,
    battles,
    bradley_terry,
    cycles,
    elo,
    expected_shares,
    points,
    shuffled_elo,
    win_shares,
)
from minivlm.ratings import rate

NAMES = ("deco", "blip2", "flamingo", "blind")


def some(seed: int = 0, seeds: int = 2, tasks: str = "aaabbbbb") -> Margins:
    """Margins of four designs, with ties: whole numbers from 0 to 3."""
    chance = torch.Generator().manual_seed(seed)
    values = torch.randint(4, (4, seeds, len(tasks)), generator=chance).float()
    return Margins(list(tasks), dict(zip(NAMES, values, strict=True)))


def fought(margins: Margins) -> list[tuple[int, int, str, float]]:
    """Every battle: the two, the task, and what the first gets of it."""
    found = []
    for i, first in enumerate(margins.of.values()):
        for j, second in enumerate(margins.of.values()):
            for seed in range(len(first)):
                for question, task in enumerate(margins.tasks):
                    a, b = float(first[seed][question]), float(second[seed][question])
                    found.append((i, j, task, 1.0 if a > b else 0.5 if a == b else 0.0))
    return found


def test_shares_count_every_battle_and_weigh_tasks_alike():
    margins = some()
    shares, every = win_shares(margins), fought(margins)
    for i in range(4):
        for j in range(4):
            each = [np.mean([won for a, b, task, won in every if (a, b, task) == (i, j, kind)]) for kind in "ab"]
            assert shares[i, j] == pytest.approx(np.mean(each))
    assert np.diagonal(shares) == pytest.approx([0.5] * 4) and shares + shares.T == pytest.approx(np.ones((4, 4)))
    alone = win_shares(margins.only("b"))
    won = [won for a, b, task, won in every if (a, b, task) == (0, 2, "b")]
    assert alone[0, 2] == pytest.approx(np.mean(won)) and len(won) == 10


def test_points_are_sums_of_shares():
    margins = some()
    made = points(margins)
    assert made.shape == (4, 2, 8)
    assert made.mean(axis=1) @ margins.weights == pytest.approx(win_shares(margins).sum(axis=1) - 0.5)
    assert made.sum(axis=0) == pytest.approx(np.full((2, 8), 6.0))


def test_ratings_are_the_likeliest_of_all_battles():
    """Against the likelihood of every battle, and of a drawn one of each pair beside them, climbed by its gradient."""
    margins = some(tasks="aaaaa")
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    climb = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    every = [(i, j, won) for i, j, _, won in fought(margins) if i < j]
    every += [(i, j, 0.5) for j in range(4) for i in range(j)]
    first, second, won = (torch.tensor(column) for column in zip(*every, strict=True))

    def loss():
        climb.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits[first] - logits[second], won.double())
        value.backward()
        return value

    climb.step(loss)
    slow = 1000 + 400 / math.log(10) * (logits - logits.mean()).detach().numpy()
    made = points(margins).mean(axis=1) @ margins.weights
    assert bradley_terry(made, 2 * 5) == pytest.approx(slow, abs=0.01)
    assert rate(margins, draws=10).rating == pytest.approx(slow, abs=0.01)


def test_true_ratings_come_back_from_the_shares_that_they_lead_to():
    true = np.array([[1400.0, 1000.0, 900.0, 700.0], [1000.0, 1000.0, 1001.0, 999.0]])
    assert bradley_terry(expected_shares(true).sum(axis=-1) - 0.5, 1e12) == pytest.approx(true, abs=1e-4)
    assert expected_shares(np.array([1400.0, 1000.0]))[0, 1] == pytest.approx(10 / 11)


def test_at_the_top_expected_points_are_those_made_however_sure_battles_are():
    """There the slope of the likelihood is nought: of even designs, and of a ladder where each beats all below."""
    chance = np.random.default_rng(0)
    for spread in (0, 200, 3000):
        for designs in (2, 5, 9):
            made = expected_shares(spread * chance.normal(size=designs)).sum(axis=1) - 0.5
            for sums in (made, np.arange(designs, dtype=float)):
                found = bradley_terry(sums, 1e6)
                left = expected_shares(found).sum(axis=1) - 0.5 - (1e6 * sums + (designs - 1) / 2) / (1e6 + 1)
                assert np.abs(left).max() < 1e-9 and found.mean() == pytest.approx(1000)


def test_who_wins_all_gets_what_one_drawn_battle_more_leaves():
    sure = np.ones((2, 10))
    two = rate(Margins(["a"] * 10, {"one": sure, "other": -sure}), draws=10).rating
    assert two[0] - two[1] == pytest.approx(400 * math.log10(20.5 / 0.5), abs=1e-6)  # 20 battles won, one drawn
    margins = some(seeds=3, tasks="a" * 400)
    among = rate(margins, draws=10).rating
    best = rate(Margins(margins.tasks, {**margins.of, "best": torch.full((3, 400), 9.0)}), draws=10).rating
    assert np.isfinite(best).all() and best[4] - best[:4].max() > 1000
    assert best[:4] - best[:4].mean() == pytest.approx(among - among.mean(), abs=1), "others keep their distances"


@pytest.mark.parametrize("points", [[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 0.0, 0.5], [2.0], [math.nan, 1.0]])
def test_points_that_no_battles_give_are_refused(points):
    with pytest.raises(ValueError, match=f"win shares of {len(points)} designs and 10 battles a pair cannot sum up to"):
        bradley_terry(np.array(points), 10)


def test_rock_paper_scissors_is_a_cycle_that_no_rating_fits():
    tasks = ["a"] * 90
    ring = np.arange(90) % 9  # of nine questions, the order of the three is another for each third
    rock, paper, scissors = (
        np.where(ring < 3, x, np.where(ring < 6, y, z)) for x, y, z in ((1, 2, 0), (0, 1, 2), (2, 0, 1))
    )
    margins = Margins(
        tasks, {n: np.stack([m, m]).astype(float) for n, m in zip("rps", (rock, paper, scissors), strict=True)}
    )
    found = rate(margins, draws=50)
    assert found.rating == pytest.approx([1000] * 3) and found.ranks == [(1, 3)] * 3
    third = 1 / 6  # two of three battles are won, where half is expected
    assert found.misfit == pytest.approx(
        np.array([[0, third, -third], [-third, 0, third], [third, -third, 0]]), abs=1e-9
    )
    assert cycles(found.shares) == [(0, 1, 2)] and cycles(found.shares.T) == [(0, 2, 1)]


def test_cycles_are_counted_among_all_and_ties_make_none():
    shares = np.full((5, 5), 0.5)
    for a, b in ((0, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2), (1, 4), (4, 3)):
        shares[a, b], shares[b, a] = 0.8, 0.2
    assert cycles(shares) == [(0, 1, 2), (1, 4, 3)]
    able = np.array([1100.0, 1020.0, 990.0, 890.0])
    assert cycles(expected_shares(able)) == []
    fitted = expected_shares(bradley_terry(expected_shares(able).sum(axis=1) - 0.5, 1e12))
    assert fitted == pytest.approx(expected_shares(able)), "what ratings made, ratings fit"


# --- battles one by one ----------------------------------------------------------------------------------------------


def test_battles_are_those_that_shares_count():
    margins = some()
    found = battles(margins)
    told = [(i, j, won) for (i, j), won in zip(found.pairs.tolist(), found.scores.tolist(), strict=True)]
    assert Counter(told) == Counter((i, j, won) for i, j, _, won in fought(margins) if i < j)
    assert found.designs == 4


def test_elo_moves_both_sides_by_what_was_not_expected():
    two = Battles(np.array([[0, 1], [1, 2]]), np.array([1.0, 0.5]), 3)
    after = 1000 - 2.0, 1 / (1 + 10 ** (2.0 / 400))  # the second's rating after it lost, and what it then expects
    moved = 4 * (0.5 - after[1])
    assert elo(two, np.array([[0, 1]]))[0] == pytest.approx([1002, after[0] + moved, 1000 - moved])
    assert elo(two, np.array([[0, 1], [1, 0]]))[1] == pytest.approx([1002, 998, 1000]), (
        "a draw of equals changes nothing"
    )


@pytest.mark.parametrize("order", [[0], [0, 0], [0, 1, 2], [1, 2]])
def test_an_order_has_every_battle_once(order):
    with pytest.raises(ValueError, match=f"an order names each of 2 battles once, got orders of {len(order)}"):
        elo(Battles(np.array([[0, 1], [1, 0]]), np.array([1.0, 0.5]), 2), np.array([order]))


def test_the_order_of_the_same_battles_decides_elos_ratings_and_not_ours():
    chance = np.random.default_rng(0)
    margins = Margins(["a"] * 300, {f"design {n}": chance.normal(size=(3, 300)) for n in range(6)})
    found = shuffled_elo(battles(margins), 8)
    orders = {tuple(np.argsort(-ratings)) for ratings in found}
    assert found.shape == (8, 6) and len(orders) == 8 and found.mean(axis=1) == pytest.approx([1000] * 8)
    assert found.std(axis=0).max() > 5
    assert (shuffled_elo(battles(margins), 8) == found).all() and (
        shuffled_elo(battles(margins), 8, seed=1) != found
    ).any()
    turned = Margins(margins.tasks, {name: own[:, ::-1] for name, own in margins.of.items()})
    assert rate(turned, draws=10).rating == pytest.approx(rate(margins, draws=10).rating)


# --- what is no arena ------------------------------------------------------------------------------------------------


def test_tensors_and_arrays_of_any_precision_are_margins_and_infinite_ones_too():
    sure = torch.tensor([[math.inf, 1.0], [-math.inf, 1.0]])
    for kind in (sure, sure.bfloat16(), sure.numpy(), sure.double().numpy()):
        assert win_shares(Margins(["a", "a"], {"one": kind, "other": torch.zeros(2, 2)}))[0, 1] == 0.75


def test_nan_is_refused_by_the_name_of_the_design():
    bad = np.array([[0.0, math.nan]])
    with pytest.raises(ValueError, match="margins of flamingo hold NaN: leave out what failed, for all designs alike"):
        Margins(["a", "b"], {"deco": np.zeros((1, 2)), "flamingo": bad})


def test_a_task_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no questions of task 'LOC'; there are a, b"):
        some().only("LOC")


def test_one_design_has_nobody_to_fight():
    with pytest.raises(ValueError, match="a battle needs two designs, got deco"):
        Margins(["a"], {"deco": np.zeros((1, 1))})
