"""Multiway blocks, against torchscale's BEiT-3."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import pytest
import references
import torch
from references import assert_same, multi_head_sizes, pictures, randomise, words
from torch import Tensor, nn

from minivlm import VLM, Batch, build
from minivlm.connectors.projection import NoProjection
from minivlm.fusion.multiway import MultiwayConfig
from minivlm.language.magneto import LearnedMagnetoConfig
from minivlm.layout import Kind, Layout
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import LLAMA, llama_config
from minivlm.pretrained.keys import WB, Rules, State, load_exactly, rename
from minivlm.published import multiway
from minivlm.vision.vit import bare_patches

pytestmark = pytest.mark.usefixtures("no_graph")

IMAGE = 62  # the last ids of a vocabulary of 64 are for pictures, and for an end that is not said by chance
LENGTHS = (7, 4, 5)  # of the texts of a batch


# --- the reference ----------------------------------------------------------------------------------------------------


@pytest.fixture
def torchscale(monkeypatch) -> None:
    """torchscale asks for fairscale and an old timm, of which it needs three functions that do nothing here."""
    for path, names in (("fairscale", ()), ("fairscale.nn", ("checkpoint_wrapper", "wrap")),
                        ("timm.models.layers", ("drop_path",))):  # fmt: skip
        stub = ModuleType(path)
        for name in names:
            setattr(stub, name, lambda x, *_, **__: x)
        monkeypatch.setitem(sys.modules, path, stub)
    pytest.importorskip(
        "torchscale.model.BEiT3", reason="pip install --no-deps torchscale (its pins are of old versions)"
    )


def beit3(seed: int, scale: float) -> nn.Module:
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3

    width, mlp_width, depth, heads = multi_head_sizes(seed)
    patch = 3 + seed
    config = EncoderConfig(
        img_size=patch * (2 + seed) + seed, patch_size=patch, vocab_size=64, multiway=True, no_output_layer=True,
        encoder_embed_dim=width, encoder_attention_heads=heads, encoder_ffn_embed_dim=mlp_width, encoder_layers=depth,
        max_source_positions=30 + seed,
    )  # fmt: skip
    theirs = randomise(BEiT3(config), seed, scale)
    for name, parameter in theirs.named_parameters():
        if "v_proj" in name or "fc1" in name:  # what enters the norms inside the blocks, which no start quietens
            parameter *= scale
    return theirs


_PART = {
    "self_attn_layer_norm": "attention_norm", "self_attn.inner_attn_ln": "out.norm", "self_attn.out_proj": "out",
    "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "final_layer_norm": "mlp_norm",
    "ffn.fc1": "mlp.up", "ffn.ffn_layernorm": "mlp.down.norm", "ffn.fc2": "mlp.down",
}  # fmt: skip
BLOCKS: Rules = [
    rule
    for theirs, ours in _PART.items()
    for path in [f"attention.{ours}" if ours in ("q", "k", "v", "out", "out.norm") else ours]
    for at in [theirs.replace(".", r"\.")]
    for rule in (
        (rf"encoder\.layers\.(\d+)\.A\.{at}{WB}", rf"fusion.experts.\1.{ours}.\2"),
        (rf"encoder\.layers\.(\d+)\.B\.{at}{WB}", rf"language.blocks.\1.{path}.\2"),
    )
]
BEIT3: Rules = [
    *BLOCKS,
    (r"text_embed\.weight", "language.embedding.weight"),
    (r"vision_embed\.proj\.(.*)", r"vision.patch_embedding.\1"),
    (r"vision_embed\.cls_token", "vision.class_embedding"),
    (r"vision_embed\.mask_token", "unread"),
    (r"encoder\.embed_positions\.A\.weight", "vision.position_embedding"),
    (r"encoder\.embed_positions\.B\.weight", "language.position_embedding.weight"),
    (r"encoder\.layer_norm\.A\.(.*)", r"fusion.norm.\1"),
    (r"encoder\.layer_norm\.B\.(.*)", r"language.final_norm.\1"),
]


def converted(theirs: nn.Module) -> VLM:
    sizes = theirs.args
    vision = bare_patches(
        image_size=(sizes.img_size, sizes.img_size), patch_size=sizes.patch_size, width=sizes.encoder_embed_dim
    )
    language = LearnedMagnetoConfig(
        sizes.vocab_size, sizes.encoder_embed_dim, sizes.encoder_layers, sizes.encoder_attention_heads,
        sizes.encoder_ffn_embed_dim, context=sizes.max_source_positions - 2,
    )  # fmt: skip
    fusion, connector = MultiwayConfig(own_places=True), NoProjection(class_token=True)
    config = VLMConfig(vision, connector, language, IMAGE, eos_id=63, layer=0, class_token=True, fusion=fusion)
    ours = config.build()
    # theirs: ...self_attn.q_proj.A.weight, ...ffn.A.fc1.weight; the modality to one place, then the rules
    state: State = {modality_first(key): value for key, value in theirs.state_dict().items()}
    state = rename(state, BEIT3)
    del state["unread"]  # what stands in for a hidden patch in training
    state["vision.class_embedding"] = state["vision.class_embedding"].flatten()
    state["vision.position_embedding"] = state["vision.position_embedding"][2:]  # the first rows are for nothing
    state["language.head.weight"] = state["language.embedding.weight"]
    load_exactly(ours, state)
    return ours.eval()


def modality_first(key: str) -> str:
    names = key.split(".")
    for modality in ("A", "B"):
        if names[:2] == ["encoder", "layers"] and modality in names:
            names.remove(modality)
            names.insert(3, modality)
    return ".".join(names)


@pytest.fixture
def both(torchscale, seed, scale) -> tuple[VLM, nn.Module]:
    theirs = beit3(seed, scale)
    return converted(theirs), theirs


def texts() -> tuple[Tensor, Tensor]:
    """Ids, and where words are; the shorter ones padded on the right."""
    return words(len(LENGTHS), max(LENGTHS)), torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def pictured(model: VLM) -> Batch:
    """A picture and then a text, in each sample."""
    ids, mask = texts()
    size = model.config.vision.image_size
    front = torch.full((len(ids), 1), IMAGE)
    whole, there = torch.cat([front, ids], dim=1), torch.cat([front > 0, mask], dim=1)
    return Batch(pictures(len(ids), 1, 3, *size), whole, text_mask=there)


# --- parity: an encoder -----------------------------------------------------------------------------------------------


def test_pictures_and_texts(both):
    ours, theirs = both
    batch = pictured(ours)
    states, layout = ours.encode(batch)
    padding = ~batch.text_mask[:, 1:]
    wanted = theirs(batch.input_ids[:, 1:], batch.images[:, 0], padding)["encoder_out"]
    assert_same(states[layout.valid], wanted[layout.valid])


def test_pictures_alone(both):
    """The class token first: what a contrastive BEiT-3 compares."""
    ours, theirs = both
    images = pictures(2, 1, 3, *ours.config.vision.image_size)
    states, layout = ours.encode(Batch(images, torch.full((2, 1), IMAGE)))
    assert_same(states, theirs(visual_tokens=images[:, 0])["encoder_out"])
    assert layout.kind[0].tolist() == [Kind.LATENT, *[Kind.PATCH] * ours.config.vision.num_patches]


def test_texts_alone(both):
    ours, theirs = both
    ids, mask = texts()
    states, layout = ours.encode(Batch(None, ids, text_mask=mask))
    assert_same(states[layout.valid], theirs(ids, text_padding_position=~mask)["encoder_out"][mask])


# --- parity: a speaker ------------------------------------------------------------------------------------------------


def captioning_mask(patches: int, words: int) -> Tensor:
    """1 where BEiT-3's captioning forbids to look: from pictures to words, and from words ahead."""
    forbidden = torch.zeros(patches + words, patches + words)
    forbidden[:patches, patches:] = 1
    forbidden[patches:, patches:] = 1 - torch.ones(words, words).tril()
    return forbidden


def test_captioning(both):
    ours, theirs = both
    batch = pictured(ours)
    output = ours(batch)
    forbidden = captioning_mask(ours.config.num_tokens, max(LENGTHS))
    wanted = theirs(batch.input_ids[:, 1:], batch.images[:, 0], ~batch.text_mask[:, 1:], attn_mask=forbidden)
    valid = output.layout.valid
    assert_same(output.logits[valid], wanted["encoder_out"][valid] @ theirs.text_embed.weight.T)


def test_captioning_word_by_word_with_a_cache(both):
    """The picture and two words, then one word at a time, as when it speaks."""
    ours, theirs = both
    batch, first = pictured(ours), ours.config.num_tokens + 2
    forbidden = captioning_mask(ours.config.num_tokens, max(LENGTHS))
    wanted = theirs(batch.input_ids[:, 1:], batch.images[:, 0], ~batch.text_mask[:, 1:], attn_mask=forbidden)
    x, layout, seen = ours._sequence(batch)
    mask, cache = ours.fusion.mask(layout), ours.language.make_cache(x.shape[1])
    for start, end in pairwise([0, *range(first, x.shape[1] + 1)]):
        newest = Layout(**{name: value[:, start:end] for name, value in vars(layout).items()})
        hidden = ours._read(x[:, start:end], newest, seen, mask[:, :, start:end, :end], cache)
        there = newest.valid
        assert_same(hidden[there], wanted["encoder_out"][:, start:end][there])


# --- over any decoder -------------------------------------------------------------------------------------------------

VARIANTS = {"code": MultiwayConfig(), "paper": MultiwayConfig(shared_attention=True)}


@pytest.fixture(params=VARIANTS)
def mini(request) -> VLM:
    config = replace(build("beit3", device="meta").config, fusion=VARIANTS[request.param])
    return randomise(config.build())


def two_pictures(model: VLM) -> Batch:
    """Words around two pictures; the second sample has one picture and is padded."""
    ids, mask = words(2, 9), torch.ones(2, 9, dtype=torch.bool)
    ids[0, [2, 5]] = ids[1, 3] = model.image_token_id
    mask[1, 7:] = False
    there = torch.tensor([[True, True], [True, False]])
    return Batch(pictures(2, 2, 3, *model.config.vision.image_size), ids, text_mask=mask, image_mask=there)


def test_experts_that_are_copies_are_one_plain_decoder(mini, seed):
    """transformers' Llama with the same mask."""
    theirs = references.llama(seed, hidden_size=128, head_dim=None, num_attention_heads=4, num_key_value_heads=2)
    mini.config = replace(mini.config, language=llama_config(theirs.config))
    mini.language = mini.config.language.build()
    load_exactly(mini.language, rename(theirs.state_dict(), LLAMA))
    born = mini.config.fusion.build(mini.language)
    mini.fusion = randomise(mini.config.fusion.build(mini.language))
    mini.fusion.start_from(mini.language)
    for (name, value), other in zip(born.state_dict().items(), mini.fusion.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    batch = two_pictures(mini)
    x, layout, _ = mini._sequence(batch)
    output, mask = mini(batch), slow_mask(layout)
    penalty = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None]
    wanted = theirs(inputs_embeds=x, position_ids=layout.position, attention_mask=penalty).logits
    assert_same(output.logits[layout.valid], wanted[layout.valid])


def slow_mask(layout: Layout) -> Tensor:
    """Pictures whole, the rest causal, place by place."""
    mask = torch.zeros(*layout.kind.shape, layout.kind.shape[1], dtype=torch.bool)
    for sample, (images, length) in enumerate(zip(layout.image.tolist(), layout.lengths.tolist(), strict=True)):
        for q in range(length):
            seen = [k <= q or images[k] == images[q] >= 0 for k in range(length)]
            mask[sample, q, :length] = torch.tensor(seen)
    return mask


def test_routing_changes_its_modality_only(mini):
    batch = two_pictures(mini)
    before = mini(batch)
    visual, words_here = before.layout.is_visual, before.layout.is_text
    mini.fusion.experts[-1]["mlp"].down.weight *= 2
    moved = (mini(batch).logits - before.logits).abs().amax(dim=-1)
    assert (moved[visual] > 1e-3).all() and (moved[words_here] == 0).all()
    mini.language.blocks[-1].mlp.down.weight *= 2
    again = mini(batch)
    mini.fusion.experts[-1]["mlp"].down.weight /= 2
    moved = (mini(batch).logits - before.logits).abs().amax(dim=-1)
    assert (moved[words_here] > 1e-3).all() and (moved[visual] == 0).all()
    assert torch.equal(again.logits[words_here], mini(batch).logits[words_here])


def test_the_variants_route_what_they_say():
    language = build("beit3", device="meta").language
    code, paper = (config.build(language) for config in VARIANTS.values())
    assert {name for expert in paper.experts for name in expert} == {"mlp"} and paper.norm is None
    every = {"attention_norm", "q", "k", "v", "out", "mlp_norm", "mlp"}
    assert all(set(expert) == every for expert in code.experts) and len(code.experts) == 4
    assert code.norm.weight.shape == language.final_norm.weight.shape


def test_without_pictures_it_is_the_untouched_decoder_to_the_bit(mini):
    ids = words(2, 9)
    plain = mini.language.logits(
        mini.language(mini.language.embedding(ids), mask=torch.ones(9, 9).tril().bool()[None, None])
    )
    assert torch.equal(mini(Batch(None, ids)).logits, plain)
    assert_same(plain, mini.language.logits(mini.language(mini.language.embedding(ids))))


def test_words_are_counted_without_pictures():
    """Two words, a picture at the end: the next word is the third, wherever the picture stands."""
    small = replace(multiway(width=12, depth=1, heads=2), image_id=IMAGE)
    small = replace(small, language=replace(small.language, vocab_size=64, context=6))
    small = replace(small, vision=replace(small.vision, image_size=(32, 32)))
    ours = randomise(small.build())
    images, ids = pictures(1, 1, 3, 32, 32), torch.tensor([[5, 6, IMAGE]])
    for order in ([0, 1, 2], [2, 0, 1], [0, 2, 1]):
        batch = Batch(images, ids[:, order])
        layout = ours._sequence(batch)[1]
        assert layout.position[layout.is_text].tolist() == [0, 1]
        assert (layout.position[layout.is_visual] == -1).all()
        assert layout.following().position.tolist() == [[2]]
        assert layout.following().following().position.tolist() == [[3]]
        longer = torch.cat([batch.input_ids, ours.generate(batch, 1)], dim=1)
        assert int(ours(Batch(images, longer)).logits[0, -1].argmax()) == int(ours.generate(batch, 2)[0, 1])
    with pytest.raises(ValueError, match="a text of 7 places, but this Magneto has learned only 6"):
        ours(Batch(None, words(1, 7)))


def test_without_a_projection_widths_must_agree():
    with pytest.raises(ValueError, match="features of width 8 do not fit a decoder of 12"):
        NoProjection().build(8, 12, (2, 2))


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "millions"), [((768, 12, 12), 221.0), ((1024, 24, 16), 672.7)], ids=["base", "large"]
)
def test_published_sizes(sizes, millions):
    with torch.device("meta"):
        model = multiway(*sizes).build()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert model.config.num_tokens == 197


def test_the_named_design_is_the_large_one():
    assert build("beit3", "published", device="meta").config == multiway(1024, 24, 16)
