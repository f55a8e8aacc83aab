"""What a design costs: visual tokens, weights, multiplications and cache, counted on a model that is never
allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from minivlm.designs import build
from minivlm.model import VLM


@dataclass(frozen=True)
class Budget:
    """Costs of one design for one picture and `words` words.

    visual_tokens  positions that the picture takes in the decoder's sequence
    weights        number of weights by part
    flops          floating-point operations of reading picture and words, by part (a multiply-add counts as two)
    cache_bytes    keys and values kept for decoding, at two bytes a number
    """

    name: str
    preset: str
    image_size: tuple[int, int]
    words: int
    visual_tokens: int
    weights: dict[str, int]
    flops: dict[str, int]
    cache_bytes: int

    def __str__(self) -> str:
        lines = [
            f"{self.name} ({self.preset}), one {self.image_size[0]}x{self.image_size[1]} picture, {self.words} words"
        ]
        lines += [f"  visual tokens  {self.visual_tokens:,}"]
        lines += [
            f"  {part:13}  {n / 1e6:10,.1f} M weights  {self.flops[part] / 1e9:12,.2f} GFLOPs"
            for part, n in self.weights.items()
        ]
        return "\n".join([*lines, f"  KV cache       {self.cache_bytes / 2**20:,.1f} MiB in 16-bit"])


def budget(name: str, preset: str = "published", words: int = 64) -> Budget:
    """Count `name` in that preset. ValueError for a design without a decoder, which has no sequence to spend."""
    if words < 0:
        raise ValueError(f"words must be 0 or more, got {words}")
    model = build(name, preset, device="meta")
    if not isinstance(model, VLM):
        raise ValueError(f"{name} has no decoder, so no token budget; ask for one of the designs that answer questions")
    config = model.config
    tokens = model.connector.num_tokens(config.vision.grid)
    per_position = 2 * config.language.depth * config.language.kv_heads * config.language.dim_per_head
    return Budget(
        name,
        preset,
        config.vision.image_size,
        words,
        tokens,
        {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in VLM.PARTS},
        dict(_flops(model, tokens, words)),
        per_position * (tokens + words) * 2,
    )


@torch.no_grad()
def _flops(model: VLM, tokens: int, words: int) -> Iterator[tuple[str, int]]:
    """Counted by running each part on tensors that have a shape but no numbers."""
    config = model.config
    images = torch.empty(1, 1, 3, *config.vision.image_size, device="meta")
    features = torch.empty(1, config.vision.num_patches, config.vision.width, device="meta")
    sequence = torch.empty(1, tokens + words, config.language.width, device="meta")
    runs = {
        "vision": lambda: model.features(images),
        "connector": lambda: model.connector(features),
        "language": lambda: model.language.logits(model.language(sequence)),
    }
    for part, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run()
        yield part, counter.get_total_flops()
