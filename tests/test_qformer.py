"""The Q-Former, with and without the question, against transformers' BLIP-2 and InstructBLIP: alone and end to end."""

from __future__ import annotations

import pytest
import references
import torch
import transformers
from references import IMAGE_ID, assert_same, pictures, randomise, words
from torch import Tensor, nn

from minivlm import Batch, build, from_transformers
from minivlm.connectors.bert import BertConfig, QueryEncoder, ReadingEncoder, VocabularyConfig
from minivlm.connectors.qformer import InstructQFormer, InstructQFormerConfig
from minivlm.pretrained.keys import load_exactly
from minivlm.pretrained.qformers import bert_config
from minivlm.pretrained.towers import vision_config
from minivlm.vision.vit import eva_vit

TEXT = {"llama": references.llama_sizes, "opt": references.opt_sizes}


pytestmark = pytest.mark.usefixtures("no_graph")


def instructions(number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Seven words each; the second text is shorter, padded on the right, and the third is nothing but padding."""
    ids, mask = words(number, 7, seed=50 + seed), torch.ones(number, 7, dtype=torch.bool)
    mask[1, 4:] = mask[2:] = False
    return ids, mask


# --- the whole road -------------------------------------------------------------------------------------------------


def two_pictures_each(seed: int) -> tuple[Tensor, Tensor]:
    ids, mask = words(2, 12, seed=seed), torch.ones(2, 12, dtype=torch.bool)
    ids[0, [2, 6]] = ids[1, [0, 1]] = IMAGE_ID
    ids[1, 9:], mask[1, 9:] = 0, False
    return ids, mask


def opened(rows: Tensor, ids: Tensor, tokens: int) -> Tensor:
    """`rows` with each place of an <image> id repeated, as often as there are visual tokens."""
    repeats = torch.where(ids == IMAGE_ID, tokens, 1)
    return torch.stack([row.repeat_interleave(times) for row, times in zip(rows, repeats, strict=True)])


def assert_equals(theirs: nn.Module, seed: int, instruction: Tensor | None = None, mask: Tensor | None = None) -> None:
    ours = from_transformers(theirs)
    images = pictures(2, 2, 3, *ours.config.vision.image_size, seed=seed)
    ids, valid = two_pictures_each(seed)
    tokens = ours.connector.num_tokens(ours.config.vision.grid)
    assert tokens == 3 + seed
    many = dict(input_ids=opened(ids, ids, tokens), attention_mask=opened(valid.long(), ids, tokens))
    if instruction is not None:  # theirs is given one a picture
        both = (x.repeat_interleave(2, dim=0) for x in (instruction, mask.long()))
        many |= dict(zip(("qformer_input_ids", "qformer_attention_mask"), both, strict=True))
    wanted = theirs(pixel_values=images.flatten(0, 1), **many).logits
    got = ours(Batch(images, ids, None, valid, instruction=instruction, instruction_mask=mask))
    here = got.layout.valid
    assert here.sum() == many["attention_mask"].sum()
    assert_same(got.logits[here], wanted[:, : here.shape[1]][here])


@pytest.mark.parametrize("decoder", TEXT)
def test_blip2(seed, scale, decoder):
    assert_equals(references.blip2(seed, scale, text=TEXT[decoder](seed)), seed)


@pytest.mark.parametrize("decoder", TEXT)
def test_instructblip(seed, scale, decoder):
    assert_equals(references.instructblip(seed, scale, text=TEXT[decoder](seed)), seed, *instructions(2, seed=seed))


def test_an_instruction_without_a_mask_is_read_whole(seed):
    theirs = references.instructblip(seed)
    ids = instructions(2, seed=seed)[0]
    ours, images = from_transformers(theirs), pictures(2, 1, 3, *[theirs.config.vision_config.image_size] * 2)
    wanted = theirs.get_image_features(images[:, 0], qformer_input_ids=ids).pooler_output
    features = ours.features(images)
    assert_same(ours.connect(features, Batch(None, ids, instruction=ids))[:, 0], wanted)


def test_features_are_all_tokens_after_the_final_norm(seed, scale):
    theirs = references.blip2(seed, scale)
    images = pictures(2, 3, *[theirs.config.vision_config.image_size] * 2)
    assert_same(from_transformers(theirs).features(images[:, None])[:, 0], theirs.vision_model(images)[0])


# --- variants that ours does not compute ----------------------------------------------------------------------------

VARIANTS = {
    "words in BLIP-2's": (dict(qformer=dict(use_qformer_text_input=True)), "words in the Q-Former"),
    "no biases in the tower": (dict(vision=dict(qkv_bias=False)), "qkv_bias=False"),
    "another decoder": (dict(text={**references.llama_sizes(0), "model_type": "mistral"}), "decoder 'mistral'"),
    "a narrow OPT": (dict(text=references.opt_sizes(0) | dict(word_embed_proj_dim=4)), "words of width 4"),
    "no place for pictures": (dict(image_id=None), "no <image> id"),
    "two ends": (dict(text=references.llama_sizes(0) | dict(eos_token_id=[1, 2])), "no single end id"),
    "another activation": (dict(qformer=dict(hidden_act="mish")), "activation 'mish'"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_variants_are_refused(variant):
    parts, named = VARIANTS[variant]
    with pytest.raises(ValueError, match=named):
        from_transformers(references.blip2(**parts))


# --- the connector alone --------------------------------------------------------------------------------------------


def random_queries(count: int, width: int, seed: int, scale: float) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("number", [1, 7, 20], ids="{} features".format)
def test_queries_alone_are_blip2s(seed, scale, number):
    sizes = references.qformer_sizes(seed) | dict(encoder_hidden_size=13)
    theirs = randomise(transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**sizes)), seed)
    queries = random_queries(4, sizes["hidden_size"], seed, scale)
    ours = QueryEncoder(bert_config(theirs.config), 4, 13)
    load_exactly(ours, references.encoder_state(theirs, queries))
    features = torch.randn(2, number, 13) * scale
    wanted = theirs(query_embeds=queries.expand(2, -1, -1), encoder_hidden_states=features).last_hidden_state
    assert_same(ours(features), wanted)


@pytest.mark.parametrize("number", [1, 7, 20], ids="{} features".format)
def test_queries_that_read_are_instructblips(seed, scale, number):
    theirs = references.instructblip_qformer(seed, scale, context_width=13)
    queries = random_queries(4, theirs.config.hidden_size, seed, scale)
    vocabulary = VocabularyConfig(theirs.config.vocab_size, theirs.config.max_position_embeddings)
    ours = ReadingEncoder(bert_config(theirs.config), vocabulary, 4, 13)
    load_exactly(ours, references.encoder_state(theirs, queries))
    (ids, mask), features = instructions(3, seed=seed), torch.randn(3, number, 13) * scale
    seen = torch.cat([torch.ones(3, 4, dtype=torch.bool), mask], dim=1)
    asked = dict(input_ids=ids, attention_mask=seen.long(), query_embeds=queries.expand(3, -1, -1))
    wanted = theirs(**asked, encoder_hidden_states=features).last_hidden_state[:, :4]
    assert_same(ours(features, ids, mask), wanted)


# --- what the question changes --------------------------------------------------------------------------------------


@pytest.fixture
def asked() -> InstructQFormer:
    bert = BertConfig(width=18, depth=3, heads=3, mlp_width=29)
    return randomise(InstructQFormerConfig(5, VocabularyConfig(60, context=9), bert).build(13, 22, (3, 4)))


def test_another_question_gives_other_tokens(asked):
    features = torch.randn(1, 12, 13).expand(2, -1, -1)
    ids, mask = words(2, 7), torch.ones(2, 7, dtype=torch.bool)
    tokens = asked(features, ids, mask)
    assert ((tokens[0] - tokens[1]).abs().amax(dim=-1) > 1e-2).all()
    swapped = ids[:1, [1, 0, 2, 3, 4, 5, 6]]
    assert (asked(features[:1], swapped, mask[:1]) - tokens[:1]).abs().max() > 1e-2  # the order of words counts


def test_padding_of_the_question_changes_nothing(asked):
    features, ids, mask = torch.randn(3, 12, 13), *instructions(3)
    tokens = asked(features, ids, mask)
    assert_same(asked(features, torch.where(mask, ids, 59), mask), tokens)
    assert_same(asked(features[1:2], ids[1:2, :4], mask[1:2, :4]), tokens[1:2])
    assert_same(asked(features[2:], ids[2:, :0], mask[2:, :0]), tokens[2:])  # no words at all, as before a caption


def test_words_do_not_see_the_picture_but_through_the_queries(asked):
    """In the first block the words are what they are whatever the picture; in the second they have heard of it."""
    ids, mask, heard = words(1, 7).expand(2, -1), torch.ones(2, 7, dtype=torch.bool), []
    for block in asked.encoder.blocks[:2]:
        block.word_mlp.register_forward_hook(lambda *call: heard.append(call[2]))
    asked(torch.randn(2, 12, 13), ids, mask)
    assert torch.equal(heard[0][0], heard[0][1])
    assert ((heard[1][0] - heard[1][1]).abs().amax(dim=-1) > 1e-3).all()


def test_what_cannot_be_read_is_refused(asked):
    features, mask = torch.randn(2, 12, 13), torch.ones(2, 10, dtype=torch.bool)
    with pytest.raises(ValueError, match="an instruction of 10 words: this Q-Former reads at most 9"):
        asked(features, words(2, 10), mask)
    for id in (60, -1):
        with pytest.raises(ValueError, match=f"run from {id} to {id}, the Q-Former's vocabulary has 0..59"):
            asked(features, torch.full((2, 5), id), mask[:, :5])


# --- published sizes ------------------------------------------------------------------------------------------------


def millions(part: nn.Module) -> float:
    return sum(parameter.numel() for parameter in part.parameters()) / 1e6


@pytest.mark.parametrize("design, encoder, projection", [("blip2", 105.2, 1.97), ("instructblip", 185.7, 3.15)])
def test_published_sizes(design, encoder, projection):
    model = build(design, "published", device="meta")
    assert millions(model.connector.encoder) == pytest.approx(encoder, rel=0.001)
    assert millions(model.connector.out) == pytest.approx(projection, rel=0.002)
    assert millions(model.vision) == pytest.approx(986.0, abs=0.1)
    assert model.connector.num_tokens(model.config.vision.grid) == 32
    assert model.config.num_features == 257


@pytest.mark.parametrize("kind", ["Blip2", "InstructBlip"])
def test_published_sizes_are_those_that_transformers_takes_for_granted(kind):
    published = build(kind.lower(), "published", device="meta")
    theirs = getattr(transformers, f"{kind}Config")()
    assert published.config.connector.bert == bert_config(theirs.qformer_config)
    assert published.config.connector.tokens == theirs.num_query_tokens
    vision = vision_config(theirs.vision_config, eva_vit)
    assert published.config.vision == vision


def test_queries_start_different():
    queries = build("blip2", device="cpu").connector.encoder.queries
    assert float(queries.std()) == pytest.approx(0.02, rel=0.1)
