"""Explorers of videos: each state shows the frames, or the maps, that its controls name."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
from explorers import visible

from minivlm.explore import context_explorer, frames_explorer
from minivlm.figures import context_maps


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_frames_and_tokens_stand_in_order_and_the_words_count_them():
    explorer = explorers.frames()
    controls = visible(explorer)
    options = {name: [label for label, _ in control.options] for name, control in controls.items()}
    assert options == {"Frames": ["8", "16"], "Tokens": ["1 a frame", "4 a frame"], "Context": ["short", "long"]}
    for frames in (8, 16):
        for each in (1, 4):
            for context in (10, 60):
                for name, value in (("frames", frames), ("each", each), ("context", context)):
                    explorer.controls[name].value = value
                most = len([n for n in range(1, 99) if 4 + n * each <= context])
                fit = min(frames, most)
                words = explorer.state.words
                told = f"{frames} frames of {each} token{'s' * (each > 1)}"
                assert f"{told} and 4 words take {4 + frames * each} positions" in words
                assert f"{'All' if fit == frames else fit} of the frames fit, in {4 + fit * each} positions" in words
                assert words.endswith(f"Of a longer video the first {most} would fit.")


def test_what_is_no_choice_of_frames_is_refused():
    video = explorers.PAIRS[0].repeat(8, 1, 1, 1)
    for videos, tokens, contexts in (([], [1], {"a": 9}), ([video], [], {"a": 9}), ([video], [1], {}),
                                     ([video, video], [1], {"a": 9})):  # fmt: skip
        with pytest.raises(ValueError, match="videos of different lengths; got"):
            frames_explorer(videos, tokens, contexts)


def test_maps_are_those_of_the_question_and_the_video(monkeypatch):
    outputs, images, config = explorers.watched()
    monkeypatch.setattr("minivlm.model.VLM.forward", lambda *_: pytest.fail("a model was run"))
    explorer = context_explorer(outputs, images, config)
    for sample in (1, 0):
        for question in reversed(outputs):
            explorer.controls["sample"].value, explorer.controls["question"].value = sample, question
            _, told = context_maps({question: outputs[question]}, images[sample], config, sample)
            assert explorer.state.words == f"Video {sample + 1}. {told}"


def test_outputs_of_other_videos_are_refused():
    outputs, images, config = explorers.watched()
    with pytest.raises(ValueError, match="outputs are empty"):
        context_explorer({}, images, config)
    for wrong, told in ((images[:1], "images are 1 videos of 3 frames"), (images[:, :2], "2 videos of 2 frames")):
        with pytest.raises(ValueError, match=f"{explorers.QUESTIONS[0].replace('?', '.')}: .*{told}.*of 2 of 3"):
            context_explorer(outputs, wrong, config)
