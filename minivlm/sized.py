"""Pictures rendered anew for every batch, at a size that the batch draws: what a design without an encoder learns from.

Where the pixels themselves are projected, nothing of a picture can be computed once and kept. All pictures of a batch
have one size, so none is padded: OtterHD's dynamic resolution (Li et al. 2023, arXiv:2311.04219). With a single size in
the list it is Fuyu's training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minivlm.batch import Batch
from minivlm.data.scenes import render, sample_scenes
from minivlm.data.tasks import TASKS, ask
from minivlm.language.tokenizer import Tokenizer
from minivlm.streams import generator
from minivlm.train import Step


@dataclass(frozen=True)
class SizedDialogs:
    """Batches of fresh scenes of `objects` (fewest, most) with `per_scene` questions on each, as pictures of one of the
    `sizes`, in pixels a side, every size as likely. Step n has the same scenes and questions whatever the sizes are."""

    tokenizer: Tokenizer
    batch_size: int
    sizes: tuple[int, ...] = (64,)
    tasks: Sequence[str] = TASKS
    per_scene: int = 8
    objects: tuple[int, int] = (1, 9)
    seed: int = 0
    device: str | torch.device = "cpu"

    def __post_init__(self):
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes are one or more sides in pixels, each at least 1; got {self.sizes}")

    def __call__(self, step: int, rows: range) -> Step:
        chance, (fewest, most) = generator(self.seed, step), self.objects
        scenes = sample_scenes(self.batch_size, chance, min_objects=fewest, max_objects=most)
        asked = ask(scenes, chance, self.tasks, self.per_scene)[rows.start : rows.stop]
        size = self.sizes[int(torch.randint(len(self.sizes), (), generator=chance))]
        images = render(scenes[rows.start : rows.stop], size, self.device)[:, None]  # (rows, 1, 3, size, size)
        batch = Batch.pack(self.tokenizer, [[(q.text, q.answer) for q in sample] for sample in asked], images=images)
        return Step((batch,), int((batch.labels >= 0).sum()))
