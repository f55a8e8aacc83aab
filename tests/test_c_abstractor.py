"""The C-Abstractor against timm's RegNet stages, put together as Honeybee does."""

from __future__ import annotations

import re

import pytest
import torch
from references import assert_same, randomise
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from minivlm import build
from minivlm.connectors.c_abstractor import CAbstraction

# encoder's width, channels, decoder's width, blocks a stage, grid of patches, tokens
SIZES = [
    (10, 14, 22, 3, (7, 7), 9),
    (12, 12, 9, 2, (5, 8), 16),  # as many channels as features: no shortcut is a convolution
    (9, 21, 15, 1, (9, 6), 4),
    (18, 7, 20, 2, (4, 4), 1),
]
NAMES = {
    r"^position_embedding$": "positions",
    r"^net\.0\.": "before.",
    r"^net\.2\.": "after.",
    r"^readout\.0\.": "mlp.up.",
    r"^readout\.2\.": "mlp.down.",
    r"\.conv1\.": ".mix.",
    r"\.conv2\.": ".look.",
    r"\.conv3\.": ".remix.",
    r"\.downsample\.": ".shortcut.",
    r"\.conv\.": ".0.",
    r"\.bn\.": ".1.",
    r"\.se\.fc1\.": ".excite.gate.up.",
    r"\.se\.fc2\.": ".excite.gate.down.",
}


class Honeybee(nn.Module):
    def __init__(self, width: int, channels: int, out_width: int, depth: int, grid: tuple[int, int], tokens: int):
        super().__init__()
        options = dict(stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
        self.grid, side = grid, round(tokens**0.5)
        self.position_embedding = nn.Parameter(torch.zeros(grid[0] * grid[1], width))
        before, after = RegStage(depth, width, channels, **options), RegStage(depth, channels, channels, **options)
        self.net = nn.Sequential(before, nn.AdaptiveAvgPool2d((side, side)), after)
        self.readout = nn.Sequential(nn.Linear(channels, out_width), nn.SiLU(), nn.Linear(out_width, out_width))

    def forward(self, features: Tensor) -> Tensor:
        x = features + self.position_embedding
        x = self.net(x.transpose(1, 2).reshape(len(x), -1, *self.grid))
        return self.readout(x.flatten(2).transpose(1, 2))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for timm's weights; its blocks count from 1, and its gates are convolutions of 1x1."""
    found = {}
    for key, value in state.items():
        for old, new in NAMES.items():
            key = re.sub(old, new, key)
        key = re.sub(r"\.b(\d+)\.", lambda match: f".{int(match[1]) - 1}.", key)
        found[key] = value.flatten(1) if ".excite." in key and value.ndim == 4 else value
    return found


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.02], ids="scale {}".format)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_c_abstractor(sizes, scale):
    width, channels, out_width, depth, grid, tokens = sizes
    theirs = randomise(Honeybee(*sizes), seed=tokens, scale=scale)
    ours = CAbstraction(tokens, channels, depth).build(width, out_width, grid)
    ours.load_state_dict(renamed(theirs.state_dict()))
    features = torch.randn(3, grid[0] * grid[1], width, generator=torch.Generator().manual_seed(1)) * scale
    given = features.clone()
    assert_same(ours(features), theirs(features))
    assert torch.equal(features, given)  # upstream adds its positions in place
    layout = ours.layout(grid)
    side = round(tokens**0.5)
    assert layout.row.tolist() == [i // side for i in range(tokens)]
    assert layout.col.tolist() == [i % side for i in range(tokens)]


def test_only_squares_are_made():
    with pytest.raises(ValueError, match=r"a C-Abstractor over 3x4 patches .* not 7; it can give 1, 4, 9$"):
        CAbstraction(7).build(8, 8, (3, 4))
    with pytest.raises(ValueError, match=r"not 16; it can give 1, 4, 9$"):
        CAbstraction(16).build(8, 8, (4, 3))
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        CAbstraction(9, depth=0)
    assert CAbstraction(9).at_budget(4, (3, 3)) == CAbstraction(4)


@pytest.mark.parametrize("design, patches", [("honeybee_c", 576), ("mm1", 729)])
def test_published_sizes(design, patches):
    model = build(design, "published", device="meta")
    millions = sum(weight.numel() for weight in model.connector.parameters()) / 1e6
    assert model.config.num_features == patches and model.connector.num_tokens(model.config.vision.grid) == 144
    if design == "honeybee_c":
        assert millions == pytest.approx(37.4, rel=0.005)
