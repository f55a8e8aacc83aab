"""Pooling against torch's own adaptive pooling, and pixel shuffle against Idefics3's class."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import transformers
from references import assert_same, randomise
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

from minivlm.connectors.pooling import AveragePooling, PixelShuffle

LAYOUTS = [
    ((4, 4), 4, (2, 2)),
    ((5, 7), 6, (2, 3)),
    ((9, 6), 7, (7, 1)),
    ((9, 6), 24, (6, 4)),
    ((8, 8), 1, (1, 1)),
    ((8, 8), 16, (4, 4)),
]  # grid of patches, tokens, rows and columns of cells


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.02], ids="scale {}".format)
@pytest.mark.parametrize(("grid", "tokens", "cells"), LAYOUTS)
def test_average_pooling(grid, tokens, cells, scale):
    ours = randomise(AveragePooling(tokens).build(13, 18, grid), seed=tokens)
    features = torch.randn(2, grid[0] * grid[1], 13) * scale
    pooled = F.adaptive_avg_pool2d(features.transpose(1, 2).reshape(2, 13, *grid), cells).flatten(2).transpose(1, 2)
    wanted = F.gelu(pooled @ ours.mlp.up.weight.T + ours.mlp.up.bias) @ ours.mlp.down.weight.T + ours.mlp.down.bias
    assert_same(ours(features), wanted)
    layout = ours.layout(grid)
    assert (len(layout), int(layout.row.max()) + 1, int(layout.col.max()) + 1) == (tokens, *cells)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.02], ids="scale {}".format)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle(factor, scale):
    side, width, out_width = 2 * factor, 12 + factor, 30
    config = transformers.Idefics3Config(
        vision_config=dict(hidden_size=width, num_attention_heads=1),
        text_config=dict(hidden_size=out_width, num_attention_heads=1),
        scale_factor=factor,
    )
    theirs = randomise(Idefics3Connector(config), seed=factor)
    ours = PixelShuffle(factor).build(width, out_width, (side, side))
    (weight,) = theirs.state_dict().values()
    ours.load_state_dict({"out.weight": weight})
    features = torch.randn(2, side * side, width) * scale
    assert_same(ours(features), theirs(features))


@torch.no_grad()
def test_pixel_shuffle_leaves_out_what_fills_no_square():
    ours = randomise(PixelShuffle(2).build(6, 5, (5, 3)))
    features = torch.randn(1, 15, 6)
    beyond = features.clone()
    beyond.view(1, 5, 3, 6)[:, 4] += 1
    beyond.view(1, 5, 3, 6)[:, :, 2] += 1
    assert torch.equal(ours(features), ours(beyond))
    assert ours(features).shape == (1, 2, 5) and ours.num_tokens((5, 3)) == 2


def test_what_cannot_be_made_is_refused_with_what_can():
    with pytest.raises(ValueError, match=r"11 tokens do not fit into 2x3 patches .* it can give 1, 2, 3, 4, 6"):
        AveragePooling(11).build(8, 8, (2, 3))
    with pytest.raises(ValueError, match=r"no 7 tokens of 8x8 patches; they can give 1, 4, 16, 64"):
        PixelShuffle(2).at_budget(7, (8, 8))
    assert PixelShuffle(2).at_budget(4, (8, 8)) == PixelShuffle(4)
    with pytest.raises(ValueError, match="do not fit into 3x4 patches"):
        PixelShuffle(4).build(8, 8, (3, 4))
