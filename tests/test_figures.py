"""Figures: what is drawn is the data, what is said is what is drawn, and colours are told apart by everyone."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.patches import Rectangle

from minivlm import DESIGNS, Batch, budget, build
from minivlm.attribution import decoder_attention, word_heat
from minivlm.evaluate import Score
from minivlm.figures import (
    PALETTE,
    accuracy_bars,
    attention_distance,
    attention_maps,
    block_matrix,
    budget_bars,
    curves,
    design_map,
    heat_maps,
    match_probabilities,
    picture_grid,
    picture_share,
    show,
    similarity,
    token_strip,
    words_of_patch,
    zero_shot_bars,
)
from minivlm.figures.budget import fits
from minivlm.figures.common import colours
from minivlm.language.tokenizer import mini_tokenizer

PICTURES = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
# what is left of linear RGB without the long- or the middle-wave cones (Viénot, Brettel and Mollon 1999)
BLINDNESS = {
    "protan": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deutan": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def strip():
    """Two samples, the second with a longer dialog; the strip of the second."""
    dialogs = [
        [("what color is the circle ?", "red")],
        [("is there a red circle ?", "no"), ("where is it ?", "top-left")],
    ]
    batch = Batch.pack(tiny.TOKENIZER, dialogs, images=PICTURES)
    output = tiny.vlm()(batch)
    return batch, output, *token_strip(batch, output, tiny.TOKENIZER.decode, sample=1)


def linear(color: str) -> np.ndarray:
    value = np.array(to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of a linear RGB colour."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.clip(xyz / [0.9505, 1.0, 1.089], 1e-4, None))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# --- colours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [np.eye(3), *map(np.array, BLINDNESS.values())], ids=["full", *BLINDNESS])
def test_colours_are_told_apart(matrix):
    """At least 10 units of CIELAB between any two, where 2 can just be noticed side by side."""
    seen = {name: lab(np.clip(matrix @ linear(color), 0, 1)) for name, color in PALETTE.items()}
    for a, b in combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 10, (a, b)


def test_each_name_gets_a_colour_of_its_own():
    assert len(set(colours(["a", "b", "c"]))) == 3
    with pytest.raises(ValueError, match="got 99"):
        colours([str(n) for n in range(99)])


# --- what every figure does -----------------------------------------------------------------------------------------


def test_showing_prints_the_description_and_closes(capsys):
    figure, alt = curves({"a run with a name": [1.0, 0.5], "another run with a name": [2.0, 1.5]})
    show(figure, alt)
    assert alt in " ".join(capsys.readouterr().out.split())
    assert not plt.fignum_exists(figure.number)


def test_no_text_leaves_its_figure():
    scores = {f"TASK {n}": Score(5, 10, 0.5) for n in range(9)}
    made = [
        curves({"a long name of a run": [3.0, 1.0], "another": [2.0]}),
        accuracy_bars({"sees": scores, "blind": scores}),
        picture_grid(PICTURES[:, 0], ["a picture with a caption that is rather long", "b"]),
        similarity({"start": torch.eye(12), "end": torch.eye(12)}, ["a long row name"] * 12, ["a column name"] * 12),
        heat_maps(PICTURES[:, 0], {"a": torch.rand(2, 2, 2)}, ["what color is the small circle ? red", "b"]),
        match_probabilities(torch.eye(12), [0.1, 1], ["a long row name"] * 12, ["a column name"] * 12),
        zero_shot_bars(PICTURES[:, 0], torch.eye(2), ["a class with a long name", "b"], ["a name rather long", "b"]),
        design_map(DESIGNS, {"llava15": budget("llava15")}),
        budget_bars({"a design of 336 pixels": budget("llava", "mini"), "b": budget("llava", "mini")}),
    ]
    for figure, alt in made:
        figure.canvas.draw()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # inches
        assert min(drawn.x0, drawn.y0) >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01, alt


# --- the token strip ------------------------------------------------------------------------------------------------


def test_the_strip_has_a_cell_for_every_token_and_a_frame_for_every_taught_one(strip):
    batch, output, figure, _ = strip
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and not p.get_fill()]
    assert len(frames) == int(output.layout.lengths[1])
    taught = [p for p in frames if p.get_hatch() is None]
    words = [t.get_text() for t in figure.axes[0].texts]
    assert len(taught) == int((batch.labels[1] >= 0).sum()) == 4  # two answers, an end for each
    places = {(int(p.get_x()), int(p.get_y())) for p in taught}
    framed = [
        t.get_text() for t in figure.axes[0].texts if (int(t.get_position()[0]), int(t.get_position()[1])) in places
    ]
    assert framed == ["no", "·", "top-\nleft", "·"]
    assert words[:3] == ["·", "is", "there"]


def test_the_strip_shows_each_patch_where_it_stands(strip):
    batch, _, figure, _ = strip
    picture = batch.images[1, 0].permute(1, 2, 0).numpy()
    tiles = [image.get_array() for image in figure.axes[0].images]
    wanted = [picture[r : r + 8, c : c + 8] for r in (0, 8) for c in (0, 8)]
    assert len(tiles) == 4
    for tile, patch in zip(tiles, wanted, strict=True):
        np.testing.assert_allclose(tile, patch)
    assert [int(image.get_extent()[0]) for image in figure.axes[0].images] == [1, 2, 3, 4]  # after the begin mark


def test_the_strip_is_said_in_words(strip):
    batch, output, _, alt = strip
    length = int(output.layout.lengths[1])
    assert f"{length} tokens: 4 of the picture ({4 / length:.0%}) and {length - 4} words" in alt
    assert "4 of them (framed)" in alt and f"{length - 4} are only read" in alt


def test_a_strip_without_labels_or_pictures_has_no_frames_and_grey_patches():
    features = torch.rand(1, 1, 4, 16)
    batch = replace(Batch.pack(tiny.TOKENIZER, [[("what ?", "")]], features=features), labels=None)
    figure, alt = token_strip(batch, tiny.vlm()(batch), tiny.TOKENIZER.decode)
    assert not figure.axes[0].images and "loss is taken on 0" in alt


def test_cells_of_a_coarser_grid_have_a_colour_of_their_own():
    model, tokenizer = build("deco", device="cpu"), mini_tokenizer()
    images = torch.rand(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = Batch.pack(tokenizer, [[("what color is the circle ?", "red")]], images=images)
    output = model(batch)
    figure, alt = token_strip(batch, output, tokenizer.decode)
    filled = [
        (int(p.get_x()), int(p.get_y()))
        for p in figure.axes[0].patches
        if p.get_facecolor() == to_rgba(PALETTE["green"])
    ]
    places = [(place % 16, place // 16) for place in output.layout.is_visual[0].nonzero().flatten().tolist()]
    assert filled == places and len(places) == 16 and "16 of the picture" in alt


# --- training -------------------------------------------------------------------------------------------------------


def test_curves_are_running_means():
    figure, alt = curves({"a": [4.0, 2.0, 2.0], "b": [1.0]}, smooth=0.5)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [4.0, 3.0, 2.5])
    assert "a goes from 4.00 to 2.50 in 3 steps" in alt and "b goes from 1.00 to 1.00 in 1 steps" in alt


def test_similarity_is_drawn_on_one_scale_and_counted():
    good, bad = torch.eye(3), torch.eye(3).roll(1, dims=0)
    figure, alt = similarity({"before": bad, "after": good}, ["r"] * 3, ["c"] * 3)
    shown = [axes.images[0] for axes in figure.axes[:2]]
    for image, matrix in zip(shown, (bad, good), strict=True):
        np.testing.assert_allclose(image.get_array(), matrix)
        assert image.get_clim() == (-1, 1)
    assert "before, 0 of 3" in alt and "after, 3 of 3" in alt


def test_bars_are_accuracies_with_their_intervals_and_chance():
    sees = {"COLOR": Score(90, 100, 0.1), "EXIST": Score(70, 100, 0.5)}
    blind = {"COLOR": Score(11, 100, 0.1), "EXIST": Score(49, 100, 0.5)}
    figure, alt = accuracy_bars({"sees": sees, "blind": blind})
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.9, 0.7, 0.11, 0.49]
    drawn = [segment for c in axes.collections for segment in c.get_segments()]
    for score, segment in zip([*sees.values(), *blind.values()], drawn, strict=True):
        np.testing.assert_allclose(segment[:, 1], score.interval)
    chances = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2 and line.get_color() == "black"]
    assert chances == [0.1, 0.5]
    assert "sees" in alt and "90%" in alt.replace(" ", "") and "11%" in alt.replace(" ", "")


def test_a_grid_shows_each_picture_over_its_caption():
    figure, alt = picture_grid(PICTURES[:, 0], ["a red circle", "a blue square"], per_row=1)
    for axes, picture, text in zip(figure.axes, PICTURES[:, 0], ("a red circle", "a blue square"), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), picture.permute(1, 2, 0))
        assert axes.get_xlabel() == text
    assert alt == "2 pictures: a red circle; a blue square."
    [axes] = picture_grid(PICTURES[:1, 0], ["a large red circle , on white ."])[0].axes
    assert (
        axes.get_xlabel() == "a large red circle\N{NO-BREAK SPACE},\non white\N{NO-BREAK SPACE}."
    )  # no line begins with a comma
    assert picture_grid(PICTURES[:1, 0], ["a red circle , on white ."])[1] == "One picture: a red circle , on white."


# --- attention ------------------------------------------------------------------------------------------------------


def test_heat_is_drawn_as_shares_on_one_scale():
    heat = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [5.0, 0.0]]])
    figure, alt = heat_maps(PICTURES[:, 0], {"some": heat, "even": torch.ones(2, 2, 2)}, ["x", "y"])
    images = [axes.images[0] for axes in figure.axes[:6]]
    np.testing.assert_allclose(images[0].get_array(), PICTURES[0, 0].permute(1, 2, 0))
    np.testing.assert_allclose(images[1].get_array(), [[0.25, 0], [0, 0.75]])
    np.testing.assert_allclose(images[2].get_array(), np.full((2, 2), 0.25))
    np.testing.assert_allclose(images[4].get_array(), [[0, 0], [1, 0]])
    assert {image.norm.vmax for image in images if image.get_array().ndim == 2} == {1.0}
    assert "some: 88% of the heat in 1 of 4 patches, peaks at row 2, column 2; row 2, column 1." in alt
    assert "even: 25% of the heat in 1 of 4 patches" in alt
    with pytest.raises(ValueError, match="2 pictures and 1 titles"):
        heat_maps(PICTURES[:, 0], {"some": heat}, ["x"])


def test_the_share_of_the_picture_is_that_of_the_maps():
    batch = Batch.pack(tiny.TOKENIZER, [[("circle", "red")], [("is there a circle ?", "no")]], images=PICTURES)
    output = tiny.vlm()(batch, capture=True)
    figure, alt = picture_share(batch, output, tiny.TOKENIZER.decode, sample=1)
    drawn = figure.axes[0].images[0].get_array()
    maps = [output.maps[f"language.blocks.{i}.attention.weights"][1] for i in range(2)]
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["·", "is", "there", "a", "circle", "?", "no", "·"]
    for block, weights in enumerate(maps):
        for column, place in enumerate([0, 5, 6, 7, 8, 9, 10, 11]):  # the patches stand at 1 to 4
            share = sum(float(weights[head, place, p]) for head in range(2) for p in range(1, 5)) / 2
            assert float(drawn[block, column]) == pytest.approx(share, abs=1e-6)
    assert "· 0%" in alt and f"circle {float(drawn[:, 4].mean()):.0%}" in alt


@pytest.fixture
def read():
    """Two samples of one picture each, the second with two questions, and the pass that read them."""
    dialogs = [[("circle", "red")], [("is there a circle ?", "no"), ("where ?", "top-left")]]
    batch = Batch.pack(tiny.TOKENIZER, dialogs, images=PICTURES)
    return batch, tiny.vlm()(batch, capture=True)  # with gradients, for the method that needs them


def test_a_map_a_word_holds_that_word_s_heat(read):
    batch, output = read
    figure, alt = attention_maps(batch, output, tiny.TOKENIZER.decode, sample=1, method="gradient", layer=1, head=0)
    panels = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert [axes.get_title() for axes in panels] == "is there a circle ? no · where ? top-left ·".split()
    for axes, place in zip(panels, range(5, 16), strict=True):
        heat = word_heat(output, batch, place, "gradient", 1, 1, 0)
        np.testing.assert_allclose(axes.images[0].get_array(), heat / heat.sum().clamp(min=1e-12), rtol=1e-5)
    assert len({axes.images[0].norm for axes in panels}) == 1
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), PICTURES[1, 0].permute(1, 2, 0))
    row, col = divmod(int(word_heat(output, batch, 8, "gradient", 1, 1, 0).argmax()), 2)
    assert alt.startswith("Gradient in block 2, head 1: ") and f"circle ({row + 1}, {col + 1})" in alt
    alone = attention_maps(batch, output, tiny.TOKENIZER.decode, [8], sample=1)[1]
    assert " of the word's heat is in 1 of 4 patches; the hottest patch (row, column): circle (" in alone
    with pytest.raises(ValueError, match="with images"):
        attention_maps(replace(batch, images=None), output, tiny.TOKENIZER.decode)


def test_the_words_of_a_patch_are_its_column_of_the_maps(read):
    batch, output = read
    figure, alt = words_of_patch(batch, output, tiny.TOKENIZER.decode, row=1, col=0, sample=1, layer=0)
    left, right = figure.axes
    frame = left.patches[0]
    assert (frame.get_x(), frame.get_y()) == (-0.5, 0.5)  # column 0, row 1
    weights = decoder_attention(output)[0][1].mean(dim=0)  # (L, L)
    shares = [float(weights[place, 3]) for place in range(5, 16)]  # patch (1, 0) stands at 3
    np.testing.assert_allclose([bar.get_height() for bar in right.patches], shares, rtol=1e-5)
    names = [label.get_text() for label in right.get_xticklabels()]
    assert names == ["is", "there", "a", "circle", "?", "no", "·", "where", "? (2)", "top-left", "· (2)"]
    assert f"row 2, column 1 gets most attention from: {names[int(np.argmax(shares))]} {max(shares):.1%}" in alt


def test_parts_read_parts_and_give_all_their_attention(read):
    batch, output = read
    figure, alt = block_matrix(batch, output, sample=1)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["block 1", "block 2"]
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == ["begin", "picture 1", "question 1", "answer 1", "question 2", "answer 2"]
    spans = [(0, 1), (1, 5), (5, 10), (10, 12), (12, 14), (14, 16)]
    for axes, weights in zip(panels, decoder_attention(output), strict=True):
        mean, drawn = weights[1].mean(dim=0), axes.images[0].get_array()
        for i, (a, b) in enumerate(spans):
            assert drawn[i].sum() == pytest.approx(1, abs=1e-5)
            for j, (c, d) in enumerate(spans):
                slow = sum(float(mean[q, k]) for q in range(a, b) for k in range(c, d)) / (b - a)
                assert float(drawn[i, j]) == pytest.approx(slow, abs=1e-6)
        assert drawn[4, 2] == drawn[4, 3] == drawn[0, 1] == 0  # no question sees another, the begin mark no picture
    first = float(panels[0].images[0].get_array()[5, 1])
    assert f"answer 2 {first:.0%}" in alt


def test_distance_is_measured_between_patches():
    """Attention to oneself is at distance 0, to the opposite corner of 2 x 3 patches at root 5; the class token does
    not count."""
    own = torch.eye(7)[None, None].repeat(1, 2, 1, 1)
    far = torch.zeros(1, 2, 7, 7)
    far[..., 0] = 0.5  # half to the class token
    far[..., 1:, 1:] = torch.eye(6).flip(0) / 2  # half to the opposite patch
    first = torch.zeros(1, 2, 7, 7)
    first[..., 1] = torch.linspace(0.1, 1, 7)  # shares of many sizes, all to the patch in the first corner
    maps = {f"vision.blocks.{n}.attention.weights": weights for n, weights in enumerate((own, far, first))}
    figure, alt = attention_distance(maps, (2, 3))
    points = [collection.get_offsets() for collection in figure.axes[0].collections]
    np.testing.assert_allclose(points[0], [[1, 0], [1, 0]])
    slow = [((1 - 2 * r) ** 2 + (2 - 2 * c) ** 2) ** 0.5 for r in range(2) for c in range(3)]
    np.testing.assert_allclose(points[1], [[2, np.mean(slow)]] * 2, rtol=1e-6)
    corner = [(r**2 + c**2) ** 0.5 for r in range(2) for c in range(3)]
    np.testing.assert_allclose(points[2], [[3, np.mean(corner)]] * 2, rtol=1e-6)
    assert f"block 1 0.0 (heads 0.0 to 0.0); block 2 {np.mean(slow):.1f}" in alt
    with pytest.raises(ValueError, match="capture=True"):
        attention_distance({}, (2, 3))


# --- one space ------------------------------------------------------------------------------------------------------


def test_match_probabilities_are_a_softmax_over_texts():
    cosines = torch.tensor([[0.5, 0.1, 0.0], [0.9, 0.2, 0.1]])
    figure, alt = match_probabilities(cosines, [1.0, 0.2], ["a", "b"], ["x", "y", "z"])
    raised = np.exp(cosines.numpy() / 0.2)
    np.testing.assert_allclose(
        figure.axes[1].images[0].get_array(), raised / raised.sum(axis=1, keepdims=True), rtol=1e-5
    )
    own = [raised[i, i] / raised[i].sum() for i in range(2)]
    assert (
        alt.startswith("At temperature 1, ")
        and "At temperature 0.2, 1 of 2 pictures" in alt
        and f"{np.mean(own):.0%} in the mean" in alt
    )
    with pytest.raises(ValueError, match="above 0"):
        match_probabilities(cosines, [1.0, 0.0], ["a", "b"], ["x", "y", "z"])


def test_zero_shot_bars_are_the_likeliest_classes_with_the_true_one_filled():
    rows = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    figure, alt = zero_shot_bars(PICTURES[:, 0], rows, ["ring", "star", "cross"], ["cross", "ring"], best=2)
    bars = figure.axes[2].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.7, 0.2])
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == ["star", "cross"]
    assert [to_rgb(bar.get_facecolor()[:3]) == (1, 1, 1) for bar in bars] == [True, False]
    assert "cross: star 70%, cross 20%; ring: ring 50%, star 30%" in alt
    with pytest.raises(ValueError, match="2 pictures, 2 rows of probabilities, 1 truths"):
        zero_shot_bars(PICTURES[:, 0], rows, ["ring", "star", "cross"], ["ring"])


# --- budgets --------------------------------------------------------------------------------------------------------


def test_budget_bars_stack_up_to_the_budget():
    few, many = budget("llava15"), budget("llava15", images=4)
    figure, alt = budget_bars({"one": few, "four": many})
    work, cache, memory = figure.axes

    def ends(axes):
        return [
            max(bar.get_x() + bar.get_width() for bar in axes.patches if round(bar.get_y() + 0.35) == i) for i in (0, 1)
        ]

    np.testing.assert_allclose(ends(work), [sum(b.flops.values()) / 1e12 for b in (few, many)])
    np.testing.assert_allclose(ends(cache), [b.cache_bytes / 2**20 for b in (few, many)])
    np.testing.assert_allclose(ends(memory), [b.memory_bytes / 1e9 for b in (few, many)])
    assert cache.patches[0].get_width() == pytest.approx(few.image_cache_bytes / 2**20)
    assert "one: 576 visual tokens" in alt and "four: 2,304 visual tokens" in alt
    assert [line.get_xdata()[0] for line in memory.lines] == [8, 16]
    assert "cards of 8 and 16 GB" in [text.get_text() for text in memory.get_legend().get_texts()]


def test_what_fits_is_weights_and_cache():
    assert fits(budget("llava15")) == "fits on 16 GB and 80 GB"
    assert fits(budget("llava15", "mini")) == "fits on 8 GB and 16 GB and 80 GB"
    assert fits(budget("llava15", images=300)) == "does not fit on 80 GB"


def test_the_map_has_every_design_in_the_order_of_years():
    budgets = {"llava15": budget("llava15"), "yi_vl": budget("yi_vl")}
    figure, alt = design_map(DESIGNS, budgets)
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    years = [int(name[-5:-1]) for name in names]
    assert years == sorted(years) and {name[:-7] for name in names} == {d.title for d in DESIGNS.values()}
    widths = dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))
    assert widths["LLaVA-1.5 (2023)"] == 576 and widths["Yi-VL (2024)"] == 1024 and widths["CLIP (2021)"] == 1
    fills = {bar.get_facecolor() for bar in axes.patches}
    assert len(fills) == len({d.fusion for d in DESIGNS.values()})
    assert "LLaVA-1.5 (2023) 576 (CLIP ViT, MLP projection, interleaved)" in alt
    assert any("576 tokens: CLIP ViT, MLP projection" in text.get_text() for text in axes.texts)
