"""Figures of queries: what is drawn is the maps, what is said is what is drawn."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from references import pictures, words
from test_queries import config_of, output_of, shares

from minivlm import Batch
from minivlm.connectors.d_abstractor import DAbstraction
from minivlm.designs import configure
from minivlm.figures import PALETTE, query_maps, query_similarity, question_maps, receptive_fields, sampling_points
from minivlm.queries import query_statistics

IMAGES = pictures(2, 2, 3, 16, 24)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def weights() -> torch.Tensor:
    """Two samples of two pictures; 3 heads; 10 queries that look at a class token, 2x3 patches and themselves."""
    return shares(4, 3, 10, 1 + 6 + 10)


def assert_within(figure: plt.Figure) -> None:
    figure.canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


def test_a_map_for_each_query_over_its_picture(weights):
    figure, alt = query_maps(output_of(a=weights), IMAGES, config_of(True), sample=1, picture=0, head=2)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [f"query {n}" for n in range(1, 11)]
    mine = weights[2, 2]  # second sample, first picture
    grey = IMAGES[1, 0].mean(dim=0)
    for axes, row in zip(panels, mine, strict=True):
        below, above = axes.images
        np.testing.assert_allclose(below.get_array()[..., 0], grey, rtol=1e-6)
        np.testing.assert_allclose(above.get_array(), row[1:7].view(2, 3), rtol=1e-6)
        assert above.get_extent() == below.get_extent()
    assert len({axes.images[1].norm for axes in panels}) == 1
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), IMAGES[1, 0].permute(1, 2, 0))
    peak = divmod(int(mine[9, 1:7].argmax()), 3)
    assert alt.startswith("connector.a.weights, head 3: 10 queries look at 6 patches")
    assert f"with {mine[:, 1:7].sum(dim=1).mean():.0%} of the attention" in alt
    assert f"{mine[:, 0].mean():.0%} at the class token, {mine[:, 7:].sum(dim=1).mean():.0%} at the queries" in alt
    assert alt.endswith(f"query 10 ({peak[0] + 1}, {peak[1] + 1}).")
    assert_within(figure)


def test_how_alike_queries_are_is_drawn_and_said(weights):
    figure, alt = query_similarity(output_of(a=weights), config_of(True), sample=0, picture=1)
    found = query_statistics(weights[1].mean(dim=0)[:, 1:7])
    left, right = figure.axes[:2]
    np.testing.assert_allclose(left.images[0].get_array(), found.similarity, rtol=1e-5)
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], found.spread, rtol=1e-5)
    assert (
        left.get_title() == f"collapse {found.collapse:.2f}" and right.get_title() == f"coverage {found.coverage:.0%}"
    )
    assert alt.startswith("connector.a.weights, all heads: ")
    assert f"cosine of {found.collapse:.2f} in the mean" in alt and f"{found.coverage:.0%} of the patches" in alt
    assert f"{found.spread.mean():.1f} of 6 patches in the mean ({found.spread.min():.1f} to " in alt
    assert_within(figure)


@torch.no_grad()
def test_points_are_drawn_where_they_are_and_as_large_as_they_weigh():
    torch.manual_seed(0)
    connector = DAbstraction(16, width=32, depth=2, heads=4, points=4, mlp_width=32)
    model = replace(configure("honeybee_d"), connector=connector).build()
    ids = words(2, 6)
    ids[:, [1, 3]] = model.image_token_id
    images = pictures(2, 2, 3, 64, 64)
    output = model(Batch(images, ids), capture=True)
    for site in ("points", "weights"):  # one that weighs, far out to the left
        output.maps[f"connector.layers.1.sampling.{site}"][3, 5, 2, 1] = torch.tensor(-0.5 if site == "points" else 3.0)
    figure, alt = sampling_points(output, images, query=5, sample=1, picture=1)
    points = output.maps["connector.layers.1.sampling.points"][3, 5]
    weights = output.maps["connector.layers.1.sampling.weights"][3, 5]
    assert len(figure.axes[0].collections) == 4
    for number, (dots, colour) in enumerate(zip(figure.axes[0].collections, PALETTE.values(), strict=False)):
        np.testing.assert_allclose(dots.get_offsets(), points[number], rtol=1e-6)
        np.testing.assert_allclose(dots.get_sizes(), 10 + 150 * weights[number], rtol=1e-6)
        assert to_rgba(colour) == tuple(dots.get_facecolor()[0])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), images[1, 1].permute(1, 2, 0))
    outside = [(h, p) for h in range(4) for p in range(4) if not all(0 <= float(x) <= 1 for x in points[h, p])]
    lost = sum(float(weights[h, p]) for h, p in outside) / 4
    x, y = (sum(float(points[h, p, i] * weights[h, p]) for h in range(4) for p in range(4)) / 4 for i in (0, 1))
    assert alt.startswith("connector.layers.1.sampling.points: query 6 samples 16 points in 4 heads")
    assert f"around {x:.0%} from the left and {y:.0%} from the top; {len(outside)} lie outside" in alt
    assert f"with {lost:.0%} of the weight" in alt
    assert "layers.0" in sampling_points(output, images, 0, "connector.layers.0.sampling.points")[1]
    assert_within(figure)


def test_without_points_there_is_nothing_to_draw(weights):
    with pytest.raises(ValueError, match="no map of sampling points; there are: none. Call .* capture=True"):
        sampling_points(output_of(a=weights), IMAGES, 0)
    output = output_of(a=weights)
    output.maps["connector.a.points"] = torch.rand(2, 4, 2, 6, 2)
    with pytest.raises(ValueError, match="no map b.points of sampling points; there are: connector.a.points"):
        sampling_points(output, IMAGES, 0, "b.points")


def test_receptive_fields_share_one_scale():
    narrow, wide = torch.zeros(2, 4), torch.full((2, 4), 0.02)
    narrow[1, 2] = 1.0
    wide[0, 0], wide[0, 3] = 0.5, 0.38
    figure, alt = receptive_fields({"pooling": narrow, "convolutions": wide})
    for axes, field in zip(figure.axes[:2], (narrow, wide), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), field)
    assert figure.axes[0].images[0].norm is figure.axes[1].images[0].norm
    assert [axes.get_title() for axes in figure.axes[:2]] == ["pooling", "convolutions"]
    assert "pooling: 1 of 8 patches make 90% of it, most in row 2, column 3 (100%)." in alt
    assert "convolutions: 3 of 8 patches make 90% of it, most in row 1, column 1 (50%)." in alt
    assert_within(figure)


def test_one_query_side_by_side_for_two_questions(weights):
    other = weights.flip(-1)
    outputs = {"a ?": output_of(a=weights), "b ?": output_of(a=other)}
    figure, alt = question_maps(outputs, IMAGES, config_of(True), query=4, sample=1, picture=0, head=2)
    first, second = (maps[2, 2, 4, 1:7].view(2, 3) for maps in (weights, other))
    whole, *panels = figure.axes[:4]
    np.testing.assert_allclose(whole.images[0].get_array(), IMAGES[1, 0].permute(1, 2, 0))
    assert [axes.get_title() for axes in panels] == ["a\xa0?", "b\xa0?", "second minus first"]
    for axes, share in zip(panels, (first, second, second - first), strict=True):
        below, above = axes.images
        np.testing.assert_allclose(below.get_array()[..., 0], IMAGES[1, 0].mean(dim=0), rtol=1e-6)
        np.testing.assert_allclose(above.get_array(), share, rtol=1e-5, atol=1e-7)
        assert above.get_extent() == below.get_extent()
    assert panels[0].images[1].norm is panels[1].images[1].norm
    assert panels[0].images[1].norm.vmax == pytest.approx(float(torch.maximum(first, second).max()))
    low, high = panels[2].images[1].get_clim()
    assert high == -low == pytest.approx(float((second - first).abs().max()))
    peak = divmod(int(second.argmax()), 3)
    cosine = torch.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    gain, loss = (divmod(int(change.argmax()), 3) for change in (second - first, first - second))
    assert alt.startswith("connector.a.weights, head 3: query 5. ")
    assert f'"b ?": {second.sum():.0%} of its attention on 6 patches, most at row {peak[0] + 1}, column ' in alt
    assert alt.endswith(
        f"The two maps have a cosine of {cosine:.2f}; the second looks most of all more at row {gain[0] + 1}, column "
        f"{gain[1] + 1} (+{(second - first).max():.1%}) and less at row {loss[0] + 1}, column {loss[1] + 1} "
        f"(-{(first - second).max():.1%})."
    )
    assert_within(figure)


def test_one_query_of_one_of_three_and_of_equal_outputs(weights):
    outputs = {name: output_of(a=weights.roll(n, dims=-1)) for n, name in enumerate(("a", "b", "c"))}
    figure, alt = question_maps(outputs, IMAGES, config_of(True), query=0)
    assert [axes.get_title() for axes in figure.axes[1:4]] == ["a", "b", "c"]
    mine = torch.stack([weights.roll(n, dims=-1)[0].mean(dim=0)[0, 1:7] for n in range(3)])
    assert alt.endswith(f"Two of these maps have a cosine of {query_statistics(mine).collapse:.2f} in the mean.")
    figure, alt = question_maps({"only": outputs["b"]}, IMAGES, config_of(True), query=0)
    assert [axes.get_title() for axes in figure.axes[1:2]] == ["only"] and alt.endswith("%).")
    alike = {"one": outputs["a"], "two": output_of(a=weights.clone())}
    assert question_maps(alike, IMAGES, config_of(True), query=0)[1].endswith("The two maps are the same.")
