"""Depths: in every second block of a decoder a router picks the few places that the block works on; all others pass it
by, unchanged (Mixture-of-Depths, Raposo et al. 2024, arXiv:2404.02258).

Token count: L in, L out; but a routed block reads only ceil(capacity * L) of them. A picture's tokens stand in the same
sequence as the words, so both compete for those places.

The rule of training, the places of the highest scores, looks ahead: whether a place is among them depends on what comes
after it. So it is used in training alone (`Module.training`), without a cache. Everywhere else (`eval`, and whenever
there is a cache) each place decides by itself, by a guess of that rule which has been learned beside it. No weights of
this system were ever released; what the paper leaves open is said where it is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.attention import LayerCache, Tapped
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.routed import Block, RoutedCache, highest, on_picked
from minivlm.layers import MLP, check_positive


@dataclass(frozen=True)
class DepthsConfig:
    """Any `decoder`, whose every `every`-th block, but never the last, works on the share `capacity` of a sequence's
    places.

    `rule`, by which a place is picked where the places after it are not known:
    "predictor"   a small MLP guesses whether it is among the highest scores; its learning moves nothing else
    "auxiliary"   its own score is above 0, as scores learn to be exactly of the highest (which moves the decoder too)
    "random"      a lot, drawn in training too: the control that learned routing must beat
    """

    decoder: DecoderConfig
    capacity: float = 0.125
    every: int = 2
    rule: str = "predictor"

    def __post_init__(self):
        check_positive(every=self.every)
        if not 0 < self.capacity <= 1:
            raise ValueError(f"capacity is a share of the places, above 0 and at most 1; got {self.capacity}")
        if self.rule not in ROUTERS:
            raise ValueError(f"unknown rule {self.rule!r}; choose one of {', '.join(ROUTERS)}")
        if not self.routed:
            first = f"block {self.every} of {self.depth} would be the first that is routed, but the last never is"
            raise ValueError(f"{first}: lower every, or take a deeper decoder")

    @property
    def vocab_size(self) -> int:
        return self.decoder.vocab_size

    @property
    def width(self) -> int:
        return self.decoder.width

    @property
    def depth(self) -> int:
        return self.decoder.depth

    @property
    def kv_heads(self) -> int:
        return self.decoder.kv_heads

    @property
    def dim_per_head(self) -> int:
        return self.decoder.dim_per_head

    @property
    def routed(self) -> range:
        """Which blocks have a router. The last has none: what it alone did to a place of a picture would reach no
        word, and a router learns nothing from such a choice. (In the paper, of text alone, every place is a word.)"""
        return range(self.every - 1, self.depth - 1, self.every)

    def places(self, length: int) -> int:
        """How many of so many places a routed block works on. Rounded up, so that the shortest text has one, without
        which its router could not learn."""
        return math.ceil(self.capacity * length)

    def build(self) -> Depths:
        return Depths(self)


class Router(Tapped):
    """The score r = w . x of every place. The block's output is multiplied by it, which is how w learns."""

    def __init__(self, config: DepthsConfig):
        super().__init__()
        self.score = nn.Linear(config.width, 1, bias=False)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L"]:
        return self.score(x)[..., 0]

    def rank(self, r: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """The highest of these are picked in training."""
        return r

    def guess(self, x: Float[Tensor, "B L D"], r: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """Of each place by itself, the logit that it is picked."""
        return r

    def surprise(self, guess: Tensor, picked: Bool[Tensor, "B L"], there: Bool[Tensor, "B L"]) -> Float[Tensor, ""]:
        """How wrong the guess was: binary cross-entropy, mean over the places that are no padding."""
        wrong = F.binary_cross_entropy_with_logits(guess, picked.to(guess.dtype), reduction="none")
        return (wrong * there).sum() / there.sum()


class PredictingRouter(Router):
    """With a second opinion, which sees the state and does not change it. (The paper gives no size: a quarter of the
    decoder's width.)"""

    def __init__(self, config: DepthsConfig):
        super().__init__(config)
        self.predictor = MLP(config.width, max(1, config.width // 4), "silu", out_width=1)

    def guess(self, x: Float[Tensor, "B L D"], r: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return self.predictor(x.detach())[..., 0]


class Lottery(Router):
    """Scores as ever, but who is picked is drawn by lot, anew in every pass."""

    def __init__(self, config: DepthsConfig):
        super().__init__(config)
        self.capacity = config.capacity

    def rank(self, r: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return torch.rand_like(r)

    def guess(self, x: Float[Tensor, "B L D"], r: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        return self.capacity - torch.rand_like(r)

    def surprise(self, guess: Tensor, picked: Bool[Tensor, "B L"], there: Bool[Tensor, "B L"]) -> Float[Tensor, ""]:
        return guess.new_zeros(())  # nothing to learn


ROUTERS: dict[str, type[Router]] = {"predictor": PredictingRouter, "auxiliary": Router, "random": Lottery}


class Depths(Decoder):
    """A decoder of any kind inside, whose weights keep their names, and the routers of some of its blocks."""

    def __init__(self, config: DepthsConfig):
        nn.Module.__init__(self)  # what a decoder has, the one inside has
        self.config, self.decoder = config, config.decoder.build()
        self.routers = nn.ModuleList(ROUTERS[config.rule](config) for _ in config.routed)
        self.surprises: list[Tensor] = []

    @property
    def inner(self) -> Decoder:
        return self.decoder

    @property
    def embedding(self) -> nn.Embedding:
        return self.decoder.embedding

    @property
    def blocks(self) -> nn.ModuleList:
        return self.decoder.blocks

    @property
    def final_norm(self) -> nn.Module:
        return self.decoder.final_norm

    @property
    def head(self) -> nn.Linear:
        return self.decoder.head

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        positions: Int[Tensor, "B L"] | None = None,
        mask: Bool[Tensor, "#B 1 L Lk"] | None = None,
        cache: list[LayerCache] | None = None,
        blocks: Sequence[Block] | None = None,
        final_norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """As any decoder's. What may attend to nothing in the `mask` is padding, and never picked."""
        own = list(self.blocks)
        if blocks is not None and any(given is not block for given, block in zip(blocks, own, strict=True)):
            raise ValueError(
                "depths route the decoder's own blocks, and this fusion runs others in their place: take an "
                "interleaved design"
            )
        there = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask[:, 0].any(dim=-1)
        there = there.expand(len(x), -1)  # (B, L)
        room, self.surprises = None, []
        if self.training and cache is None:
            lengths = [x.shape[1]] * len(x) if mask is None else there.sum(dim=1).tolist()
            room = [self.config.places(length) for length in lengths]
        for number, router in zip(self.config.routed, self.routers, strict=True):
            own[number] = partial(self._routed, own[number], router, there, room)
        return self.decoder(x, positions, mask, cache, own, final_norm)

    def _routed(
        self,
        block: Block,
        router: Router,
        there: Bool[Tensor, "B L"],
        room: list[int] | None,
        x: Float[Tensor, "B L D"],
        **options,
    ) -> Float[Tensor, "B L D"]:
        """`block` where `router` picks: the `room` highest places of each sample or, without, all that it guesses."""
        r = router(x)
        guess = router.guess(x, r)
        picked = (guess > 0) & there if room is None else highest(router.rank(r), there, room)
        if room is not None:
            self.surprises.append(router.surprise(guess, picked, there))
        router.record("route", picked)
        most = int(picked.sum(dim=1).max()) if room is None else max(room)
        return x if most == 0 else on_picked(block, x, r, picked, most, **options)

    def aside(self) -> Tensor | float:
        """How wrong the guesses of the last pass in training were, mean over the routed blocks."""
        surprises, self.surprises = self.surprises, []
        return sum(surprises) / len(surprises) if surprises else 0.0

    def make_cache(self, max_length: int) -> list[LayerCache]:
        kinds = [RoutedCache if i in self.config.routed else LayerCache for i in range(len(self.blocks))]
        return [kind(max_length) for kind in kinds]

    def keeps(self, length: int) -> list[int]:
        """With as many in each routed block as it works on in training; elsewhere each text has its own number."""
        few = self.config.places(length)
        return [few if number in self.config.routed else length for number in range(len(self.blocks))]

    def decide(self, x: Float[Tensor, "B L D"]) -> None:
        for router in self.routers:
            router.guess(x, router(x))
