"""Choices: which of some answers is the likeliest, by the log-probability of each, read in one pass.

The question stands before all answers; each is a segment that sees the picture and the question, and no other answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch, Encodes
from minivlm.model import VLM, answer_positions


@torch.no_grad()
def choice_scores(
    model: VLM,
    tokenizer: Encodes,
    question: str,
    choices: Sequence[str],
    features: Float[Tensor, "S M N D"] | None,
    batch_size: int = 16,
) -> Float[Tensor, "S C"]:
    """Of S pictures (as `VLM.features` made them), log P of each of the C answers to `question`, its end included.
    Without features: one row, of a model that sees nothing."""
    parts = [None] if features is None else features.split(batch_size)
    return torch.cat([_scores(model, tokenizer, question, choices, part) for part in parts])


def _scores(
    model: VLM, tokenizer: Encodes, question: str, choices: Sequence[str], features: Tensor | None
) -> Float[Tensor, "B C"]:
    weight = next(model.parameters())
    count = 1 if features is None else len(features)
    features = None if features is None else features.to(weight.dtype)
    dialogs = [[("", choice) for choice in choices]] * count
    batch = Batch.pack(tokenizer, dialogs, features=features, contexts=[question] * count)
    batch = batch.to(weight.device)
    output = model(batch)
    rows, places, targets = answer_positions(output.layout, batch.labels)
    scores = output.logits[rows, output.layout.predecessor()[rows, places]].float().log_softmax(dim=-1)
    words = scores.gather(1, targets[:, None])[:, 0].cpu()  # (n,)
    choice = output.layout.segment[rows, places].cpu() - 1  # segment 0 is what all share
    summed = torch.zeros(count, len(choices))
    return summed.index_put_((rows.cpu(), choice), words, accumulate=True)
