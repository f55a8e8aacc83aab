"""The explorer of gates: each state shows what the output that its controls name says, and the score beside it."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
import tiny

from minivlm.batch import Batch
from minivlm.evaluate import Score
from minivlm.explore import gates_explorer
from minivlm.layout import Layout
from minivlm.model import Output


@pytest.fixture(scope="module")
def seen() -> tuple[Batch, dict[float, Output], dict[float, Score]]:
    return explorers.gated()


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    yield
    plt.close("all")


def test_it_begins_with_the_gates_as_they_were_learned(seen):
    explorer = gates_explorer(*seen, tiny.TOKENIZER.decode)
    controls = {c.description: [label for label, _ in c.options] for c in explorer.controls.values()}
    assert controls == {"Gates": ["x 0", "x 0.5", "x 1"], "Picture": ["1", "2"]}
    asked = explorers.QUESTIONS[0]
    assert explorer.state.words.startswith(f'Picture 1. "{asked}", right is red. gates x 1, 32% right: ')


def test_answers_and_scores_are_those_of_the_gates_and_the_picture(seen):
    batch, outputs, scores = seen
    explorer = gates_explorer(batch, outputs, scores, tiny.TOKENIZER.decode)
    for times, sample in ((0.0, 1), (0.5, 0), (1.0, 1), (0.0, 0)):
        explorer.controls["times"].value, explorer.controls["sample"].value = times, sample
        first = int((batch.labels[sample] >= 0).nonzero()[0])  # an <image> stays one word: places are ids
        best = outputs[times].logits[sample, first - 1].softmax(dim=0).topk(3)
        words = [tiny.TOKENIZER.decode([i]) or "·" for i in best.indices.tolist()]
        told = ", ".join(f"{word} {value:.0%}" for word, value in zip(words, best.values.tolist(), strict=True))
        right = (int(10 * times) + 3) / 40
        assert explorer.state.words.startswith(f"Picture {sample + 1}. ")
        assert explorer.state.words.endswith(
            f"gates x {times:g}, {right:.0%} right: {told}. Of 40 questions {right:.1%} are answered right."
        )


def test_numbers_stand_in_order(seen):
    batch, outputs, scores = seen
    explorer = gates_explorer(
        batch,
        {times: outputs[times] for times in (1.0, 0.0)},
        {n: scores[n] for n in (0.0, 1.0)},
        tiny.TOKENIZER.decode,
    )
    assert [label for label, _ in explorer.controls["times"].options] == ["x 0", "x 1"]


def test_one_state_of_one_picture_is_enough(seen):
    batch, outputs, scores = seen
    first = Batch.pack(tiny.TOKENIZER, [[(explorers.QUESTIONS[0], "red")]], images=batch.images[:1])
    layout = outputs[1.0].layout
    of_first = Layout(*(getattr(layout, field)[:1] for field in vars(layout)))
    output = Output(outputs[1.0].logits[:1], None, of_first, {})
    explorer = gates_explorer(first, {1.0: output}, {1.0: scores[1.0]}, tiny.TOKENIZER.decode)
    explorer.sweep()
    assert explorer.state.words == gates_explorer(*seen, tiny.TOKENIZER.decode).state.words


def test_what_cannot_be_explored_is_refused(seen):
    batch, outputs, scores = seen
    with pytest.raises(ValueError, match=r"outputs are of gates x 0, 0\.5, 1, scores of gates x 0, 1: give both"):
        gates_explorer(batch, outputs, {n: scores[n] for n in (0.0, 1.0)}, tiny.TOKENIZER.decode)
    with pytest.raises(ValueError, match="outputs are of gates x none, scores of gates x none"):
        gates_explorer(batch, {}, {}, tiny.TOKENIZER.decode)
