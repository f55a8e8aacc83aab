"""Explorers of videos: how many frames a context holds, and what the context token of each frame looks at.

They read videos and `Output`s that are there; none runs a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from minivlm.explore.base import Explorer, buttons, slider
from minivlm.figures.video import context_gaze, context_maps, frames_in_context, frames_that_fit
from minivlm.model import Output, VLMConfig


def frames_explorer(
    videos: Sequence[Float[Tensor, "_ 3 H W"]], tokens: Sequence[int], contexts: Mapping[str, int], words: int = 64
) -> Explorer:
    """Which frames fit into each of `contexts`, by name, at each number of `tokens` a frame; `videos` have different
    numbers of frames. ValueError where there is nothing to choose from, or two videos are as long as each other."""
    by_length = {len(video): video for video in sorted(videos, key=len)}
    if not (by_length and tokens and contexts) or len(by_length) != len(videos):
        raise ValueError(
            f"give a context, a number of tokens and videos of different lengths; got {len(contexts)} contexts, tokens "
            f"{list(tokens)}, videos of {[len(video) for video in videos]} frames"
        )
    controls = {
        "frames": slider("Frames", [(str(count), count) for count in by_length]),
        "each": slider("Tokens", [(f"{count} a frame", count) for count in sorted(tokens)]),
        "context": buttons("Context", list(contexts.items())),
    }

    def draw(frames: int, each: int, context: int) -> tuple[Figure, str]:
        figure, told = frames_in_context(by_length[frames], each, context, words)
        most = frames_that_fit(each, context, words)
        return figure, f"{told} Of a longer video the first {most:,} would fit."

    return Explorer("Frames explorer", controls, draw)


def context_explorer(outputs: Mapping[str, Output], images: Float[Tensor, "B T 3 H W"], config: VLMConfig) -> Explorer:
    """What the context token of each frame looks at for one question or another. `outputs`, captured, are of one model,
    by the question that was asked about every video of `images`. ValueError for none, or for outputs of others."""
    if not outputs:
        raise ValueError("no questions to choose from: outputs are empty")
    for question, output in outputs.items():
        samples, frames = len(output.layout.kind), len(context_gaze(output, config))
        if (samples, frames) != tuple(images.shape[:2]):
            raise ValueError(
                f"{question}: images are {images.shape[0]} videos of {images.shape[1]} frames, the output is of "
                f"{samples} of {frames}"
            )
    controls = {
        "sample": slider("Video", [(str(n + 1), n) for n in range(len(images))]),
        "question": buttons("Question", [(question, question) for question in outputs]),
    }

    def draw(sample: int, question: str) -> tuple[Figure, str]:
        figure, told = context_maps({question: outputs[question]}, images[sample], config, sample)
        return figure, f"Video {sample + 1}. {told}"

    return Explorer("Context explorer", controls, draw)
