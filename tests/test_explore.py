"""Explorers: every state is drawn, said in words that are true, and never made by running a model again."""

from __future__ import annotations

import base64
import io
import re

import explorers
import ipywidgets as widgets
import matplotlib.pyplot as plt
import nbformat
import pytest
import tiny
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from minivlm import DESIGNS, budget
from minivlm.attribution import decoder_attention
from minivlm.batch import Batch
from minivlm.course.run import execute
from minivlm.explore import Explorer, attention_explorer, budget_explorer, similarity_explorer
from minivlm.explore.base import buttons
from minivlm.figures import attention_maps, words_of_patch

SWEEP = "from minivlm.explore import Explorer\n\nfor explorer in list(Explorer.live):\n    explorer.sweep()"


def figure(width: float = 1) -> plt.Figure:
    return plt.figure(figsize=(width, 1))


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
    assert max(map(len, said.split("\n"))) <= 100
    said = " ".join(said.split())
    assert said.endswith(".") and explorer.state.words in said and "0x" not in said and "()" not in said
    visible = [control for control in explorer.controls.values() if control.layout.display != "none"]
    assert all(f"{control.description} ({control.options[control.index][0]})" in said for control in visible)
    bracketed = sum(str(getattr(control, "label", "")).count(" (") for control in visible)  # in what is chosen
    # nothing of those out of sight
    assert said.count(" (") - explorer.state.words.count(" (") == len(visible) + bracketed


def test_the_status_is_plain_text_said_aloud_and_the_picture_has_it_as_its_alternative():
    explorer = Explorer("Test", {"n": buttons("N", [("a", 1)])}, lambda n: (figure(n), '1 < 2 & "so on".'))
    assert explorer.status.value == '<div role="status" aria-live="polite">1 &lt; 2 &amp; &quot;so on&quot;.</div>'
    assert 'alt="1 &lt; 2 &amp; &quot;so on&quot;."' in explorer.picture.value


def test_the_picture_is_that_of_the_state():
    explorer = Explorer("Test", {"n": buttons("N", [("a", 1), ("b", 2)])}, lambda n: (figure(n), f"State {n}."))
    for n in (1, 2):
        explorer.controls["n"].value = n
        [source] = re.findall(r'src="data:image/png;base64,(.+?)"', explorer.picture.value)
        assert base64.b64decode(source) == explorer.state.png
        assert Image.open(io.BytesIO(explorer.state.png)).size == (100 * n, 100)


def test_a_sweep_sees_every_value_of_every_control_also_of_the_hidden_and_goes_back():
    drawn = set()

    def draw(**values):
        drawn.update(values.items())
        return figure(), "Drawn."

    values = {"a": (1, 2), "b": (1, 2, 3), "c": (1, 2, 3)}  # b is out of sight while a is 2, c while a is 1
    controls = {name: buttons(name, [(str(n), n) for n in some]) for name, some in values.items()}
    explorer = Explorer("Test", controls, draw, hidden=lambda a, **_: ("c",) if a == 1 else ("b",))
    explorer.sweep()
    assert drawn == {(name, n) for name, some in values.items() for n in some}
    assert [control.value for control in controls.values()] == [1, 1, 1]


def test_words_light_up_patches_as_the_maps_say_and_no_model_runs(monkeypatch):
    batch, output = explorers.seen()
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    explorer = attention_explorer(batch, output, tiny.TOKENIZER.decode)
    assert explorer.state.words.startswith("Word 1 of 16. Attention in all blocks, all heads: ")
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
    assert explorer.state.words.startswith("Word 5 of 16. Attention in block 2, head 1: ")
    assert f"circle ({row + 1}, {col + 1})" in explorer.state.words
    controls["start"].value, controls["row"].value, controls["col"].value = "patch", 2, 1
    shares = decoder_attention(output)[1][0, 0, :, 3]  # patch (1, 0) is the third
    words = output.layout.is_text[0].nonzero().flatten()
    assert explorer.state.words.startswith(
        "In block 2 and head 1: The patch in row 2, column 1 gets most attention from: "
    )
    assert f"{shares[words].max().item():.1%}" in explorer.state.words
    assert controls["place"].layout.display == "none" and controls["row"].layout.display is None


def test_any_sample_of_a_batch_is_explored():
    images, decode = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), tiny.TOKENIZER.decode
    batch = Batch.pack(tiny.TOKENIZER, [[("circle", "red")], [("where is it ?", "left")]], images=images)
    output = tiny.vlm()(batch, capture=True)
    explorer = attention_explorer(batch, output, decode, sample=1)
    assert [label for label, _ in explorer.controls["place"].options] == "where is it ? left ·".split()
    place = explorer.controls["place"].value
    assert attention_maps(batch, output, decode, [place], sample=1)[1] in explorer.state.words
    explorer.controls["start"].value = "patch"
    assert words_of_patch(batch, output, decode, 0, 0, sample=1)[1] in explorer.state.words
    plt.close("all")


def test_without_gradients_that_method_is_not_offered_and_said_so():
    explorer = explorers.attention(graph=False)
    assert [value for _, value in explorer.controls["method"].options] == ["attention", "rollout"]
    assert "No gradients" in explorer.state.words


def test_controls_begin_where_they_are_told_and_move_in_order():
    explorer = similarity_explorer(explorers.PANELS, explorers.TEXTS, explorers.TEXTS, temperature=0.063, kind="Space")
    temperature = explorer.controls["temperature"]
    assert explorer.state.words.startswith("Space before. At temperature 0.063, ")
    values = [value for _, value in temperature.options]
    assert temperature.value == 0.063 and values == sorted(values)
    one = similarity_explorer({"only": torch.eye(3)}, explorers.TEXTS, explorers.TEXTS).controls["panel"]
    assert isinstance(one, widgets.ToggleButtons)  # a browser cannot draw a slider on one value
    costs = budget_explorer(["yi_vl"])
    assert costs.controls["pixels"].value == 448 and costs.controls["patch"].value == 14  # those of the design
    assert "1 picture of 448 x 448 pixels and 64 words: " in costs.state.words


def test_pictures_stand_at_the_rows_and_texts_at_the_columns(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "minivlm.explore.explorers.match_probabilities", lambda *given: drawn.append(given) or (figure(), ".")
    )
    similarity_explorer(explorers.PANELS, ["row"] * 3, ["column"] * 3)
    assert drawn[0][2:] == (["row"] * 3, ["column"] * 3)


def test_a_temperature_makes_the_softmax_sharper():
    explorer = explorers.similarity()
    explorer.controls["panel"].value = "trained"
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
    counted = budget("yi_vl", words=32, encoder_size=672, patch_size=28, images=8)
    words = explorer.state.words
    assert f"{counted.visual_tokens:,} visual tokens" in words
    assert f"{counted.image_cache_bytes / 2**20:,.0f} MiB of pictures" in words
    assert f"{counted.text_cache_bytes / 2**20:,.0f} MiB of words" in words
    assert all(f"{part} {count / 1e12:,.2f}" in words for part, count in counted.flops.items())
    assert f"{counted.memory_bytes / 1e9:,.1f} GB" in words and "8 pictures of 672 x 672 pixels and 32 words" in words
    assert "8 GB no, 16 GB yes, 80 GB yes" in words


def test_budgets_are_offered_for_all_designs_with_a_decoder():
    offered = [name for _, name in budget_explorer().controls["name"].options]
    assert offered == [name for name, design in DESIGNS.items() if design.answers]


@pytest.mark.parametrize("name", [name for name, design in DESIGNS.items() if design.answers])
def test_the_budget_explorer_begins_with_any_design(name):
    explorer = budget_explorer([name])
    assert explorer.failure is None and explorer.state.words.startswith(DESIGNS[name].title)


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


def test_the_first_error_is_the_one_that_is_kept():
    def draw(n):
        raise RuntimeError(f"number {n}")

    explorer = Explorer("Test", {"n": buttons("N", [("a", 1), ("b", 2)])}, draw)
    explorer.controls["n"].value = 2
    assert "RuntimeError: number 2" in explorer.state.words and str(explorer.failure) == "number 1"


def test_drawn_states_are_kept_and_figures_of_others_stay_open():
    drawn, other = [], figure()

    def draw(n):
        drawn.append(n)
        return plt.figure(), f"State {n}."

    explorer = Explorer("Test", {"n": buttons("N", [("a", 1), ("b", 2)])}, draw)
    explorer.controls["n"].value = 2
    explorer.controls["n"].value = 1
    assert drawn == [1, 2] and plt.get_fignums() == [other.number]
    plt.close("all")
