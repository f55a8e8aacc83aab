"""The explorer of depths: each state shows the capacity and the picture that it names, and no model is run for it."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
import tiny

from minivlm.explore import depths_explorer
from minivlm.figures import passed_patches


@pytest.fixture(scope="module")
def seen():
    return explorers.skipped()


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    yield
    plt.close("all")


def test_it_begins_with_the_smallest_capacity_of_the_first_picture(seen):
    explorer = depths_explorer(*seen, tiny.TOKENIZER.decode)
    options = {c.description: [label for label, _ in c.options] for c in explorer.controls.values()}
    assert options == {"Capacity": ["25%", "50%", "100%"], "Picture": ["1", "2"]}
    assert passed_patches(seen[0], seen[1][0.25], seen[2], [0])[1] in explorer.state.words
    assert f'"{explorers.QUESTIONS[0]}", right is red. capacity 25%: ' in explorer.state.words


def test_patches_and_answers_are_those_of_the_capacity_and_the_picture(seen):
    batch, outputs, config = seen
    explorer = depths_explorer(batch, outputs, config, tiny.TOKENIZER.decode)
    for name, capacity, sample in (("50%", 0.5, 1), ("100%", 1.0, 0), ("25%", 0.25, 1)):
        explorer.controls["capacity"].value, explorer.controls["sample"].value = name, sample
        assert passed_patches(batch, outputs[capacity], config, [sample])[1] in explorer.state.words
        learned = (batch.labels[sample] >= 0).nonzero().flatten()[0]
        shares = outputs[capacity].logits[sample, int(learned) + 4 - 1 - 1].softmax(dim=0)
        best = int(shares.argmax())
        said = f"capacity {name}: {tiny.TOKENIZER.decode([best]) or '·'} {float(shares[best]):.0%}"
        assert said in explorer.state.words


def test_without_outputs_there_is_nothing_to_explore(seen):
    with pytest.raises(ValueError, match="no capacity to choose: outputs are empty"):
        depths_explorer(seen[0], {}, seen[2], tiny.TOKENIZER.decode)
