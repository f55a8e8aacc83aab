"""open_clip's models by the name of a configuration and the tag of its weights, and folders as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path

import hubs
import open_clip
import pytest
import references
import saved
import torch
from references import assert_same, pictures, randomise

from minivlm import load
from minivlm.pretrained import openclip

pytestmark = pytest.mark.usefixtures("no_graph")

TINY = dict(
    embed_dim=10,
    vision_cfg=dict(image_size=12, patch_size=4, width=24, layers=2, head_width=8),
    text_cfg=dict(context_length=9, vocab_size=64, width=18, heads=3, layers=2),
)


def folder_of(told: dict, folder: Path) -> tuple[torch.nn.Module, Path]:
    """A model of that configuration, and what the hub would have of it."""
    theirs = randomise(open_clip.model.CLIP(**told))
    folder.mkdir()
    (folder / openclip.OPEN_CLIP_CONFIG).write_text(json.dumps(dict(model_cfg=told, preprocess_cfg={})))
    saved.put(theirs.state_dict(), folder / openclip.OPEN_CLIP_WEIGHTS)
    return theirs, folder


def assert_equal(ours, theirs) -> None:
    images, ids = pictures(3, 3, 12, 12), references.words(3, 9)
    image, text, scale = theirs(images, ids)
    got = ours(images, ids)
    assert_same(got.image_embeds, image)
    assert_same(got.text_embeds, text)
    assert_same(got.logits_per_image, scale * image @ text.T)


@pytest.mark.parametrize("quick", [True, False, None])
def test_a_folder_keeps_the_activation_of_its_configuration(quick, tmp_path):
    told = TINY if quick is None else TINY | dict(quick_gelu=quick)
    theirs, folder = folder_of(told, tmp_path / "clip")
    ours = load(folder, "cpu")
    assert ours.config.vision.activation == ours.config.text.activation == ("quick_gelu" if quick else "gelu")
    assert_equal(ours, theirs)


@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_says_with_which_activation_its_weights_were_trained(quick, monkeypatch, tmp_path):
    """Whatever the configuration of the same name says: ViT-B-32 is that of erf, and OpenAI's weights are not."""
    theirs, folder = folder_of(TINY | dict(quick_gelu=quick), tmp_path / "clip")
    tags = {"tag": dict(hf_hub="someone/tiny/", quick_gelu=quick), "pickled": dict(url="https://host/tiny.pt")}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", TINY | dict(quick_gelu=not quick))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", tags)
    with hubs.serving(monkeypatch, tmp_path / "cache", {"someone/tiny": folder}):
        assert_equal(load("open_clip:Tiny/tag", "cpu"), theirs)
    with pytest.raises(ValueError, match="open_clip has 'pickled' for Tiny only as a pickle"):
        load("open_clip:Tiny/pickled")
    with pytest.raises(ValueError, match="open_clip has no weights 'other' for Tiny; there are: tag, pickled"):
        load("open_clip:Tiny/other")
    with pytest.raises(ValueError, match="open_clip has no configuration 'Tinier'"):
        load("open_clip:Tinier/tag")


# Published names, what their weights were trained with, and how wide and deep both towers are.
PUBLISHED = {
    "ViT-B-32/laion2b_s34b_b79k": ("gelu", (768, 12), (512, 12)),
    "ViT-B-32/openai": ("quick_gelu", (768, 12), (512, 12)),
    "ViT-B-32-quickgelu/laion400m_e32": ("quick_gelu", (768, 12), (512, 12)),
    "ViT-H-14/laion2b_s32b_b79k": ("gelu", (1280, 32), (1024, 24)),
    "ViT-bigG-14/laion2b_s39b_b160k": ("gelu", (1664, 48), (1280, 32)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_are_those_networks(name, monkeypatch):
    """On the meta device: weights of the right names and shapes, and nothing in them."""
    told = open_clip.get_model_config(name.split("/")[0])
    with torch.device("meta"):
        state = open_clip.model.CLIP(**told).state_dict()
    monkeypatch.setattr(openclip, "folder_of", lambda hub, weights: Path(hub))
    monkeypatch.setattr(openclip, "Weights", lambda folder, weights: state)
    config, _ = openclip.open_clip_pretrained(name)
    activation, vision, text = PUBLISHED[name]
    assert config.vision.activation == config.text.activation == activation
    assert (config.vision.width, config.vision.depth) == vision
    assert (config.text.width, config.text.depth) == text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-16-SigLIP", "text tower in a class of its own"),
        ("coca_ViT-B-32", "decoder of captions"),
        ("convnext_base", "timm tower"),
    ],
)
def test_other_networks_are_refused_by_name(name, said, tmp_path):
    told = dict(model_cfg=open_clip.get_model_config(name))
    (tmp_path / openclip.OPEN_CLIP_CONFIG).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=said):
        load(tmp_path, "cpu")


def test_all_that_does_not_fit_is_listed(tmp_path):
    _, folder = folder_of(TINY, tmp_path / "clip")
    path = folder / openclip.OPEN_CLIP_WEIGHTS
    state = saved.taken(path)
    del state["visual.proj"]
    saved.put(state | dict(surprise=torch.zeros(1), text_projection=torch.zeros(2)), path)
    with pytest.raises(ValueError, match="do not fit") as error:
        load(folder, "cpu")
    for line in ("missing visual.proj", "surplus surprise", r"text_projection is (2,), wanted (18, 10)"):
        assert line in str(error.value)
