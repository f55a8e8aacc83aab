"""Explorers: every state is drawn, said in words that are true, and never made by running a model again."""

from __future__ import annotations

import io

import explorers
import ipywidgets as widgets
import matplotlib.pyplot as plt
import nbformat
import pytest
import tiny
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from minivlm import budget
from minivlm.attribution import decoder_attention
from minivlm.course.run import execute
from minivlm.explore import Explorer, attention_explorer, budget_explorer
from minivlm.explore.base import buttons

SWEEP = "from minivlm.explore import Explorer\n\nfor explorer in list(Explorer.live):\n    explorer.sweep()"


@pytest.mark.parametrize("name", explorers.ALL)
def test_every_control_changes_the_picture_and_the_words(name):
    explorer = explorers.ALL[name]()
    explorer.sweep()
    for control in explorer.controls.values():
        if len(control.options) == 1:
            continue
        before = explorer.state
        first = control.index
        control.index = (first + 1) % len(control.options)
        if control.layout.display != "none":
            assert explorer.state.words != before.words and explorer.state.png != before.png, control.description
        control.index = first
        assert explorer.state == before
    assert explorer.failure is None and plt.get_fignums() == []
    assert Image.open(io.BytesIO(explorer.state.png)).width > 100


@pytest.mark.parametrize("name", explorers.ALL)
def test_controls_are_named_and_reached_by_keyboard(name):
    for control in explorers.ALL[name]().controls.values():
        assert isinstance(control, (widgets.ToggleButtons, widgets.SelectionSlider)) and control.description


@pytest.mark.parametrize("name", explorers.ALL)
def test_without_a_kernel_a_sentence_stays(name):
    explorer = explorers.ALL[name]()
    said = explorer._repr_mimebundle_()["text/plain"]
    assert said == explorers.ALL[name]()._repr_mimebundle_()["text/plain"]
    assert said.endswith(".") and explorer.state.words in said and "0x" not in said and "()" not in said
    visible = [control for control in explorer.controls.values() if control.layout.display != "none"]
    assert all(f"{control.description} ({control.options[control.index][0]})" in said for control in visible)


def test_the_status_is_plain_text_said_aloud_and_the_picture_has_it_as_its_alternative():
    explorer = Explorer("Test", {"n": buttons("N", [("a", 1)])}, lambda n: (plt.figure(), '1 < 2 & "so on".'))
    assert explorer.status.value == '<div role="status" aria-live="polite">1 &lt; 2 &amp; &quot;so on&quot;.</div>'
    assert 'alt="1 &lt; 2 &amp; &quot;so on&quot;."' in explorer.picture.value


def test_words_light_up_patches_as_the_maps_say_and_no_model_runs(monkeypatch):
    batch, output = explorers.seen()
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    explorer = attention_explorer(batch, output, tiny.TOKENIZER.decode)
    explorer.sweep()
    controls = explorer.controls
    assert [label for label, _ in controls["place"].options] == (
        "what, color, is, the, circle, ?, red, ·, is (2), there, a, red (2), circle (2), ? (2), no, · (2)".split(", ")
    )
    assert [value for _, value in controls["method"].options] == ["attention", "rollout", "gradient"]
    place = controls["place"].options[4][1]
    controls["place"].value, controls["layer"].value, controls["head"].value = place, 2, 1
    heat = decoder_attention(output)[1][0, 0, place, 1:5]
    row, col = divmod(int(heat.argmax()), 2)
    assert "Attention in block 2, head 1" in explorer.state.words
    assert f"circle ({row + 1}, {col + 1})" in explorer.state.words
    controls["start"].value, controls["row"].value, controls["col"].value = "patch", 2, 1
    shares = decoder_attention(output)[1][0, 0, :, 3]  # patch (1, 0) is the third
    words = output.layout.is_text[0].nonzero().flatten()
    assert "row 2, column 1 gets most attention from: " in explorer.state.words
    assert f"{float(shares[words].max()):.1%}" in explorer.state.words
    assert controls["place"].layout.display == "none" and controls["row"].layout.display is None


def test_without_gradients_that_method_is_not_offered_and_said_so():
    explorer = explorers.attention(graph=False)
    assert [value for _, value in explorer.controls["method"].options] == ["attention", "rollout"]
    assert "No gradients" in explorer.state.words


def test_a_temperature_makes_the_softmax_sharper():
    explorer = explorers.similarity()
    explorer.controls["step"].value = "trained"
    for temperature in (0.01, 1.0):
        explorer.controls["temperature"].value = temperature
        own = (explorers.PANELS["trained"] / temperature).softmax(dim=1).diagonal().mean()
        assert f"{float(own):.0%} in the mean" in explorer.state.words
        assert (
            explorer.state.words.startswith("Step trained. At temperature")
            and "2 of 3 pictures" in explorer.state.words
        )


def test_costs_are_those_of_the_budget():
    explorer = explorers.budget()
    controls = explorer.controls
    controls["name"].value, controls["pixels"].value, controls["patch"].value = "yi_vl", 672, 28
    controls["images"].value = 8
    counted = budget("yi_vl", words=32, image_size=672, patch_size=28, images=8)
    words = explorer.state.words
    assert f"{counted.visual_tokens:,} visual tokens" in words
    assert f"{counted.image_cache_bytes / 2**20:,.0f} MiB of pictures" in words
    assert f"{counted.memory_bytes / 1e9:,.1f} GB" in words
    assert "8 GB no, 16 GB yes, 80 GB yes" in words


def test_sizes_that_do_not_suit_are_said_and_are_no_failure(monkeypatch):
    monkeypatch.setattr("minivlm.explore.explorers.PIXELS", (10, 224))
    explorer = budget_explorer(["llava"])
    explorer.controls["pixels"].value = 10
    assert "LLaVA cannot read this: image 10x10 holds no whole patch of 14 pixels" in explorer.state.words
    assert explorer.failure is None


def broken() -> Explorer:
    def draw(n):
        if n == 2:
            raise RuntimeError("no <picture>")
        return plt.figure(), f"State {n}."

    return Explorer("Broken", {"n": buttons("N", [("one", 1), ("two", 2), ("three", 3)])}, draw)


def test_what_goes_wrong_is_shown_kept_and_raised():
    explorer = broken()
    explorer.controls["n"].value = 2
    assert "RuntimeError: no &lt;picture&gt;" in explorer.status.value and explorer.picture.value == ""
    explorer.controls["n"].value = 3
    assert explorer.state.words == "State 3. Earlier: RuntimeError: no <picture>."
    assert isinstance(explorer.failure, RuntimeError)
    with pytest.raises(RuntimeError, match="no <picture>"):
        explorer.sweep()
    with pytest.raises(RuntimeError, match="no <picture>"):
        broken().sweep()  # the sweep itself finds it


@pytest.mark.parametrize(("source", "error"), [("explorers.similarity()", None), ("broken()", "no <picture>")])
def test_an_error_inside_a_widget_fails_its_notebook(source, error, tmp_path, monkeypatch):
    path = tmp_path / "explorers.ipynb"
    cells = ["import explorers\nfrom test_explore import broken", source, SWEEP]
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    monkeypatch.setenv("PYTHONPATH", tiny.command()["env"]["PYTHONPATH"])
    result = execute(path, "smoke", "cpu")[1]
    assert (error is None and result.error is None) or error in result.error


def test_drawn_states_are_kept():
    drawn = []

    def draw(n):
        drawn.append(n)
        return plt.figure(), f"State {n}."

    explorer = Explorer("Test", {"n": buttons("N", [("a", 1), ("b", 2)])}, draw)
    explorer.controls["n"].value = 2
    explorer.controls["n"].value = 1
    assert drawn == [1, 2]
