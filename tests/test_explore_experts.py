"""The explorer of experts: each state shows what the output that its controls name says to the question that they
name."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
import tiny
from explorers import visible

from minivlm.batch import Batch
from minivlm.explore import experts_explorer
from minivlm.model import Output


@pytest.fixture(scope="module")
def seen() -> tuple[Batch, dict[float, Output]]:
    return explorers.blended()


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    yield
    plt.close("all")


def test_it_begins_with_the_experts_as_they_are_and_asks_what_the_picture_was_asked(seen):
    explorer = experts_explorer(*seen, tiny.TOKENIZER.decode)
    controls = visible(explorer)
    options = {name: [label for label, _ in control.options] for name, control in controls.items()}
    asked = explorers.QUESTIONS
    assert options == {"Experts": ["0%", "50%", "100%"], "Picture": ["1", "2"], "Question": list(asked[:2])}
    assert explorer.state.words.startswith(f'Picture 1. "{asked[0]}", right is red. experts at 100%: ')
    controls["Picture"].value = 1
    assert [label for label, _ in visible(explorer)["Question"].options] == [asked[2], asked[0]]


def test_answers_are_those_of_share_picture_and_question(seen):
    batch, outputs = seen
    explorer = experts_explorer(batch, outputs, tiny.TOKENIZER.decode)
    for share, sample, question in ((0.0, 1, 1), (0.5, 0, 0), (1.0, 1, 0), (0.5, 0, 1)):
        explorer.controls["share"].value = f"{share:.0%}"
        explorer.controls["sample"].value = sample
        visible(explorer)["Question"].value = question
        said = [i for i in range(batch.input_ids.shape[1]) if batch.segments[sample, i] == question + 1]
        learned = [i for i in said if batch.labels[sample, i] >= 0]
        # one picture of four patches takes the place of one id, so a word stands three places further on
        shares = outputs[share].logits[sample, learned[0] + 3 - 1].softmax(dim=0)
        best = shares.topk(3)
        words = [tiny.TOKENIZER.decode([i]) or "·" for i in best.indices.tolist()]
        told = ", ".join(f"{word} {value:.0%}" for word, value in zip(words, best.values.tolist(), strict=True))
        assert explorer.state.words.endswith(f"experts at {share:.0%}: {told}.")


def test_shares_stand_in_order_and_there_must_be_one(seen):
    batch, outputs = seen
    explorer = experts_explorer(batch, {share: outputs[share] for share in (1.0, 0.0)}, tiny.TOKENIZER.decode)
    assert [label for label, _ in explorer.controls["share"].options] == ["0%", "100%"]
    with pytest.raises(ValueError, match="nothing to blend"):
        experts_explorer(batch, {}, tiny.TOKENIZER.decode)


def test_one_share_is_enough(seen):
    batch, outputs = seen
    explorer = experts_explorer(batch, {0.5: outputs[0.5]}, tiny.TOKENIZER.decode)
    explorer.sweep()
    assert "experts at 50%: " in explorer.state.words
