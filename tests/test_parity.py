"""The same numbers as the published classes: random weights, random sizes, ordinary and very small inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import references
import torch
import transformers
from open_clip.model import CLIP
from references import IMAGE_ID, LAST_ID, assert_same, pictures, randomise, words
from torch import Tensor, nn

from minivlm import Batch, build, from_transformers
from minivlm.connectors.projection import MLPProjection, NormedMLPProjection

pytestmark = pytest.mark.usefixtures("no_graph")


def images_for(config, *batch: int, seed: int) -> Tensor:
    return pictures(*batch, 3, config.image_size, config.image_size, seed=seed)


# --- towers ---------------------------------------------------------------------------------------------------------


def clip_texts(eos_id: int, seed: int) -> Tensor:
    """Three texts that end at different places, each end followed by what must not be read: ends, words or padding."""
    ids = words(3, 9, seed=seed)
    for row, (end, filler) in enumerate([(4, eos_id), (8, 0), (6, 7)]):
        ids[row, end], ids[row, end + 1 :] = eos_id, filler
    return ids


@pytest.mark.parametrize("legacy", [False, True], ids=["first end", "largest id"])
def test_clip(seed, scale, legacy):
    # OpenAI's old configurations name 2 as the end, and transformers then reads a text off at its largest id
    theirs = references.clip(seed, scale, eos_id=2 if legacy else 50)
    ids = clip_texts(LAST_ID if legacy else 50, seed)
    ids[:, 2] = 2 if legacy else 55  # a second candidate in front, that the other rule would fall for
    images = images_for(theirs.config.vision_config, 3, seed=seed)
    wanted = theirs(input_ids=ids, pixel_values=images, return_loss=True)
    got = from_transformers(theirs)(images, ids)
    assert_same(got.logits_per_image, wanted.logits_per_image)
    assert_same(got.loss, wanted.loss)
    assert_same(got.image_embeds, wanted.image_embeds)
    assert_same(got.text_embeds, wanted.text_embeds)


def test_clip_vision(seed, scale):
    config = transformers.CLIPVisionConfig(**references.vision_sizes(seed))
    theirs = randomise(transformers.CLIPVisionModel(config), seed, scale)
    ours = from_transformers(theirs)
    images = images_for(config, 2, seed=seed)
    wanted = theirs(images, output_hidden_states=True)
    for layer in (0, 1, -3, -2, -1):
        assert_same(ours.hidden(images, layer), wanted.hidden_states[layer])
    assert_same(ours(images)[1], wanted.pooler_output)


def open_clip_model(seed: int, scale: float, quick_gelu: bool = True, text: dict | None = None) -> nn.Module:
    patch, head = 3 + seed, (6, 10, 14)[seed]
    vision = dict(image_size=(2 * patch, 3 * patch), patch_size=patch, width=2 * head, layers=3, head_width=head)
    sizes = dict(context_length=9, vocab_size=64, width=36, heads=3, layers=2 + seed, mlp_ratio=2.5)
    return randomise(CLIP(10 + seed, vision, {**sizes, **(text or {})}, quick_gelu=quick_gelu), seed, scale)


def assert_equals_open_clip(theirs: nn.Module, ids: Tensor, seed: int) -> None:
    images = pictures(3, 3, *theirs.visual.image_size, seed=seed)  # not square
    image, text, scale = theirs(images, ids)
    got = from_transformers(theirs)(images, ids)
    assert_same(got.image_embeds, image)
    assert_same(got.text_embeds, text)
    assert_same(got.logits_per_image, scale * image @ text.T)


@pytest.mark.parametrize("quick_gelu", [True, False], ids=["quick gelu", "erf gelu"])
def test_open_clip(seed, scale, quick_gelu):
    assert_equals_open_clip(open_clip_model(seed, scale, quick_gelu), clip_texts(LAST_ID, seed), seed)


def test_open_clip_read_off_at_the_end_mark(seed, scale):
    theirs = open_clip_model(seed, scale, text=dict(pool_type="eos", eos_id=50))
    ids = clip_texts(50, seed)
    ids[:, 2] = 55
    assert_equals_open_clip(theirs, ids, seed)


def test_siglip(seed, scale):
    theirs = references.siglip(seed, scale)
    images, ids = images_for(theirs.config.vision_config, 3, seed=seed), words(3, 9, seed=seed)
    ids[0, 5:] = 0  # read off at the last place even where that is padding
    wanted = theirs(input_ids=ids, pixel_values=images, return_loss=True)
    got = from_transformers(theirs)(images, ids)
    assert_same(got.logits_per_image, wanted.logits_per_image)
    assert_same(got.loss, wanted.loss)
    assert_same(got.image_embeds, wanted.image_embeds)
    assert_same(got.text_embeds, wanted.text_embeds)


def test_siglip_vision(seed, scale):
    config = transformers.SiglipVisionConfig(**references.vision_sizes(seed))
    theirs = randomise(transformers.SiglipVisionModel(config), seed, scale)
    ours = from_transformers(theirs)
    images = images_for(config, 2, seed=seed)
    wanted = theirs(images, output_hidden_states=True)
    tokens, pooled = ours(images)
    assert_same(ours.hidden(images, -2), wanted.hidden_states[-2])
    assert_same(tokens, wanted.last_hidden_state)
    assert_same(pooled, wanted.pooler_output)


def test_vit(seed, scale):
    patch = references.vision_sizes(seed)["patch_size"]
    size = (2 * patch, (3 + seed) * patch)  # not square
    theirs = references.vit(seed, scale, image_size=size)
    images = pictures(2, 3, *size, seed=seed)
    wanted = theirs(images)
    tokens, pooled = from_transformers(theirs)(images)
    assert_same(tokens, wanted.last_hidden_state)
    assert_same(pooled, wanted.pooler_output)


def test_a_tower_centres_its_pictures_by_channel():
    plain = from_transformers(references.vit())
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    centring = replace(plain.config, mean=mean, std=std).build()
    centring.load_state_dict(plain.state_dict())
    images = pictures(2, 3, *plain.config.image_size)
    centred = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert_same(centring(images)[0], plain(centred)[0])


# --- decoders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("padded", ["nowhere", "left", "right"])
def test_llama(seed, scale, padded, tied):
    theirs = references.llama(seed, scale, tie_word_embeddings=tied)
    ours = from_transformers(theirs)
    ids, valid = words(2, 11, seed=seed), torch.ones(2, 11, dtype=torch.bool)
    if padded != "nowhere":
        valid[1, slice(0, 4) if padded == "left" else slice(7, 11)] = False
    positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
    wanted = theirs(ids, attention_mask=valid.long(), position_ids=positions).logits
    mask = valid[:, None, None, :] & torch.ones(11, 11, dtype=torch.bool).tril()
    got = ours.logits(ours(ours.embedding(ids), positions, None if padded == "nowhere" else mask))
    assert_same(got[valid], wanted[valid])


# --- connectors -----------------------------------------------------------------------------------------------------


def assert_equals_sequential(config, theirs: nn.Sequential, seed: int, scale: float) -> None:
    width, out_width = theirs[0].in_features, 20 + seed
    randomise(theirs, seed)
    for layer in theirs:
        if isinstance(layer, nn.Linear):  # small enough for the epsilon of a norm behind it to matter
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
    ours = config.build(width, out_width, (1, 7))
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(seed))
    assert_same(ours(features), theirs(features))


def test_yi_vl_connector(seed, scale):
    width, out_width = 13 + seed, 20 + seed
    theirs = nn.Sequential(
        nn.Linear(width, out_width),
        nn.LayerNorm(out_width),
        nn.GELU(),
        nn.Linear(out_width, out_width),
        nn.LayerNorm(out_width),
    )
    assert_equals_sequential(NormedMLPProjection(), theirs, seed, scale)


@pytest.mark.parametrize("ours, theirs", [("gelu", "none"), ("gelu_tanh", "tanh")], ids=["2024-03-04", "2024-03-31"])
def test_moondream2_connector(seed, scale, ours, theirs):
    width, hidden, out_width = 13 + seed, 41, 20 + seed
    layers = nn.Linear(width, hidden), nn.GELU(approximate=theirs), nn.Linear(hidden, out_width)
    assert_equals_sequential(MLPProjection(ours, hidden=hidden), nn.Sequential(*layers), seed, scale)


# --- the whole road -------------------------------------------------------------------------------------------------


def two_pictures_each(seed: int) -> tuple[Tensor, Tensor]:
    """Two texts with two pictures each, the second text shorter; and where words are."""
    ids, mask = words(2, 12, seed=seed), torch.ones(2, 12, dtype=torch.bool)
    ids[0, [2, 6]] = ids[1, [0, 1]] = IMAGE_ID  # among the words; at the very start, side by side
    ids[1, 9:], mask[1, 9:] = 0, False
    return ids, mask


def opened(ids: Tensor, mask: Tensor, per_picture: int) -> tuple[Tensor, Tensor]:
    """The same texts as transformers wants them, with as many <image> ids as there will be visual tokens."""
    repeats = torch.where(ids == IMAGE_ID, per_picture, 1)

    def repeated(rows: Tensor) -> Tensor:
        return torch.stack([row.repeat_interleave(times) for row, times in zip(rows, repeats, strict=True)])

    return repeated(ids), repeated(mask.long())


def assert_equals_llava(theirs: nn.Module, seed: int) -> None:
    ours = from_transformers(theirs)
    images = images_for(theirs.config.vision_config, 2, 2, seed=seed)
    ids, mask = two_pictures_each(seed)
    labels = ids.masked_fill((ids == IMAGE_ID) | ~mask, -100)
    many_ids, many_mask = opened(ids, mask, ours.connector.num_tokens(ours.config.vision.grid))
    many_labels = many_ids.masked_fill((many_ids == IMAGE_ID) | (many_mask == 0), -100)
    wanted = theirs(input_ids=many_ids, pixel_values=images.flatten(0, 1), attention_mask=many_mask, labels=many_labels)
    got = ours(Batch(images, ids, labels, mask))
    valid = got.layout.valid
    assert valid.sum() == many_mask.sum()
    assert_same(got.logits[valid], wanted.logits[:, : valid.shape[1]][valid])
    assert_same(got.loss, wanted.loss)


@pytest.mark.parametrize("layer", [-1, -2, -3, 1])
def test_llava15(seed, scale, layer):
    assert_equals_llava(references.llava(seed, scale, vision_feature_layer=layer), seed)


def test_llava(seed, scale):
    # transformers has only the projector of two linear maps: with nothing between them, they are LLaVA 1.0's single one
    theirs = references.llava(seed, scale, projector_hidden_act="linear")
    assert len(from_transformers(theirs).connector) == 1
    assert_equals_llava(theirs, seed)


def test_llava_with_a_siglip_tower(seed, scale):
    vision = dict(model_type="siglip_vision_model")
    assert_equals_llava(references.llava(seed, scale, vision, vision_feature_select_strategy="full"), seed)


# --- published sizes ------------------------------------------------------------------------------------------------


def millions(part: nn.Module) -> float:
    return sum(parameter.numel() for parameter in part.parameters()) / 1e6


@pytest.mark.parametrize(
    "design, connector, tokens", [("llava", 4.20, 256), ("llava15", 20.98, 576), ("yi_vl", 22.0, 1024)]
)
def test_published_connectors(design, connector, tokens):
    model = build(design, "published", device="meta")
    assert millions(model.connector) == pytest.approx(connector, rel=0.005)
    assert model.connector.num_tokens(model.config.vision.grid) == tokens


def test_published_towers():
    assert millions(build("clip", "published", device="meta").vision) == pytest.approx(303.5, abs=0.05)
    vision = build("siglip", "published", device="meta").vision
    assert millions(vision) - millions(vision.pool) == pytest.approx(413.0, abs=0.05)
