"""What a design costs: visual tokens, weights, multiplications and cache, counted on a model that is never
allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from minivlm.batch import Batch
from minivlm.designs import configure
from minivlm.model import VLM, VLMConfig
from minivlm.vision.vision import VisionConfig
from minivlm.vision.vit import TowerConfig

BYTES = 2  # of a number in 16 bits, in which published systems are served


@dataclass(frozen=True)
class Budget:
    """Costs of one design for `images` pictures of one size and `words` words.

    visual_tokens      what the decoder is given of all pictures
    positions          length of its sequence: `words`, and what pictures take of it: their tokens, or one place each
                       where words look at them from outside
    weights            number of weights by part
    flops              floating-point operations of reading pictures and words, by part (a multiply-add counts as two)
    image_cache_bytes  keys and values of the pictures kept for decoding, at two bytes a number
    text_cache_bytes   those of the words
    memory_bytes       weights and cache, at two bytes a number: what decoding must hold, less its passing states
    """

    name: str
    preset: str
    image_size: tuple[int, int]
    images: int
    words: int
    visual_tokens: int
    positions: int
    weights: dict[str, int]
    flops: dict[str, int]
    image_cache_bytes: int
    text_cache_bytes: int

    @property
    def cache_bytes(self) -> int:
        return self.image_cache_bytes + self.text_cache_bytes

    @property
    def memory_bytes(self) -> int:
        return BYTES * sum(self.weights.values()) + self.cache_bytes

    def fits(self, gigabytes: float) -> bool:
        """Have weights and cache room in so much memory (1 GB = 1e9 bytes)?"""
        return self.memory_bytes <= gigabytes * 1e9

    def __str__(self) -> str:
        height, width = self.image_size
        pictures = f"one {height}x{width} picture" if self.images == 1 else f"{self.images} {height}x{width} pictures"
        lines = [f"{self.name} ({self.preset}), {pictures}, {self.words} words"]
        lines += [f"  visual tokens  {self.visual_tokens:,}"]
        lines += [
            f"  {part:13}  {n / 1e6:10,.1f} M weights  {self.flops[part] / 1e9:12,.2f} GFLOPs"
            for part, n in self.weights.items()
        ]
        return "\n".join([*lines, f"  KV cache       {self.cache_bytes / 2**20:,.1f} MiB in 16-bit"])


def budget(
    name: str,
    preset: str = "published",
    words: int = 64,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    images: int = 1,
) -> Budget:
    """Count `name` in that preset, reading `images` pictures and `words` words.

    `image_size` (one side, or (H, W), in pixels) and `patch_size` replace the preset's. ValueError for a design without
    a decoder, which has no sequence to spend, and for pictures that hold no whole patch.
    """
    if words < 0 or images < 0:
        raise ValueError(f"words and images must be 0 or more, got {words} and {images}")
    config = configure(name, preset)
    if not isinstance(config, VLMConfig):
        raise ValueError(f"{name} has no decoder, so no token budget; ask for one of the designs that answer questions")
    config = replace(config, vision=_resized(config.vision, image_size, patch_size))
    with torch.device("meta"):
        model = config.build()
    tokens = images * config.num_tokens
    taken = tokens if model.fusion.opens else images
    per_key = BYTES * 2 * config.language.kv_heads * config.language.dim_per_head
    kept = model.language.kept(taken)
    return Budget(
        name,
        preset,
        config.vision.image_size,
        images,
        words,
        tokens,
        taken + words,
        {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in model.parts},
        dict(_flops(model, images, words, taken)),
        per_key * kept + BYTES * model.fusion.kept(tokens),
        per_key * (model.language.kept(taken + words) - kept),
    )


def _resized(vision: VisionConfig, image_size: int | tuple[int, int] | None, patch_size: int | None) -> VisionConfig:
    """The same with pictures, or patches, of another size. Of two encoders the second sees what it always sees."""
    if image_size is not None:
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        vision = _changed(vision, ("tower", "high"), image_size=sides)
    if patch_size is not None:
        vision = _changed(vision, ("tower", "high", "low"), patch_size=patch_size)
    return vision


def _changed(vision: VisionConfig | TowerConfig, inside: tuple[str, ...], **change: Any) -> VisionConfig | TowerConfig:
    """With another value of a field, its own or else that of the towers `inside` it."""
    if change.keys() <= {field.name for field in fields(vision)}:
        return replace(vision, **change)
    towers = {name: getattr(vision, name) for name in inside if hasattr(vision, name)}
    return replace(vision, **{name: _changed(tower, inside, **change) for name, tower in towers.items()})


@torch.no_grad()
def _flops(model: VLM, images: int, words: int, taken: int) -> Iterator[tuple[str, int]]:
    """Counted by running each part on tensors that have a shape but no numbers; a picture costs what every other
    does. The pictures take `taken` places of the sequence."""
    config = model.config
    picture = torch.empty(1, 1, 3, *config.vision.image_size, device="meta")
    features = torch.empty(1, config.num_features, config.vision.width, device="meta")
    asked = torch.zeros(1, max(1, words), dtype=torch.long, device="meta")
    # a connector that reads the question reads all the words, or as many as it can
    asking = Batch(None, asked, instruction=asked[:, : model.connector.max_words])
    length = words + taken
    # under no_grad a view of a weight still says it requires a gradient, and the counter looks for its history in vain
    model.requires_grad_(False)
    sequence = torch.empty(1, length, config.language.width, device="meta")
    visual_width = config.fusion.visual_width or config.language.width
    visual = torch.empty(1, images, config.num_tokens, visual_width, device="meta")
    runs = {
        "vision": (images, lambda: model.features(picture)),
        "connector": (images, lambda: model.connect(features[None], asking)),
        "fusion": (int(length > 0), lambda: model.fusion.added(sequence, visual)),
        "language": (int(length > 0), lambda: model.language.logits(model.language(sequence))),
    }
    for part, (times, run) in runs.items():
        if part not in model.parts:
            continue
        with FlopCounterMode(display=False) as counter:
            if times:
                run()
        yield part, times * counter.get_total_flops()
