"""The D-Abstractor against transformers' Deformable DETR layers, put together as Honeybee does."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from references import assert_same, randomise
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrConfig,
    DeformableDetrDecoder,
    DeformableDetrDecoderLayer,
)

from minivlm import build
from minivlm.attention import capturing
from minivlm.connectors.d_abstractor import POOLED, DAbstraction, DAbstractor

# encoder's width, queries' width, decoder's width, layers, heads, points, grid of patches, tokens
SIZES = [
    (16, 16, 20, 2, 2, 4, (7, 7), 9),
    (11, 18, 18, 3, 3, 2, (5, 8), 16),
    (12, 20, 13, 2, 2, 3, (9, 6), 4),
    (14, 14, 14, 1, 1, 4, (4, 5), 1),
]
NAMES = {
    "query_position_embeddings.weight": "queries",
    "position_embedding": "positions",
    "reference_points": "reference",
    "input_proj": "enter",
    "output_proj": "leave",
    "self_attn_layer_norm": "attention_norm",
    "encoder_attn_layer_norm": "sampling_norm",
    "final_layer_norm": "mlp_norm",
    "encoder_attn.sampling_offsets": "sampling.offsets",
    "encoder_attn.attention_weights": "sampling.weights",
    "encoder_attn.value_proj": "sampling.value",
    "encoder_attn.leave": "sampling.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}


class Honeybee(nn.Module):
    def __init__(self, width, inner, out_width, depth, heads, points, grid, tokens, pooled):
        super().__init__()
        config = DeformableDetrConfig(
            d_model=inner,
            decoder_ffn_dim=inner + 7,
            decoder_attention_heads=heads,
            decoder_n_points=points,
            num_feature_levels=1,
            activation_function="relu",
        )
        self.grid, self.side, self.pooled = grid, math.isqrt(tokens), pooled
        self.input_proj = nn.Identity() if width == inner else nn.Linear(width, inner)
        self.position_embedding = nn.Parameter(torch.zeros(grid[0] * grid[1], inner))
        self.query_position_embeddings = nn.Embedding(tokens, inner)
        y, x = torch.meshgrid(*(torch.linspace(0.5, n - 0.5, self.side) / n for n in grid), indexing="ij")
        self.reference_points = nn.Parameter(torch.stack([x.flatten(), y.flatten()], dim=-1))
        self.layers = nn.ModuleList(DeformableDetrDecoderLayer(config) for _ in range(depth))
        self.output_proj = nn.Identity() if inner == out_width else nn.Linear(inner, out_width)

    def forward(self, features: Tensor) -> Tensor:
        values = self.input_proj(features) + self.position_embedding
        grid = values.transpose(1, 2).reshape(len(values), -1, *self.grid)
        pooled = F.adaptive_avg_pool2d(grid, (self.side, self.side)).flatten(2).transpose(1, 2)
        learned = self.query_position_embeddings.weight.expand_as(pooled)
        hidden, positions = (learned, pooled) if self.pooled == "query" else (pooled, learned)
        for layer in self.layers:
            hidden = layer(
                hidden,
                object_queries_position_embeddings=positions,
                encoder_hidden_states=values,
                reference_points=self.reference_points.expand(len(values), -1, -1)[:, :, None],
                spatial_shapes=torch.tensor([self.grid]),
                spatial_shapes_list=[self.grid],
                level_start_index=torch.tensor([0]),
            )
        return self.output_proj(hidden)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        key = re.sub(r"self_attn\.([qkvo])_proj", lambda m: f"attention.{m[1] if m[1] != 'o' else 'out'}", key)
        for old, new in NAMES.items():
            key = key.replace(old, new)
        found[key] = value
    return found


def ours_of(sizes, pooled: str) -> DAbstractor:
    width, inner, out_width, depth, heads, points, grid, tokens = sizes
    return DAbstraction(tokens, inner, depth, heads, points, inner + 7, pooled).build(width, out_width, grid)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.02], ids="scale {}".format)
@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_d_abstractor(sizes, pooled, scale):
    theirs = Honeybee(*sizes, pooled)
    spread = theirs.reference_points.clone()
    randomise(theirs, seed=sizes[-1], scale=scale)
    theirs.reference_points.copy_(spread + 0.1 * theirs.reference_points)  # else most would lie outside the picture
    ours = ours_of(sizes, pooled)
    assert_same(ours.reference, spread)
    ours.load_state_dict(renamed(theirs.state_dict()))
    features = torch.randn(3, math.prod(sizes[-2]), sizes[0], generator=torch.Generator().manual_seed(1)) * scale
    assert_same(ours(features), theirs(features))
    side = math.isqrt(sizes[-1])
    assert [int(x.max()) + 1 for x in (ours.layout(sizes[-2]).row, ours.layout(sizes[-2]).col)] == [side, side]


@torch.no_grad()
def test_a_fresh_one_looks_in_every_direction_like_transformers_own():
    config = DeformableDetrConfig(d_model=18, decoder_attention_heads=3, decoder_n_points=2, num_feature_levels=1)
    theirs = DeformableDetrDecoder(config).layers[0].encoder_attn
    ours = ours_of(SIZES[1], "query").layers[0].sampling
    assert_same(ours.offsets.bias, theirs.sampling_offsets.bias)
    for weight in (ours.offsets.weight, ours.weights.weight, ours.weights.bias):
        assert (weight == 0).all()


@torch.no_grad()
def test_points_are_recorded_where_they_are_looked_at():
    """With all weight on one point, what a query reads is the value there, interpolated by hand; zeros outside."""
    sizes = (6, 6, 6, 1, 2, 3, (4, 5), 4)
    sampling = randomise(ours_of(sizes, "query")).layers[0].sampling
    sampling.out.weight.copy_(torch.eye(6))
    sampling.out.bias.zero_()
    sampling.weights.weight.zero_()
    sampling.weights.bias.copy_(torch.tensor([0.0, 99.0, 0.0] * 2))
    x, features = torch.randn(2, 4, 6), torch.randn(2, 20, 6)
    with capturing(sampling) as maps:
        found = sampling(x, features, torch.rand(4, 2))
    points, weights = maps[".points"], maps[".weights"]
    assert points.shape == (2, 4, 2, 3, 2) and weights.shape == (2, 4, 2, 3)
    assert_same(weights.sum(dim=-1), torch.ones(2, 4, 2))
    values = sampling.value(features).view(2, 4, 5, 2, 3)  # (B, rows, cols, heads, d)
    for picture in range(2):
        for query in range(4):
            for head in range(2):
                x, y = points[picture, query, head, 1]
                slow = interpolated(values[picture, :, :, head], float(x) * 5 - 0.5, float(y) * 4 - 0.5)
                assert_same(found[picture, query, 3 * head : 3 * head + 3], slow)


def interpolated(values: Tensor, col: float, row: float) -> Tensor:
    """Between the four patches around a place, whose own middles are at whole numbers."""
    total = torch.zeros(values.shape[-1])
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(col), math.floor(col) + 1):
            if 0 <= r < values.shape[0] and 0 <= c < values.shape[1]:
                total = total + values[r, c] * (1 - abs(row - r)) * (1 - abs(col - c))
    return total


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match=r"a D-Abstractor over 3x4 patches .* not 7; it can give 1, 4, 9$"):
        DAbstraction(7).build(8, 8, (3, 4))
    with pytest.raises(ValueError, match="width 10 does not split into 4 heads"):
        DAbstraction(9, width=10, heads=4)
    with pytest.raises(ValueError, match="unknown pooled 'none'; choose one of query, tgt"):
        DAbstraction(9, pooled="none")
    assert DAbstraction(9, depth=2).at_budget(4, (3, 3)) == DAbstraction(4, depth=2)


def test_published_size():
    model = build("honeybee_d", "published", device="meta")
    millions = sum(weight.numel() for weight in model.connector.parameters()) / 1e6
    assert millions == pytest.approx(55.9, rel=0.005)
    assert model.config.num_features == 576 and model.connector.num_tokens(model.config.vision.grid) == 144
