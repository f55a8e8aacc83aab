"""Answers: which words of a batch are learned, at which place each is predicted, and how wrong the scores are."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.batch import IGNORE
from minivlm.layout import Layout


def answer_loss(logits: Float[Tensor, "B L V"], layout: Layout, labels: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the labelled words, each predicted at its predecessor; pictures are never a target."""
    rows, places, targets = answer_targets(layout, labels, logits.shape[-1])
    return F.cross_entropy(logits[rows, places].float(), targets)


def answer_targets(
    layout: Layout, labels: Int[Tensor, "B T"], vocab_size: int
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Of every labelled word its sample, the place that predicts it, and its id. ValueError where there is none, or one
    that the vocabulary does not have."""
    rows, columns, targets = answer_positions(layout, labels)
    if len(targets) == 0:
        raise ValueError("nothing to learn: no word of this batch has a label")
    if targets.min() < 0 or targets.max() >= vocab_size:
        low, high = int(targets.min()), int(targets.max())
        raise ValueError(f"labels run from {low} to {high}, the vocabulary has 0..{vocab_size - 1} ({IGNORE} = none)")
    return rows, layout.predecessor()[rows, columns], targets


def answer_positions(
    layout: Layout, labels: Int[Tensor, "B T"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Sample, position in the sequence, and id of every labelled word, sample by sample. A word that nothing comes
    before (the first of all, or of a question where nothing is shared) cannot be predicted and is left out."""
    targets = labels.gather(1, layout.index.clamp(0, labels.shape[1] - 1)).where(layout.is_text, IGNORE)  # (B, L)
    targets = targets.where(layout.predecessor() >= 0, IGNORE)
    rows, columns = (targets != IGNORE).nonzero(as_tuple=True)
    return rows, columns, targets[rows, columns]
