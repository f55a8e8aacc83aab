"""Figures of boxes: drawn where they are, in as many pictures as there are, and told in words."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.patches import Rectangle

from minivlm.figures.grounding import boxes_drawn, said_and_seen

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TRUE, SAID = [(0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.5, 0.5)], [(0.25, 0.5, 0.75, 0.75), None]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def rectangles(axes) -> list[tuple[float, ...]]:
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(x, y, x + r.get_width(), y + r.get_height()) for r in drawn for x, y in [r.get_xy()]]


def test_every_picture_has_its_boxes_and_the_grid():
    figure, told = boxes_drawn(IMAGES, {"true": TRUE, "said": SAID}, ["the ring", "the star"], side=4)
    first, second = (ax for ax in figure.axes if ax.images)
    assert rectangles(first) == [TRUE[0], SAID[0]] and rectangles(second) == [TRUE[1]]
    assert len(first.lines) == 6  # three lines between four cells, each way
    assert first.images[0].get_extent() == [0, 1, 1, 0]
    assert [ax.get_xlabel() for ax in (first, second)] == ["the ring", "the star"]
    assert told == (
        "Boxes: the ring (true 0.25, 0.50, 0.75, 1.00; said 0.25, 0.50, 0.75, 0.75; IoU 0.50); "
        "the star (true 0.00, 0.00, 0.50, 0.50; said none)."
    )


def test_boxes_are_told_apart_by_colour_and_line():
    figure, _ = boxes_drawn(IMAGES, {"true": TRUE, "said": TRUE}, ["a", "b"])
    one, other = figure.axes[0].patches
    assert one.get_edgecolor() != other.get_edgecolor() and one.get_linestyle() != other.get_linestyle()
    assert not figure.axes[0].lines


def test_heat_stands_beside_the_picture_under_the_same_boxes():
    heat = torch.zeros(4, 4)
    heat[1, 3] = 1
    figure, told = said_and_seen(IMAGES[0], {"true": TRUE[0], "said": None}, {"attention": heat})
    picture, beside = figure.axes
    assert rectangles(picture) == rectangles(beside) == [TRUE[0]]
    assert beside.images[0].get_array().argmax() == 7 and beside.get_title() == "attention"
    assert told == "true 0.25, 0.50, 0.75, 1.00; said none; attention peaks at row 2, column 4."


@pytest.mark.parametrize(
    "boxes, captions", [({"true": TRUE[:1]}, ["a", "b"]), ({"true": TRUE}, ["a"]), ({}, ["a", "b"])]
)
def test_other_numbers_of_boxes_than_of_pictures_are_refused(boxes, captions):
    with pytest.raises(ValueError, match="2 pictures, . captions, boxes: .*; give one to each picture"):
        boxes_drawn(IMAGES, boxes, captions)
