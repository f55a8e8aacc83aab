"""Gated cross attention: its layers against flamingo-pytorch and open_flamingo, who sees which picture, and that what
is not looked at changes nothing, to the bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from flamingo_pytorch import GatedCrossAttentionBlock
from flamingos import GATED_LAYER, split_keys_and_values
from references import assert_same, features, pictures, randomise, words
from torch import Tensor, nn

from minivlm import VLM, Batch, budget, build
from minivlm.attention import capturing
from minivlm.connectors.perceiver import FlamingoResampler
from minivlm.fusion.cross_attention import FlamingoCrossAttention, IdeficsCrossAttention
from minivlm.fusion.fusion import FusionConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.magneto import MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.phi import PhiConfig
from minivlm.layout import Layout, VisualLayout
from minivlm.model import VLMConfig
from minivlm.pretrained.keys import State, load_exactly, rename
from minivlm.vision.vit import clip_vit

IMAGE, EOS = 63, 62
W, I = 5, IMAGE  # noqa: E741 (as a table of places reads best)
WITHOUT_PICTURE_0 = 2  # so many words of the first sample below come before its first picture

pytestmark = pytest.mark.usefixtures("no_graph")


def texts() -> tuple[Tensor, Tensor]:
    """A sample with three pictures and one with two, which is shorter."""
    ids = torch.tensor([[W, W, I, W, W, I, I, W, W], [I, W, W, I, W, W, 0, 0, 0]])
    return torch.where(ids == W, words(*ids.shape), ids), ids != 0


# --- one layer, against published code ------------------------------------------------------------------------------

SIZES = [dict(heads=3, head_dim=6), dict(heads=2, head_dim=10), dict(heads=4, head_dim=14)]
WIDTHS, VISUAL_WIDTHS, TOKENS = (14, 18, 10), (6, 22, 9), (5, 1, 3)


class Passes(nn.Module):
    """A block of a decoder that does nothing."""

    def forward(self, x: Tensor, **options) -> Tensor:
        return x


def one_layer(config: FusionConfig, width: int, state: State, x: Tensor, visual: Tensor) -> tuple[Tensor, Layout]:
    """What a single layer with those weights makes of x, at each place of `texts`."""
    decoder = LlamaConfig(8, width=width, depth=1, heads=1, kv_heads=1, mlp_width=8).build()
    decoder.blocks = nn.ModuleList([Passes()])
    fusion = config.build(decoder)
    load_exactly(fusion.layers[0], rename(split_keys_and_values(state), GATED_LAYER))
    ids, mask = texts()
    layout = fusion.arrange(ids, mask, torch.zeros_like(ids), VisualLayout.latents(visual.shape[2]), IMAGE)
    [block] = fusion.blocks(decoder, layout, fusion.look(visual, layout))
    return block(x), layout


def states(seed: int, scale: float, visual_width: int) -> tuple[Tensor, Tensor]:
    """Of the words and of the pictures."""
    return features(2, 9, WIDTHS[seed], scale=scale), features(2, 3, TOKENS[seed], visual_width, scale=1.0)


def test_flamingo_equals_flamingo_pytorch(seed, scale):
    sizes, width = SIZES[seed], WIDTHS[seed]
    x, visual = states(seed, scale, width)
    theirs = randomise(GatedCrossAttentionBlock(dim=width, dim_head=sizes["head_dim"], heads=sizes["heads"]), seed)
    config = FlamingoCrossAttention(every=1, visual_width=width, **sizes)
    ours, layout = one_layer(config, width, theirs.state_dict(), x, visual)
    assert_same(ours[layout.valid], theirs(x, visual, texts()[0] == IMAGE)[layout.valid])


def open_flamingo_block(seed: int, latest_only: bool) -> nn.Module:
    reason = "open-flamingo asks for torch 2.0.1: pip install --no-deps open-flamingo"
    helpers = pytest.importorskip("open_flamingo.src.helpers", reason=reason)
    sizes = dict(dim=WIDTHS[seed], dim_visual=VISUAL_WIDTHS[seed], heads=SIZES[seed]["heads"])
    block = helpers.GatedCrossAttentionBlock(
        **sizes, dim_head=SIZES[seed]["head_dim"], only_attend_immediate_media=latest_only
    )
    return randomise(block, seed)


@pytest.mark.parametrize("looks", ["latest", "preceding"])
def test_flamingo_equals_open_flamingo(seed, scale, looks):
    theirs = open_flamingo_block(seed, latest_only=looks == "latest")
    x, visual = states(seed, scale, VISUAL_WIDTHS[seed])
    config = FlamingoCrossAttention(every=1, visual_width=VISUAL_WIDTHS[seed], looks=looks, **SIZES[seed])
    ours, layout = one_layer(config, WIDTHS[seed], theirs.state_dict(), x, visual)
    wanted = theirs(x, visual, texts()[0] == IMAGE)
    sees = layout.latest >= 0
    assert_same(ours[sees], wanted[sees])
    # before the first picture "preceding" as published looks at every picture, also at those to come; ours at none
    rest = layout.valid & ~sees
    if looks == "latest":
        assert_same(ours[rest], wanted[rest])
    else:
        assert ((ours[rest] - wanted[rest]).abs().amax(dim=-1) > 1e-3).all()
        gone = visual.clone()
        gone[0] = 0
        assert torch.equal(one_layer(config, WIDTHS[seed], theirs.state_dict(), x, gone)[0][rest], ours[rest])


@pytest.mark.parametrize("looks", ["latest", "preceding"])
def test_without_blind_mlp_a_place_that_sees_nothing_is_left_as_it_is(seed, looks):
    theirs = open_flamingo_block(seed, latest_only=looks == "latest")
    x, visual = states(seed, 1.0, VISUAL_WIDTHS[seed])
    config = FlamingoCrossAttention(every=1, visual_width=VISUAL_WIDTHS[seed], looks=looks, **SIZES[seed])
    published, layout = one_layer(config, WIDTHS[seed], theirs.state_dict(), x, visual)
    config = replace(config, blind_mlp=False)
    ours, _ = one_layer(config, WIDTHS[seed], theirs.state_dict(), x, visual)
    sees = layout.latest >= 0
    assert torch.equal(ours[sees], published[sees])
    assert torch.equal(ours[~sees], x[~sees])
    assert ((published[~sees] - x[~sees]).abs().amax(dim=-1) > 1e-3).all()


# --- in a model: each kind of layer, in each of our decoders --------------------------------------------------------

VISION = dict(image_size=(16, 16), patch_size=8, width=16, depth=2, heads=2, mlp_width=24)
SMALL = dict(width=24, depth=4, mlp_width=24)
DECODERS = {
    "llama": LlamaConfig(64, heads=2, kv_heads=1, tied=True, **SMALL),
    "opt": OPTConfig(64, heads=2, context=40, **SMALL),
    "phi": PhiConfig(64, heads=2, **SMALL),
    "magneto": MagnetoConfig(64, heads=2, **SMALL),
}
FUSIONS = {
    "flamingo": FlamingoCrossAttention(every=2, heads=3, head_dim=6, visual_width=16, blind_mlp=False),
    "idefics": IdeficsCrossAttention(
        every=2, heads=2, mlp_width=26, visual_width=16, vector_gates=True, blind_mlp=False
    ),
}


def small_vlm(fusion: FusionConfig, decoder: str = "llama") -> VLM:
    connector = FlamingoResampler(3, depth=1, heads=2, head_dim=6)
    return VLMConfig(clip_vit(**VISION), connector, DECODERS[decoder], IMAGE, EOS, fusion=fusion).build()


@pytest.fixture(params=FUSIONS)
def config(request) -> FusionConfig:
    return FUSIONS[request.param]


@pytest.fixture(params=DECODERS)
def decoder(request) -> str:
    return request.param


def batch() -> Batch:
    ids, mask = texts()
    there = torch.tensor([[True, True, True], [True, True, False]])
    return Batch(pictures(2, 3, 3, 16, 16), ids, text_mask=mask, image_mask=there)


def part(layout: Layout, start: int, end: int) -> Layout:
    return Layout(**{field.name: getattr(layout, field.name)[:, start:end] for field in fields(Layout)})


def read(model: VLM, given: Batch, ends: tuple[int, ...] = (), plain: bool = False) -> Tensor:
    """Logits of a batch, read in pieces that stop at `ends`, with a cache; `plain`: by the decoder alone."""
    x, layout, seen = model._sequence(given)
    cache, mask, logits = model.language.make_cache(x.shape[1]), model.fusion.mask(layout), []
    for start, end in zip((0, *ends), (*ends, x.shape[1]), strict=True):
        here = part(layout, start, end)
        given = (x[:, start:end], here.position, mask[:, :, start:end, :end], cache)
        blocks = None if plain else model.fusion.blocks(model.language, here, seen)
        logits.append(model.language.logits(model.language(*given, blocks)))
    return torch.cat(logits, dim=1)


def test_closed_gates_leave_the_decoder_untouched(config, decoder):
    for ends in ((), (4, 7, 8)):
        model = small_vlm(config, decoder)
        gates = [layer_gate for layer in model.fusion.layers for layer_gate in (layer.attention_gate, layer.mlp_gate)]
        assert all((gate == 0).all() for gate in gates)  # as they start
        randomise(model)
        for gate in gates:
            gate.zero_()
        plain = read(model, batch(), ends, plain=True)
        assert torch.equal(read(model, batch(), ends), plain)
        gates[0].fill_(0.3)
        assert (read(model, batch(), ends) - plain).abs().max() > 1e-3


def test_it_wraps_any_decoder(config, decoder):
    """Whose weights keep their names; read word by word it says what it says when read whole, and what it says depends
    on its pictures."""
    model = randomise(small_vlm(config, decoder))
    assert model.language.state_dict().keys() == DECODERS[decoder].build().state_dict().keys()
    logits = model(batch()).logits
    assert_same(read(model, batch(), (4, 5, 8))[texts()[1]], logits[texts()[1]])
    other = model(replace(batch(), images=pictures(2, 3, 3, 16, 16, seed=1))).logits
    changed = (other - logits).abs().amax(dim=-1) > 1e-4
    assert changed[0, WITHOUT_PICTURE_0:].all() and not changed[0, :WITHOUT_PICTURE_0].any()


def test_what_sees_no_picture_is_the_decoders_to_the_bit(config):
    model = randomise(small_vlm(config))
    given = batch()
    plain = read(model, given, plain=True)
    logits = model(given).logits
    before, after = slice(0, WITHOUT_PICTURE_0), slice(WITHOUT_PICTURE_0, None)
    assert torch.equal(logits[0, before], plain[0, before])
    assert ((logits - plain)[0, after].abs().amax(dim=-1) > 1e-4).all()
    # a sample without pictures beside one that has some, and a batch without any
    ids = torch.where(given.input_ids == IMAGE, W, given.input_ids)
    mixed = replace(given, input_ids=torch.stack([given.input_ids[0], ids[1]]), image_mask=given.image_mask.clone())
    mixed.image_mask[1] = False
    valid = given.text_mask[1]
    assert torch.equal(model(mixed).logits[1, valid], read(model, mixed, plain=True)[1, valid])
    bare = replace(given, images=None, image_mask=None, input_ids=ids)
    assert torch.equal(model(bare).logits, read(model, bare, plain=True))
    assert model(bare, capture=True).maps.keys() == {f"language.blocks.{i}.attention.weights" for i in range(4)}


def test_with_blind_mlp_a_sample_without_pictures_is_itself_in_any_batch(config):
    """As published: then the MLPs of the layers run for words that see no picture too."""
    model = randomise(small_vlm(replace(config, blind_mlp=True)))
    given, ids = batch(), words(2, 9)
    mixed = replace(given, input_ids=torch.stack([given.input_ids[0], ids[1]]), image_mask=given.image_mask.clone())
    mixed.image_mask[1] = False
    bare = replace(given, images=None, image_mask=None, input_ids=ids)
    valid = given.text_mask[1]
    assert_same(model(mixed).logits[1, valid], model(bare).logits[1, valid])
    assert ((model(bare).logits - read(model, bare, plain=True))[1, valid].abs().amax(dim=-1) > 1e-4).all()


# --- who sees which picture -----------------------------------------------------------------------------------------


def slow_sees(ids: list[int], segments: list[int], looks: str, place: int) -> list[int]:
    """The pictures that the word at a place looks at, from the rule as told."""
    begun = [at for at in range(place + 1) if ids[at] == IMAGE]
    numbers = [number for number, at in enumerate(begun) if segments[at] in (0, segments[place])]
    return numbers[-1:] if looks == "latest" else numbers


ROWS = [  # ids and segments
    ([W, I, W, I, I, W, W, I, W, W], [0] * 10),
    ([W, W, I, W, I, W, I, W, W, W], [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]),  # questions, two of which bring a picture
    ([W, I, W, W, W, I, W, W, I, W], [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]),  # nothing shared
    ([W, W, W, W, W, W, W, I, W, W], [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]),
]


def many_pictures(model: VLM) -> Batch:
    ids, segments = (torch.tensor([row[i] for row in ROWS]) for i in range(2))
    counts = (ids == IMAGE).sum(dim=1)
    return Batch(pictures(len(ids), 4, 3, 16, 16), ids, segments=segments, image_mask=torch.arange(4) < counts[:, None])


def looked_at(weights: Tensor) -> list[list[list[int]]]:
    """Of each sample and place, the pictures that every head has an eye on, all their tokens or none."""
    looks = (weights > 0).unflatten(-1, (4, -1))  # (B, H, L, M, K)
    assert (looks == looks[:, :1, :, :, :1]).all()
    return [[place.nonzero().flatten().tolist() for place in sample] for sample in looks[:, 0, :, :, 0]]


@pytest.mark.parametrize("looks", ["latest", "preceding"])
def test_a_word_looks_at_the_pictures_of_the_rule(config, looks):
    model = randomise(small_vlm(replace(config, looks=looks)))
    given = many_pictures(model)
    wanted = [[slow_sees(ids, segments, looks, place) for place in range(10)] for ids, segments in ROWS]
    maps = model(given, capture=True).maps
    for layer in range(2):
        assert looked_at(maps[f"fusion.layers.{layer}.attention.weights"]) == wanted
    x, layout, seen = model._sequence(given)
    for place in range(10):  # one at a time, as with a cache
        with capturing(model) as maps:
            for block in model.fusion.blocks(model.language, part(layout, place, place + 1), seen):
                block(x[:, place : place + 1])
        at = [[sample[place]] for sample in wanted]
        assert looked_at(maps["fusion.layers.0.attention.weights"]) == at
    with capturing(model) as maps:
        model.generate(replace(given, text_mask=torch.ones_like(given.segments, dtype=torch.bool)), max_new_tokens=3)
    assert looked_at(maps["fusion.layers.1.attention.weights"]) == [[sample[-1]] for sample in wanted]


@pytest.mark.parametrize("looks", ["latest", "preceding"])
def test_a_question_does_not_see_the_picture_of_another(config, looks):
    model = randomise(small_vlm(replace(config, looks=looks)))
    given = many_pictures(model)
    together = model(given).logits[1]
    shared = range(4)
    for places, seen in (((4, 5), [0, 1]), ((6, 7), [0, 2]), ((8, 9), [0])):
        own = [*shared, *places]
        alone = Batch(
            given.images[1:2, seen], given.input_ids[1:2, own], segments=given.segments[1:2, own].clamp(max=1)
        )
        assert_same(model(alone).logits[0], together[own])


def test_generation_looks_at_its_pictures_once(config, decoder):
    """Keys and values are made once, however many words are said, and what is said is as if all were read again."""
    model = randomise(small_vlm(config, decoder))
    given = Batch(pictures(2, 2, 3, 16, 16), torch.tensor([[W, I, 7, 8, I, 9], [I, 11, 12, I, 13, 14]]))
    longer = given
    for _ in range(5):
        word = model(longer).logits[:, -1:].argmax(dim=-1)
        longer = replace(longer, input_ids=torch.cat([longer.input_ids, word], dim=1))
    wanted = longer.input_ids[:, -5:]
    model.config = replace(model.config, eos_id=next(word for word in range(64) if word not in wanted))
    calls = Counter()
    for layer in model.fusion.layers:
        for name in "qkv":
            getattr(layer.attention, name).register_forward_hook(lambda *_, name=name: calls.update([name]))
    assert torch.equal(model.generate(given, max_new_tokens=5), wanted)
    assert calls == {"q": 2 * 5, "k": 2, "v": 2}


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_gates_and_both_updates_of_the_residual_are_recorded(config, decoder):
    """So that the share of what words are given that came from pictures can be told, block by block."""
    model = randomise(small_vlm(config, decoder))
    came = {}
    hooks = []
    for number, (place, layer) in enumerate(zip(model.fusion.places, model.fusion.layers, strict=True)):
        for name, module in (("cross", layer.attention.out), ("self", model.language.blocks[place].attention)):
            keep = lambda _, given, made, key=f"{number}.{name}": came.update({key: made})  # noqa: E731
            hooks.append(module.register_forward_hook(keep))
    maps = model(batch(), capture=True).maps
    for number, layer in enumerate(model.fusion.layers):
        for name in ("attention_gate", "mlp_gate"):
            assert torch.equal(maps[f"fusion.layers.{number}.{name}"], torch.tanh(getattr(layer, name)))
        cross, own = (maps[f"fusion.layers.{number}.{name}_update"] for name in ("cross", "self"))
        assert torch.equal(cross, torch.tanh(layer.attention_gate) * came[f"{number}.cross"])
        assert (cross[0, :WITHOUT_PICTURE_0] == 0).all() and (cross[0, WITHOUT_PICTURE_0:] != 0).any(dim=-1).all()
        assert torch.equal(own, came[f"{number}.self"])
    for hook in hooks:
        hook.remove()
    assert not any(block.attention._forward_hooks for block in model.language.blocks)


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_layers_stand_where_each_system_has_them():
    decoder = DECODERS["llama"].build()
    for every, flamingo, idefics in ((1, [0, 1, 2, 3], [0, 1, 2, 3]), (2, [1, 3], [0, 2]), (3, [2], [0, 3])):
        assert list(replace(FUSIONS["flamingo"], every=every).build(decoder).places) == flamingo
        assert list(replace(FUSIONS["idefics"], every=every).build(decoder).places) == idefics


def test_sizes_that_make_no_sense_are_refused():
    config = FUSIONS["flamingo"]
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        replace(config, every=0)
    with pytest.raises(ValueError, match="head_dim must be at least 1, got 0"):
        replace(config, head_dim=0)
    with pytest.raises(ValueError, match="unknown looks 'back'; choose one of latest, preceding"):
        replace(config, looks="back")
    with pytest.raises(ValueError, match="every 5 blocks, but the decoder has only 4"):
        replace(config, every=5).build(DECODERS["llama"].build())
    with pytest.raises(ValueError, match="width 24 does not split into 5 heads"):
        replace(FUSIONS["idefics"], heads=5).build(DECODERS["llama"].build())


def test_what_a_layer_costs_is_counted(config):
    """By hand: each of two layers has two maps of words, two of pictures, a look of all words at all pictures, and an
    MLP; and keeps keys and values."""
    model = small_vlm(config)
    _, _, seen = model._sequence(batch())
    assert model.fusion.kept(9) == sum(k[0].numel() + v[0].numel() for k, v in seen.keys_and_values)
    heads = model.fusion.layers[0].attention.heads * model.fusion.layers[0].attention.head_dim
    mlp = sum(map_.weight.numel() for map_ in model.fusion.layers[0].mlp.children() if isinstance(map_, nn.Linear))
    look = 2 * 7 * 24 * heads + 2 * 6 * 16 * heads + 2 * 7 * 6 * heads

    def counted(config: VLMConfig, images: int) -> int:
        return budget(config, words=7 - images, images=images).flops["fusion"]

    assert counted(model.config, 2) == 2 * 2 * (look + 7 * mlp)  # 2 pictures of 3 tokens, 5 words
    assert counted(model.config, 0) == 0
    assert counted(replace(model.config, fusion=replace(config, blind_mlp=True)), 0) == 2 * 2 * 7 * mlp


PUBLISHED = {  # millions of weights of connector and fusion, layers, tokens
    "open_flamingo": (63.0, 1115.8, 8, 64),
    "idefics": (126.0, 1434.5, 8, 64),
    "flamingo": (188.9, 7659.2, 11, 64),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    model = build(name, "published", device="meta")
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.connector, model.fusion)]
    connector, fusion, layers, tokens = PUBLISHED[name]
    assert counts == [pytest.approx(connector, abs=0.1), pytest.approx(fusion, abs=0.1)]
    assert len(model.fusion.layers) == layers
    assert model.config.num_tokens == tokens
    assert model.config.language.width == model.fusion.layers[0].attention.out.out_features
    assert isinstance(model.connector.out, nn.Identity)  # the layers read the latents in their own width
