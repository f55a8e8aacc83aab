"""Glyphs: digits and capitals of printed fonts as stencils, which is how much of each pixel their ink covers.

The fonts are DejaVu (Bitstream Vera licence) and STIX (SIL Open Font License), as the package `matplotlib` ships them.
A glyph is drawn by PIL eight times as large, turned, and averaged down, so that capitals are `height` pixels high to
the fraction, in every font and at every angle; none is drawn twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GLYPHS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = {
    "sans": "DejaVuSans.ttf",
    "bold": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "mono": "DejaVuSansMono-Bold.ttf",
    "times": "STIXGeneral.ttf",
}
_SCALE = 8  # a glyph is drawn so many times larger than it is printed
_FAINT = 0.15  # of a pixel; less is left blank, so that a box has visible ink at each of its edges


@dataclass(frozen=True, eq=False)
class Stencils:
    """The stencils of G glyphs, all in windows of one size and place around the glyph's middle.

    masks  how much of each pixel is ink, 0 to 1
    left, top  the window's first column and row, counted in pixels from the middle
    boxes  (left, top, right, bottom) of each glyph's ink, counted from the middle; right and bottom lie beyond it
    """

    masks: Float[Tensor, "G h w"]
    left: int
    top: int
    boxes: tuple[tuple[int, int, int, int], ...]


@cache
def stencils(font: str, height: int, angle: int = 0) -> Stencils:
    """All `GLYPHS` of a font, capitals `height` pixels high, turned by `angle` degrees against the clock.

    Raises ValueError for an unknown font, or for less than 3 pixels, in which no glyph keeps its form.
    """
    if font not in FONTS:
        raise ValueError(f"unknown font {font!r}; choose one of {', '.join(FONTS)}")
    if height < 3:
        raise ValueError(f"capitals {height} pixels high cannot be told apart: ask for 3 or more")
    return _cut(np.stack([_draw(glyph, font, height, angle) for glyph in GLYPHS]))


@cache
def ring(diameter: int) -> Stencils:
    """One stencil: a ring, `diameter` pixels wide."""
    side = diameter * _SCALE
    image = Image.new("L", (side, side), 0)
    ImageDraw.Draw(image).ellipse((0, 0, side - 1, side - 1), outline=255, width=3 * _SCALE // 2)
    return _cut(_shrink(image)[None])


def _draw(glyph: str, font: str, height: int, angle: int) -> np.ndarray:
    """A glyph (side, side) with its middle, halfway up a capital, on the corner of four pixels (half a pixel above it
    where `height` is odd), its left edge and its foot on the edges of pixels."""
    letters, middle = _font(font, height), (height + 2) * _SCALE
    left, _, right, _ = letters.getbbox(glyph, anchor="ls")
    start = middle - round((right - left) / 2 / _SCALE) * _SCALE
    image = Image.new("L", (2 * middle, 2 * middle), 0)
    foot = middle + height // 2 * _SCALE
    ImageDraw.Draw(image).text((start - left, foot), glyph, font=letters, fill=255, anchor="ls")
    return _shrink(image.rotate(angle, Image.Resampling.BILINEAR))


@cache
def _font(font: str, height: int) -> ImageFont.FreeTypeFont:
    """PIL's font in the size at which an H is `height` pixels high, times `_SCALE`."""
    import matplotlib  # not above: it is slow, and most never draw a glyph

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[font]
    large = 1000
    capital = -ImageFont.truetype(path, large).getbbox("H", anchor="ls")[1]
    return ImageFont.truetype(path, height * _SCALE * large / capital)


def _shrink(image: Image.Image) -> np.ndarray:
    cover = np.asarray(image.reduce(_SCALE), dtype=np.float32) / 255
    return np.where(cover < _FAINT, 0, cover)


def _cut(masks: np.ndarray) -> Stencils:
    """The stencils (G, side, side) in the smallest window that holds them all."""
    middle = masks.shape[1] // 2
    boxes = [_ink(mask) for mask in masks]
    left, top = (min(box[k] for box in boxes) for k in (0, 1))
    right, bottom = (max(box[k] for box in boxes) for k in (2, 3))
    told = tuple(tuple(edge - middle for edge in box) for box in boxes)
    return Stencils(torch.from_numpy(masks[:, top:bottom, left:right].copy()), left - middle, top - middle, told)


def _ink(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
