"""Documents: pages whose whole truth is known. A page is data - lines, a table, a stamp, one tiny digit, each with its
font, size, ink and place - and is rendered in batches by pasting stencils of glyphs, on any device, with exact boxes.

The paper has a grain, which shades ink and paper alike. It is two pixels coarse: of a tiny digit it spoils little, but
much of what a picture half the size has left of it. So what cannot be read is not there to be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.data.boxes import Box
from minivlm.data.glyphs import GLYPHS, Stencils, ring, stencils

PAPERS = {
    "white": (0.92, 0.92, 0.92), "gray": (0.72, 0.72, 0.72), "beige": (0.88, 0.80, 0.64),
    "yellow": (0.94, 0.90, 0.45), "pink": (0.95, 0.70, 0.76), "cyan": (0.60, 0.88, 0.92),
}  # fmt: skip
INKS = {
    "black": (0.05, 0.05, 0.05), "red": (0.75, 0.05, 0.05), "green": (0.00, 0.40, 0.12),
    "blue": (0.10, 0.15, 0.75), "purple": (0.45, 0.10, 0.60), "brown": (0.42, 0.22, 0.05),
}  # fmt: skip
PALE = "pale"  # one more ink: the paper's own colour, darker
_PALE_SHARE = 0.55  # of the paper's light
PAD = 3  # blank pixels around what stands in a cell of a table
TILE = 256  # pixels after which the grain repeats
_GRAIN = 0.07  # how far, as a share of its light, a pixel usually is from its colour

Pixels = tuple[int, int, int, int]  # left, top, right, bottom of a box; right and bottom lie beyond it
Paste = tuple[Stencils, int, int, int]  # stencils, which of them, and the pixel (x, y) that its middle falls on


@dataclass(frozen=True)
class Line:
    """Glyphs in a row. `height`, of a capital, and the place of the first one's upper left corner are in pixels.
    ValueError for a text that is not all digits and capitals, or an ink that there is not."""

    text: str
    font: str
    height: int
    ink: str
    x: int
    y: int

    def __post_init__(self):
        if not self.text or set(self.text) - set(GLYPHS):
            raise ValueError(f"a text is made of digits and capitals, got {self.text!r}")
        if self.ink not in INKS and self.ink != PALE:
            raise ValueError(f"unknown ink {self.ink!r}; choose one of {', '.join(INKS)}, {PALE}")

    def pastes(self) -> Iterator[Paste]:
        letters, x = stencils(self.font, self.height), self.x
        for which in map(GLYPHS.index, self.text):
            left, _, right, _ = letters.boxes[which]
            yield letters, which, x - left, self.y + (self.height + 1) // 2
            x += right - left + spacing(self.height)

    @property
    def box(self) -> Pixels:
        """Tight round its ink."""
        inks = ((x, y, letters.boxes[which]) for letters, which, x, y in self.pastes())
        return around([(x + left, y + top, x + right, y + bottom) for x, y, (left, top, right, bottom) in inks])


@dataclass(frozen=True)
class Stamp:
    """Glyphs in a ring, turned by `angle` degrees against the clock; (x, y) is the upper left corner of its box."""

    text: str
    font: str
    height: int
    ink: str
    angle: int
    x: int
    y: int

    @property
    def _upright(self) -> Line:
        """Its text before it is turned."""
        return Line(self.text, self.font, self.height, self.ink, 0, 0)

    @property
    def diameter(self) -> int:
        left, _, right, _ = self._upright.box
        return math.ceil(math.hypot(right - left, self.height)) + 7

    def pastes(self) -> Iterator[Paste]:
        half, width = self.diameter // 2, self._upright.box[2]
        yield ring(self.diameter), 0, self.x + half, self.y + half
        turn, letters = math.radians(self.angle), stencils(self.font, self.height, self.angle)
        for _, which, along, _ in self._upright.pastes():
            reach = along - width / 2
            x, y = half + reach * math.cos(turn), half - reach * math.sin(turn)
            yield letters, which, self.x + round(x), self.y + round(y)

    @property
    def box(self) -> Pixels:
        return self.x, self.y, self.x + self.diameter, self.y + self.diameter


@dataclass(frozen=True)
class Page:
    """A sheet of `size` (H, W) pixels, with lines from top to bottom or a table, whose rows are (key, value).
    ValueError for a paper that there is not, or for what reaches beyond the sheet.

    needle  a line of one digit, which is far smaller than all else
    grain  where in the endless grain its upper left corner lies, (row, column)
    """

    size: tuple[int, int]
    paper: str
    lines: tuple[Line, ...]
    table: tuple[tuple[Line, Line], ...]
    stamp: Stamp
    needle: Line
    grain: tuple[int, int]

    def __post_init__(self):
        if self.paper not in PAPERS:
            raise ValueError(f"unknown paper {self.paper!r}; choose one of {', '.join(PAPERS)}")
        for box, what in [
            *((part.box, part.text) for part in self.printed),
            *((r, "a rule") for r in rules(self.table)),
        ]:
            if min(box[:2]) < 0 or box[2] > self.size[1] or box[3] > self.size[0]:
                raise ValueError(f"{what} at {box} reaches beyond a page of {self.size[0]}x{self.size[1]} pixels")

    @property
    def printed(self) -> tuple[Line | Stamp, ...]:
        """All that is made of glyphs."""
        return (*self.lines, *chain(*self.table), self.stamp, self.needle)

    def share(self, box: Pixels) -> Box:
        """A box in pixels as shares of the page's sides."""
        height, width = self.size
        return box[0] / width, box[1] / height, box[2] / width, box[3] / height

    def color(self, ink: str) -> tuple[float, ...]:
        """An ink's red, green and blue, on this paper."""
        return tuple(_PALE_SHARE * light for light in PAPERS[self.paper]) if ink == PALE else INKS[ink]


def around(boxes: Sequence[Pixels]) -> Pixels:
    """The smallest box round several."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def spacing(height: int) -> int:
    """Blank pixels between neighbouring glyphs."""
    return max(1, round(height / 6))


def rules(table: Sequence[tuple[Line, Line]]) -> list[Pixels]:
    """The lines, one pixel wide, around and between the cells of a table."""
    if not table:
        return []
    keys, values = zip(*table, strict=True)
    left, middle = keys[0].x - PAD - 1, values[0].x - PAD - 1
    right = max(value.box[2] for value in values) + PAD
    tops = [key.y - PAD - 1 for key in keys]
    bottom = keys[-1].y + keys[-1].height + PAD
    across = [(left, y, right + 1, y + 1) for y in (*tops, bottom)]
    return across + [(x, tops[0], x + 1, bottom + 1) for x in (left, middle, right)]


def render_pages(pages: Sequence[Page], device: str | torch.device | None = None) -> Float[Tensor, "B 3 H W"]:
    """Pictures in [0, 1]; ValueError for no page, or pages of more than one size."""
    sizes = {page.size for page in pages}
    if len(sizes) != 1:
        raise ValueError(f"a batch has pages of one size, got {sorted(sizes) or 'no page'}: render each size by itself")
    [(height, width)] = sizes
    papers = torch.tensor([PAPERS[page.paper] for page in pages], device=device)
    canvas = papers[:, None, None].repeat(1, height, width, 1)  # (B, H, W, 3)
    for sheet, page in zip(canvas, pages, strict=True):
        for left, top, right, bottom in rules(page.table):
            sheet[top:bottom, left:right] = sheet.new_tensor(page.color(page.table[0][0].ink))
    for letters, pastes in _by_stencils(pages).items():
        _paste(canvas, letters, torch.tensor(pastes, device=device))
    canvas *= 1 + _GRAIN * _grain(pages, canvas)[..., None]
    return canvas.permute(0, 3, 1, 2).contiguous().clamp_(0, 1)  # (B, 3, H, W)


def _by_stencils(pages: Sequence[Page]) -> dict[Stencils, list[tuple[float, ...]]]:
    """For all stencils in use: (page, glyph, x, y, and by how much the ink is redder, greener and bluer than paper)."""
    groups: dict[Stencils, list[tuple[float, ...]]] = {}
    for number, page in enumerate(pages):
        for part in page.printed:
            paint = tuple(ink - paper for ink, paper in zip(page.color(part.ink), PAPERS[page.paper], strict=True))
            for letters, which, x, y in part.pastes():
                groups.setdefault(letters, []).append((number, which, x, y, *paint))
    return groups


def _paste(canvas: Float[Tensor, "B H W 3"], letters: Stencils, pastes: Float[Tensor, "n 7"]) -> None:
    """Adds the ink of some glyphs to the pages, in place. No two overlap."""
    number, which, x, y = pastes[:, :4].long().unbind(dim=1)
    cover = letters.masks.to(canvas.device)[which]  # (n, h, w)
    rows = (y + letters.top)[:, None] + torch.arange(cover.shape[1], device=canvas.device)  # (n, h)
    columns = (x + letters.left)[:, None] + torch.arange(cover.shape[2], device=canvas.device)  # (n, w)
    flat = canvas.view(-1, 3)
    place = (number[:, None] * canvas.shape[1] + rows)[:, :, None] * canvas.shape[2] + columns[:, None]  # (n, h, w)
    place.clamp_(0, len(flat) - 1)  # a window may leave the page where its glyph has no ink
    flat.index_add_(0, place.flatten(), (cover[..., None] * pastes[:, None, None, 4:]).flatten(0, 2))


def _grain(pages: Sequence[Page], canvas: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H W"]:
    """The piece of the endless grain that each page lies on."""
    _, height, width, _ = canvas.shape
    row, column = torch.tensor([page.grain for page in pages], device=canvas.device).T[..., None]  # (B, 1) each
    rows = (row + torch.arange(height, device=canvas.device)) % TILE  # (B, H)
    columns = (column + torch.arange(width, device=canvas.device)) % TILE  # (B, W)
    return _texture().to(canvas.device)[rows[:, :, None], columns[:, None]]


@cache
def _texture() -> Float[Tensor, "side side"]:
    """Noise of variance 1, each pixel a mean with its neighbours, without a seam where it repeats."""
    noise = torch.randn(TILE, TILE, generator=torch.Generator().manual_seed(0))
    for dim in (0, 1):
        noise = (noise.roll(1, dim) + 2 * noise + noise.roll(-1, dim)) / math.sqrt(6)
    return noise
