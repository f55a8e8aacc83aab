"""How few tokens a frame does a video need? Designs learn to tell videos and to answer about them, with all but the
tokens alike. The encoder is the bundled LLaVA-1.5's, which knows pictures; it is frozen and has seen every frame once.
The decoder has read videos in exact words (`sighting`): it teaches the connector first, then both learn to answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from minivlm import mini
from minivlm.compare import budgeted
from minivlm.connectors.projection import NoProjection
from minivlm.data.videos import BEATS, sample_videos
from minivlm.data.watching import VIDEO_TASKS, video_bank
from minivlm.designs import at_budget
from minivlm.evaluate import evaluate
from minivlm.frames import VideoBank, VideoDialogs
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM, VLMConfig
from minivlm.pretrained.keys import load_exactly
from minivlm.recipes import new_parts
from minivlm.runs import encoder_of
from minivlm.runtime import choose_scale, machine, pick_device
from minivlm.sighting import SightedFrames, Spelled, token_places
from minivlm.storage import bundled, start_from
from minivlm.streams import generator
from minivlm.tables import BLIND, Run, bundled_results, percent, read, write
from minivlm.train import Stage, train_whole
from minivlm.vision.film import FilmConfig


@dataclass(frozen=True)
class Size:
    """Videos in the bank; steps of the connector alone; batch and steps of answering; proposals of questions a video;
    test videos."""

    videos: int
    taught: int
    batch_size: int
    steps: int
    per_video: int
    test: int


SIZES = {
    "smoke": Size(videos=12, taught=2, batch_size=4, steps=2, per_video=6, test=6),
    "cpu": Size(videos=1500, taught=1500, batch_size=16, steps=400, per_video=10, test=300),
    "gpu": Size(videos=20000, taught=3000, batch_size=128, steps=5000, per_video=12, test=1000),
}


@dataclass(frozen=True)
class WatchResult(Run):
    """What one run came to; `tokens` are those of a whole video of so many `frames`.

    accuracy  the share of right answers a task, on videos that training did not show
    """

    frames: int
    trained_weights: int
    accuracy: dict[str, float]
    machine: dict[str, str]

    @property
    def a_frame(self) -> float:
        """Visual tokens a frame."""
        return self.tokens / self.frames


def watch(
    design: str,
    tokens: int | None,
    seed: int,
    frames: int = BEATS,
    scale: str | None = None,
    steps: int | None = None,
    folder: str | Path = "runs/watch",
    precision: str | None = None,
) -> WatchResult:
    """Train a mini design (or variant, or "blind": the decoder without videos) to watch videos, and test it; what is
    found in `folder` is not run again. `tokens` a frame (None: the design's own); `steps` of answering replace those of
    the scale. ValueError for an unknown scale, or a design that cannot make so many."""
    scale = choose_scale(scale, SIZES)
    blind, size = design == BLIND, replace(SIZES[scale], steps=steps or SIZES[scale].steps)
    config = for_videos("llava15" if blind else design, tokens, frames)
    total = 0 if blind else video_tokens(config, frames)
    path = Path(folder) / f"{design}-{total}-{frames}-{scale}-{size.steps}-seed{seed}.json"
    if not path.exists():
        torch.manual_seed(seed)
        model = start(config).to(pick_device())
        bank = kept_bank(encoder_of(config), frames, size.videos, seed)
        learn(model, bank, size, seed + 1, blind, precision)
        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        run = Run(design, total, seed, scale, size.steps)
        scores = examine(model, frames, size.test, blind)
        write(WatchResult(**vars(run), frames=frames, trained_weights=learned, accuracy=scores,
                          machine=machine(precision)), path)  # fmt: skip
    return read(path, WatchResult)


def for_videos(design: str, tokens: int | None, frames: int) -> VLMConfig:
    """A mini design with so many tokens a frame; one that reads a film gets as many for all frames together."""
    config = budgeted(design, None)
    if not isinstance(config.vision, FilmConfig):
        return budgeted(design, tokens)
    vision, connector = replace(config.vision, frames=frames), replace(config.connector, frames=frames)
    each = tokens or config.num_tokens // config.vision.frames
    return at_budget(replace(config, vision=vision, connector=connector), each * frames)


def video_tokens(config: VLMConfig, frames: int) -> int:
    """Visual tokens of a video of so many frames."""
    return config.num_tokens * (1 if isinstance(config.vision, FilmConfig) else frames)


def start(config: VLMConfig) -> VLM:
    """A design with the encoder of the bundled LLaVA-1.5 and the decoder that has read videos; and where its connector
    has an MLP that stands before the decoder as LLaVA-1.5's does, with that MLP: what it is given is then a mean of
    patches, not one of them."""
    model, answering = config.build(), bundled("llava15", "cpu")
    load_exactly(getattr(model.vision, "tower", model.vision), answering.vision.state_dict())
    start_from(model.language, ("decoder_videos",))
    known = list(answering.connector.state_dict().values())
    for part in (model.connector, *model.connector.children()):
        weights = part.state_dict()
        if [value.shape for value in weights.values()] == [value.shape for value in known]:
            load_exactly(part, dict(zip(weights, known, strict=True)))
    return model


@lru_cache(maxsize=1)
def kept_bank(encoder: tuple, frames: int, count: int, seed: int) -> VideoBank:
    """The training videos of a seed, as that `encoder_of` a design sees them; the newest are kept for the next design
    that has the same."""
    vision, layer, class_token = encoder
    alone = replace(mini.vlm(NoProjection(class_token)), vision=vision, layer=layer, class_token=class_token)
    return VideoBank.make(start(alone).to(pick_device()), sample_videos(count, generator(seed, 0), frames))


def learn(
    model: VLM, bank: VideoBank, size: Size, seed: int, blind: bool = False, precision: str | None = None,
    quiet: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train in place, in two stages: the frozen decoder teaches the connector, then both learn to answer; returns the
    records of the second. A connector whose tokens stand for places learns to give the exact words of each place,
    others learn from what the decoder answers and tells of their tokens."""
    new, apart = () if blind else new_parts(model), model.connector.conditioned
    sizes, how = dict(batch_size=size.batch_size, per_video=size.per_video), dict(precision=precision, quiet=quiet)
    dialogs = VideoDialogs(mini_tokenizer(), bank, **sizes, blind=blind, apart=apart, seed=seed)
    if not blind and token_places(model):
        frames = SightedFrames.make(bank, token_places(model), seed=seed)
        train_whole(Spelled(model), [Stage("spell", frames, size.taught, lr=3e-3)], **how)
    elif not blind:
        train_whole(model, [Stage("teach", dialogs, size.taught, lr=1e-3, trains=new)], **how)
    answers = replace(dialogs, retold=False, seed=seed + 1)
    return train_whole(model, [Stage("answer", answers, size.steps, lr=1e-3, trains=(*new, "language"))], **how)


def examine(model: VLM, frames: int, videos: int, blind: bool = False) -> dict[str, float]:
    """The share of right answers a task on so many test videos, always the same."""
    films, questions = video_bank(frames, videos)
    bank = VideoBank.make(model, films)
    scores = evaluate(model, mini_tokenizer(), questions, bank.features.float(), blind=blind, batch_size=16)
    return {task: scores[task].accuracy for task in VIDEO_TASKS}


def bundled_watching(scale: str = "cpu") -> list[WatchResult]:
    """The runs that come with the package; an empty list for a scale that none were made at."""
    return bundled_results(scale, WatchResult, "watching-")


def watching_table(results: Iterable[WatchResult]) -> str:
    """A Markdown table, a row for each design, tokens a frame, frames and steps, most tokens first, the blind one last:
    accuracy in per cent, mean over seeds and half of the 95 % interval of that mean (Student's t)."""
    rows: dict[tuple[str, float, int, int], list[WatchResult]] = {}
    for result in results:
        rows.setdefault((result.design, result.a_frame, result.frames, result.steps), []).append(result)
    head = ("design", "tokens a frame", "frames", "steps", "seeds", *VIDEO_TASKS)
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for (design, each, frames, steps), runs in sorted(rows.items(), key=lambda row: (-row[0][1], row[0])):
        cells = (percent([run.accuracy[task] for run in runs]) for task in VIDEO_TASKS)
        about = (design, f"{each:g}" if each else "-", frames, steps, len(runs))
        lines.append(f"| {' | '.join(map(str, (*about, *cells)))} |")
    return "\n".join(lines)
