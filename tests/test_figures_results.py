"""Results as pictures: every mean is drawn where it was measured."""

from __future__ import annotations

import pytest
from test_tables import made

from minivlm.figures.results import accuracy_against_tokens
from minivlm.tables import interval


def test_a_panel_a_task_with_means_and_intervals_over_seeds():
    shares = {("deco", 4): (0.2, 0.4), ("deco", 16): (0.5, 0.9), ("blip2", 16): (0.6, 0.6), ("blind", 0): (0.1, 0.2)}
    results = [made(d, seed, k, right) for (d, k), runs in shares.items() for seed, right in enumerate(runs)]
    results[2].accuracy["LOC"] = 0.1  # deco, 16 tokens, seed 0
    figure, told = accuracy_against_tokens(results, ("COLOR", "LOC"))
    color, loc = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["COLOR", "LOC"]
    for ax, last in ((color, (0.5, 0.9)), (loc, (0.1, 0.9))):
        line, caps, (bars,) = ax.containers[0]
        assert line.get_xdata().tolist() == [4, 16]
        assert line.get_ydata().tolist() == pytest.approx([0.3, sum(last) / 2])
        middle, half = interval(last)
        assert [y for _, y in bars.get_segments()[1]] == pytest.approx([middle - half, middle + half])
        [blind] = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert blind.get_ydata() == pytest.approx([0.15, 0.15])
    assert "COLOR, deco: 30% at 4, 70% at 16; COLOR, blip2: 60% at 16; LOC, deco: 30% at 4, 50% at 16" in told
    assert "(dashed: blind)" in told
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["deco", "blip2"]


def test_one_number_of_tokens_makes_no_curve():
    with pytest.raises(ValueError, match="at two numbers of tokens or more, got {'deco': \\[16\\]}"):
        accuracy_against_tokens([made("deco", tokens=16), made("blind", tokens=0)])
    with pytest.raises(ValueError, match="no results"):
        accuracy_against_tokens([])


def test_tokens_may_be_counted_otherwise():
    results = [made("deco", seed, tokens, 0.5) for seed in range(2) for tokens in (8, 16, 128)]
    figure, told = accuracy_against_tokens(results, ("COLOR",), lambda run: run.tokens / 16, "frame")
    assert figure.axes[0].containers[0][0].get_xdata().tolist() == [0.5, 1, 8]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.5", "1", "8"]
    assert told == "Accuracy against visual tokens a frame: COLOR, deco: 50% at 0.5, 50% at 1, 50% at 8."
    assert figure._supxlabel.get_text() == "visual tokens a frame"
