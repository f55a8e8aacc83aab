"""Explorers of connectors: each state shows the map that its controls name, of the output that they name."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
import torch
from explorers import visible

from minivlm.connectors.projection import LinearProjection
from minivlm.explore import queries_explorer, questions_explorer
from minivlm.figures import query_maps, question_maps
from minivlm.model import Output
from minivlm.queries import query_statistics

PAIRS, QUESTIONS = explorers.PAIRS, explorers.QUESTIONS


@pytest.fixture(scope="module")
def seen() -> tuple[dict, dict[str, Output]]:
    return explorers.seen_by_queries()


@pytest.fixture(scope="module")
def asked() -> tuple[dict[str, Output], object]:
    return explorers.asked()


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    yield
    plt.close("all")


def shares(output: Output, site: str, sample: int, head: int | None) -> torch.Tensor:
    """Queries x patches, read without the package: every sample has one picture, 4x4 patches, and no class token."""
    weights = output.maps[f"connector.{site}.weights"][sample]
    return (weights.mean(dim=0) if head is None else weights[head])[:, :16]


def place(share: torch.Tensor) -> str:
    row, col = divmod(int(share.argmax()), 4)
    return f"({row + 1}, {col + 1})"


def test_controls_are_those_of_the_chosen_output(seen):
    explorer = queries_explorer(seen[1], PAIRS, seen[0])
    options = {
        name: [label for label, _ in control.options] for name, control in visible(explorer).items() if name != "Site"
    }
    assert options == {
        "Connector": ["2 tokens", "4 tokens", "one site"], "Sample": ["1", "2"], "Query": ["all", "1", "2"],
        "Head": ["mean", "1", "2"],
    }  # fmt: skip
    assert [label for label, _ in visible(explorer)["Site"].options] == ["layers.0.attention", "layers.1.attention"]
    assert visible(explorer)["Site"].index == 1  # as the figures, the last one to begin with
    explorer.controls["name"].value = "4 tokens"
    assert [label for label, _ in visible(explorer)["Query"].options] == ["all", "1", "2", "3", "4"]
    explorer.controls["name"].value = "one site"
    assert set(visible(explorer)) == {"Connector", "Sample", "Query"}  # one site, one head
    assert [label for label, _ in visible(explorer)["Query"].options] == ["all", "1"]


def test_queries_are_those_of_output_sample_site_and_head(seen):
    explorer = queries_explorer(seen[1], PAIRS, seen[0])
    explorer.controls["name"].value = "4 tokens"
    for sample, layer, head in ((0, 1, 0), (1, 0, 2), (0, 0, 1), (1, 1, 2)):
        controls = visible(explorer)
        controls["Sample"].value, controls["Head"].value = sample, head
        controls["Site"].index = layer
        mine = shares(seen[1]["4 tokens"], f"layers.{layer}.attention", sample, head - 1 if head else None)
        words = explorer.state.words
        told = "all heads" if head == 0 else f"head {head}"
        assert words.startswith(
            f"Sample {sample + 1}. 4 tokens: connector.layers.{layer}.attention.weights, {told}: 4 q"
        )
        assert "; ".join(f"query {n} {place(share)}" for n, share in enumerate(mine, start=1)) in words
        found = query_statistics(mine)
        assert f"Two of its maps have a cosine of {found.collapse:.2f} in the mean; {found.coverage:.0%} of" in words


def test_a_single_query_is_enlarged(seen):
    explorer = queries_explorer(seen[1], PAIRS, seen[0])
    controls = visible(explorer)
    controls["Query"].value, controls["Head"].value, controls["Sample"].value = 2, 1, 1
    mine = shares(seen[1]["2 tokens"], "layers.1.attention", 1, 0)[1]
    assert 'head 1: query 2. "2 tokens": ' in explorer.state.words and "cosine" not in explorer.state.words
    row, col = divmod(int(mine.argmax()), 4)
    assert (
        f"{mine.sum():.0%} of its attention on 16 patches, most at row {row + 1}, column {col + 1} ("
        in explorer.state.words
    )
    explorer.controls["name"].value = "one site"
    assert "1 query looks at 16 patches" in explorer.state.words  # its own query control stands at all
    assert "cosine" not in explorer.state.words and "get more than an even share" in explorer.state.words


def test_left_and_right_are_the_questions_that_they_say(asked):
    outputs, config = asked
    explorer = questions_explorer(outputs, PAIRS, config)
    controls = explorer.controls
    assert (controls["left"].value, controls["right"].value) == tuple(QUESTIONS[:2])
    assert [label for label, _ in visible(explorer)["Query"].options] == ["1", "2", "3"]
    controls["left"].value, controls["right"].value = QUESTIONS[2], QUESTIONS[0]
    seen = visible(explorer)
    seen["Query"].value, seen["Sample"].value, seen["Head"].value, seen["Site"].index = 3, 1, 2, 0
    left, right = (
        shares(outputs[QUESTIONS[n]], "encoder.blocks.0.cross.part", 1, head=1)[2].view(4, 4) for n in (2, 0)
    )
    cosine = float(left.flatten() @ right.flatten() / left.norm() / right.norm())
    words = explorer.state.words
    first, second = words.index(f'"{QUESTIONS[2]}": '), words.index(f'"{QUESTIONS[0]}": ')
    assert first < second and f"({left.max():.1%})" in words[first:second] and f"({right.max():.1%})" in words[second:]
    assert f"The two maps have a cosine of {cosine:.2f}; " in words
    assert f"(+{(right - left).max():.1%})" in words and f"(-{(left - right).max():.1%})" in words
    controls["left"].value = QUESTIONS[0]
    assert explorer.state.words.startswith("Sample 2. Left and right are the same question. ")
    assert "cosine" not in explorer.state.words


def test_pictures_are_told_apart(seen):
    """A sample of two pictures is the same pass as two samples of one, on a site that no picture shares."""
    configs, outputs = seen
    output = outputs["one site"]
    layout = type(output.layout)(*(getattr(output.layout, name)[:1] for name in vars(output.layout)))
    one = Output(output.logits[:1], None, layout, output.maps)
    explorer = queries_explorer({"one": one}, PAIRS.transpose(0, 1), {"one": configs["one site"]})
    assert "Sample" not in visible(explorer)
    visible(explorer)["Picture"].value = 1
    other = queries_explorer({"one": output}, PAIRS, {"one": configs["one site"]})
    visible(other)["Sample"].value = 1
    words = explorer.state.words
    assert words.startswith("Picture 2. ") and other.state.words == words.replace("Picture", "Sample", 1)
    assert explorer.state.png == other.state.png


def test_a_map_that_cannot_be_drawn_is_said_and_raised(seen, monkeypatch):
    explorer = queries_explorer(seen[1], PAIRS, seen[0])
    monkeypatch.setattr("minivlm.explore.connectors.question_maps", lambda *_, **__: 1 / 0)
    visible(explorer)["Query"].value = 1
    assert explorer.state.words == "This could not be drawn: ZeroDivisionError: division by zero."
    with pytest.raises(ZeroDivisionError):
        explorer.sweep()


def test_what_cannot_be_explored_is_refused(seen, asked, monkeypatch):
    configs, outputs = seen
    with pytest.raises(ValueError, match="outputs of 2 tokens, 4 tokens, one site, configs of 2 tokens, one site"):
        queries_explorer(outputs, PAIRS, {name: configs[name] for name in ("2 tokens", "one site")})
    with pytest.raises(ValueError, match="outputs of nothing, configs of nothing"):
        queries_explorer({}, PAIRS, {})
    with pytest.raises(ValueError, match="2 tokens: images are 1 samples of 1 pictures, the output is of 2 samples"):
        queries_explorer(outputs, PAIRS[:1], configs)
    with pytest.raises(ValueError, match="images are 2 samples of 2 pictures, .* of 2 samples and 2 pictures"):
        queries_explorer(outputs, PAIRS.expand(-1, 2, -1, -1, -1), configs)
    with pytest.raises(ValueError, match="no questions to compare"):
        questions_explorer({}, PAIRS, asked[1])
    with pytest.raises(ValueError, match="not of one model"):
        questions_explorer({name: outputs[name] for name in ("2 tokens", "4 tokens")}, PAIRS, configs["2 tokens"])
    with pytest.raises(ValueError, match="no query 3 in a: there are 3, counted from 0"):
        question_maps({"a": asked[0][QUESTIONS[0]]}, PAIRS, asked[1], 3)
    with pytest.raises(ValueError, match="no query -1 in a"):
        question_maps({"a": asked[0][QUESTIONS[0]]}, PAIRS, asked[1], -1)
    monkeypatch.undo()
    config, output = explorers.looked_at(LinearProjection())
    with pytest.raises(ValueError, match="a resampler with capture=True"):
        queries_explorer({"none": output}, PAIRS, {"none": config})
    assert query_maps(outputs["2 tokens"], PAIRS, configs["2 tokens"])
