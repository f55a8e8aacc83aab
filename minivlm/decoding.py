"""Decoding at shapes that never change: every word is said by the same operations on the same memory, so that they can
be compiled, or captured as a graph that a GPU replays. The words are those of `VLM.generate`.

The cache is whole from the start. A mask, not a length, says how much of it is filled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.attention import LayerCache
from minivlm.batch import Batch
from minivlm.language.routed import RoutedCache
from minivlm.model import VLM

Step = Callable[[], object]


class FixedCache(LayerCache):
    """A layer's keys and values in buffers like those of `begun`: new ones go to the slot `place`, a number in a tensor
    of one, and all slots are handed on, filled or not."""

    def __init__(self, begun: LayerCache, place: Int[Tensor, "1"]):
        super().__init__(begun.max_length)
        self.place, self.k, self.v = place, torch.zeros_like(begun.k), torch.zeros_like(begun.v)

    def copy_(self, begun: LayerCache) -> None:
        """Hold what `begun` holds."""
        for mine, other in ((self.k, begun.k), (self.v, begun.v)):
            mine[:, :, : begun.length] = other[:, :, : begun.length]

    def append(self, k: Float[Tensor, "B H 1 d"], v: Float[Tensor, "B H 1 d"]) -> tuple[Tensor, Tensor]:
        return self.k.index_copy_(2, self.place, k), self.v.index_copy_(2, self.place, v)


class FixedDecoding:
    """Says `words` words after any batch that becomes a sequence as long as `batch` does, of as many samples.

    `faster` makes the step from word to word: `torch.compile`, or `captured` on a GPU (default: as it is). ValueError
    for a design whose words look at pictures from outside their sequence, or whose blocks skip places.
    """

    @torch.no_grad()
    def __init__(self, model: VLM, batch: Batch, words: int, faster: Callable[[Step], Step] | None = None):
        if words < 1:
            raise ValueError(f"words must be at least 1, got {words}")
        self.model, self.words = model, words
        hidden, layout, mask, seen, cache = model._begin(batch, words)
        if seen is not None or any(isinstance(layer, RoutedCache) for layer in cache):
            raise ValueError("this design's words look at pictures from outside, or skip blocks: use VLM.generate")
        self.place = torch.zeros(1, dtype=torch.long, device=hidden.device)
        self.word = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        self.layout, self.mask = layout, torch.zeros_like(mask)
        self.cache = [FixedCache(layer, self.place) for layer in cache]
        self.step = faster(self._step) if faster else self._step

    def _step(self) -> None:
        """Read the latest word and say the next: all that changes is numbers in tensors."""
        self.mask.index_fill_(3, self.place, True)
        x = self.model.language.embedding(self.word)[:, None]  # (B, 1, D)
        hidden = self.model._read(x, self.layout, None, self.mask, self.cache)
        self.word.copy_(self.model.language.logits(hidden[:, 0]).argmax(dim=-1))
        self.place.add_(1)
        self.layout.position.add_(1)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Int[Tensor, "B words"]:
        """The words after a batch; after a sample's end `eos_id`. ValueError for a batch of another shape."""
        hidden, layout, mask, _, cache = self.model._begin(batch, self.words)
        if mask.shape != self.mask.shape:
            wanted, got = ((shape[0], shape[-1] - self.words) for shape in (self.mask.shape, mask.shape))
            raise ValueError(f"made for (samples, places) {wanted}, got {got}: make another FixedDecoding")
        begun = mask.shape[-1] - self.words
        self.mask.copy_(mask)
        self.mask[..., begun:] = False
        self.place.fill_(begun)
        self.layout.position.copy_(layout.position)
        for mine, layer in zip(self.cache, cache, strict=True):
            mine.copy_(layer)
        self.word.copy_(self.model.language.logits(hidden).argmax(dim=-1))
        said = [self.word.clone()]
        for _ in range(self.words - 1):
            self.step()
            said.append(self.word.clone())
        return self._ended(torch.stack(said, dim=1))

    def _ended(self, said: Int[Tensor, "B words"]) -> Int[Tensor, "B words"]:
        eos_id = self.model.config.eos_id
        ended = (said == eos_id).cumsum(dim=1) > 0
        return said.masked_fill(ended, eos_id)


def captured(step: Step) -> Step:
    """`step` as a CUDA graph: one launch for all its kernels. It must work on the same memory each time."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        step()  # what libraries set up at their first use cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        step()
    return graph.replay
