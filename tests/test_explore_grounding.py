"""The explorer of grounding: each state shows the object, the answer and the heat that its controls name."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest

from minivlm.explore import grounding_explorer

IMAGES, LOCATED, HEATS = explorers.located()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_each_state_tells_the_object_the_answer_and_the_heat():
    explorer = grounding_explorer(IMAGES, LOCATED, HEATS)
    controls = {c.description: [label for label, _ in c.options] for c in explorer.controls.values()}
    assert controls == {"Where is": ["1: the red ring", "2: the blue star"], "Heat": ["attention", "gradient"]}
    assert explorer.state.words == (
        "Where is the red ring? true 0.00, 0.00, 0.50, 0.50; said 0.00, 0.00, 0.50, 0.25; IoU 0.50; "
        "attention peaks at row 1, column 4."
    )
    explorer.controls["sample"].value, explorer.controls["heat"].value = 1, "gradient"
    assert explorer.state.words == (
        "Where is the blue star? true 0.50, 0.50, 1.00, 1.00; said none; gradient peaks at row 1, column 1."
    )
    explorer.sweep()


def test_answers_without_heat_are_enough():
    explorer = grounding_explorer(IMAGES, LOCATED, {})
    assert set(explorer.controls) == {"sample"} and explorer.state.png
    explorer.sweep()


def test_other_numbers_are_refused():
    with pytest.raises(ValueError, match=r"must be as many, at least one; got \[2, 1, 2, 2\]"):
        grounding_explorer(IMAGES, LOCATED[:1], HEATS)
    with pytest.raises(ValueError, match=r"got \[0, 0\]"):
        grounding_explorer(IMAGES[:0], [], {})
