"""Figures of depths: coloured is what was worked on, veiled what was not, and what is said is drawn."""

from __future__ import annotations

from dataclasses import replace

import explorers
import matplotlib.pyplot as plt
import pytest
import tiny
import torch
from matplotlib.colors import to_rgb
from test_depth import made_up

from minivlm.batch import Batch
from minivlm.figures import PALETTE, accuracy_against_skipping, depth_raster, passed_patches
from minivlm.figures.depths import _COLOURS
from minivlm.skipping import worked
from minivlm.tables import interval


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_cell_has_the_colour_of_what_was_done_there():
    batch, outputs, config = explorers.skipped()
    output = outputs[0.25]
    figure, alt = depth_raster({"one": (batch, output)}, config, tiny.TOKENIZER.decode, sample=1)
    [axes] = figure.axes
    drawn, length = torch.tensor(axes.images[0].get_array()), int(output.layout.lengths[1])
    assert drawn.shape == (config.depth, length) and axes.images[0].origin == "lower"
    rows = worked(output, config)[:, 1]
    for block in range(config.depth):
        for place in range(length):
            kind = 1 if output.layout.is_visual[1, place] else 2
            assert drawn[block, place] == (kind if rows[block, place] else 0)
    colours = [to_rgb(colour) for colour in _COLOURS.values()]
    assert [to_rgb(axes.images[0].cmap(value)) for value in range(3)] == colours
    assert colours[1:] == [to_rgb(PALETTE["blue"]), to_rgb(PALETTE["orange"])]
    patches, words = ((rows[0] & kind[1]).sum() for kind in (output.layout.is_visual, output.layout.is_text))
    assert f"one: block 1 works on {patches} of 4 places of the picture and on {words} of " in alt


def test_the_words_that_were_worked_on_are_named():
    batch, outputs, config = explorers.skipped()
    figure, alt = depth_raster({"all": (batch, outputs[1.0])}, config, tiny.TOKENIZER.decode)
    words = "·, what, color, is, the, circle, ?, red, · (2)"
    assert f"on 4 of 4 places of the picture and on 9 of 9 words ({words})" in alt.replace(
        "places of the", "places of the"
    )
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == words.replace(" (2)", "").split(", ")
    assert axes.get_xticks().tolist() == outputs[1.0].layout.is_text[0].nonzero().flatten().tolist()


def test_patches_that_are_passed_by_lie_under_a_veil():
    batch, outputs, config = explorers.skipped()
    output = outputs[0.5]
    figure, alt = passed_patches(batch, output, config)
    assert len(figure.axes) == len(batch) * len(config.routed)
    for number, axes in enumerate(figure.axes):
        block, sample = config.routed[number // len(batch)], number % len(batch)
        veils = {shape.get_xy() for shape in axes.patches if shape.get_fill()}
        layout, route = output.layout, worked(output, config)[block, sample]
        places = layout.is_visual[sample].nonzero().flatten().tolist()
        assert veils == {(int(layout.col[sample, p]), int(layout.row[sample, p])) for p in places if not route[p]}
        assert axes.get_title() == f"{4 - len(veils)} of 4"
        assert f"picture {sample + 1}, block {block + 1}: {4 - len(veils)} of 4" in alt
        shown = torch.tensor(axes.images[0].get_array())
        assert torch.equal(shown, batch.images[sample, 0].permute(1, 2, 0))
    chosen, _ = passed_patches(batch, output, config, [1])
    assert [axes.get_title() for axes in chosen.axes] == [axes.get_title() for axes in figure.axes[1::2]]


def test_what_cannot_be_drawn_is_refused():
    batch, outputs, config = explorers.skipped()
    with pytest.raises(ValueError, match="nothing to show"):
        depth_raster({}, config, tiny.TOKENIZER.decode)
    with pytest.raises(ValueError, match="no routes in this output"):
        depth_raster({"one": (batch, replace(outputs[0.5], maps={}))}, config, tiny.TOKENIZER.decode)
    with pytest.raises(ValueError, match="give a batch with images"):
        passed_patches(Batch(None, batch.input_ids), outputs[0.5], config)
    with pytest.raises(ValueError, match="no results"):
        accuracy_against_skipping([])


def test_a_point_stands_at_the_shares_of_its_arm_and_its_bar_spans_the_interval():
    other = replace(made_up("mod", 0, 0.3, own=80), every=2)
    runs = [made_up("mod", 0, 0.5), made_up("mod", 1, 0.6), other]
    figure, alt = accuracy_against_skipping(runs)
    middle, half = interval([0.6, 0.7])
    for axes, shares in zip(figure.axes, ((0.75, 1.0), (0.9, 0.9)), strict=True):
        points = [container.lines[0].get_xydata()[0].tolist() for container in axes.containers]
        assert points == [[shares[0], pytest.approx(middle)], [shares[1], pytest.approx(0.4)]]
        [segment] = axes.containers[0].lines[2][0].get_segments()
        assert segment[:, 1].tolist() == pytest.approx([middle - half, middle + half])
    assert "mod, 12.5%, every 3 65% with 75% and 90%; mod, 12.5%, every 2 40% with 100% and 90%." in alt
    assert "plain 40% with" in accuracy_against_skipping([replace(other, design="plain", every=0)])[1]
