"""What one sample costs a model that has shapes alone: operations by part, and the memory that passes take.

Operations are those that torch counts: of matrix products, convolutions and attention, a multiply-add as two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minivlm.memory import Memory
from minivlm.model import VLM
from minivlm.shapes import Sample, fused


@torch.no_grad()
def read_flops(sample: Sample) -> dict[str, int]:
    """Operations of one forward pass, by part: a picture and its connector, the decoder with the scores of every
    place's next word, and what the fusion adds to the decoder's."""
    model, kept = _still(sample), {}

    def keep(name: str, run: Callable[[], Tensor | None]) -> int:
        with _counter() as counter:
            kept[name] = run()
        return counter.get_total_flops()

    vision = keep("features", sample.features) if sample.images else 0
    connector = keep("visual", lambda: sample.visual(kept["features"])) if sample.images else 0
    if sample.length == 0:
        return _by_part(sample, vision, connector, 0, 0)
    visual = kept.get("visual")
    fusion = keep("seen", lambda: sample.look(visual))
    x = sample.sequence(visual)
    language = keep("plain", lambda: model.language.logits(sample.read(x, None, plain=True)))
    if "fusion" in model.parts:
        fusion += keep("both", lambda: model.language.logits(sample.read(x, kept["seen"]))) - language
    return _by_part(sample, vision, connector, fusion, language)


@torch.no_grad()
def word_flops(sample: Sample) -> dict[str, int]:
    """Operations of one more word, by part, when keys and values of all before it are kept. Of a decoder whose blocks
    skip places, the mean: a block runs for as large a share of the words as of the sequence before them."""
    if sample.length == 0:
        return _by_part(sample, 0, 0, 0, 0)
    _still(sample)
    visual = sample.visual(sample.features()) if sample.images else None
    seen = sample.look(visual)
    language = _following(sample, None)
    fusion = _following(sample, seen) - language if "fusion" in sample.model.parts else 0
    return _by_part(sample, 0, 0, fusion, language)


def _following(sample: Sample, seen: Any) -> int:
    spared = 0.0

    def watch(block: Callable[..., Tensor], share: float) -> Callable[..., Tensor]:
        def run(*given: Tensor, **options) -> Tensor:
            nonlocal spared
            before = counter.get_total_flops()
            x = block(*given, **options)
            spared += (1 - share) * (counter.get_total_flops() - before)
            return x

        return run

    with _counter() as counter:
        sample.follow(seen, watch)
    return round(counter.get_total_flops() - spared)


@torch.no_grad()
def reading_bytes(sample: Sample) -> int:
    """The most that new tensors take while the sample is read and its next word is scored: passing states, and the
    cache of keys and values, with room for that word."""
    if sample.length == 0:
        return 0
    language, _ = _still(sample).language, sample.pixels  # which are there before, and do not count
    with fused(), Memory() as memory:
        visual = sample.visual(sample.features()) if sample.images else None
        seen, x = sample.look(visual), sample.sequence(visual)
        visual = None
        room = 2 * (sample.length + 1) * language.config.kv_heads * language.config.dim_per_head
        cache = [x.new_empty(room) for _ in language.blocks]
        language.logits(sample.read(x, seen)[:, -1])
        del cache
    return memory.peak


def learning_bytes(sample: Sample) -> int:
    """The most that new tensors take in one forward and backward pass in which all weights learn, from every word of
    the sample: states kept for the backward pass, and gradients. 0 for a sample without words to learn from."""
    if sample.words == 0 or sample.length < 2:
        return 0
    model = sample.model.train().requires_grad_(True)
    _, targets = sample.pixels, torch.zeros(min(sample.words, sample.length - 1), dtype=torch.long, device="meta")
    try:
        with fused(), Memory() as memory:
            _loss(sample, targets).backward()
    finally:
        model.zero_grad()
    return memory.peak


def kept_bytes(sample: Sample, trains: Collection[str]) -> int:
    """The most that new tensors take in one forward pass of which only these parts learn: nearly all of it is states
    that are kept for the backward pass."""
    model = sample.model.train().requires_grad_(False)
    for part in trains:
        getattr(model, part).requires_grad_(True)
    _, targets = sample.pixels, torch.zeros(min(sample.words, sample.length - 1), dtype=torch.long, device="meta")
    with fused(), Memory() as memory:
        _loss(sample, targets)
    return memory.peak


def _loss(sample: Sample, targets: Tensor) -> Tensor:
    visual = sample.visual(sample.features()) if sample.images else None
    hidden = sample.read(sample.sequence(visual), sample.look(visual))
    language = sample.model.language
    logits = language.logits(hidden)[0][torch.arange(len(targets), device="meta")]  # (words, V), a copy
    return F.cross_entropy(logits.float(), targets) + language.aside()


def _still(sample: Sample) -> VLM:
    """The model, in which nothing learns: a counter would look in vain for the history of a weight's views. Depths
    stay in training, when they work on as many places as they are meant to."""
    return sample.model.requires_grad_(False)


def _counter() -> Any:
    from torch.utils.flop_counter import FlopCounterMode  # takes as long to import as all of minivlm

    return FlopCounterMode(display=False)


def _by_part(sample: Sample, vision: int, connector: int, fusion: int, language: int) -> dict[str, int]:
    counts = dict(vision=vision, connector=connector, separators=0, fusion=fusion, language=language)
    return {part: counts[part] for part in sample.model.parts}
