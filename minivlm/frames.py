"""Frames: endless, seeded batches of videos with questions, as what a frozen encoder made of every frame.

Step n of a stream is always the same, whoever asks for it and whatever was asked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch, each_apart
from minivlm.data.telling import tell_videos
from minivlm.data.videos import Videos, render_videos
from minivlm.data.watching import VIDEO_TASKS, ask_videos
from minivlm.language.tokenizer import Tokenizer
from minivlm.model import VLM
from minivlm.streams import generator
from minivlm.train import Step
from minivlm.vision.film import FilmConfig, as_film


@dataclass(frozen=True)
class VideoBank:
    """Videos and their features, computed once and kept in half precision: (S, T, N, D), or (S, 1, T*N, D) for a design
    that reads each video as one film."""

    videos: Videos
    features: Float[Tensor, "S M N D"]

    @classmethod
    @torch.no_grad()
    def make(cls, model: VLM, videos: Videos, batch_size: int = 32) -> VideoBank:
        device, vision = next(model.parameters()).device, model.config.vision
        features = []
        for start in range(0, len(videos), batch_size):
            images = render_videos(videos[start : start + batch_size], vision.image_size[1], device)
            images = as_film(images) if isinstance(vision, FilmConfig) else images
            features.append(model.features(images).half().cpu())
        return cls(videos, torch.cat(features))


@dataclass(frozen=True)
class VideoDialogs:
    """Batches of a bank's videos, with fresh questions, `per_video` proposals on each (0: none). `retold`: each is also
    to be told in words. `blind`: without the videos, which then are not to be told either. `apart`: every question in a
    sample of its own, for connectors that read it; the same questions, apart or not."""

    tokenizer: Tokenizer
    bank: VideoBank
    batch_size: int
    tasks: Sequence[str] = VIDEO_TASKS
    per_video: int = 8
    retold: bool = True
    blind: bool = False
    apart: bool = False
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        chosen = torch.randint(len(self.bank.videos), (self.batch_size,), generator=chance)
        videos = self.bank.videos[chosen]
        asked = ask_videos(videos, chance, self.tasks, self.per_video) if self.per_video else [[]] * len(videos)
        told = [[("", text)] if self.retold and not self.blind else [] for text in tell_videos(videos)]
        dialogs = [[(q.text, q.answer) for q in questions] + text for questions, text in zip(asked, told, strict=True)][
            rows.start : rows.stop
        ]
        chosen = chosen[rows.start : rows.stop]
        if self.apart:
            dialogs, chosen = each_apart(dialogs, chosen)
        features = None if self.blind else self.bank.features[chosen].float()
        batch = Batch.pack(self.tokenizer, dialogs, features=features)
        return Step((batch,), int((batch.labels >= 0).sum()))
