"""What a design costs: visual tokens, weights, operations, cache and memory, counted on a model that is never
allocated, and each only once it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from minivlm.costs import learning_bytes, read_flops, reading_bytes, word_flops
from minivlm.designs import configure
from minivlm.model import VLM, VLMConfig
from minivlm.shapes import Sample, unfilled
from minivlm.vision.vision import VisionConfig
from minivlm.vision.vit import TowerConfig

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Budget:
    """Costs of one design for a sample of `images` pictures of `image_size` (height, width) and `words` words.

    read_size          what such a picture is resized to: its own size for a design that reads any
    visual_tokens      what the decoder is given of all pictures
    positions          length of its sequence: `words`, and what pictures take of it: their tokens, or one place each
                       where words look at them from outside
    weights            number of weights by part
    flops              floating-point operations of one forward pass over pictures and words, by part (a multiply-add
                       counts as two), the scores of every place's next word among them
    word_flops         those of one more word, by part, when keys and values of all before it are kept
    image_cache_bytes  keys and values of the pictures kept for decoding
    text_cache_bytes   those of the words
    memory_bytes       weights and cache: what decoding must hold, less its passing states
    prefill_bytes      the most that new tensors take while the sample is read into the cache, the cache among them and
                       the weights not
    training_bytes     the most that new tensors take in one forward and backward pass over this one sample in which
                       all weights learn from every word: states kept and gradients; not the weights, nor what an
                       optimiser keeps of them (AdamW: two numbers each)

    Bytes are of numbers in `bits` bits, weights and gradients too; masks are a byte a place, losses 32 bits. What a
    kernel needs within itself, or an allocator rounds up, is not counted; attention is fused, but for a learned bias.
    """

    name: str
    preset: str
    config: VLMConfig
    image_size: Size
    images: int
    words: int
    bits: int = 16

    def __post_init__(self):
        if self.words < 0 or self.images < 0:
            raise ValueError(f"words and images must be 0 or more, got {self.words} and {self.images}")
        if self.bits not in (16, 32):
            raise ValueError(f"numbers have 16 or 32 bits, got {self.bits}")
        if min(self.image_size) < 1:
            raise ValueError(f"a picture of {self.image_size[0]}x{self.image_size[1]} pixels shows nothing")
        self.config.vision.views(self.read_size)  # ValueError where nothing is left of it

    @property
    def read_size(self) -> Size:
        vision = self.config.vision
        return self.image_size if getattr(vision, "any_size", False) else tuple(vision.image_size)

    @cached_property
    def model(self) -> VLM:
        """The design, its weights without numbers."""
        return unfilled(self.config, self.bits)

    @cached_property
    def sample(self) -> Sample:
        return Sample(self.model, self.read_size, self.images, self.words)

    @cached_property
    def visual_tokens(self) -> int:
        views = self.config.vision.views(self.read_size)
        return self.images * len(self.model.separators.arrange(views, self.model.connector)[0])

    @property
    def positions(self) -> int:
        return self.words + self._taken

    @property
    def _taken(self) -> int:
        return self.visual_tokens if self.model.fusion.opens else self.images

    @cached_property
    def weights(self) -> dict[str, int]:
        model = self.model
        return {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in model.parts}

    @cached_property
    def flops(self) -> dict[str, int]:
        return read_flops(self.sample)

    @cached_property
    def word_flops(self) -> dict[str, int]:
        return word_flops(self.sample)

    @cached_property
    def prefill_bytes(self) -> int:
        return reading_bytes(self.sample)

    @cached_property
    def training_bytes(self) -> int:
        return learning_bytes(self.sample)

    @property
    def image_cache_bytes(self) -> int:
        beside = self.bits // 8 * self.model.fusion.kept(self.visual_tokens)
        return self._decoder_cache(self._taken) + beside

    @property
    def text_cache_bytes(self) -> int:
        return self._decoder_cache(self.positions) - self._decoder_cache(self._taken)

    def _decoder_cache(self, length: int) -> int:
        sizes = self.config.language
        return self.bits // 8 * 2 * sizes.kv_heads * sizes.dim_per_head * sum(self.model.language.keeps(length))

    @property
    def cache_bytes(self) -> int:
        return self.image_cache_bytes + self.text_cache_bytes

    @property
    def memory_bytes(self) -> int:
        return self.bits // 8 * sum(self.weights.values()) + self.cache_bytes

    def fits(self, gigabytes: float) -> bool:
        """Have weights and cache room in so much memory (1 GB = 1e9 bytes)?"""
        return self.memory_bytes <= gigabytes * 1e9

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._parts(), *self._bytes()])

    def _head(self) -> list[str]:
        (height, width), (high, wide) = self.image_size, self.read_size
        pictures = f"one {height}x{width} picture" if self.images == 1 else f"{self.images} {height}x{width} pictures"
        views = self.config.vision.views(self.read_size)
        grids = " + ".join(f"{rows}x{cols}" for rows, cols in views)
        own = (high, wide) == (height, width)
        how = "read as it comes" if own else f"resized to {high}x{wide}, the only size that this design reads"
        return [
            f"{self.name} ({self.preset}), {pictures}, {self.words} words",
            f"  a picture      {how}: {grids} patches",
            f"  visual tokens  {self.visual_tokens:,}",
            f"  positions      {self.positions:,}",
        ]

    def _parts(self) -> list[str]:
        rows = [(part, self.weights[part], self.flops[part], self.word_flops[part]) for part in self.weights]
        rows += [("in all", *(sum(row[column] for row in rows) for column in (1, 2, 3)))]
        head = f"  {'':13}  {'M weights':>12}  {'GFLOP to read':>14}  {'GFLOP a word':>13}"
        return [head] + [
            f"  {name:13}  {n / 1e6:>12,.1f}  {read / 1e9:>14,.2f}  {word / 1e9:>13,.3f}"
            for name, n, read, word in rows
        ]

    def _bytes(self) -> list[str]:
        kept = {"pictures": self.image_cache_bytes, "words": self.text_cache_bytes}
        told = ", ".join(f"{count / 2**20:,.1f} MiB of {what}" for what, count in kept.items())
        return [
            f"  KV cache       {self.cache_bytes / 2**20:,.1f} MiB in {self.bits}-bit ({told})",
            f"  reading takes  {self.prefill_bytes / 2**20:,.1f} MiB at its most: passing states and the cache",
            f"  a step takes   {self.training_bytes / 2**20:,.1f} MiB at its most: states kept for the backward pass, "
            "and gradients",
            f"  weights take   {self.bits // 8 * sum(self.weights.values()) / 2**20:,.1f} MiB beside them",
        ]


def budget(
    design: str | VLMConfig,
    preset: str = "published",
    words: int = 64,
    image_size: int | Size | None = None,
    images: int = 1,
    encoder_size: int | Size | None = None,
    patch_size: int | None = None,
    bits: int = 16,
) -> Budget:
    """Count a `design`, by its name in that preset or by its configuration, reading `images` pictures and `words`
    words.

    `image_size` (one side, or (H, W), in pixels; None: the design's own) is that of the pictures. A design that reads
    one size only resizes them, and nothing else changes; `encoder_size` and `patch_size` make another design of it,
    whose encoder is built for pictures, or cuts patches, of that size. Of two encoders the second sees what it always
    sees. ValueError for a design without a decoder, which has no sequence to spend, and for pictures that hold no whole
    patch.
    """
    if not isinstance(design, str | VLMConfig):
        raise TypeError(f"give the name of a design or the configuration of one, got {type(design).__name__}")
    config = configure(design, preset) if isinstance(design, str) else design
    name = design if isinstance(design, str) else "a design of your own"
    if not isinstance(config, VLMConfig):
        raise ValueError(f"{name} has no decoder, so no token budget; ask for one of the designs that answer questions")
    config = replace(config, vision=_remade(config.vision, encoder_size, patch_size))
    size = tuple(config.vision.image_size) if image_size is None else _sides(image_size)
    return Budget(name, preset, config, size, images, words, bits)


def _sides(size: int | Size) -> Size:
    sides = (size, size) if isinstance(size, int) else size
    if isinstance(sides, str) or not all(isinstance(side, int) for side in sides):
        raise TypeError(f"a size is one side, or height and width, in whole pixels; got {size!r}")
    if len(sides) != 2:
        raise ValueError(f"a size is one side, or height and width; got {len(sides)} numbers: {tuple(size)}")
    return tuple(sides)


def _remade(vision: VisionConfig, encoder_size: int | Size | None, patch_size: int | None) -> VisionConfig:
    """The same, made for pictures, or for patches, of another size."""
    if encoder_size is not None:
        vision = _changed(vision, ("tower", "high"), image_size=_sides(encoder_size))
    if patch_size is not None:
        vision = _changed(vision, ("tower", "high", "low"), patch_size=patch_size)
    return vision


def _changed(vision: VisionConfig | TowerConfig, inside: tuple[str, ...], **change: Any) -> VisionConfig | TowerConfig:
    """With another value of a field, its own or else that of the towers `inside` it."""
    if change.keys() <= {field.name for field in fields(vision)}:
        return replace(vision, **change)
    towers = {name: getattr(vision, name) for name in inside if hasattr(vision, name)}
    return replace(vision, **{name: _changed(tower, inside, **change) for name, tower in towers.items()})
