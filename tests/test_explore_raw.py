"""The explorer of raw patches: each state shows the raster of the side that it names, and what each model says
there."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
import tiny

from minivlm.batch import Batch
from minivlm.explore import raw_explorer
from minivlm.model import Output


@pytest.fixture(scope="module")
def seen() -> tuple[dict[int, Batch], dict[str, dict[int, Output]]]:
    return explorers.sized()


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    yield
    plt.close("all")


def test_it_begins_with_the_middle_size_of_the_first_picture(seen):
    explorer = raw_explorer(*seen, tiny.TOKENIZER.decode, 8)
    options = {c.description: [label for label, _ in c.options] for c in explorer.controls.values()}
    assert options == {"Picture side": ["8 pixels", "18 pixels", "32 pixels"], "Picture": ["1", "2"]}
    assert explorer.state.words.startswith("A picture of 18x18 pixels is 3 rows of 3 patches, each closed by a newline")
    assert f'"{explorers.QUESTIONS[0]}", right is red. newlines: ' in explorer.state.words


def test_tokens_and_answers_are_those_of_the_side_and_the_picture(seen):
    batches, outputs = seen
    explorer = raw_explorer(batches, outputs, tiny.TOKENIZER.decode, 8)
    for side, sample, tokens in ((8, 0, 2), (32, 1, 20), (18, 1, 12)):
        explorer.controls["side"].value, explorer.controls["sample"].value = side, sample
        assert f"{side}x{side} pixels" in explorer.state.words and f": {tokens} tokens, " in explorer.state.words
        learned = (batches[side].labels[sample] >= 0).nonzero().flatten()[0]
        for name, own in (("newlines", tokens), ("none", (-(-side // 8)) ** 2)):
            shares = outputs[name][side].logits[sample, int(learned) + own - 1 - 1].softmax(dim=0)
            best = int(shares.argmax())
            assert f"{name}: {tiny.TOKENIZER.decode([best]) or '·'} {float(shares[best]):.0%}" in explorer.state.words


def test_models_that_were_not_asked_at_every_side_are_refused(seen):
    batches, outputs = seen
    with pytest.raises(ValueError, match=r"batches are of sides \[8, 18, 32\], outputs of newlines at \[8\]: ask each"):
        raw_explorer(batches, {"newlines": {8: outputs["newlines"][8]}}, tiny.TOKENIZER.decode, 8)
    with pytest.raises(ValueError, match="outputs of no model"):
        raw_explorer(batches, {}, tiny.TOKENIZER.decode, 8)
