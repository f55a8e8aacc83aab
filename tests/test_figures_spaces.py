"""Figures of embedding graphs: what is drawn is where gradients flow, what is said is what is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from minivlm.contrastive.graphs import GRAPHS
from minivlm.figures import embedding_graphs
from minivlm.figures.spaces import meeting


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", GRAPHS)
def test_ways_are_those_that_gradients_go(name):
    """A vector in a space depends on a modality just where a way leads; two in one space have one width."""
    torch.manual_seed(0)
    graph = GRAPHS[name](5, 6, 7, 8, 8 if name == "shared" else 4).eval()
    features = {kind: torch.randn(3, width) for kind, width in (("image", 5), ("audio", 6), ("text", 7))}
    (fine, coarse), (audio_fine, audio_coarse) = graph.image(features["image"]), graph.audio(features["audio"])
    text = graph.text(features["text"])
    if name == "shared":
        assert fine is coarse and audio_fine is audio_coarse
    assert fine.shape == audio_fine.shape and coarse.shape == text.shape
    assert (meeting(graph.ways, "audio", "text") is None) == (audio_coarse is None)
    through_fine = torch.autograd.grad(coarse.square().sum(), graph.image_head[0].weight, allow_unused=True)[0]
    assert (through_fine is not None) == (("fine", "coarse") in graph.ways or name == "shared")


def test_who_meets_whom_and_where():
    ways = {name: graph.ways for name, graph in GRAPHS.items()}
    meets = {name: [meeting(w, *pair) for pair in (("audio", "image"), ("image", "text"), ("audio", "text"))]
             for name, w in ways.items()}  # fmt: skip
    assert meets["shared"] == ["shared"] * 3
    assert meets["disjoint"] == ["fine", "coarse", None]
    assert meets["fac"] == ["fine", "coarse", "coarse"]


def test_every_way_is_an_arrow_and_every_space_a_box():
    graphs = {name: graph.ways for name, graph in GRAPHS.items()}
    figure, alt = embedding_graphs(graphs)
    for ax, (name, ways) in zip(figure.axes, graphs.items(), strict=True):
        arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
        boxes = {text.get_text().split("\n")[0]: text for text in ax.texts if text.get_bbox_patch()}
        assert len(arrows) == len(ways) and ax.get_title() == name
        names = dict(audio="sound", image="picture", text="caption")
        assert boxes.keys() == {names.get(node, node) for way in ways for node in way}
        for arrow, (begin, end) in zip(arrows, ways, strict=True):
            assert arrow.xyann == boxes[names.get(begin, begin)].get_position()
            assert arrow.xy == boxes[end].get_position()
        assert ax.get_xlabel().replace("\n", "; ") in alt
    assert "disjoint: sound and picture: fine space, trained; sound and caption: no way; picture and caption" in alt
    assert "fac: sound and picture: fine space, trained; sound and caption: coarse space, never trained" in alt


def test_no_graph_is_refused():
    with pytest.raises(ValueError, match="give the ways of one or more"):
        embedding_graphs({})
