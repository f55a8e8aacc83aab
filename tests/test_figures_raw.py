"""Figures of raw patches: places are those of the layout, filters those of the weight, and what is said is drawn."""

from __future__ import annotations

import explorers
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from minivlm.batch import Batch
from minivlm.figures import PALETTE, panels, patch_filters, rasters
from minivlm.figures.raw import colour_share
from minivlm.layout import Kind


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_each_place_is_written_on_the_patch_or_newline_that_stands_there():
    batches, outputs = explorers.sized()
    batch, output = batches[18], outputs["newlines"][18]
    figure, alt = rasters([(batch, output)], patch_size=8, sample=1)
    layout, [axes] = output.layout, figure.axes
    written = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert len(written) == 12 == int(layout.is_visual[1].sum())
    for (x, y), place in written.items():
        if layout.kind[1, place] == Kind.NEWLINE:
            assert x == pytest.approx(3.6) and layout.kind[1, place - 1] == Kind.PATCH
            assert y == layout.row[1, place - 1] + 0.5
        else:
            assert (x, y) == (layout.col[1, place] + 0.5, layout.row[1, place] + 0.5)
    assert alt == (
        "A picture of 18x18 pixels is 3 rows of 3 patches, each closed by a newline (places 4, 8, 12): 12 tokens, "
        "places 1 to 12 of the sequence."
    )


def test_the_picture_lies_under_its_patches_and_what_it_does_not_fill_is_black():
    batches, outputs = explorers.sized()
    figure, _ = rasters([(batches[18], outputs["newlines"][18])], patch_size=8, sample=1)
    [axes] = figure.axes
    assert axes.images[0].get_extent() == [0, 2.25, 2.25, 0]
    assert torch.equal(torch.tensor(axes.images[0].get_array()), batches[18].images[1, 0].permute(1, 2, 0))
    black = next(shape for shape in axes.patches if isinstance(shape, Rectangle))
    assert (black.get_width(), black.get_height()) == (3, 3) and to_rgb(black.get_facecolor()) == (0, 0, 0)
    ends = [shape for shape in axes.patches if to_rgb(shape.get_facecolor()) == to_rgb(PALETTE["sky"])]
    assert [shape.get_y() for shape in ends] == [0, 1, 2]


def test_rows_go_on_without_newlines_and_sizes_stand_side_by_side():
    batches, outputs = explorers.sized()
    figure, alt = rasters([(batches[side], outputs["none"][side]) for side in (8, 32)], patch_size=8)
    small, large = figure.axes
    assert [text.get_text() for text in small.texts] == ["1"]
    assert [text.get_position() for text in large.texts][:5] == [
        (0.5, 0.5),
        (1.5, 0.5),
        (2.5, 0.5),
        (3.5, 0.5),
        (0.5, 1.5),
    ]
    assert small.get_title() == "8 x 8 pixels\n1 tokens" and alt.count("no newline") == 2
    figure.canvas.draw()
    patch = [ax.transData.transform((1, 0))[0] - ax.transData.transform((0, 0))[0] for ax in figure.axes]
    assert patch[0] == pytest.approx(patch[1], rel=0.15)


def test_a_raster_needs_its_picture():
    batches, outputs = explorers.sized()
    blind = Batch(None, batches[8].input_ids, features=torch.zeros(2, 1, 1, 192))
    for seen in ([], [(blind, outputs["none"][8])]):
        with pytest.raises(ValueError, match="give one or more batches with images"):
            rasters(seen, 8)


def test_filters_are_the_directions_that_the_weight_stretches_most():
    """A weight made of two filters of known strength: a red patch, and one bright on its left."""
    red, left = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    red[..., 0], left[:, 0] = 1.0, 1.0
    left[:, 1] = -1.0
    red, left = red.flatten() / red.norm(), left.flatten() / left.norm()
    weight = torch.stack([3 * red, 0 * red, 1 * left, 0 * red])  # (4, 12)
    figure, alt = patch_filters({"w": weight}, patch_size=2, count=2)
    first, second = (torch.tensor(ax.images[0].get_array()) for ax in figure.axes)
    assert [ax.get_title() for ax in figure.axes] == ["90.0%", "10.0%"]
    of_red, of_left = (first - 0.5).flatten(), (second - 0.5).flatten()
    assert abs(torch.dot(of_red / of_red.norm(), red)) == pytest.approx(1, abs=1e-5)
    assert abs(torch.dot(of_left / of_left.norm(), left)) == pytest.approx(1, abs=1e-5)
    assert "the strongest of 4 filters has 90.0% of the energy, the 2 strongest 100%; 90% looks at nothing but" in alt


def test_the_share_of_mean_colour_is_what_flat_patches_meet():
    weight = torch.randn(5, 27, generator=torch.Generator().manual_seed(0))
    flat = torch.zeros(27, 3)  # the three patches of one colour throughout, as unit vectors
    for colour in range(3):
        flat[colour::3, colour] = 1 / 3
    assert colour_share(weight, 3) == pytest.approx(float((weight @ flat).square().sum() / weight.square().sum()))
    assert colour_share(weight @ (flat @ flat.T), 3) == pytest.approx(1)


def test_panels_hold_the_mean_and_the_interval_of_seeds():
    series = {"COLOR": {"a": {32: [0.2, 0.4, 0.6], 64: [0.5, 0.5, 0.5]}}, "LOC": {"a": {32: [0.1], 64: [1.0]}}}
    figure, alt = panels(series, "side (pixels)", "accuracy", shaded=(64,), log=True)
    left, right = figure.axes
    assert (left.get_title(), right.get_title(), left.get_xscale()) == ("COLOR", "LOC", "log")
    line, caps, bars = left.containers[0]
    assert list(line.get_ydata()) == pytest.approx([0.4, 0.5])
    half = 4.303 * 0.2 / 3**0.5  # Student's t with two degrees of freedom
    assert bars[0].get_segments()[0][:, 1] == pytest.approx([0.4 - half, 0.4 + half], abs=1e-3)
    assert list(left.lines[0].get_xdata()) == [64, 64]
    told = "Accuracy against side (pixels): COLOR, a: 40% at 32, 50% at 64; LOC, a: 10% at 32, 100% at 64."
    assert alt == f"{told} Grey bands at 64." and panels(series, "side (pixels)", "accuracy")[1] == told


def test_no_text_leaves_the_figure():
    batches, outputs = explorers.sized()
    runs = {"a rather long name": {1: [0.5]}, "another name, as long": {1: [0.2]}}
    drawn = (
        rasters([(batches[side], outputs["newlines"][side]) for side in (8, 32)], 8)[0],
        patch_filters({"before training": torch.randn(8, 12), "after": torch.randn(8, 12)}, 2, 8)[0],
        panels(dict.fromkeys(("COLOR", "SHAPE", "LOC"), runs), "operations (TFLOP)", "share of right answers")[0],
    )
    for figure in drawn:
        figure.canvas.draw()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.02 and box.x1 <= width + 0.02 and box.y1 <= height + 0.02
