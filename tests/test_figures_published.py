"""Weights and partings where they are drawn: areas are numbers of weights, lines are differences."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
from matplotlib.colors import to_rgba

from minivlm.budget import budget
from minivlm.figures import parameter_map, parting_lines
from minivlm.figures.published import LOWEST, ROOMS


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def weights(part) -> int:
    return sum(p.numel() for p in part.parameters())


def test_areas_are_numbers_of_weights_on_one_scale():
    models = {"small": tiny.vlm(), "SmolVLM": budget("smolvlm").model}
    figure, told = parameter_map(models)
    total = weights(models["SmolVLM"])
    for axes, model in zip(figure.axes, models.values(), strict=True):
        for room in model.parts:
            boxes = [box for box in axes.patches if box.get_facecolor() == to_rgba(ROOMS[room])]
            area = sum(box.get_width() * box.get_height() for box in boxes)
            assert area == pytest.approx(weights(getattr(model, room)) / total, rel=1e-6)
        right = max(box.get_x() + box.get_width() for box in axes.patches)
        bottom = max(box.get_y() + box.get_height() for box in axes.patches)
        assert right == pytest.approx(bottom) == pytest.approx((weights(model) / total) ** 0.5)
        assert [line.get_xdata()[0] for line in axes.lines] == sorted({box.get_x() for box in axes.patches})
    assert "SmolVLM: 256 million weights, of which vision 34%, connector 2.8%, language 64%." in told
    assert figure.axes[1].get_title("left") == "SmolVLM\n256 million weights"


def test_strips_are_layers_in_their_order_and_a_tied_table_counts_once():
    model = budget("smolvlm").model
    figure, _ = parameter_map({"SmolVLM": model})
    blue = [box for box in figure.axes[0].patches if box.get_facecolor() == to_rgba(ROOMS["language"])]
    blue.sort(key=lambda box: box.get_y())
    layers = [model.language.embedding, *model.language.blocks, model.language.final_norm]
    assert model.config.language.tied is False and len(blue) == len(layers) + 1
    heights = np.array([box.get_height() for box in blue])
    wanted = np.array([weights(layer) for layer in [*layers, model.language.head]])
    np.testing.assert_allclose(heights, wanted / wanted.sum(), rtol=1e-6)


def test_more_models_take_another_row_and_none_is_refused():
    figure, told = parameter_map(dict.fromkeys("abcde", tiny.vlm()), per_row=2)
    assert (
        len(figure.axes) == 6
        and [ax.get_ylim()[0] for ax in figure.axes] == [1] * 6
        and told.count("weights, of which") == 5
    )
    with pytest.raises(ValueError, match="no model to map"):
        parameter_map({})


def test_lines_are_differences_and_crosses_stand_where_models_part():
    layers = ["vision.pre_norm", "vision.blocks.0.mlp.up", "vision.blocks.0.mlp.down", "connector.0", "language.head"]
    found = {
        "right": dict.fromkeys([layers[0], *layers[3:]], 0.0),
        "wrong": dict(zip(layers, [1e-7, 2e-7, 0.5, 0.25, 0.125], strict=True)),
    }
    figure, told = parting_lines(found)
    right, wrong, cross, tolerance = figure.axes[0].lines
    assert right.get_xdata().tolist() == [0, 3, 4] and set(right.get_ydata()) == {LOWEST}
    assert wrong.get_ydata().tolist() == [1e-7, 2e-7, 0.5, 0.25, 0.125]
    assert cross.get_xydata().tolist() == [[2, 0.5]] and set(tolerance.get_ydata()) == {1e-3}
    assert "right parts nowhere (at most 1e-08) and ends 0.0e+00 apart" in told
    assert "wrong parts at vision.blocks.0.mlp.down (5.0e-01) and ends 1.2e-01 apart." in told
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["vision", "vision.blocks.0", "connector", "language"]
    assert figure.axes[0].get_xticks().tolist() == [0, 1, 3, 4]
    for nothing in ({}, {"none": {}}):
        with pytest.raises(ValueError, match="nothing to draw"):
            parting_lines(nothing)
