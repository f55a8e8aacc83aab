"""The explorers on data small enough to be drawn within a test, in this process or in a notebook of a test."""

from __future__ import annotations

import tiny
import torch

from minivlm.batch import Batch
from minivlm.explore import Explorer, attention_explorer, budget_explorer, similarity_explorer
from minivlm.model import Output

DIALOG = [("what color is the circle ?", "red"), ("is there a red circle ?", "no")]
PANELS = {"before": torch.eye(3).roll(1, dims=0), "trained": torch.tensor([[0.9, 0, 0], [0, 0.5, 0.6], [0, 0, 0.7]])}
TEXTS = ["a circle", "a square", "a star"]


def seen(graph: bool = True) -> tuple[Batch, Output]:
    """A batch of one picture with two questions, and what a tiny model made of it, with its maps."""
    images = torch.rand(1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch.pack(tiny.TOKENIZER, [DIALOG], images=images)
    with torch.set_grad_enabled(graph):
        return batch, tiny.vlm()(batch, capture=True)


def attention(graph: bool = True) -> Explorer:
    return attention_explorer(*seen(graph), tiny.TOKENIZER.decode)


def similarity() -> Explorer:
    return similarity_explorer(PANELS, TEXTS, TEXTS)


def budget() -> Explorer:
    return budget_explorer(["llava", "yi_vl"], words=32)


ALL = {"attention": attention, "similarity": similarity, "budget": budget}
