"""What accuracy costs: the front is that of a slow search, and pictures say what is drawn."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from comparisons import compared, several

from minivlm.figures.frontier import COSTS, SIZES, Point, front, frontiers, matched, points, separating
from minivlm.tables import interval


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def slow_front(found: dict[str, Point]) -> set[str]:
    """Those for which there is no other that is nowhere worse and somewhere better."""

    def beats(a: Point, b: Point) -> bool:
        return a.cost <= b.cost and a.accuracy >= b.accuracy and (a.cost < b.cost or a.accuracy > b.accuracy)

    return {name for name, point in found.items() if not any(beats(other, point) for other in found.values())}


def test_the_front_is_what_nothing_beats():
    chance, sizes = random.Random(0), set()
    for _ in range(300):  # whole numbers, so that many are equal
        found = {str(n): Point(chance.randint(1, 5), chance.randint(0, 5), 0.0) for n in range(chance.randint(1, 9))}
        kept = front(found)
        assert set(kept) == slow_front(found) and len(set(kept)) == len(kept)
        assert [found[n].cost for n in kept] == sorted(found[n].cost for n in kept)
        sizes.add(len(kept))
    assert len(sizes) > 3


def test_points_are_means_with_intervals_at_the_median_price():
    results = [
        compared("a", seed, right=right, milliseconds=ms) for seed, right, ms in ((0, 0.2, 9), (1, 0.4, 5), (2, 0.9, 6))
    ]
    for run in results:
        run.accuracy["LOC"] = 0.1
    price = "milliseconds to read a question"
    [(name, point)] = points(results, price, "COLOR").items()
    assert (name, point.cost) == ("a", 6)
    assert (point.accuracy, point.half) == pytest.approx(interval([0.2, 0.4, 0.9]))
    mean = [(8 * right + 0.1) / 9 for right in (0.2, 0.4, 0.9)]
    assert points(results, price)["a"].accuracy == pytest.approx(statistics.mean(mean))
    with pytest.raises(ValueError, match="no results to draw"):
        points([], price)
    for wrong in (("dollars", "mean"), (price, "SMELL")):
        with pytest.raises(ValueError, match="prices are visual tokens, .* tasks mean, "):
            points(results, *wrong)


def test_every_price_reads_its_own_number():
    run = compared(tokens=1, flops=2_000_000, cache_bytes=3000, milliseconds=4, weights=5000, trained_weights=6000,
                   train_flops=7 * 10**12)  # fmt: skip
    assert [price(run) for price in (COSTS | SIZES).values()] == [1, 2, 3, 4, 5, 6, 7]


def test_a_panel_a_price_with_the_front_in_steps():
    shares = {("a", 4): (0.2, 0.4), ("b", 16): (0.5, 0.9), ("c", 64): (0.6, 0.6), ("blind", 0): (0.1, 0.2)}
    results = [compared(d, seed, k, right) for (d, k), runs in shares.items() for seed, right in enumerate(runs)]
    figure, told = frontiers(results, ["visual tokens"])
    [ax] = figure.axes
    middle, half = interval((0.5, 0.9))
    places = [tuple(map(float, c[0].get_xydata()[0])) for c in ax.containers]
    assert places == [(4, pytest.approx(0.3)), (16, pytest.approx(0.7)), (64, pytest.approx(0.6))]
    [bar] = ax.containers[1][2][0].get_segments()
    assert [y for _, y in bar] == pytest.approx([middle - half, middle + half])
    [step] = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert step.get_xydata().tolist() == [[4, pytest.approx(0.3)], [16, pytest.approx(0.7)], [64, pytest.approx(0.7)]]
    [blind] = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert blind.get_ydata() == pytest.approx([0.15, 0.15])
    assert [text.get_text() for text in ax.texts] == ["a", "b"] and ax.get_xlabel() == "visual tokens"
    assert told == (
        "Accuracy (mean) of 3 designs: against visual tokens, nothing beats a (30% at 4), b (70% at 16). "
        "Dashed: the blind decoder, 15%."
    )
    figure, told = frontiers(several(), task="LOC")
    assert [ax.get_xlabel() for ax in figure.axes] == list(COSTS) and figure._supylabel.get_text() == "accuracy, LOC"
    assert all(cost in told for cost in COSTS)


def test_equals_are_those_within_a_factor_best_first():
    sizes = {"a": 100, "b": 124, "c": 126, "d": 81, "e": 79, "blind": 100}
    results = [compared(n, weights=1000 * k, right=k / 200) for n, k in sizes.items()]
    figure, told = matched(results, "a")
    [ax] = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a", "d"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.62, 0.5, 0.405])
    assert told.startswith(
        "Accuracy (mean) of designs within 1.25 times a's 100 weights (k): b 62% (124), a 50% (100),"
    )
    _, told = matched(results, "a", factor=1)
    assert told.endswith("weights (k): a 50% (100).")
    for design, factor in (("z", 2), ("a", 0.9)):
        with pytest.raises(ValueError, match=f"no results of '{design}' among a, b, .* below 1: {factor}"):
            matched(results, design, factor=factor)


def test_tasks_are_told_by_how_far_they_set_designs_apart():
    levels = {"a": {"COLOR": 0.2, "LOC": 0.5}, "b": {"COLOR": 0.8, "LOC": 0.4}, "c": {"COLOR": 0.5, "LOC": 0.6}}
    results = []
    for name, level in levels.items():
        for seed, off in enumerate((-0.02, 0.02)):
            run = compared(name, seed)
            results.append(replace(run, accuracy={task: right + off for task, right in level.items()}))
    figure, told = separating([*results, compared("blind", right=0.0)])
    ax, bar = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"]
    first, second = (label.get_text().split("\n") for label in ax.get_xticklabels())
    color, loc = (100 * statistics.pstdev(values) for values in ((0.2, 0.8, 0.5), (0.5, 0.4, 0.6)))
    assert first == ["COLOR", f"50 ± {color:.0f}", "(seeds 2)"] and second == ["LOC", f"50 ± {loc:.0f}", "(seeds 2)"]
    assert ax.images[0].get_array().tolist() == [pytest.approx(row) for row in ([30, -10], [0, 10], [-30, 0])]
    assert ax.images[0].get_clim() == pytest.approx((-30, 30)) and bar.get_ylabel() == "points above the mean of all"
    assert told == (
        f"How far 3 designs lie apart, in points of a hundred: COLOR ± {color:.0f} (seeds ± 2; best b), "
        f"LOC ± {loc:.0f} (seeds ± 2; best c)."
    )
    with pytest.raises(ValueError, match="two designs or more can be told apart, got a"):
        separating([compared("a"), compared("blind")])


def test_one_seed_has_no_interval():
    assert math.isnan(points([compared("a")], "visual tokens")["a"].half)
    assert len(frontiers([compared("a")])[0].axes) == 4
