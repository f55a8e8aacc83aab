"""The Perceiver resampler in its variants, against flamingo-pytorch, open_flamingo and transformers."""

from __future__ import annotations

import pytest
import torch
import transformers
from flamingo_pytorch import PerceiverResampler
from flamingos import RESAMPLER as FLAMINGO
from flamingos import split_keys_and_values
from references import assert_same, features, randomise
from torch import nn
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector

from minivlm import build
from minivlm.connectors.perceiver import FlamingoResampler, Idefics2Resampler, IdeficsResampler, Perceiver
from minivlm.pretrained.idefics import RESAMPLER as IDEFICS
from minivlm.pretrained.idefics2 import RESAMPLER as IDEFICS2
from minivlm.pretrained.keys import State, load_exactly, rename

SIZES = [
    dict(tokens=5, depth=2, heads=3, head_dim=6),
    dict(tokens=1, depth=3, heads=2, head_dim=10),
    dict(tokens=11, depth=1, heads=4, head_dim=14),
]
WIDTHS = (14, 18, 10)
GRIDS = ((2, 3), (5, 1), (4, 4))
NOTHING_LIKE_IT = (3, 5)  # the grid that a resampler is made for does not matter


pytestmark = pytest.mark.usefixtures("no_graph")


def flamingo(seed: int, scale: float) -> tuple[nn.Module, State]:
    """A resampler of flamingo-pytorch, and its weights by our names. Ours has no media positions: a connector reads one
    picture and does not know how many came before it."""
    sizes = SIZES[seed]
    theirs = randomise(
        PerceiverResampler(
            dim=WIDTHS[seed],
            depth=sizes["depth"],
            dim_head=sizes["head_dim"],
            heads=sizes["heads"],
            num_latents=sizes["tokens"],
            num_media_embeds=4,
        ),
        seed,
    )
    theirs.latents *= scale
    state = {key: value for key, value in theirs.state_dict().items() if key != "media_pos_emb"}
    return theirs, rename(split_keys_and_values(state), FLAMINGO)


# --- Flamingo -------------------------------------------------------------------------------------------------------


def test_flamingo_equals_flamingo_pytorch(seed, scale):
    theirs, state = flamingo(seed, scale)
    width, patches = WIDTHS[seed], 7 + seed
    ours = FlamingoResampler(**SIZES[seed]).build(width, width, NOTHING_LIKE_IT)
    load_exactly(ours, state)
    media = features(2, 3, patches, width, scale=scale)
    wanted = theirs(media)  # (B, M, K, D)
    for number in range(3):
        assert_same(ours(media[:, number] + theirs.media_pos_emb[number]), wanted[:, number])


@pytest.mark.parametrize("frames", [1, 3, 4])
@pytest.mark.parametrize("class_token", [0, 1], ids=["patches", "class token and patches"])
def test_flamingo_tells_frames_apart(seed, scale, frames, class_token):
    theirs, state = flamingo(seed, scale)
    theirs.media_pos_emb.zero_()
    width, (rows, cols) = WIDTHS[seed], ((2, 3), (5, 1), (4, 4))[seed]
    ours = FlamingoResampler(**SIZES[seed], frames=4).build(width, width, (rows, cols))
    told = features(4, width, scale=1.0)
    load_exactly(ours, state | {"enter.embedding": told})
    film = features(2, frames, rows * cols + class_token, width, scale=scale)
    wanted = theirs(torch.cat([film[:, number] + told[number] for number in range(frames)], dim=1))[:, 0]
    assert_same(ours(film.flatten(1, 2)), wanted)


def test_flamingo_equals_open_flamingo(seed, scale):
    reason = "open-flamingo asks for torch 2.0.1: pip install --no-deps open-flamingo"
    helpers = pytest.importorskip("open_flamingo.src.helpers", reason=reason)
    sizes, width, frames = SIZES[seed], WIDTHS[seed], 2 + seed
    names = dict(depth=sizes["depth"], dim_head=sizes["head_dim"], heads=sizes["heads"], num_latents=sizes["tokens"])
    theirs = randomise(helpers.PerceiverResampler(dim=width, **names, max_num_frames=frames), seed)
    theirs.latents *= scale
    ours = FlamingoResampler(**sizes, frames=frames).build(width, width, (2, 3))
    load_exactly(ours, rename(split_keys_and_values(theirs.state_dict()), FLAMINGO))
    film = features(2, 1, frames, 6, width, scale=scale)
    assert_same(ours(film.flatten(1, 3)), theirs(film)[:, 0])


def test_frames_that_were_not_learned_are_refused():
    ours = FlamingoResampler(**SIZES[0], frames=3).build(14, 14, (4, 4))
    with pytest.raises(ValueError, match="64 vectors are no 1 to 3 frames of 16 patches"):
        ours(torch.zeros(2, 64, 14))
    with pytest.raises(ValueError, match="33 vectors are no"):
        ours(torch.zeros(2, 33, 14))


def test_one_linear_map_leads_to_another_width(seed):
    theirs, state = flamingo(seed, scale=1.0)
    width = WIDTHS[seed]
    ours = randomise(FlamingoResampler(**SIZES[seed]).build(width, 9, NOTHING_LIKE_IT))
    load_exactly(ours, state | {"out.weight": ours.out.weight, "out.bias": ours.out.bias})
    x = features(2, 8, width, scale=1.0)
    wanted = theirs(x)[:, 0] @ ours.out.weight.T + ours.out.bias
    assert_same(ours(x + theirs.media_pos_emb[0]), wanted)


# --- Idefics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head_norms", [True, False], ids=["head norms", "no head norms"])
def test_idefics(seed, scale, head_norms):
    sizes, width = SIZES[seed], WIDTHS[seed]
    config = transformers.IdeficsConfig(
        vision_config=dict(embed_dim=width), perceiver_config=dict(qk_layer_norms_perceiver=head_norms)
    )
    numbers = (sizes["depth"], sizes["heads"], sizes["head_dim"], sizes["tokens"])
    theirs = randomise(IdeficsPerceiverResampler(config, width, *numbers), seed)
    theirs.latents *= scale
    ours = IdeficsResampler(**sizes, head_norms=head_norms).build(width, width, NOTHING_LIKE_IT)
    load_exactly(ours, rename(theirs.state_dict(), IDEFICS))
    x = features(2, 7 + seed, width, scale=scale)
    assert_same(ours(x), theirs(x))


# --- Idefics2 -------------------------------------------------------------------------------------------------------


def idefics2(seed: int, eps: float) -> Idefics2Connector:
    sizes, out_width = SIZES[seed], (20, 12, 24)[seed]
    config = transformers.Idefics2Config(
        vision_config=dict(hidden_size=WIDTHS[seed]),
        perceiver_config=dict(
            hidden_size=out_width,
            resampler_n_latents=sizes["tokens"],
            resampler_depth=sizes["depth"],
            resampler_n_heads=sizes["heads"],
            resampler_head_dim=sizes["head_dim"],
            num_key_value_heads=(1, 2, 2)[seed],
            rms_norm_eps=eps,
        ),
        text_config=dict(
            model_type="mistral", hidden_size=out_width, intermediate_size=31 + seed, num_attention_heads=2
        ),
    )
    return randomise(Idefics2Connector(config), seed)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_idefics2(seed, scale, eps):
    theirs = idefics2(seed, eps)
    theirs.perceiver_resampler.latents *= scale
    assert theirs.perceiver_resampler.norm.variance_epsilon == eps
    config = Idefics2Resampler(**SIZES[seed], kv_heads=(1, 2, 2)[seed], hidden=31 + seed, eps=eps)
    ours = config.build(WIDTHS[seed], (20, 12, 24)[seed], NOTHING_LIKE_IT)
    load_exactly(ours, rename(theirs.state_dict(), IDEFICS2))
    x = features(2, 7 + seed, WIDTHS[seed], scale=scale)
    assert_same(ours(x), theirs(x, torch.ones(2, 7 + seed, dtype=torch.bool)))


# --- all of them ----------------------------------------------------------------------------------------------------

CONFIGS = {
    "Flamingo": FlamingoResampler(6, depth=2, heads=2, head_dim=8),
    "Idefics": IdeficsResampler(6, depth=2, heads=2, head_dim=8),
    "Idefics2": Idefics2Resampler(6, depth=2, heads=2, head_dim=8, kv_heads=1, hidden=20),
}


@pytest.fixture(params=CONFIGS)
def perceiver(request) -> Perceiver:
    torch.manual_seed(0)
    return CONFIGS[request.param].build(12, 16, (3, 4))


def test_untrained_latents_are_not_all_one(perceiver):
    tokens = perceiver(torch.randn(2, 12, 12))
    assert tokens.shape == (2, 6, 16) and perceiver.num_tokens((3, 4)) == 6
    apart = torch.cdist(tokens, tokens) + torch.eye(6)
    assert (apart > 1e-3).all()


def test_the_order_of_the_patches_is_not_seen(perceiver):
    x = torch.randn(2, 12, 12)
    assert_same(perceiver(x.flip(1)), perceiver(x))


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        FlamingoResampler(4, depth=0, heads=2, head_dim=8)
    with pytest.raises(ValueError, match="4 heads cannot share 3 key heads evenly: make heads a multiple of kv_heads"):
        Idefics2Resampler(4, depth=1, heads=4, head_dim=8, kv_heads=3, hidden=9)


PUBLISHED = {
    "Flamingo on CLIP L": (FlamingoResampler(64, depth=6, heads=8, head_dim=64), 1024, 1024, 63.0),
    "Idefics on CLIP H": (IdeficsResampler(64, depth=6, heads=16, head_dim=96), 1280, 1280, 126.0),
    "Idefics2": (
        Idefics2Resampler(64, depth=3, heads=16, head_dim=96, kv_heads=4, hidden=14336), 1152, 4096, 743.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    config, width, out_width, millions = PUBLISHED[name]
    with torch.device("meta"):
        model = config.build(width, out_width, (16, 16))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_published_design():
    connector = build("flamingo_resampler", "published", device="meta").connector
    linear = 1024 * 4096 + 4096
    assert sum(p.numel() for p in connector.parameters()) - linear == pytest.approx(63.0e6, rel=1e-3)
    assert connector.num_tokens((16, 16)) == 64
