"""A block on some places of a sequence only: it reads those alone, and all others pass it by (what depths are made of).

Token count: L in, L out, of which the block works on n. From a cache it sees the places that it worked on earlier.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.attention import LayerCache

Block = Callable[..., Tensor]


def highest(scores: Float[Tensor, "B L"], there: Bool[Tensor, "B L"], room: list[int]) -> Bool[Tensor, "B L"]:
    """The places of each sample's `room` highest scores, none of them padding."""
    ranks = scores.masked_fill(~there, -math.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < torch.tensor(room, device=scores.device)[:, None]


def on_picked(
    block: Block,
    x: Float[Tensor, "B L D"],
    r: Float[Tensor, "B L"],
    picked: Bool[Tensor, "B L"],
    most: int,
    mask: Bool[Tensor, "#B 1 L Lk"] | None,
    is_causal: bool,
    angles: tuple[Tensor, Tensor] | None,
    cache: RoutedCache | None,
) -> Float[Tensor, "B L D"]:
    """x + r f(x) at the `picked` places, of a sample at most `most`; x, to the bit, at all others. f is what `block`
    adds to its input. The picked attend among themselves alone, in their order and from where they stand."""
    index = picked.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, n): in order, then what fills up
    real = picked.gather(1, index)
    if mask is not None:
        mask = _mask_among(mask.expand(len(x), -1, -1, -1), index, real, cache)
    if angles is not None:
        angles = tuple(turn.gather(2, _wide(index, turn.shape[-1])[:, None]) for turn in angles)  # (B, 1, n, half)
    few = x.gather(1, _wide(index, x.shape[-1]))  # (B, n, D)
    added = block(few, mask=mask, is_causal=is_causal, angles=angles, cache=cache) - few
    changed = few + r.gather(1, index)[..., None] * added
    return x.scatter(1, _wide(index, x.shape[-1]), torch.where(real[..., None], changed, few))


def _mask_among(
    mask: Bool[Tensor, "B 1 L Lk"], index: Int[Tensor, "B n"], real: Bool[Tensor, "B n"], cache: RoutedCache | None
) -> Bool[Tensor, "B 1 n nk"]:
    """Who of the places at `index` may attend to whom of them, and of those in the cache before them. Without a mask
    no such thing is needed: what fills up stands last, and nobody looks ahead."""
    length, far = mask.shape[2:]
    keys, held = (index, real) if cache is None else cache.admit(index + far - length, real)
    rows = mask[:, 0].gather(1, _wide(index, far))  # (B, n, Lk)
    among = rows.gather(2, keys[:, None].expand(-1, index.shape[1], -1))
    return (among & held[:, None])[:, None]


def _wide(index: Int[Tensor, "B n"], width: int) -> Int[Tensor, "B n width"]:
    return index[..., None].expand(-1, -1, width)


class RoutedCache(LayerCache):
    """Keys and values of the places that a routed block worked on: each sample's own, from the left. `place` says where
    in the sequence each slot's stands, -1 for an empty one."""

    def __init__(self, max_length: int):
        super().__init__(max_length)
        self.place: Tensor | None = None
        self.new: tuple[Tensor, Tensor, Tensor] | None = None

    def admit(
        self, place: Int[Tensor, "B n"], real: Bool[Tensor, "B n"]
    ) -> tuple[Int[Tensor, "B slots"], Bool[Tensor, "B slots"]]:
        """Make room for the keys and values that `append` is given next, which stand at `place` where they are `real`.
        Returns the place of each slot in use (0 for one that is empty), and which are in use."""
        if self.place is None:
            self.place = place.new_full((len(place), self.max_length), -1)
        filled = (self.place >= 0).sum(dim=1, keepdim=True)  # (B, 1)
        self.length = int((filled[:, 0] + real.sum(dim=1)).max())
        if self.length > self.max_length:
            raise ValueError(
                f"the KV cache holds {self.max_length} positions, {self.length} are needed: make a longer cache"
            )
        rows, columns = real.nonzero(as_tuple=True)
        slots = (filled + torch.arange(place.shape[1], device=place.device))[real]
        self.place[rows, slots], self.new = place[real], (rows, columns, slots)
        used = self.place[:, : self.length]
        return used.clamp(min=0), used >= 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.k is None:
            self.k = k.new_zeros(*k.shape[:2], self.max_length, k.shape[3])
            self.v = v.new_zeros(*v.shape[:2], self.max_length, v.shape[3])
        rows, columns, slots = self.new
        self.k[rows, :, slots], self.v[rows, :, slots] = k[rows, :, columns], v[rows, :, columns]
        return self.k[:, :, : self.length], self.v[:, :, : self.length]

    def retain(self, places: Int[Tensor, " n"]) -> None:
        """Forget all but what stands at those places of the sequence, of which each slot's becomes its number."""
        if self.place is None:
            return
        same = self.place[..., None] == places  # (B, slots, n)
        kept = same.any(dim=-1)
        order = kept.int().argsort(dim=1, descending=True, stable=True)  # (B, slots): what is kept, in its order
        self.place = torch.where(kept, same.int().argmax(dim=-1), -1).gather(1, order)
        self.length = int(kept.sum(dim=1).max())
        self.k, self.v = (x.gather(2, order[:, None, :, None].expand_as(x)) for x in (self.k, self.v))
