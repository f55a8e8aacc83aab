"""Designs that watch videos, in the controlled setting; no published system is exactly one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minivlm import mini
from minivlm.connectors.perceiver import FlamingoResampler
from minivlm.model import VLMConfig
from minivlm.vision.film import FilmConfig

FRAMES = 8  # of a video of which nothing else is said


def llama_vid_video() -> VLMConfig:
    """LLaMA-VID as it reads videos, each frame a picture of the sample: 2 tokens a frame, one for what the question
    needs of it and one for all of it."""
    config = mini.llama_vid()
    return replace(config, connector=replace(config.connector, tokens=2))


def film_resampler() -> VLMConfig:
    """Flamingo's resampler, which reads a video whole: one set of latents for all frames, two for each."""
    resampler = FlamingoResampler(2 * FRAMES, depth=2, heads=4, head_dim=32, frames=FRAMES)
    return replace(mini.vlm(resampler), vision=FilmConfig(mini.vision(), FRAMES))


VARIANTS: dict[str, Callable[[], VLMConfig]] = {
    "llama_vid_video": llama_vid_video,
    "film_resampler": film_resampler,
}
