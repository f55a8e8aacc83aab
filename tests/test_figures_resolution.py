"""What encoders are shown: pixels and fences where they are, and costs drawn where they were counted."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from minivlm.figures import accuracy_against_cost, encoder_views
from minivlm.tables import interval


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_each_picture_is_drawn_pixel_by_pixel_between_its_fences():
    small, wide = torch.rand(3, 16, 16), torch.rand(3, 16, 48)
    figure, told = encoder_views({"small": (small, 4), "wide": (wide, 8)}, {"wide": (0.25, 0.5, 0.5, 1.0)})
    for ax, image, patch in zip(figure.axes, (small, wide), (4, 8), strict=True):
        assert torch.equal(torch.as_tensor(ax.images[0].get_array()), image.permute(1, 2, 0))
        assert ax.images[0].get_interpolation() == "nearest"
        upright, level = ax.collections
        height, width = image.shape[1:]
        assert [line[0][0] for line in upright.get_segments()] == list(range(0, width + 1, patch))
        assert [line[0][1] for line in level.get_segments()] == list(range(0, height + 1, patch))
    assert not figure.axes[0].patches
    [frame] = figure.axes[1].patches
    assert frame.get_bbox().bounds == (11, 7, 14, 10)  # a pixel outside of 12..24 x 8..16
    assert told == (
        "small: 16 by 16 pixels, 4 by 4 patches; wide: 16 by 48 pixels, 2 by 6 patches, what is framed is "
        "8.0 pixels high."
    )
    with pytest.raises(ValueError, match="nothing to show"):
        encoder_views({})


def test_accuracy_stands_over_tokens_and_over_operations():
    designs = {"one": ({"tokens": 64, "GFLOP": 0.5}, [0.2, 0.4, 0.3]), "tiles": ({"tokens": 336, "GFLOP": 2}, [0.9])}
    figure, told = accuracy_against_cost(designs, "NEEDLE")
    for ax, costs in zip(figure.axes, ((64, 336), (0.5, 2)), strict=True):
        points = [container[0].get_xydata()[0].tolist() for container in ax.containers]
        assert points == [[costs[0], pytest.approx(0.3)], [costs[1], 0.9]]
        bars = ax.containers[0][2][0].get_segments()[0][:, 1]
        middle, half = interval([0.2, 0.4, 0.3])
        assert bars.tolist() == pytest.approx([middle - half, middle + half])
    assert (
        told == "Accuracy on NEEDLE: one 30% with 64 tokens and 0.50 GFLOP; tiles 90% with 336 tokens and 2.00 GFLOP."
    )
    with pytest.raises(ValueError, match="no results"):
        accuracy_against_cost({}, "OCR")
