"""The switchboard's explorer: each state is the combination that its switches say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from comparisons import several
from explorers import visible

from minivlm.explore import switchboard_explorer
from minivlm.figures import neighbours
from minivlm.switchboard import PARTS, answering, combine, options

RESULTS = several()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_it_begins_as_llava_with_a_switch_a_part():
    explorer = switchboard_explorer(RESULTS)
    shown = visible(explorer)
    assert list(shown) == [*map(str.capitalize, PARTS), "Task"]
    assert [label for label, _ in shown["Connector"].options] == list(options()["connector"])
    told = neighbours(RESULTS, answering()["llava"], "")[1]
    assert explorer.state.words == f"llava: 64 tokens, 1,960,064 weights. {told}"


def test_one_switch_thrown_is_the_design_one_swap_away_and_a_task_its_accuracy():
    explorer = switchboard_explorer(RESULTS)
    explorer.controls["connector"].value = "average pooling (deco)"
    explorer.controls["task"].value = "COUNT"
    told = neighbours(RESULTS, answering()["deco"], "", "COUNT")[1]
    assert explorer.state.words.startswith("deco: 16 tokens, ") and explorer.state.words.endswith(told)


def test_nobodys_design_and_what_does_not_go_together_are_said():
    explorer = switchboard_explorer(RESULTS)
    explorer.controls["fusion"].value = "gated cross attention (flamingo)"
    assert explorer.state.words.startswith("nobody's design, `compare` can run it: 64 tokens, ")
    explorer.controls["decoder"].value = "Depths (mod)"
    first = {part: next(iter(labels)) for part, labels in options().items()}
    with pytest.raises(ValueError) as refused:
        combine(**first | {"fusion": explorer.controls["fusion"].value, "decoder": "Depths (mod)"})
    words = explorer.state.words
    assert words.endswith(f"do not go together, whatever the task (mean): {refused.value}.")
    assert "Depths (mod)" in words and explorer.failure is None and explorer.state.png


def test_every_switch_thrown_changes_the_words():
    explorer = switchboard_explorer(RESULTS)
    for control in explorer.controls.values():
        for _, value in [*control.options[1:], control.options[0]]:
            before = explorer.state.words
            control.value = value
            assert explorer.state.words != before, value
        control.value = control.options[-1][1]


def test_no_results_are_refused():
    with pytest.raises(ValueError, match="no results to explore"):
        switchboard_explorer([])
