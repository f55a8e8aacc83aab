"""Speed as pictures: every bar and point is where it was measured."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgba

from minivlm.bench.growth import Growth
from minivlm.bench.timing import Ratio
from minivlm.figures import PALETTE, growth_lines, speed_bars

RATIO = Ratio("a step", "ours", "theirs", [10.0, 20.0], 2.0, [1.5, 2.5], 1.3, 3)
SLOW = replace(RATIO, what="another", ratio=1.1, spread=[1.0, 1.2])
GROWN = Growth("words", [1, 2, 3], [10**9, 2 * 10**9, 4 * 10**9], [3.0, 5.0, 9.9], 1.0, 2e-9)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_bar_a_ratio_and_a_line_where_both_are_as_fast():
    figure, told = speed_bars([RATIO, SLOW])
    [ax] = figure.axes
    bars = ax.patches
    assert [bar.get_width() for bar in bars] == [2.0, 1.1]
    assert [bar.get_facecolor() for bar in bars] == [to_rgba(PALETTE[name]) for name in ("blue", "orange")]
    spans = [segment[:, 0].tolist() for lines in ax.collections for segment in lines.get_segments()]
    assert spans == [[1.5, 2.5], [1.0, 1.2]]
    assert [line.get_xdata()[0] for line in ax.lines] == [1.3, 1.3, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a step: ours / theirs", "another: ours / theirs"]
    assert "a step, ours 2.00 times theirs (wanted 1.3); another, ours 1.10 times theirs" in told
    with pytest.raises(ValueError, match="no ratios"):
        speed_bars([])


def test_points_are_times_and_lines_their_fit():
    figure, told = growth_lines([GROWN, replace(GROWN, what="frames", fixed=2.0)])
    [ax] = figure.axes
    points, line, _, other = ax.lines
    assert points.get_xdata().tolist() == line.get_xdata().tolist() == [1, 2, 4]
    assert points.get_ydata().tolist() == [3.0, 5.0, 9.9]
    assert line.get_ydata().tolist() == pytest.approx([3, 5, 9])
    assert other.get_ydata().tolist() == pytest.approx([4, 6, 10])
    assert [text.get_text() for text in ax.texts[:3]] == ["1", "2", "3"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "1 to 3 words, 3 to 10 ms, off the line by at most 10%; 1 to 3 frames" in told
    with pytest.raises(ValueError, match="no growth"):
        growth_lines([])
