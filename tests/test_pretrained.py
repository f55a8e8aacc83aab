"""Conversion accounts for every key and every shape, and refuses what ours would compute differently."""

from __future__ import annotations

from functools import partial

import pytest
import references
import torch
import transformers
from open_clip.model import CLIP
from references import assert_same, pictures, words
from torch import nn

from minivlm import Batch, build, from_transformers
from minivlm.pretrained.keys import load_exactly, rename

VISION = references.vision_sizes(0)
REFERENCES = [references.clip, references.siglip, references.vit, references.llama, references.llava]
REFERENCES += [references.blip2, references.instructblip]

# --- every key ------------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_every_missing_key_surplus_key_and_wrong_shape_is_listed():
    model, state = small(), small().state_dict()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    del state["0.bias"]
    state["2.weight"] = torch.zeros(1)
    state["1.weight"] = torch.zeros(4, 2)
    with pytest.raises(ValueError) as error:
        load_exactly(model, state)
    for line in ("missing 0.bias", "surplus 2.weight", "1.weight is (4, 2), wanted (2, 4)"):
        assert line in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_keys_that_no_rule_knows_are_listed():
    state = {"a.weight": torch.zeros(1), "b.weight": torch.zeros(1), "c.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="no place for 2 keys: b.weight, c.weight"):
        rename(state, [(r"a\.(weight)", r"ours.\1")])


def test_only_whole_keys_under_the_prefix_are_renamed():
    state = {"tower.a": torch.zeros(1), "other.a": torch.ones(1)}
    assert rename(state, [("a", "b")], "tower.", "vision.") == {"vision.b": state["tower.a"]}
    with pytest.raises(ValueError, match=r"tower\.a"):
        rename(state, [("tower", "b")])


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_key_too_many_or_too_few_is_refused(reference):
    model = reference()
    model.register_parameter("surprise", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="surprise"):
        from_transformers(model)
    model = reference()
    name, norm = next((name, module) for name, module in model.named_modules() if "Norm" in type(module).__name__)
    del norm.weight
    with pytest.raises(ValueError, match="missing .*norm.weight"):
        from_transformers(model)


def test_a_wrong_shape_is_refused():
    model = references.llama()
    model.model.norm.weight = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"final_norm.weight is \(3,\), wanted"):
        from_transformers(model)


# --- variants that ours does not compute ----------------------------------------------------------------------------


def clip_vision(**changes) -> nn.Module:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**{**VISION, **changes}))


def siglip_vision(**changes) -> nn.Module:
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**{**VISION, **changes}))


def siglip_of_two_widths() -> nn.Module:
    text = dict(references.text_sizes(0), projection_size=VISION["hidden_size"] + 1)
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=VISION))


def vit_without_pooler() -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False)


def open_clip_model(vision: dict | None = None, text: dict | None = None, **changes) -> nn.Module:
    sizes = dict(image_size=8, patch_size=4, width=12, layers=2, head_width=6)
    words = dict(context_length=9, vocab_size=64, width=12, heads=2, layers=2)
    return CLIP(10, {**sizes, **(vision or {})}, {**words, **(text or {})}, **changes)


def llama_rope(kind: str, **options) -> nn.Module:
    return references.llama(rope_parameters=dict(rope_type=kind, rope_theta=1e4, **options))


VARIANTS = {
    "rope scaling": (partial(llama_rope, "linear", factor=2.0), "rope type 'linear'"),
    "attention biases": (partial(references.llama, attention_bias=True), "biases"),
    "mlp biases": (partial(references.llama, mlp_bias=True), "biases"),
    "llama activation": (partial(references.llama, hidden_act="gelu"), "activation 'gelu'"),
    "clip activation": (partial(clip_vision, hidden_act="mish"), "activation 'mish'"),
    "siglip without head": (partial(siglip_vision, vision_use_head=False), "no pooling head"),
    "siglip of two widths": (siglip_of_two_widths, "a projection of another width"),
    "vit without pooler": (vit_without_pooler, "no pooler"),
    "vit pooler activation": (partial(references.vit, pooler_act="relu"), "pooler activation 'relu'"),
    "vit without biases": (partial(references.vit, qkv_bias=False), "qkv_bias=False"),
    "llava with class token": (
        partial(references.llava, vision_feature_select_strategy="full"),
        "vision_feature_select_strategy 'full'",
    ),
    "llava without the first patch": (
        partial(references.llava, vision=dict(model_type="siglip_vision_model")),
        "vision_feature_select_strategy 'default'",
    ),
    "llava with several layers": (partial(references.llava, vision_feature_layer=[-2]), "several vision_feature_layer"),
    "llava without projector biases": (
        partial(references.llava, multimodal_projector_bias=False),
        "a projector without biases",
    ),
    "llava on a vit": (partial(references.llava, vision=dict(model_type="vit")), "vision tower 'vit'"),
    "llava with two ends": (partial(references.llava, text=dict(eos_token_id=[1, 2])), "no single end id"),
    "open_clip average": (partial(open_clip_model, vision=dict(pool_type="avg")), "pooling 'avg'"),
    "open_clip last word": (partial(open_clip_model, text=dict(pool_type="last")), "text pooling 'last'"),
    "open_clip without pre-norm": (partial(open_clip_model, vision=dict(no_ln_pre=True)), "no pre-norm"),
    "open_clip layer scale": (partial(open_clip_model, vision=dict(ls_init_value=0.1)), "layer scale"),
    "open_clip both directions": (partial(open_clip_model, text=dict(no_causal_mask=True)), "both directions"),
    "open_clip logit bias": (partial(open_clip_model, init_logit_bias=-1.0), "logit_bias"),
    "open_clip attentional pooling": (
        partial(open_clip_model, vision=dict(attentional_pool=True, attn_pooler_heads=2)),
        "attn_pool",
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_variants_are_refused(variant):
    make, named = VARIANTS[variant]
    model = make()
    with pytest.raises(ValueError, match=named):
        from_transformers(model)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), build("clip", device="cpu")], ids=["a layer", "our own"])
def test_other_classes_are_refused_by_name(model):
    with pytest.raises(TypeError, match=f"{type(model).__name__}; known classes: CLIPModel, .*LlamaForCausalLM"):
        from_transformers(model)


@torch.no_grad()
def test_a_window_is_told_and_changes_nothing_within(recwarn):
    """Of 6 places here, with texts of 6 and of 7 words."""
    text = dict(model_type="mistral", sliding_window=6)
    theirs = references.llava(text=text)
    ours = from_transformers(theirs)
    assert "looks back 6 places only" in str(recwarn.pop(UserWarning).message)
    ids = words(2, 7)
    assert_same(ours(Batch(None, ids[:, :6])).logits, theirs(ids[:, :6]).logits)
    assert (ours(Batch(None, ids)).logits - theirs(ids).logits).abs().max() > 1e-3


def test_open_clip_activations_of_each_tower_are_kept():
    ours = from_transformers(open_clip_model(text=dict(act_kwargs=dict(approximate="tanh"))))
    assert ours.config.vision.activation == "gelu"
    assert ours.config.text.activation == "gelu_tanh"


# --- what comes over ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", REFERENCES)
def test_weights_are_copied_not_shared(reference):
    theirs = reference()
    ours = from_transformers(theirs)
    shared = {p.data_ptr() for p in theirs.parameters()} & {p.data_ptr() for p in ours.parameters()}
    assert not shared


def test_a_tied_head_stays_tied():
    tied = from_transformers(references.llama(tie_word_embeddings=True))
    assert tied.head.weight is tied.embedding.weight
    untied = from_transformers(references.llama(tie_word_embeddings=False))
    assert untied.head.weight is not untied.embedding.weight


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_number_type_and_mode_are_kept(training):
    theirs = references.llava().to(torch.bfloat16).train(training)
    ours = from_transformers(theirs)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert ours.training == training


@torch.no_grad()
def test_bfloat16_models_run_on_ordinary_pictures():
    theirs = references.llava()
    images = pictures(2, 1, 3, VISION["image_size"], VISION["image_size"])
    ids = words(2, 5)
    ids[:, 1] = references.IMAGE_ID
    exact = from_transformers(theirs)(Batch(images, ids)).logits
    rounded = from_transformers(theirs.to(torch.bfloat16))(Batch(images, ids)).logits
    assert rounded.dtype == torch.bfloat16
    assert_same(rounded.float(), exact, 0.05 * float(exact.abs().max()))
