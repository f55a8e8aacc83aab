"""Idefics end to end, against transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from flamingos import assert_speaks_like, several_pictures
from references import assert_same, randomise, vision_sizes
from torch import Tensor, nn

from minivlm import VLM, Batch, from_transformers
from minivlm.fusion.cross_attention import IdeficsCrossAttention

IMAGE = 65  # the second of the words added to 64

pytestmark = pytest.mark.usefixtures("no_graph")

SIZES = [  # of the decoder and what it shares with the layers between its blocks
    dict(hidden_size=20, num_attention_heads=2, num_hidden_layers=4, cross_layer_interval=2, intermediate_size=26),
    dict(hidden_size=36, num_attention_heads=3, num_hidden_layers=3, cross_layer_interval=1, intermediate_size=20),
    dict(hidden_size=28, num_attention_heads=2, num_hidden_layers=3, cross_layer_interval=3, intermediate_size=44),
]
VARIANTS = [
    dict(alpha_type="vector", qk_layer_norms=True, rms_norm_eps=1e-6, additional_vocab_size=2),
    dict(alpha_type="float", qk_layer_norms=False, rms_norm_eps=1e-5, additional_vocab_size=3),
    dict(alpha_type="float", qk_layer_norms=True, rms_norm_eps=1e-6, additional_vocab_size=2, tie_word_embeddings=True),
]


def idefics(seed: int = 0, scale: float = 1.0, perceiver: dict | None = None, **changes) -> nn.Module:
    vision = vision_sizes(seed)
    vision["embed_dim"] = vision.pop("hidden_size")
    vision["image_size"] -= vision["image_size"] % vision["patch_size"]
    sizes = dict(resampler_n_latents=3 + seed, resampler_depth=2, resampler_n_heads=2, resampler_head_dim=6 + 4 * seed)
    norms = dict(qk_layer_norms_perceiver=seed != 1)
    config = transformers.IdeficsConfig(
        vocab_size=64,
        vision_config=vision,
        perceiver_config={**sizes, **norms, **(perceiver or {})},
        **{"use_resampler": True, "max_position_embeddings": 64, **SIZES[seed], **VARIANTS[seed], **changes},
    )
    model = randomise(transformers.IdeficsForVisionText2Text(config), seed, scale)
    if config.use_resampler:
        model.model.perceiver_resampler.latents *= scale
    return model


def latest_picture(batch: Batch) -> Tensor:
    """The rule of their processor, word by word: each sees the picture begun last, (B, T, M)."""
    sees = torch.zeros(*batch.input_ids.shape, batch.images.shape[1], dtype=torch.long)
    for sample, ids in enumerate(batch.input_ids.tolist()):
        for place in range(len(ids)):
            begun = ids[: place + 1].count(IMAGE)
            if begun:
                sees[sample, place, begun - 1] = 1
    return sees


def theirs_of(model: nn.Module, given: Batch) -> Tensor:
    return model(
        input_ids=given.input_ids,
        attention_mask=given.text_mask.long(),
        pixel_values=given.images,
        image_attention_mask=latest_picture(given),
    ).logits


def test_idefics(seed, scale):
    theirs = idefics(seed, scale)
    ours = from_transformers(theirs)
    assert ours.image_token_id == IMAGE
    given = several_pictures(ours)
    assert isinstance(ours, VLM) and ours.image_token_id == IMAGE
    output = ours(given)
    assert_same(output.logits[given.text_mask], theirs_of(theirs, given)[given.text_mask])
    captured = ours(given, capture=True)
    assert_same(captured.logits[given.text_mask], output.logits[given.text_mask])


def test_generation(seed):
    theirs = idefics(seed)
    assert_speaks_like(from_transformers(theirs), partial(theirs_of, theirs))


def test_the_configuration_is_theirs():
    config = from_transformers(idefics(1)).config
    wanted = IdeficsCrossAttention(
        every=1, heads=3, visual_width=config.vision.width, mlp_width=20, head_norms=False, eps=1e-5
    )
    assert config.fusion == wanted
    assert config.language.vocab_size == 67
    assert (config.layer, config.class_token, config.vision.activation) == (-1, True, "gelu")
    assert [from_transformers(idefics(seed)).config.language.tied for seed in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(use_resampler=False), "no resampler"),
        (dict(additional_vocab_size=1), "1 added words, so none for a picture"),
        (dict(num_hidden_layers=5), "5 blocks in groups of 2"),
        (dict(hidden_act="gelu"), "activation 'gelu'"),
        (dict(eos_token_id=[1, 2]), "no single end id"),
    ],
)
def test_variants_that_ours_does_not_compute_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        from_transformers(idefics(0, **changes))
