"""Budgets: every count is that of the tensors, and the published ones are those that papers and checkpoints state."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minivlm import DESIGNS, VLM, Batch, budget, build

SPEAKING = [name for name, design in DESIGNS.items() if design.answers]


@pytest.mark.parametrize("preset", ["mini", "published"])
@pytest.mark.parametrize("name", SPEAKING)
def test_weights_are_those_of_the_parts(name, preset):
    model = build(name, preset, device="meta")
    counted = budget(name, preset)
    assert counted.weights == {n: sum(p.numel() for p in getattr(model, n).parameters()) for n in counted.weights}
    assert sum(counted.weights.values()) == sum(p.numel() for p in model.parameters())


def at_capacity(model: VLM) -> None:
    """Have depths, if there are some, work on as many places as the budget counts, and not on as many as they like."""
    for router in getattr(model.language, "routers", ()):
        router.guess = lambda x, r: (torch.arange(r.shape[1]) < model.language.config.places(r.shape[1])).float()[None]


@torch.no_grad()
@pytest.mark.parametrize("name", SPEAKING)
def test_visual_tokens_and_cache_are_those_of_a_real_sequence(name):
    """The cache of a real forward pass holds as many numbers as the budget says, at two bytes each; so do the keys and
    values of pictures that are kept beside it."""
    counted, model = budget(name, "mini", words=9), build(name, device="cpu")
    ids = torch.cat([torch.tensor([[model.image_token_id]]), torch.full((1, 9), 300)], dim=1)
    batch = Batch(torch.rand(1, 1, 3, *model.config.vision.image_size), ids, instruction=ids)
    assert model.connect(model.features(batch.images), batch).shape[:3].numel() == counted.visual_tokens
    x, layout, seen = model._sequence(batch)
    assert x.shape[1] == counted.positions
    assert int(layout.is_visual.sum()) == (counted.visual_tokens if model.fusion.opens else 0)
    at_capacity(model)
    cache, blocks = model.language.make_cache(400), model.fusion.blocks(model.language, layout, seen)
    model.language(x, layout.position, model.fusion.mask(layout), cache, blocks)
    kept = sum(x[:, :, : layer.length].numel() for layer in cache for x in (layer.k, layer.v))
    beside = sum(x.numel() for both in (seen.keys_and_values if seen else ()) for x in both)
    assert counted.cache_bytes == 2 * (kept + beside)
    rounded = 2 * 2 * 128 * len(getattr(model.language, "routers", ()))  # a routed block's share, up to whole keys
    assert counted.text_cache_bytes == pytest.approx(2 * kept / counted.positions * 9, abs=rounded)


@torch.no_grad()
@pytest.mark.parametrize("name", SPEAKING)
def test_operations_are_those_of_a_real_pass(name):
    counted, model = budget(name, "mini", words=9), build(name, device="cpu")
    ids = torch.cat([torch.tensor([[model.image_token_id]]), torch.full((1, 9), 300)], dim=1)
    batch = Batch(torch.rand(1, 1, 3, *model.config.vision.image_size), ids, instruction=ids[:, 1:])
    model.requires_grad_(False)  # or the counter looks for the history of weights
    with FlopCounterMode(display=False) as counter:
        model(batch, capture=True)  # explicitly: torch does not count the fused attention of a CPU
    assert sum(counted.flops.values()) == counter.get_total_flops()


def test_operations_are_those_counted_by_hand():
    """Two a multiply-add: the MLP connector is two matrices for each patch, and nothing else."""
    counted, config = budget("llava15", "mini"), build("llava15", device="meta").config
    wide, out = config.vision.width, config.language.width
    assert counted.flops["connector"] == 2 * 64 * (wide * out + out * out)
    decoder = config.language
    length = counted.visual_tokens + counted.words
    matrices = decoder.depth * (4 * decoder.width**2 + 3 * decoder.width * decoder.mlp_width)
    attention = decoder.depth * 2 * length * length * decoder.width
    head = length * decoder.width * decoder.vocab_size
    assert counted.flops["language"] == 2 * (length * matrices + attention + head)


def test_published_systems_have_their_stated_sizes():
    """LLaVA-1.5: 336 pixels in patches of 14 are 576 tokens; CLIP L/14-336 has 303.5 M weights, Vicuna 6.7 B."""
    counted = budget("llava15")
    assert counted.image_size == (336, 336) and counted.visual_tokens == 24 * 24
    assert counted.weights["vision"] == pytest.approx(303.5e6, rel=1e-3)
    assert counted.weights["connector"] == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    assert counted.weights["language"] == pytest.approx(6.74e9, rel=1e-3)
    assert counted.cache_bytes == (576 + 64) * 32 * 2 * 4096 * 2
    assert budget("llava").visual_tokens == 256
    assert budget("yi_vl").visual_tokens == 1024


def test_the_text_holds_every_number():
    counted = budget("llava15", "mini", words=7)
    text = str(counted)
    assert "7 words" in text and "64x64" in text and f"visual tokens  {counted.visual_tokens}" in text
    for part, weights in counted.weights.items():
        assert part in text and f"{weights / 1e6:,.1f} M" in text
    assert f"{counted.cache_bytes / 2**20:,.1f} MiB" in text


def test_more_words_cost_more_and_only_the_decoder():
    few, many = budget("llava", "mini", words=1), budget("llava", "mini", words=100)
    assert many.flops["language"] > few.flops["language"] and many.cache_bytes > few.cache_bytes
    assert all(many.flops[part] == few.flops[part] for part in ("vision", "connector"))


@pytest.mark.parametrize("name", [name for name in DESIGNS if name not in SPEAKING])
def test_two_towers_have_no_sequence_to_spend(name):
    with pytest.raises(ValueError, match="no decoder"):
        budget(name)


def test_another_size_is_counted_like_the_preset_s_own():
    """A picture of twice the sides has four times the patches; one of twice the patch a quarter."""
    wide = budget("llava15", image_size=672)
    assert wide.image_size == (672, 672) and wide.visual_tokens == 48 * 48
    assert budget("llava15", image_size=(336, 168)).visual_tokens == 24 * 12
    assert budget("llava15", patch_size=28).visual_tokens == 12 * 12
    position_table = (48 * 48 - 24 * 24) * 1024
    assert wide.weights["vision"] - budget("llava15").weights["vision"] == position_table
    with pytest.raises(ValueError, match="no whole patch of 14"):
        budget("llava15", image_size=13)


def test_another_size_reaches_the_towers_inside():
    """Of two encoders the second sees, and so do the tokens, what they always did, until patches are another size."""
    changes = ({}, dict(image_size=512), dict(patch_size=32))
    own, wide, coarse = (budget("deepseek_vl_hybrid", **change) for change in changes)
    assert (own.image_size, wide.image_size, coarse.image_size) == ((1024, 1024), (512, 512), (1024, 1024))
    assert (own.visual_tokens, wide.visual_tokens, coarse.visual_tokens) == (576, 576, 144)
    assert own.weights["vision"] - wide.weights["vision"] > (64 * 64 - 32 * 32) * 768  # places, and distances of them
    whole, quarters = (budget(name, "mini", image_size=(64, 96)) for name in ("idefics2", "idefics2_split"))
    assert quarters.image_size == (64, 96) and quarters.visual_tokens == 5 * whole.visual_tokens
    assert budget("llava_next", "mini", image_size=64).visual_tokens == 136
    assert budget("idefics2_split", "mini", patch_size=16).weights["vision"] > quarters.weights["vision"]


def test_pictures_add_up():
    one, eight, none = (budget("llava", "mini", words=5, images=n) for n in (1, 8, 0))
    assert eight.visual_tokens == 8 * one.visual_tokens and none.visual_tokens == 0
    for part in ("vision", "connector"):
        assert eight.flops[part] == 8 * one.flops[part] > none.flops[part] == 0
    assert eight.image_cache_bytes == 8 * one.image_cache_bytes and none.image_cache_bytes == 0
    assert eight.text_cache_bytes == one.text_cache_bytes == none.text_cache_bytes == none.cache_bytes
    assert "8 64x64 pictures" in str(eight)
    assert budget("llava", "mini", words=0, images=0).cache_bytes == 0
    with pytest.raises(ValueError, match="got 3 and -1"):
        budget("llava", words=3, images=-1)


def test_memory_is_weights_and_cache_in_sixteen_bits():
    """LLaVA-1.5 in 16 bits is known to take some 14 GB: it fits a card of 16 and none of 8."""
    counted = budget("llava15")
    assert counted.memory_bytes == 2 * sum(counted.weights.values()) + counted.cache_bytes
    assert 8e9 < counted.memory_bytes < 16e9
    assert counted.image_cache_bytes == 576 * 32 * 2 * 4096 * 2
