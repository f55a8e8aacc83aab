"""Figures of fusions: what is drawn is what the maps hold, what is said is what is drawn."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgba
from references import pictures, randomise, words

from minivlm import Batch, build
from minivlm.figures import PALETTE, gate_curves, residual_shares, route_mosaic, sight_matrix
from minivlm.model import VLM, Output


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def decode(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids if i != 3)  # the <image> id has no text


def asked(name: str) -> tuple[VLM, Batch, Output]:
    """Two samples, the first with two pictures, the second with one; words before, between and behind."""
    torch.manual_seed(0)
    model = randomise(build(name, device="cpu"))
    ids, mask = words(2, 8), torch.ones(2, 8, dtype=torch.bool)
    ids[0, [2, 5]] = ids[1, 3] = model.image_token_id
    mask[1, 7:] = False
    batch = Batch(
        pictures(2, 2, 3, 64, 64), ids, text_mask=mask, image_mask=torch.tensor([[True, True], [True, False]])
    )
    with torch.no_grad():
        return model, batch, model(batch, capture=True)


def test_a_word_sees_what_the_matrix_shows():
    _, batch, output = asked("flamingo")
    figure, alt = sight_matrix(batch, output, decode)
    drawn = figure.axes[0].images[0].get_array()
    maps = [value[0] for name, value in output.maps.items() if name.startswith("fusion") and name.endswith("weights")]
    assert drawn.shape == (8, 2) and len(maps) == 2
    for place in range(8):
        for picture in range(2):
            here = slice(16 * picture, 16 * (picture + 1))
            wanted = sum(float(heads[place, here].sum()) for layer in maps for heads in layer) / 8
            assert drawn[place, picture] == pytest.approx(wanted, abs=1e-6)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (labels[2], labels[5]) == ("<image>", "<image> (2)")
    assert labels[3] == f"w{int(batch.input_ids[0, 3])}"
    assert alt == "picture 1 is looked at by 3 words; picture 2 is looked at by 3 words; 2 words of 8 see no picture."


def test_a_sample_with_fewer_pictures_and_words_has_fewer_columns_and_rows():
    _, batch, output = asked("flamingo")
    figure, alt = sight_matrix(batch, output, decode, sample=1)
    assert figure.axes[0].images[0].get_array().shape == (7, 1)
    assert alt == "picture 1 is looked at by 4 words; 3 words of 7 see no picture."


@pytest.mark.parametrize("name", ["flamingo", "idefics"])
def test_shares_are_those_of_the_updates_lengths(name):
    _, batch, output = asked(name)
    figure, alt = residual_shares(output)
    bars = [bar.get_height() for bar in figure.axes[0].patches]
    sees = [(0, place) for place in range(2, 8)] + [(1, place) for place in range(3, 7)]
    for layer, bar in enumerate(bars):
        cross, own = (output.maps[f"fusion.layers.{layer}.{what}_update"] for what in ("cross", "self"))
        shares = [float(cross[at].norm() / (cross[at].norm() + own[at].norm())) for at in sees]
        assert bar == pytest.approx(sum(shares) / len(shares), rel=1e-4)
        assert f"layer {layer + 1} {bar:.0%}" in alt
    assert len(bars) == 2 and bars[0] != pytest.approx(bars[1], abs=0.01)


def test_a_gate_has_a_curve_of_its_values_and_zero_is_drawn():
    gates = {"layer 1, look": [0.0, 0.125, 0.25], "layer 1, MLP": [0.0, -0.5, -0.375]}
    figure, alt = gate_curves(gates)
    zero, *drawn = figure.axes[0].lines
    assert list(zero.get_ydata()) == [0, 0]
    assert {line.get_label(): list(line.get_ydata()) for line in drawn} == gates
    assert len({line.get_color() for line in drawn}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(gates)
    assert alt.startswith("How far gates are open in 3 steps: layer 1, look goes from +0.00 to +0.25; ")
    assert alt.endswith("; layer 1, MLP goes from +0.00 to -0.38.")


@pytest.mark.parametrize("name", ["cogvlm", "beit3"])
def test_every_place_has_the_colour_of_its_maps(name):
    model, batch, output = asked(name)
    figure, alt = route_mosaic(batch, output, decode, sample=1, per_row=20)
    length = int(output.layout.lengths[1])
    route = model.fusion.route(output.layout)[1, :length]
    tiles = figure.axes[0].patches
    assert len(tiles) == length
    for place, tile in enumerate(tiles):
        wanted = PALETTE["orange"] if route[place] else PALETTE["sky"]
        assert tuple(tile.get_facecolor()) == to_rgba(wanted)
        assert (int(tile.get_x()), int(tile.get_y())) == (place % 20, place // 20)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == f"w{int(batch.input_ids[1, 0])}"
    tags = 2 if name == "cogvlm" else 0
    assert texts.count("patch") == 64 and texts.count("tag") == tags
    seen = int(route.sum())
    assert seen == 64 + tags // 2
    assert alt.startswith(f"Of {length} places {seen} pass through the experts and {length - seen} through")
    assert alt.endswith(f"{64 + tags} are of pictures and 6 are words.")


def test_without_its_maps_there_is_nothing_to_draw():
    model, batch, output = asked("llava15")
    for draw in (lambda: sight_matrix(batch, output, decode), lambda: residual_shares(output)):
        with pytest.raises(ValueError, match="no maps of gated layers"):
            draw()
    with pytest.raises(ValueError, match="no route"):
        route_mosaic(batch, replace(output, maps={}), decode)
