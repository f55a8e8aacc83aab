"""Skipping: which places a decoder with depths works on, and what it saves by passing the others by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minivlm.batch import Batch
from minivlm.data.tasks import Question
from minivlm.language.depths import DepthsConfig
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.model import VLM, Output
from minivlm.streams import Bank


def worked(output: Output, config: DepthsConfig) -> Bool[Tensor, "blocks B L"]:
    """On which places each block of the decoder worked; never on padding. ValueError without captured routes."""
    names = [f"language.routers.{number}.route" for number in range(len(config.routed))]
    if not all(name in output.maps for name in names):
        raise ValueError("no routes in this output: run a design with depths, with capture=True")
    every = [output.layout.valid] * config.depth
    for block, name in zip(config.routed, names, strict=True):
        every[block] = output.maps[name]
    return torch.stack(every)


@torch.no_grad()
def shares_worked(
    model: VLM, features: Float[Tensor, "S M N D"], asked: Sequence[Sequence[Question]]
) -> dict[str, float]:
    """Of all places of "pictures" and of "words", the share that the routed blocks work on; all, where there are
    none."""
    if not isinstance(model.config.language, DepthsConfig):
        return {"pictures": 1.0, "words": 1.0}
    dialogs = [[(q.text, q.answer) for q in sample] for sample in asked]
    output = model(Batch.pack(mini_tokenizer(), dialogs, features=features).to(next(model.parameters()).device), True)
    routes = worked(output, model.config.language)[list(model.config.language.routed)].float().mean(dim=0)  # (B, L)
    kinds = {"pictures": output.layout.is_visual, "words": output.layout.is_text}
    return {name: float(routes[there].mean()) for name, there in kinds.items()}


def long_batch(bank: Bank, pictures: int) -> Batch:
    """So many pictures one after the other, and a question: a sequence in which skipping shows."""
    tokenizer = mini_tokenizer()
    words = [tokenizer.bos_id, *[tokenizer.image_id] * pictures, *tokenizer.encode("what color is the circle ?")]
    return Batch(None, torch.tensor([words]), features=bank.features[:pictures].transpose(0, 1))


@torch.no_grad()
def operations(model: VLM, batch: Batch) -> int:
    """Floating-point operations of reading a batch, counted in this very pass (a multiply-add counts as two). With
    attention written out, of which all pairs count: of the fused kernel on a CPU the counter knows nothing."""
    with FlopCounterMode(display=False) as counter:
        model(batch, capture=True)
    return counter.get_total_flops()


@torch.no_grad()
def milliseconds(models: Mapping[str, VLM], batch: Batch, rounds: int) -> dict[str, float]:
    """Of reading a batch, the median of so many rounds, in each of which every model has its turn: what else the
    machine does meanwhile, it does to all. One round before them warms up."""
    took: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model(batch).logits[0, -1, 0].item()  # the number is there only when a GPU is done
            took[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times[1:]) for name, times in took.items()}


@contextmanager
def highest_picked(model: VLM, capacity: float) -> Iterator[None]:
    """Inside, routed blocks work on the share `capacity` of a sequence's places, those of the highest scores: the rule
    of training, which looks ahead. To look at, not to speak with."""
    decoder, config = model.language, model.language.config
    model.train()
    decoder.config = replace(config, capacity=capacity)
    try:
        yield
    finally:
        decoder.config = config
        model.eval()
