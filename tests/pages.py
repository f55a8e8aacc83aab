"""What the tests of pages share: pages, the pixels that a part's ink changes, and a slow reader that knows fonts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import inf, sqrt
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import avg_pool2d, pad
from torchvision.transforms.functional import pil_to_tensor

from minivlm.data.documents import PAPERS, Line, Page, Stamp, render_pages
from minivlm.data.glyphs import FONTS
from minivlm.data.typesetting import sample_pages

SIZES = [(128, 128), (97, 101), (72, 128), (129, 72), (72, 216), (216, 72)]
SCALE = 8  # as printed: else a glyph's faint edge may be a column more or less
ABOVE, BELOW = 2, 0.4  # blank rows above a template; rows below its foot, as a share of a capital


def draw(n: int, seed: int = 0, size: tuple[int, int] = (128, 128), split: str = "train") -> list[Page]:
    return sample_pages(n, torch.Generator().manual_seed(seed), size, split)


def ink_of(page: Page, part: Line | Stamp) -> torch.Tensor:
    """The pixels (H, W) that look different when a part (but the first key, whose ink is the rules') is printed in
    another ink."""
    other = replace(part, ink="red" if part.ink == "blue" else "blue")

    def swap(one: Line | Stamp) -> Line | Stamp:
        return other if one is part else one

    changed = replace(
        page,
        lines=tuple(map(swap, page.lines)),
        table=tuple((swap(key), swap(value)) for key, value in page.table),
        stamp=swap(page.stamp),
        needle=swap(page.needle),
    )
    before, after = render_pages([page, changed])
    return (before - after).abs().amax(dim=0) > 1e-3


def unevenness(answers: Sequence[str], choices: int) -> float:
    """Pearson's chi-square of answers that should come equally often: standard deviations above what chance gives."""
    expected, counts = len(answers) / choices, Counter(answers)
    square = sum((n - expected) ** 2 / expected for n in counts.values()) + expected * (choices - len(counts))
    return (square - (choices - 1)) / sqrt(2 * (choices - 1))


def tight(mask: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.nonzero(as_tuple=True)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def cover_of(picture: torch.Tensor, page: Page, ink: str) -> torch.Tensor:
    """How much ink each pixel (H, W) seems to hold: how far it is from the paper's colour towards the ink's."""
    paper, ink = torch.tensor(PAPERS[page.paper]), torch.tensor(page.color(ink))
    way = (ink - paper)[:, None, None]
    return ((picture - paper[:, None, None]) * way).sum(dim=0) / (way**2).sum()


@cache
def template(glyph: str, font: str, height: int) -> torch.Tensor:
    """A glyph as printed, (rows, its width): its capitals' top in row `ABOVE`, drawn far larger and averaged down."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[font]
    capital = -ImageFont.truetype(path, 1000).getbbox("H", anchor="ls")[1]
    letters = ImageFont.truetype(path, 1000 * height * SCALE / capital)
    left, _, right, _ = letters.getbbox(glyph, anchor="ls")
    rows = ABOVE + height + round(BELOW * height)
    image = Image.new("L", (-(-(right - left) // SCALE) * SCALE, rows * SCALE))
    ImageDraw.Draw(image).text((-left, (ABOVE + height) * SCALE), glyph, font=letters, fill=255, anchor="ls")
    small = (avg_pool2d(pil_to_tensor(image).float(), SCALE)[0] + 0.5).floor() / 255
    inked = (small >= 0.15).any(dim=0).nonzero()
    return small[:, int(inked.min()) : int(inked.max()) + 1]


def read(picture: torch.Tensor, page: Page, line: Line, alphabet: str) -> str:
    """What a line of a page holds, of which the place, the fonts and the colours are known: the glyphs that explain the
    ink in its box best, with a gap between. All ways to cut it are tried, from left to right."""
    left, top, right, bottom = line.box
    rows, gap = ABOVE + line.height + round(BELOW * line.height), max(1, round(line.height / 6))
    inked = torch.zeros(picture.shape[1:])
    inked[top:bottom, left:right] = cover_of(picture, page, line.ink)[top:bottom, left:right]
    strip = pad(inked, (0, 0, ABOVE, rows))[line.y : line.y + rows, left:right]
    best = {0: (0.0, "")}  # for every column where a glyph may start: the least error so far, and the text before
    for x in range(right - left):
        for glyph in alphabet if x in best else "":
            shape = template(glyph, line.font, line.height)
            end = x + shape.shape[1]
            if end <= right - left:
                error = float(((strip[:, x:end] - shape) ** 2).sum() + (strip[:, end : end + gap] ** 2).sum())
                best[end + gap] = min(best.get(end + gap, (inf, "")), (best[x][0] + error, best[x][1] + glyph))
    return best.get(right - left + gap, (inf, ""))[1]
