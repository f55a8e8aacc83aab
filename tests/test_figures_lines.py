"""Lines: what is drawn is the data, and what is said is what is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from minivlm.figures import lines


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_each_line_holds_its_values_and_says_its_ends():
    figure, alt = lines({"a": ([1, 2, 3], [4.0, 0.5, 9.0]), "b": ([0], [7.0])}, "bias", "loss")
    axes = figure.axes[0]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] == [
        ([1, 2, 3], [4.0, 0.5, 9.0]),
        ([0], [7.0]),
    ]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("bias", "loss", "linear")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert len({line.get_color() for line in axes.lines}) == 2
    assert alt == (
        "Loss against bias: a is lowest, 0.5, at 2 and highest, 9, at 3; b is lowest, 7, at 0 and highest, 7, at 0."
    )


def test_whole_numbers_are_counted_in_whole_numbers():
    for xs, whole in (([2, 3, 4], True), ([0.5, 1.0, 1.5], False)):
        figure, _ = lines({"a": (xs, [0.0, 1.0, 2.0])}, "objects", "accuracy")
        ticks = [tick for tick in figure.axes[0].get_xticks() if xs[0] <= tick <= xs[-1]]
        assert all(float(tick).is_integer() for tick in ticks) == whole


def test_a_mark_stands_where_it_is_said_to():
    figure, alt = lines({"a": ([-10, 0], [1.0, 2.0])}, "x", "y", marks={"here": -4.5, "there": 0.0}, log=True)
    _, here, there = figure.axes[0].lines
    assert [list(mark.get_xdata()) for mark in (here, there)] == [[-4.5, -4.5], [0, 0]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["here", "there"]
    assert alt.endswith("Marked: here at -4.5, there at 0.")
    assert figure.axes[0].get_yscale() == "log"


def test_no_text_leaves_the_figure():
    long = {"the name of a run that is long": ([0, 1], [1.0, 2.0])}
    figure, _ = lines(long, "the bias that training begins with", "loss of a batch (nats)", marks={"the least": 0.4})
    figure.canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # inches
    assert min(drawn.x0, drawn.y0) >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


@pytest.mark.parametrize("values", [([1, 2], [1.0]), ([], [])])
def test_values_that_make_no_line_are_refused(values):
    with pytest.raises(ValueError, match="'a' has"):
        lines({"a": values}, "x", "y")
