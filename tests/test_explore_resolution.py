"""The explorer of canvases: what it says is chosen is what the design takes, and what is kept is counted."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
from explorers import visible

from minivlm.designs import configure
from minivlm.explore import canvas_explorer


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_it_begins_with_the_design_s_own_choice():
    explorer, config = explorers.canvases(), configure("llava_next")
    controls = visible(explorer)
    controls["Picture"].value = "wide"
    assert [label for label, _ in controls["Canvas"].options][:2] == ["as chosen", "64x128"]
    words = explorer.state.words
    assert words.startswith(
        "wide, 60 by 150 pixels. the whole: 64 by 64 pixels, 8 by 8 patches; on the canvas: 64 by 192"
    )
    assert words.endswith(f"The design takes 64 by 192, {config.tokens_of((60, 150))} tokens.")
    assert "Of 9,000 pixels this canvas keeps 9,000." in words  # 64 x 160 are more than it has
    controls["Picture"].value = "small"
    assert "Of 1,600 pixels this canvas keeps 1,600." in explorer.state.words


def test_another_canvas_is_shown_as_told_and_not_taken():
    explorer = explorers.canvases()
    explorer.controls["name"].value = "wide"
    explorer.controls["canvas"].value = (64, 128)
    assert "Of 9,000 pixels this canvas keeps 6,528." in explorer.state.words  # 51 x 128
    explorer.controls["canvas"].value = (128, 64)
    assert "on the canvas: 128 by 64 pixels, 16 by 8 patches" in explorer.state.words
    assert "Of 9,000 pixels this canvas keeps 1,600." in explorer.state.words  # 25 x 64
    assert "takes 64 by 192" in explorer.state.words


def test_no_picture_is_refused():
    with pytest.raises(ValueError, match="nothing to lay on a canvas"):
        canvas_explorer({}, configure("llava_next"))
