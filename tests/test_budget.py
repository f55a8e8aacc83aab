"""Budgets: every count is that of the tensors, and the published ones are those that papers and checkpoints state."""

from __future__ import annotations

import pytest
import torch

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


# Of papers, checkpoints and reference models: visual tokens of a picture of the design's own size, and millions of
# weights of the encoder, of the connector, and of all, where somebody states them.
PUBLISHED = {
    "llava": (256, 303, 4.20, None),
    "llava15": (576, 303.5, 20.98, None),
    "llava_next": (2928, 303.5, 20.98, None),
    "blip2": (32, 986.0, 105.2 + 1.97, None),
    "instructblip": (32, 986.0, 185.7 + 3.15, None),
    "open_flamingo": (64, 303, 63.0, None),
    "idefics": (64, 632, 126.0, None),
    "idefics2": (64, 417.8, 743.2, 8403),
    "honeybee_c": (144, 303.5, 37.4, None),
    "honeybee_d": (144, 303.5, 55.9, None),
    "llama_vid": (2, 986, 31 + 186, None),
    "cogvlm": (1225 + 2, 4280, 143, None),
    "fuyu": (2340, None, 11.1, 9408),
    "kosmos2": (64, 303, 19.0, 1664.5),
    "qwen_vl": (256, 1840, 75.0 + 16.8, None),
    "yi_vl": (1024, 631.7, 22.0, None),
    "deepseek_vl": (576, 303.7, 6.30, None),
    "deepseek_vl_hybrid": (
        576,
        303.7 + 89.7 + 0.8 + 5.9,
        20.98,
        None,
    ),  # and a second neck, and what shrinks SAM's grid
    "moondream2": (729, 413.0, 26.2, 1860),
    "beit3": (197, None, None, 673),
    "mm1": (144, None, None, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_systems_have_their_stated_sizes(name):
    counted, (tokens, *millions) = budget(name), PUBLISHED[name]
    assert counted.visual_tokens == tokens
    found = counted.weights.get("vision"), counted.weights.get("connector"), sum(counted.weights.values())
    for stated, count in zip(millions, found, strict=True):
        assert stated is None or count / 1e6 == pytest.approx(stated, rel=0.01)


def test_published_fusions_and_decoders_have_their_stated_sizes():
    """Vicuna has 6.7 billion weights; the layers of OpenFlamingo 1,116 million, of Idefics 1,435, CogVLM's experts
    6.48 billion."""
    assert budget("llava15").weights["language"] == pytest.approx(6.74e9, rel=1e-3)
    for name, stated in {"open_flamingo": 1115.8, "idefics": 1434.6, "cogvlm": 6480}.items():
        assert budget(name).weights["fusion"] / 1e6 == pytest.approx(stated, rel=1e-3)
    assert budget("llava15").weights["connector"] == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    assert budget("llava15").cache_bytes == (576 + 64) * 32 * 2 * 4096 * 2


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        *(("llava_next", size, tokens) for size, tokens in {
            (672, 672): 2928, (1000, 1000): 2928, (480, 640): 2340, (1080, 1920): 1948, (1008, 336): 2376,
            (336, 336): 1176, (200, 200): 1176, (672, 1008): 576 + 32 * 48 + 32,
        }.items()),
        ("fuyu", (1080, 1920), 36 * 64 + 36), ("fuyu", (300, 300), 10 * 10 + 10), ("fuyu", (31, 1), 2 * 1 + 2),
        ("fuyu", (2160, 3840), 36 * 64 + 36), ("otterhd", (448, 448), 15 * 15 + 15),
        ("idefics2", (980, 980), 64), ("idefics2", (300, 700), 64),
        ("llava15", (672, 1008), 576), ("qwen_vl", (10, 3000), 256), ("deepseek_vl_hybrid", (100, 100), 576),
    ],
)  # fmt: skip
def test_tokens_of_a_picture_of_any_size(name, size, tokens):
    """LLaVA-NeXT's, from its own packing: the whole, then the rows of the canvas that show the picture, each ended by a
    newline. Fuyu's: patches of 30 pixels, and a newline a row, of what is shrunk to 1080 x 1920. No size changes a
    weight."""
    counted = budget(name, image_size=size)
    assert counted.visual_tokens == tokens and counted.image_size == size
    assert counted.weights == budget(name).weights


def test_the_text_holds_every_number():
    counted = budget("llava_next", "mini", words=7, image_size=(70, 90))
    text = str(counted)
    assert "7 words" in text and "one 70x90 picture" in text and "read as it comes: 8x8 + 12x16 patches" in text
    assert f"visual tokens  {8 * 8 + 12 * 16 + 12}" in text and f"positions      {counted.positions}" in text
    for part, weights in counted.weights.items():
        read, word = counted.flops[part] / 1e9, counted.word_flops[part] / 1e9
        row = next(line for line in text.splitlines() if line.strip().startswith(part))
        assert row.split()[1:] == [f"{weights / 1e6:,.1f}", f"{read:,.2f}", f"{word:,.3f}"]
    in_all = next(line for line in text.splitlines() if line.strip().startswith("in all"))
    assert in_all.split()[3:] == [
        f"{sum(c.values()) / 1e9:,.{n}f}" for c, n in ((counted.flops, 2), (counted.word_flops, 3))
    ]
    for count in (counted.cache_bytes, counted.prefill_bytes, counted.training_bytes, counted.image_cache_bytes):
        assert f"{count / 2**20:,.1f} MiB" in text


def test_what_is_resized_is_said():
    text = str(budget("llava15", "mini", image_size=(30, 50)))
    assert "one 30x50 picture" in text and "resized to 64x64, the only size that this design reads: 8x8 pat" in text


def test_more_words_cost_more_and_only_the_decoder():
    few, many = budget("llava", "mini", words=1), budget("llava", "mini", words=100)
    assert many.flops["language"] > few.flops["language"] and many.cache_bytes > few.cache_bytes
    assert all(many.flops[part] == few.flops[part] for part in ("vision", "connector"))


@pytest.mark.parametrize("name", [name for name in DESIGNS if name not in SPEAKING])
def test_two_towers_have_no_sequence_to_spend(name):
    with pytest.raises(ValueError, match="no decoder"):
        budget(name)


def test_an_encoder_of_another_size_is_counted_like_the_preset_s_own():
    """A picture of twice the sides has four times the patches; one of twice the patch a quarter."""
    wide = budget("llava15", encoder_size=672)
    assert wide.image_size == (672, 672) and wide.visual_tokens == 48 * 48
    assert budget("llava15", encoder_size=(336, 168)).visual_tokens == 24 * 12
    assert budget("llava15", patch_size=28).visual_tokens == 12 * 12
    position_table = (48 * 48 - 24 * 24) * 1024
    assert wide.weights["vision"] - budget("llava15").weights["vision"] == position_table
    with pytest.raises(ValueError, match="no whole patch of 14"):
        budget("llava15", encoder_size=13)


def test_an_encoder_s_other_size_reaches_the_towers_inside():
    """Of two encoders the second sees, and so do the tokens, what they always did, until patches are another size."""
    changes = ({}, dict(encoder_size=512), dict(patch_size=32))
    own, wide, coarse = (budget("deepseek_vl_hybrid", **change) for change in changes)
    assert (own.image_size, wide.image_size, coarse.image_size) == ((1024, 1024), (512, 512), (1024, 1024))
    assert (own.visual_tokens, wide.visual_tokens, coarse.visual_tokens) == (576, 576, 144)
    assert own.weights["vision"] - wide.weights["vision"] > (64 * 64 - 32 * 32) * 768  # places, and distances of them
    whole, quarters = (budget(name, "mini", encoder_size=(64, 96)) for name in ("idefics2", "idefics2_split"))
    assert quarters.image_size == (64, 96) and quarters.visual_tokens == 5 * whole.visual_tokens
    assert budget("llava_next", "mini", encoder_size=64).visual_tokens == 136
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
