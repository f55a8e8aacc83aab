"""Glyphs: the stencils are the fonts' own glyphs, in their place and their size, turned or not."""

from __future__ import annotations

import pytest
import torch
from pages import ABOVE, template, tight

from minivlm.data.glyphs import FONTS, GLYPHS, ring, stencils

HEIGHTS = (4, 7, 9, 12, 16, 20, 26)


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("height", HEIGHTS)
def test_stencils_are_the_glyphs_and_boxes_are_tight_round_them(font, height):
    letters = stencils(font, height)
    for glyph, mask, box in zip(GLYPHS, letters.masks, letters.boxes, strict=True):
        shape = template(glyph, font, height)
        left, top, right, bottom = tight(mask)
        assert box == (left + letters.left, top + letters.top, right + letters.left, bottom + letters.top)
        above = -letters.top - (height + 1) // 2  # the window's rows above a capital's top
        rows = shape[ABOVE - above : ABOVE - above + len(mask)]
        assert torch.equal(mask[: len(rows), left:right], torch.where(rows < 0.15, 0, rows)), glyph


@pytest.mark.parametrize("height", HEIGHTS)
def test_a_capital_is_as_high_as_asked_and_a_turned_one_no_less(height):
    for font in FONTS:
        _, top, _, bottom = stencils(font, height).boxes[GLYPHS.index("H")]
        assert (top, bottom) == (-((height + 1) // 2), height // 2)
    upright, turned = stencils("bold", height), stencils("bold", height, 90)
    for mask, other in zip(upright.masks, turned.masks, strict=True):
        assert float(other.sum()) == pytest.approx(float(mask.sum()), rel=0.06, abs=1)
    left, _, right, _ = turned.boxes[GLYPHS.index("H")]
    assert right - left == height


def test_glyphs_turn_against_the_clock():
    """An L that fell on its back has its long stroke at the bottom and its foot at the right."""
    mask = stencils("bold", 16, 90).masks[GLYPHS.index("L")]
    assert mask.sum(dim=1).argmax() > mask.shape[0] / 2 and mask.sum(dim=0).argmax() > mask.shape[1] / 2


@pytest.mark.parametrize("diameter", [22, 31, 48])
def test_a_ring_touches_all_sides_of_its_box_and_leaves_room(diameter):
    [mask], [box] = ring(diameter).masks, ring(diameter).boxes
    assert mask.shape == (diameter, diameter) and box[2] - box[0] == box[3] - box[1] == diameter
    assert mask[diameter // 2, diameter // 2] == 0 and torch.equal(mask > 0, mask.flip(0) > 0)


def test_glyphs_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="unknown font 'arial'; choose one of sans, bold"):
        stencils("arial", 9)
    with pytest.raises(ValueError, match="capitals 2 pixels high"):
        stencils("sans", 2)
