"""Uses as a picture: panels hold what the verdicts say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from test_uses import entries, use

from minivlm.figures import PALETTE, use_panels
from minivlm.uses import judge


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_panel_a_use_with_bars_of_the_best_and_the_colours_of_ties():
    shares = {"a": (0.5, 0.6, 0.7), "b": (0.6, 0.59, 0.58), "c": (0.1, 0.2, 0.3), "blind": (0.1, 0.1, 0.1)}
    some = judge(use(entries(shares, {"a": 1234.0, "b": 16.0, "c": 0.5})), [])
    single = judge(use(entries({"x": (0.4,)})), [])
    nothing = judge(use([]), [])
    figure, told = use_panels([some, nothing, single])
    one, other = figure.axes
    assert [bar.get_width() for bar in one.patches] == pytest.approx([60, 59, 20])
    assert [to_hex(bar.get_facecolor()) for bar in one.patches] == [
        PALETTE[name].lower() for name in ("vermilion", "orange", "sky")
    ]
    assert [label.get_text() for label in one.get_yticklabels()] == ["a (1.23e+03)", "b (16)", "c (0.5)"]
    [blind] = [line for line in one.lines if line.get_linestyle() == "--"]
    assert blind.get_xdata() == pytest.approx([10, 10]) and not [x for x in other.lines if x.get_linestyle() == "--"]
    [segment, *_] = one.containers[0][2][0].get_segments()
    half = 100 * some.standings["a"].half
    assert [x for x, _ in segment] == pytest.approx([60 - half, 60 + half])
    assert one.get_title() == "walls: right answers\n(in brackets: tokens)"
    assert told == f"{some}. walls: no results yet. {single}."


def test_the_worst_of_many_are_counted_not_drawn():
    verdict = judge(use(entries({f"d{n}": (0.9 - n / 20,) * 2 for n in range(11)})), [])
    [ax] = use_panels([verdict])[0].axes
    assert len(ax.patches) == 8 and "3 more below" in ax.get_title()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no results of any use"):
        use_panels([judge(use([]), [])])
