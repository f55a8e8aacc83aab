"""What a trained model cost and costs: operations of its training and of one question, keys and values, milliseconds.

Operations are counted in real passes (a multiply-add counts as two), attention written out: of the fused kernel on a
CPU the counter knows nothing, and written out all pairs count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minivlm.attention import capturing
from minivlm.batch import Batch
from minivlm.budget import budget
from minivlm.model import VLM
from minivlm.skipping import milliseconds, operations
from minivlm.train import Stage


def training_flops(model: VLM, stages: Sequence[Stage]) -> int:
    """Operations of all steps of these stages, forward and backward: what one real step of each takes, times their
    number. A part that is frozen counts for what the pass through it takes: forward, and backward where the gradient
    of something before it goes through. The optimizer's, a few for each weight, are not counted. No gradient stays."""
    total = 0
    for stage in stages:
        model.train_only(*stage.trains)
        inputs = [part.to(next(model.parameters()).device) for part in stage.source(0, _rows(stage)).inputs]
        with FlopCounterMode(display=False) as counter:
            model(*inputs, capture=True).loss.backward()
        model.zero_grad()
        total += stage.steps * counter.get_total_flops()
    return total


def _rows(stage: Stage) -> range:
    return range(stage.source.batch_size)


@torch.no_grad()
def encoder_flops(model: VLM, picture: Tensor) -> int:
    """Operations of the encoder on one picture, (1, 1, 3, H, W)."""
    with capturing(model), FlopCounterMode(display=False) as counter:
        model.features(picture)
    return counter.get_total_flops()


@torch.no_grad()
def question_costs(model: VLM, batch: Batch, rounds: int = 30) -> dict[str, float]:
    """Of reading one question, on a picture or on none: operations, bytes of keys and values, and milliseconds."""
    length = int(model(batch).layout.lengths[0])
    return {
        "flops": operations(model, batch),
        "cache_bytes": cache_bytes(model, length, 0 if batch.visual is None else 1),
        "milliseconds": round(milliseconds({"it": model}, batch, rounds)["it"], 3),
    }


def cache_bytes(model: VLM, length: int, pictures: int) -> int:
    """Bytes of keys and values, at two a number, that are kept of a sequence of that length, and of visual tokens that
    are looked at from outside of it."""
    taken = budget(model.config, words=0, images=pictures).positions
    return budget(model.config, words=length - taken, images=pictures).cache_bytes
