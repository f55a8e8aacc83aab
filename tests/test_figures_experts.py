"""Figures of experts: what is drawn is what weights and outputs hold, what is said is what is drawn."""

from __future__ import annotations

from dataclasses import replace

import explorers
import matplotlib.pyplot as plt
import pytest
import tiny
import torch
from matplotlib.colors import to_rgb
from torch import nn

from minivlm.designs import build
from minivlm.figures import PALETTE, likely_answers, moved_parts, retention, sights
from minivlm.figures.experts import distances
from minivlm.fusion.experts import parts
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.language.tokenizer import mini_tokenizer


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def moved() -> tuple[list, list]:
    """Experts in the parts of two blocks, each part of them so many times the size it began with; and their starts."""
    torch.manual_seed(0)
    model = replace(tiny.vlm().config, fusion=VisualExpertConfig(routes=("q", "mlp"))).build()
    with torch.no_grad():
        for n, expert in enumerate(model.fusion.experts):
            for name, part in expert.items():
                for weights in part.parameters():
                    weights *= {"q": 1.25, "mlp": 2.0}[name] + n
    return [dict(expert) for expert in model.fusion.experts], [parts(block) for block in model.language.blocks]


def test_a_part_scaled_by_a_factor_has_moved_by_what_it_grew(moved):
    assert torch.allclose(distances(*moved), torch.tensor([[0.25, 1.0], [1.25, 2.0]]), atol=1e-5)
    assert torch.equal(distances(moved[1], moved[1]), torch.zeros(2, 7))


def test_the_distance_is_that_of_all_weights_at_once_and_a_bias_begins_at_nothing():
    start, part = nn.Linear(1, 2, bias=False), nn.Linear(1, 2)
    with torch.no_grad():
        start.weight.copy_(torch.tensor([[3.0], [4.0]]))
        part.weight.copy_(torch.tensor([[3.0], [2.0]]))
        part.bias.copy_(torch.tensor([1.0, 2.0]))
    assert float(distances([{"q": part}], [{"q": start}])) == pytest.approx(3 / 5)  # sqrt(4 + 1 + 4) of 5


def test_panels_show_the_distances_on_one_scale(moved):
    experts, starts = moved
    figure, alt = moved_parts({"experts": moved, "still": (starts, starts)})
    first, second = (figure.axes[n].images[0] for n in (0, 1))
    assert torch.equal(torch.tensor(first.get_array()), distances(*moved))
    assert first.get_clim() == second.get_clim() == (0, pytest.approx(2.0))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["q", "mlp"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"25%", "100%", "125%", "200%"}
    assert {text.get_text() for text in figure.axes[1].texts} == {"0%"}
    assert alt.startswith(
        "How far from its start, mean over blocks. experts: q 75%, mlp 150%; furthest mlp of block 2, 200%. still: "
    )
    with pytest.raises(ValueError):
        moved_parts({"experts": (experts, starts[:1])})


def test_what_a_mask_allows_is_coloured_by_who_looks():
    batch = explorers.seen()[0]
    batch = replace(batch, images=torch.rand(1, 1, 3, 64, 64))
    masks = {}
    for name in ("llava15", "beit3"):
        model = build(name, device="cpu")
        with torch.no_grad():
            layout = model(batch).layout
        masks[name] = model.fusion.mask(layout)
    figure, alt = sights({name: (mask, layout) for name, mask in masks.items()})
    length = int(layout.lengths[0])
    for name, ax in zip(masks, figure.axes, strict=True):
        image = torch.tensor(ax.images[0].get_array())
        for row in range(length):
            fill = PALETTE["orange"] if layout.is_visual[0, row] else PALETTE["sky"]
            for column in range(length):
                wanted = to_rgb(fill) if masks[name][0, 0, row, column] else (1.0, 1.0, 1.0)
                assert tuple(image[row, column].tolist()) == pytest.approx(wanted)
    last = int(masks["beit3"][0, 0, length - 1].sum())
    whole = f"of {length} places: a picture's first token looks at"
    assert f"llava15, {whole} 2, its last at 65, the last word at {last}; " in alt
    assert alt.endswith(f"beit3, {whole} 65, its last at 65, the last word at {last}.")


def test_retention_points_stand_where_the_accuracies_are():
    figure, alt = retention({"kept": (0.9, 0.5), "lost": (0.2, 0.6)}, start=(0.9, 0.25))
    drawn = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines}
    assert drawn == {"before training": (0.9, 0.25), "kept": (0.9, 0.5), "lost": (0.2, 0.6)}
    low, high = figure.axes[0].get_xlim()
    assert low < 0.2 and high > 0.9
    assert alt == (
        "Accuracy told in words and on pictures: before training 90% and 25%; kept 90% and 50%; lost 20% and 60%."
    )


def test_answers_are_the_likeliest_first_words_and_the_right_one_stands_out():
    batch, outputs = explorers.blended()
    right = mini_tokenizer().encode("no")[0]
    outputs = {f"at {share}": output for share, output in outputs.items()}
    sure = outputs["at 0.0"].logits.clone()
    asked = int((batch.segments[1] == 1).sum()) - 2  # the words of the first question, less its answer and its end
    sure[1, 1 + 4 + asked - 1, right] = 100.0  # said after the begin mark, four patches and the question
    outputs["sure"] = replace(outputs["at 0.0"], logits=sure)
    figure, alt = likely_answers(batch, outputs, tiny.TOKENIZER.decode, sample=1)
    assert len(figure.axes) == 5 and alt.startswith('"is there a red star ?", right is no. at 0.0: ')
    assert alt.endswith("; sure: no 100%, " + alt.rpartition("sure: no 100%, ")[2])
    bars = figure.axes[-1].patches
    assert bars[0].get_width() == pytest.approx(1.0)
    assert to_rgb(bars[0].get_facecolor()) == to_rgb(PALETTE["green"])
    assert all(to_rgb(bar.get_facecolor()) == to_rgb(PALETTE["sky"]) for bar in bars[1:])
    assert [label.get_text() for label in figure.axes[-1].get_yticklabels()][0] == "no"


def test_what_cannot_be_drawn_is_refused():
    batch, outputs = explorers.blended()
    named = {"at 1": outputs[1.0]}
    with pytest.raises(ValueError, match="give a batch with images and labels"):
        likely_answers(replace(batch, labels=None), named, tiny.TOKENIZER.decode)
    with pytest.raises(ValueError, match="sample 1 has no question 2 with an answer"):
        likely_answers(batch, named, tiny.TOKENIZER.decode, sample=1, question=2)
