"""A model run on shapes: tensors of torch's meta device, which have a size and hold no number, so that what a system of
many billions of weights computes and keeps can be counted on any machine.

The road is that of `VLM.forward`, and so are the modules; only what depends on numbers is laid out for real.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minivlm.batch import Batch
from minivlm.layout import Layout, Views
from minivlm.model import VLM, VLMConfig

_MADE = {torch.empty, torch.rand, torch.randn, torch.zeros, torch.ones}
_FILLS = {Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_, Tensor.copy_, Tensor.mul_}
_SHIFTS = {Tensor.add, Tensor.mul}


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's collector waits: of modules made by the ten thousand, none is garbage, and it looks at all of torch."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def unfilled(config: VLMConfig, bits: int = 32) -> VLM:
    """That model on the meta device, its numbers of 16 or 32 bits, and none drawn for weights that hold nothing:
    several times as fast as `build(device="meta")`."""
    number = torch.bfloat16 if bits == 16 else torch.float32
    with uncollected(), _Unfilled(number):
        model = config.build()
    whole = all(tensor.is_meta for tensor in chain(model.parameters(), model.buffers()))
    return model if whole else model.to("meta", number)


class _Unfilled(TorchFunctionMode):
    """What makes weights makes their shape, and what fills, shifts or scales them with numbers does nothing. Tables
    that are computed are computed."""

    def __init__(self, number: torch.dtype):
        super().__init__()
        self.like = dict(device="meta", dtype=number)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            return func(*args, **kwargs)
        if func in _MADE:
            return torch.empty(*args, **{**kwargs, **self.like})
        if func is torch.full:
            return torch.empty(args[0], **self.like)
        if func is torch.tensor:
            return func(*args, **{**kwargs, **self.like})
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in _FILLS or (func in _SHIFTS and args[0].is_meta and not isinstance(args[1], Tensor)):
            return args[0]
        return func(*args, **kwargs)


@contextmanager
def fused() -> Iterator[None]:
    """Have attention run the kernel that never holds all scores at once: on the meta device torch takes one that does.
    Where a bias is learned, torch's CPU kernel holds them too."""
    with _Fused():
        yield


class _Fused(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        mask = kwargs.get("attn_mask")
        learned = mask is not None and mask.requires_grad and torch.is_grad_enabled()
        if func is not F.scaled_dot_product_attention or learned:
            return func(*args, **kwargs)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.empty(mask.shape, dtype=args[0].dtype, device="meta")  # what torch makes of a boolean one
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(*args, 0.0, kwargs.get("is_causal", False), attn_mask=mask)[0]


@dataclass(frozen=True)
class Sample:
    """One sample for a `model` on the meta device: `images` pictures of `size` (height, width), then `words` words."""

    model: VLM
    size: tuple[int, int]
    images: int
    words: int

    @cached_property
    def pictures(self) -> list[Views]:
        return [self.model.config.vision.views(self.size)] * self.images

    @cached_property
    def layout(self) -> Layout:
        """What stands where, for real: on it depends which maps a place passes."""
        model, image = self.model, self.model.image_token_id
        word = (image + 1) % model.config.language.vocab_size
        ids = torch.tensor([[image] * self.images + [word] * self.words], dtype=torch.long)  # (1, M + words)
        picture = model._arranged(self.pictures or [model.config.vision.views(self.size)], 1)
        return model.fusion.arrange(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids), picture, image)

    @property
    def length(self) -> int:
        return self.layout.kind.shape[1] if self.images + self.words else 0

    @cached_property
    def pixels(self) -> Float[Tensor, "1 M 3 H W"]:
        return self.model.language.head.weight.new_empty(1, self.images, 3, *self.size)

    def features(self) -> Float[Tensor, "1 M N D"]:
        """What the encoder makes of the pictures."""
        return self.model.features(self.pixels)

    def visual(self, features: Float[Tensor, "1 M N D"]) -> Float[Tensor, "1 M K Dv"]:
        """What the connector makes of that; one that reads the question reads all the words, or as many as it can."""
        ids = self._ids(max(1, self.words))
        asked = Batch(None, ids, instruction=ids[:, : self.model.connector.max_words])
        return self.model.connect(features, asked, self.pictures)

    def sequence(self, visual: Float[Tensor, "1 M K Dv"] | None) -> Float[Tensor, "1 L D"]:
        """The vectors that the decoder reads."""
        opens = visual is not None and self.model.fusion.opens
        words = self.model.language.embedding(self._ids(self.words if opens else self.words + self.images))
        return torch.cat([visual.flatten(1, 2), words], dim=1) if opens else words

    def look(self, visual: Float[Tensor, "1 M K Dv"] | None) -> Any:
        return self.model.fusion.look(visual, self.layout)

    def read(self, x: Float[Tensor, "1 L D"], seen: Any, plain: bool = False) -> Float[Tensor, "1 L D"]:
        """Hidden states of every place; `plain`: the decoder alone, its fusion left out. A mask says who sees whom, as
        in every batch that may be padded, but for depths, which would look into it for padding."""
        model, length = self.model, x.shape[1]
        blocks = None if plain else model.fusion.blocks(model.language, self.layout, seen)
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device="meta")
        return model.language(x, None, mask if model.language.inner is model.language else None, None, blocks)

    def follow(self, seen: Any, watch: Callable[[Callable[..., Tensor], float], Callable[..., Tensor]]) -> Tensor:
        """Scores of the word after one more, (1, 1, V), from keys and values kept of all before it. `watch` is given
        every block, and how often it runs: depths run one for as large a share of words as of the sequence before."""
        language, length = self.model.language, self.length
        blocks = self.model.fusion.blocks(language, self.layout.following(), seen)
        x, kept = language.embedding(self._ids(1)), language.keeps(length)
        cache = [self._filled(language, count) for count in kept]
        runs = [watch(_among(block, n), n / length) for block, n in zip(blocks, kept, strict=True)]
        language.decide(x)
        mask = torch.ones(1, 1, 1, length + 1, dtype=torch.bool, device="meta")
        return language.logits(language.inner(x, None, mask, cache, runs))

    def _filled(self, language: Any, count: int) -> Any:
        """A cache of `count` places, and room for one more."""
        cache, config = language.inner.make_cache(count + 1)[0], language.config
        if count:
            keys = (language.head.weight.new_empty(1, config.kv_heads, count, config.dim_per_head) for _ in range(2))
            cache.append(*keys)
        return cache

    def _ids(self, count: int) -> Int[Tensor, "1 count"]:
        return torch.zeros(1, count, dtype=torch.long, device="meta")


def _among(block: Callable[..., Tensor], keys: int) -> Callable[..., Tensor]:
    """`block` for one place that sees itself and so many `keys` kept before it."""

    def run(x: Tensor, mask: Tensor, **options) -> Tensor:
        return block(x, mask=mask[..., : keys + 1], **options)

    return run
