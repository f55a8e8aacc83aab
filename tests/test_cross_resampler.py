"""One cross attention as a resampler: Qwen-VL's composed of torch's own modules, Kosmos-2's class of transformers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import transformers
from references import assert_same, features, pictures, randomise
from torch import Tensor, nn
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2ImageToTextProjection, Kosmos2Model

from minivlm import build
from minivlm.attention import capturing
from minivlm.connectors.cross_resampler import Kosmos2Resampler, QwenVLResampler
from minivlm.pretrained.keys import WB, load_exactly, rename, split_packed

QWEN_VL = [
    (r"query", "queries"),
    (r"proj\.weight", "out.weight"),
    (r"kv_proj\.weight", "enter.weight"),
    (r"attn\.([qkv])" + WB, r"attention.\1.\2"),
    (r"attn\.out_proj" + WB, r"attention.out.\1"),
    (r"ln_q" + WB, r"query_norm.\1"),
    (r"ln_kv" + WB, r"patch_norm.\1"),
    (r"ln_post" + WB, r"norm.\1"),
]
KOSMOS2 = [
    (r"latent_query", "queries"),
    (r"dense" + WB, r"enter.\1"),
    (r"x_attn\.([qkv])_proj" + WB, r"attention.\1.\2"),
    (r"x_attn\.out_proj" + WB, r"attention.out.\1"),
]
SIZES = [
    dict(side=2, grid=(5, 3), width=9, out_width=24, heads=4),  # the queries are stretched over a larger grid
    dict(side=4, grid=(4, 4), width=14, out_width=36, heads=2),  # each on a patch of its own
    dict(side=5, grid=(3, 4), width=30, out_width=20, heads=1),  # and over a smaller one
]


pytestmark = pytest.mark.usefixtures("no_graph")


# --- Qwen-VL --------------------------------------------------------------------------------------------------------


def slow_positions(side: int, width: int) -> Tensor:
    """Sines and cosines, one number at a time: first of the column, then of the row."""
    quarter = width // 4
    table = torch.zeros(side, side, width)
    for row in range(side):
        for column in range(side):
            for half, place in enumerate((column, row)):
                for k in range(quarter):
                    angle = place / 10000 ** (k / quarter)
                    table[row, column, 2 * half * quarter + k] = math.sin(angle)
                    table[row, column, (2 * half + 1) * quarter + k] = math.cos(angle)
    return table


class QwenVL(nn.Module):
    """Qwen-VL's resampler of torch's own modules, with the norm and the map that follow it in the published tower."""

    def __init__(self, side: int, grid: tuple[int, int], width: int, out_width: int, heads: int, positions: bool):
        super().__init__()
        table = slow_positions(side, out_width) * positions
        self.of_queries = table.flatten(0, 1)  # (K, D)
        stretched = F.interpolate(table.permute(2, 0, 1)[None], size=grid, mode="bicubic", align_corners=False)
        self.of_keys = stretched[0].permute(1, 2, 0).flatten(0, 1)  # (N, D)
        self.query = nn.Parameter(torch.zeros(side * side, out_width))
        self.kv_proj = nn.Linear(width, out_width, bias=False)
        self.attn = nn.MultiheadAttention(out_width, heads, batch_first=True)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(out_width, eps=1e-6) for _ in range(3))
        self.proj = nn.Linear(out_width, out_width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.ln_kv(self.kv_proj(x))
        queries = (self.ln_q(self.query) + self.of_queries).expand(len(x), -1, -1)
        seen, weights = self.attn(queries, patches + self.of_keys, patches, average_attn_weights=False)
        return self.proj(self.ln_post(seen)), weights


@pytest.mark.parametrize("positions", ["keys and queries", "none"])
def test_qwen_vl(seed, scale, positions):
    sizes = SIZES[seed]
    theirs = randomise(QwenVL(**sizes, positions=positions != "none"), seed)
    theirs.query *= scale
    config = QwenVLResampler(sizes["side"] ** 2, sizes["heads"], positions)
    ours = config.build(sizes["width"], sizes["out_width"], sizes["grid"])
    load_exactly(ours, rename(split_packed(theirs.state_dict()), QWEN_VL))
    x = features(3, math.prod(sizes["grid"]), sizes["width"], scale=scale)
    wanted, weights = theirs(x)
    assert_same(ours(x), wanted)
    with capturing(ours) as maps:
        assert_same(ours(x), wanted)
    assert_same(maps["attention.weights"], weights)


def test_without_positions_the_order_of_the_patches_is_not_seen():
    x = features(2, 15, 9, scale=1.0)
    for positions, seen in (("keys and queries", True), ("none", False)):
        model = randomise(QwenVLResampler(4, 2, positions).build(9, 24, (5, 3)))
        assert ((model(x.flip(1)) - model(x)).abs().max() > 1e-2) == seen


def test_positions_are_computed_not_stored():
    model = QwenVLResampler(4, 2).build(9, 24, (5, 3))
    assert not [key for key in model.state_dict() if "positions" in key]


def test_what_qwen_vl_cannot_lay_out_is_refused():
    with pytest.raises(ValueError, match="makes a square of tokens, not 12; it can give 1, 4, 9, 16"):
        QwenVLResampler(12, heads=2)
    assert QwenVLResampler(12, heads=2, positions="none").build(8, 8, (4, 4)).num_tokens((4, 4)) == 12
    with pytest.raises(ValueError, match="unknown positions 'all'; known: 'keys and queries', 'none'"):
        QwenVLResampler(4, heads=2, positions="all")
    with pytest.raises(ValueError, match="multiple of 4, got 18"):
        QwenVLResampler(4, heads=2).build(8, 18, (4, 4))
    with pytest.raises(ValueError, match="width 20 does not split into 3 heads"):
        QwenVLResampler(4, heads=3).build(8, 20, (4, 4))


# --- Kosmos-2 -------------------------------------------------------------------------------------------------------


def kosmos2_config(seed: int) -> transformers.Kosmos2Config:
    sizes = SIZES[seed]
    return transformers.Kosmos2Config(
        vision_config=dict(
            hidden_size=2 * sizes["width"],
            intermediate_size=17,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=12,
            patch_size=4,
        ),
        text_config=dict(
            vocab_size=64,
            embed_dim=sizes["out_width"],
            layers=1,
            ffn_dim=19,
            attention_heads=sizes["heads"],
            max_position_embeddings=32,
        ),
        latent_query_num=3 + 2 * seed,
    )


def test_kosmos2(seed, scale):
    sizes, config = SIZES[seed], kosmos2_config(seed)
    theirs = randomise(Kosmos2ImageToTextProjection(config), seed)
    theirs.latent_query *= scale
    width = config.vision_config.hidden_size
    ours = Kosmos2Resampler(config.latent_query_num, sizes["heads"]).build(width, sizes["out_width"], sizes["grid"])
    load_exactly(ours, rename(theirs.state_dict(), KOSMOS2))
    x = features(2, math.prod(sizes["grid"]), width, scale=scale)
    assert_same(ours(x), theirs(x / x.norm(dim=-1, keepdim=True))[0])


def test_kosmos2_reads_the_normed_patches_and_the_class_token(seed):
    """The whole way of the published model, from what its encoder's last norm gives."""
    config = kosmos2_config(seed)
    theirs = randomise(Kosmos2Model(config), seed)
    normed = []
    norm = theirs.vision_model.model.post_layernorm
    norm.register_forward_hook(lambda module, inputs, output: normed.append(output))
    wanted = theirs.get_image_features(pictures(2, 3, 12, 12)).pooler_output
    (x,) = [states for states in normed if states.shape == (2, 10, config.vision_config.hidden_size)]
    ours = Kosmos2Resampler(config.latent_query_num, SIZES[seed]["heads"])
    ours = ours.build(x.shape[-1], SIZES[seed]["out_width"], (3, 3))
    load_exactly(ours, rename(theirs.image_to_text_projection.state_dict(), KOSMOS2))
    assert_same(ours(x), wanted)


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [QwenVLResampler(4, 2), QwenVLResampler(4, 2, "none"), Kosmos2Resampler(4, 2)])
def test_untrained_tokens_differ(config):
    torch.manual_seed(0)
    tokens = config.build(9, 24, (5, 3))(features(2, 15, 9, scale=1.0))
    assert tokens.shape == (2, 4, 24)
    assert (torch.cdist(tokens, tokens) + torch.eye(4) > 1e-5).all()


def test_published_sizes():
    connector = build("qwen_vl", "published", device="meta").connector
    after = connector.out.weight.numel() + 2 * 4096
    assert after / 1e6 == pytest.approx(16.8, abs=0.05)
    assert sum(p.numel() for p in connector.parameters()) / 1e6 - after / 1e6 == pytest.approx(75.0, abs=0.05)
    assert connector.num_tokens((32, 32)) == 256
    with torch.device("meta"):
        kosmos2 = Kosmos2Resampler(64, heads=32).build(1024, 2048, (16, 16))
    assert sum(p.numel() for p in kosmos2.parameters()) / 1e6 == pytest.approx(19.0, abs=0.05)
    assert kosmos2.num_tokens((16, 16)) == 64


def test_published_qwen_vl():
    model = build("qwen_vl", "published", device="meta")
    vision, language = (sum(p.numel() for p in part.parameters()) / 1e9 for part in (model.vision, model.language))
    assert vision == pytest.approx(1.84, abs=0.01) and language == pytest.approx(7.72, abs=0.01)
