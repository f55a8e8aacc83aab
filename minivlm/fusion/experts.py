"""Experts: what a block does is done to the places of a picture by maps of their own, the experts, and to all others by
the decoder's. Every place passes exactly one of the two, so experts double the weights and cost no operation more.

Attention stays one: queries, keys and values, whoever made them, meet in the same softmax. Which places, and which of
a block's parts, each design says in its own file.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivlm.attention import Tapped
from minivlm.fusion.fusion import Block as Runs
from minivlm.fusion.fusion import Fusion
from minivlm.language.decoder import Decoder
from minivlm.layers import Block
from minivlm.layout import Layout

PARTS = ("attention_norm", "q", "k", "v", "out", "mlp_norm", "mlp")


def check_parts(names: Iterable[str]) -> None:
    """ValueError with the parts of a block if there are others among `names`, or none at all."""
    names = tuple(names)
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise ValueError(f"routes must name parts of a block ({', '.join(PARTS)}), got {', '.join(unknown) or 'none'}")


def parts(block: Block) -> dict[str, nn.Module]:
    """What a block is made of, by name."""
    maps = {name: getattr(block.attention, name) for name in ("q", "k", "v", "out")}
    return {"attention_norm": block.attention_norm, **maps, "mlp_norm": block.mlp_norm, "mlp": block.mlp}


class Experts(Tapped, Fusion):
    """The skeleton: for every `every`-th block of the decoder, the first among them, a copy of its parts named in
    `routes`. A design says with `route` which places its experts serve."""

    def __init__(self, decoder: Decoder, routes: tuple[str, ...], every: int = 1):
        super().__init__()
        strange = {type(block).__name__ for block in decoder.blocks if type(block) is not Block}
        if strange:
            raise ValueError(
                f"experts stand in for the parts of a pre-norm block, but this {type(decoder).__name__} is made of "
                f"{', '.join(strange)}: take a decoder whose blocks run attention first and then the MLP"
            )
        self.every, self.depth = every, len(decoder.blocks)
        self.experts = nn.ModuleList(
            nn.ModuleDict({name: deepcopy(parts(block)[name]) for name in routes}) for block in decoder.blocks[::every]
        )

    @torch.no_grad()
    def start_from(self, decoder: Decoder) -> None:
        for expert, block in zip(self.experts, decoder.blocks[:: self.every], strict=True):
            for name, part in expert.items():
                copy_weights(parts(block)[name], part)

    def route(self, layout: Layout) -> Bool[Tensor, "B L"]:
        """Which places the experts serve."""
        return layout.is_visual

    def blocks(self, decoder: Decoder, layout: Layout, seen: Any) -> list[Runs]:
        route = self.route(layout)
        self.record("route", route)
        if not route.any():
            return list(decoder.blocks)
        routed: list[Runs] = list(decoder.blocks)
        for number, expert in enumerate(self.experts):
            at = number * self.every
            routed[at] = partial(run, decoder.blocks[at], expert, route)
        return routed


@torch.no_grad()
def copy_weights(source: nn.Module, into: nn.Module) -> None:
    """Those of the same name; what only `into` has (a bias) becomes 0."""
    own = dict(source.named_parameters())
    for name, weight in into.named_parameters():
        weight.copy_(own[name]) if name in own else weight.zero_()


def run(
    block: Block, expert: nn.ModuleDict, route: Bool[Tensor, "B L"], x: Float[Tensor, "B L D"], **attention_options
) -> Float[Tensor, "B L D"]:
    """What `block` does, with the parts that `expert` has done by it at the places of `route`."""

    def through(name: str, x: Tensor) -> Tensor:
        own = parts(block)[name]
        return divided(route, expert[name], own, x) if name in expert else own(x)

    normed = through("attention_norm", x)
    q, k, v = (through(name, normed) for name in ("q", "k", "v"))
    x = x + through("out", block.attention.mix(q, k, v, **attention_options))
    return x + through("mlp", through("mlp_norm", x))


def divided(
    route: Bool[Tensor, "B L"], expert: nn.Module, own: nn.Module, x: Float[Tensor, "B L D"]
) -> Float[Tensor, "B L Dout"]:
    """`expert` of the places on the route, `own` of all others; neither is computed where the other is taken."""
    seen, others = expert(x[route]), own(x[~route])  # (n, Dout), (B * L - n, Dout)
    y = others.new_empty(*route.shape, others.shape[-1])
    y[route], y[~route] = seen, others
    return y
