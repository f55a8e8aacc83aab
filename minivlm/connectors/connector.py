"""What every connector is: it reads the features of N patches and hands the decoder a budget of K visual tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from minivlm.layers import check_positive
from minivlm.layout import Grid, VisualLayout


class Connector:
    """Says how many tokens it makes of a grid of patches, and what each of them stands for.

    `conditioned`: its `forward` reads the question beside the features, (B, N, D), (B, P) ids and (B, P) boolean mask;
    others read the features alone. `max_words`: how many of its words it can read, P at most.

    `class_token`: a vector for the whole picture may come in front of its patches; others want the patches alone.

    `one_grid`: it is made for the grid that it was built with, and reads no other.

    Where views differ in size, features are filled up on the right: `pointwise`: each is read alone, so nothing of what
    fills up matters; `masked`: `forward` also takes `mask`, (B, N) boolean, True = a feature that is there. Others read
    views of one size only.
    """

    conditioned: ClassVar[bool] = False
    pointwise: ClassVar[bool] = False
    masked: ClassVar[bool] = False
    class_token: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    max_words: int = 0

    def layout(self, grid: Grid) -> VisualLayout:
        raise NotImplementedError

    def num_tokens(self, grid: Grid) -> int:
        return len(self.layout(grid))

    def unread(self) -> list[nn.Module]:
        """The modules, there for the sake of published weights, whose output reaches no visual token."""
        return []


class Resampler(Connector):
    """A connector whose `tokens` latents stand for no place: any grid becomes that many."""

    class_token: ClassVar[bool] = True
    tokens: int

    def layout(self, grid: Grid) -> VisualLayout:
        return VisualLayout.latents(self.tokens)


@dataclass(frozen=True)
class Budgeted:
    """The configuration of a connector that makes as many `tokens` of a picture as it is told to."""

    tokens: int

    def __post_init__(self):
        check_positive(tokens=self.tokens)

    def at_budget(self, tokens: int, grid: Grid) -> Budgeted:
        """The same with another number of tokens; `build` refuses what it cannot make of the grid."""
        return replace(self, tokens=tokens)


def square_side(tokens: int, largest: int, what: str) -> int:
    """The side of a square of that many cells, at most `largest` a side; ValueError with the counts that there are."""
    side = math.isqrt(max(tokens, 0))
    if side * side != tokens or not 1 <= side <= largest:
        counts = ", ".join(str(n * n) for n in range(1, largest + 1))
        raise ValueError(f"{what} makes a square of tokens, not {tokens}; it can give {counts}")
    return side
