"""The arena's figures: every number drawn is one of the ratings, and the words say what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from minivlm.arena import Margins
from minivlm.figures import duel_panels, elo_spread, misfit_matrix, rating_rows, win_matrix
from minivlm.ratings import Ratings, duel

SHARES = np.array([[0.5, 0.4, 0.7], [0.6, 0.5, 0.2], [0.3, 0.8, 0.5]])  # b over a, a over c, c over b
APART = np.array([[False, True, False], [True, False, True], [False, True, False]])
FOUND = Ratings(("a", "b", "c"), np.array([980.0, 1120.0, 900.0]), np.array([10.0, 20.0, 30.0]), APART, SHARES)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def rows(figure) -> list[str]:
    """Names from top to bottom."""
    bottom, top = figure.axes[0].get_ylim()
    assert top < bottom
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def bars(ax) -> list[tuple[float, float, float]]:
    """Of every error bar, from top to bottom: its point, and from where to where it goes."""
    found = []
    for line, _, (segments,) in ax.containers:
        (low, _), (high, _) = segments.get_segments()[0]
        found.append((float(line.get_xdata()[0]), float(low), float(high)))
    return found


def test_a_row_a_design_with_rating_ranks_and_accuracy():
    figure, told = rating_rows(FOUND, {"a": [0.5, 0.7], "b": [0.8, 0.8], "c": [0.25]})
    rating, ranks, accuracy = figure.axes
    assert rows(figure) == ["b", "a", "c"]
    assert bars(rating) == [(1120, 1100, 1140), (980, 970, 990), (900, 870, 930)]
    assert [tuple(line.get_xdata()) for line in ranks.lines] == [(1, 1), (2, 3), (2, 3)]
    assert all(line.get_marker() == "o" for line in ranks.lines), "a single rank is a line without length"
    reach = 12.706 * 10  # of two values, ten points from their mean
    wanted = [(80, 80, 80), (60, 60 - reach, 60 + reach), (25, 25, 25)]
    assert [value for bar in bars(accuracy) for value in bar] == pytest.approx([v for bar in wanted for v in bar])
    assert "b 1120 ± 20, rank 1, accuracy 80%; a 980 ± 10, rank 2-3, accuracy 60%; c 900 ± 30, rank 2-3," in told
    assert told.endswith("2 of 3 pairs are told apart.")
    with pytest.raises(ValueError, match="no accuracy of b, c"):
        rating_rows(FOUND, {"a": [0.5], "c": []})


def test_who_beats_whom_stands_in_the_order_of_ratings():
    figure, told = win_matrix(FOUND)
    ax = figure.axes[0]
    best_first = SHARES[np.ix_([1, 0, 2], [1, 0, 2])]
    assert rows(figure) == ["b", "a", "c"] == [label.get_text() for label in ax.get_xticklabels()]
    assert np.asarray(ax.images[0].get_array()) == pytest.approx(100 * best_first)
    assert ax.images[0].get_clim() == (0, 100)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written[(1, 0)] == "60" and written[(0, 1)] == "40" and len(written) == 6, "column, row; none of one's own"
    assert "The best rated, b, wins 20% against the last, c; clearest is c against b, 80%." in told


def test_misfit_is_what_is_left_and_cycles_are_said():
    figure, told = misfit_matrix(FOUND)
    fitted = 1 / (1 + 10 ** ((900 - 1120) / 400))  # b against c
    shown, (low, high) = figure.axes[0].images[0].get_array(), figure.axes[0].images[0].get_clim()
    assert shown[0, 2] == pytest.approx(100 * (0.2 - fitted)) == -shown[2, 0]
    assert -low == high == pytest.approx(np.abs(shown).max())
    assert f"c wins 80.0% against b where {1 - fitted:.1%} fit, the worst misfit." in told
    assert told.endswith("Of 1 threes 1 is a cycle, such as a over c over b over a.")
    flat = replace(FOUND, shares=np.full((3, 3), 0.5), rating=np.full(3, 1000.0))
    figure, told = misfit_matrix(flat)
    assert told.endswith("Of 1 threes 0 are cycles.") and figure.axes[0].images[0].get_clim() == (-1, 1)


def test_numbers_are_written_only_where_there_is_room():
    for many, written in ((12, 132), (13, 0)):
        names, flat = tuple(map(str, range(many))), np.full(many, 1000.0)
        big = Ratings(names, flat, flat, np.zeros((many, many), dtype=bool), np.full((many, many), 0.5))
        assert len(win_matrix(big)[0].axes[0].texts) == written


def test_elos_ratings_stand_beside_those_that_know_no_order():
    elos = np.array([[1000.0, 1010.0, 990.0], [1005.0, 1001.0, 994.0], [980.0, 1050.0, 985.0]])
    figure, told = elo_spread(elos, FOUND)
    (ax,) = figure.axes
    dots = [
        line.get_xdata().tolist() for line in ax.lines if line.get_linestyle() == "None" and line.get_marker() == "."
    ]
    assert rows(figure) == ["b", "a", "c"] and dots == [elos[:, n].tolist() for n in (1, 0, 2)]
    assert bars(ax) == [(1120, 1100, 1140), (980, 970, 990), (900, 870, 930)]
    assert told == (
        "The same battles in 3 orders give 3 rankings by Elo. Most depends on order for b: 1001 to 1050, where Bradley "
        "and Terry's rating is 1120 ± 20, whatever the order."
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["Elo's, an order a dot", "Bradley and Terry's, with 95 % interval"]
    with pytest.raises(ValueError, match="Elo's ratings are of 2 designs, the others of 3"):
        elo_spread(elos[:, :2], FOUND)


def dueling() -> Margins:
    """Of three seeds one wins 3, 2 and 2 and a half of four; an infinite margin is one of them."""
    one = np.array([[1.0, 2.0, math.inf, -1.0], [1.0, -2.0, 3.0, -4.0], [1.0, 1.0, 0.0, -1.0]])
    return Margins(["a", "a", "b", "b"], {"one": one, "other": np.zeros((3, 4)), "third": one})


def test_a_duel_shows_differences_and_seeds():
    figure, told = duel_panels(dueling(), "one", "other")
    left, right = figure.axes
    wins, losses = (sum(bar.get_height() for bar in container) for container in left.containers)
    assert (wins, losses) == (7, 4), "of twelve battles, one is a tie"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["one wins", "other wins"]
    assert all(bar.get_x() >= -1e-9 for bar in left.containers[0] if bar.get_height()), "wins are to the right"
    assert right.lines[0].get_xdata() == pytest.approx([75, 50, 62.5])
    share, low, high = duel(dueling(), "one", "other")
    assert bars(right) == [pytest.approx((100 * share, 100 * low, 100 * high))]
    assert [label.get_text() for label in right.get_yticklabels()] == ["seed 1", "seed 2", "seed 3", "all"]
    assert told == (
        f"one wins {share:.0%} of 12 battles against other (95 % interval {low:.0%} to {high:.0%}); seed by seed 75%, "
        "50%, 62%."
    )


def test_a_duel_of_ties_is_drawn_too():
    figure, told = duel_panels(dueling(), "one", "third")
    assert told.startswith("one wins 50% of 12 battles against third")
    assert sum(bar.get_height() for container in figure.axes[0].containers for bar in container) == 0


def test_seeds_weigh_tasks_alike():
    won = np.array([[1.0, -1.0, -1.0, -1.0, -1.0]] * 2)
    figure, _ = duel_panels(Margins(["a", "a", "b", "b", "b"], {"one": won, "other": 0 * won}), "one", "other")
    assert figure.axes[1].lines[0].get_xdata() == pytest.approx([25, 25])
