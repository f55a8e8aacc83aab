"""Streaming: pictures and words arrive one after another without end, and the model keeps a window of what it has read.

The keys and values of the `keep` latest places stay, and of the `sinks` first ones, on which attention that needs
nothing rests (Xiao et al. 2024, arXiv:2309.17453); all others are forgotten, so memory does not grow. What was
forgotten lives on only in what later places made of it. Positions go on counting (the paper counts within the window),
so a decoder says nothing sensible further from its beginning than it was trained to read.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.attention import LayerCache
from minivlm.batch import Batch
from minivlm.layers import check_positive
from minivlm.model import VLM


class StreamingReader:
    """One reading of `model`, in pieces of at most `longest` places; of what was read before a piece it sees at most
    `sinks` + `keep` places.

    `places` counts what has been read, `cache` holds what is kept of it. ValueError for a design whose words look at
    pictures from outside their sequence, or ahead: it has no such window.
    """

    def __init__(self, model: VLM, keep: int, sinks: int = 0, longest: int = 256):
        check_positive(keep=keep, longest=longest)
        if sinks < 0:
            raise ValueError(f"sinks must be 0 or more, got {sinks}")
        if not (model.fusion.opens and model.fusion.causal):
            raise ValueError(
                f"{type(model.fusion).__name__} keeps pictures outside the sequence or looks ahead in it: take an "
                "interleaved design"
            )
        self.model, self.keep, self.sinks, self.longest = model, keep, sinks, longest
        self.places = self.position = self.held = 0
        self.cache: list[LayerCache] = model.language.make_cache(sinks + keep + longest)

    @torch.no_grad()
    def read(self, batch: Batch) -> Float[Tensor, "B L V"]:
        """Read a piece: pictures, words or both, of B streams that are as long as each other. Returns the scores of the
        next word at each of its L places."""
        if batch.text_mask is not None or batch.segments is not None:
            raise ValueError("a piece has neither padding nor questions side by side: leave text_mask and segments out")
        x, layout, seen = self.model._sequence(batch)
        length = x.shape[1]
        if length > self.longest or not layout.valid.all():
            raise ValueError(
                f"a piece of {layout.lengths.tolist()} places: all streams must be as long, and at most {self.longest}"
            )
        mask = torch.ones(length, self.held + length, dtype=torch.bool, device=x.device).tril(self.held)
        moved = replace(layout, position=layout.position + self.position)
        hidden = self.model._read(x, moved, seen, mask[None, None], self.cache)
        self.places, self.position = self.places + length, int(moved.position.max()) + 1
        self._forget(self.held + length, x.device)
        return self.model.language.logits(hidden)

    def _forget(self, held: int, device: torch.device) -> None:
        """All of `held` places but the first and the latest."""
        self.held = min(held, self.sinks + self.keep)
        if held > self.held:
            kept = [*range(self.sinks), *range(held - self.keep, held)]
            for layer in self.cache:
                layer.retain(torch.tensor(kept, device=device))
