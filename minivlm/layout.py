"""What every position of a sequence is: word, patch, cell of a coarser grid, latent, newline, or padding.

Every token-strip picture, every budget and every loss mask reads this, so no count is ever typed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Grid = tuple[int, int]  # rows and columns
Views = tuple[Grid, ...]  # the grids of a picture's features: of the whole, of a tile, ...


class Kind(IntEnum):
    PAD = 0
    TEXT = 1
    PATCH = 2
    NEWLINE = 3
    LATENT = 4
    TAG = 5
    CELL = 6


@dataclass(frozen=True)
class VisualLayout:
    """The `K` tokens that one picture became: their kind, the place (row, column) they stand for: a patch's in the
    encoder's grid, a cell's in the connector's coarser one, -1 for a token that has none; and which view of the picture
    (the whole, a tile) they were made of. Of several pictures (`stack`), (B, M, K) of each."""

    kind: Int[Tensor, "*pictures K"]
    row: Int[Tensor, "*pictures K"]
    col: Int[Tensor, "*pictures K"]
    view: Int[Tensor, "*pictures K"]

    @classmethod
    def patches(cls, grid: tuple[int, int]) -> VisualLayout:
        """One token a patch, row by row."""
        rows, cols = grid
        index = torch.arange(rows * cols)
        return cls(torch.full_like(index, Kind.PATCH), index // cols, index % cols, torch.zeros_like(index))

    @classmethod
    def cells(cls, grid: tuple[int, int]) -> VisualLayout:
        """One token a cell of a coarser `grid`, row by row."""
        patches = cls.patches(grid)
        return replace(patches, kind=torch.full_like(patches.kind, Kind.CELL))

    @classmethod
    def latents(cls, count: int) -> VisualLayout:
        """`count` tokens that stand for no place of their own."""
        nowhere = torch.full((count,), -1)
        return cls(torch.full_like(nowhere, Kind.LATENT), nowhere, nowhere, torch.zeros_like(nowhere))

    @classmethod
    def tag(cls, count: int = 1) -> VisualLayout:
        """`count` tokens that say where a picture, or a view of it, begins or ends."""
        return replace(cls.latents(count), kind=torch.full((count,), int(Kind.TAG)))

    def __add__(self, other: VisualLayout) -> VisualLayout:
        """The tokens of both, in that order."""
        return VisualLayout(*(torch.cat([getattr(x, f.name) for x in (self, other)]) for f in fields(self)))

    def __getitem__(self, index: Tensor) -> VisualLayout:
        """The tokens of those numbers, in that order."""
        return VisualLayout(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        """How many tokens a picture has; of a stack, the longest, the others filled up with `Kind.PAD`."""
        return self.kind.shape[-1]

    def in_view(self, number: int) -> VisualLayout:
        """The same tokens, made of that view."""
        return replace(self, view=torch.full_like(self.view, number))

    @classmethod
    def stack(cls, pictures: Sequence[VisualLayout], images: int) -> VisualLayout:
        """The layouts of B * M pictures, M = `images` a sample, as one of (B, M, K)."""
        columns = (
            pad_sequence([getattr(picture, f.name) for picture in pictures], batch_first=True) for f in fields(cls)
        )
        return cls(*(column.unflatten(0, (-1, images)) for column in columns))


@dataclass(frozen=True)
class Layout:
    """For every position of a batch of sequences (B, L), what stands there.

    kind       a `Kind`
    image      which picture of the sample it belongs to, -1 for words and padding
    view       which view of that picture (the whole, a tile, ...); 0 for words and padding
    row, col   the place of a patch or a cell in its grid, -1 where that makes no sense
    index      words: place in `input_ids`; visual tokens: 0..K-1 within their picture; padding: -1
    segment    0 = shared by all, n = belongs to the n-th question only
    position   what the decoder is told the place is; questions on one picture all start at the same place. -1: nothing
    latest     the last picture of the sample that has begun by here, -1 before the first
    """

    kind: Int[Tensor, "B L"]
    image: Int[Tensor, "B L"]
    view: Int[Tensor, "B L"]
    row: Int[Tensor, "B L"]
    col: Int[Tensor, "B L"]
    index: Int[Tensor, "B L"]
    segment: Int[Tensor, "B L"]
    position: Int[Tensor, "B L"]
    latest: Int[Tensor, "B L"]

    @property
    def valid(self) -> Bool[Tensor, "B L"]:
        return self.kind != Kind.PAD

    @property
    def is_text(self) -> Bool[Tensor, "B L"]:
        return self.kind == Kind.TEXT

    @property
    def is_visual(self) -> Bool[Tensor, "B L"]:
        return self.kind > Kind.TEXT

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        return self.valid.sum(dim=1)

    def attention_mask(self, whole_pictures: bool = False) -> Bool[Tensor, "B 1 L L"]:
        """Causal, no padding, and no question sees another: key `k` serves query `q` if it comes no later, and is
        shared (segment 0) or of the same segment. With `whole_pictures` the tokens of a picture see all of that
        picture."""
        causal = torch.ones(self.kind.shape[1], self.kind.shape[1], dtype=torch.bool, device=self.kind.device).tril()
        if whole_pictures:
            pictured = torch.where(self.is_visual, self.image, -1)
            causal = causal | ((pictured[:, :, None] == pictured[:, None, :]) & self.is_visual[:, None, :])  # (B, L, L)
        shared = (self.segment == 0)[:, None, :]  # (B, 1, L)
        same = self.segment[:, :, None] == self.segment[:, None, :]  # (B, L, L)
        allowed = causal & (shared | same) & self.valid[:, None, :] & self.valid[:, :, None]
        return allowed[:, None]  # (B, 1, L, L)

    def encoder_mask(self) -> Bool[Tensor, "B 1 L L"]:
        """All of a sample sees all of it, what is still to come as well; no padding."""
        return (self.valid[:, :, None] & self.valid[:, None, :])[:, None]

    def following(self) -> Layout:
        """The one place after the last of each sample, (B, 1), if a word is said there."""
        rows, last = torch.arange(len(self.kind), device=self.kind.device), self.lengths - 1

        def at_last(field: Tensor) -> Tensor:
            return field[rows, last][:, None]  # (B, 1)

        nowhere = torch.full_like(at_last(self.kind), -1)
        read = self.valid & ((self.segment == 0) | (self.segment == at_last(self.segment)))
        return Layout(
            kind=torch.full_like(nowhere, Kind.TEXT),
            image=nowhere,
            view=torch.zeros_like(nowhere),
            row=nowhere,
            col=nowhere,
            index=nowhere,
            segment=at_last(self.segment),
            position=self.position.masked_fill(~read, -1).amax(dim=1, keepdim=True) + 1,
            latest=at_last(self.latest),
        )

    def predecessor(self) -> Int[Tensor, "B L"]:
        """The position whose output predicts each position: the one before it, or, for the first word of a question,
        the last shared one; -1 where nothing comes before."""
        index = torch.arange(self.kind.shape[1], device=self.kind.device).expand_as(self.kind)
        prefix = ((self.segment == 0) & self.valid).sum(dim=1, keepdim=True)  # (B, 1)
        starts = self.segment > torch.roll(self.segment, 1, dims=1)
        return torch.where(starts & (index > 0), prefix - 1, index - 1)
