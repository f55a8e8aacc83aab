"""Folders that transformers opens again: what was loaded from one, and changed, comes back out of its own class."""

from __future__ import annotations

import fuyus
import pytest
import references
import saved
import test_hybrid
import test_idefics
import test_own_folders
import test_variable
import torch
import transformers

from minivlm import from_transformers, load, save

pytestmark = pytest.mark.usefixtures("no_graph")


def fuyu(seed: int):
    theirs = fuyus.fuyu(seed)
    theirs.config.newline_token_id = 62
    return theirs


MODELS = {
    "CLIP": references.clip,
    "SigLIP": references.siglip,
    "ViT": references.vit,
    "Llama": references.llama,
    "OPT": references.opt,
    "Phi": references.phi,
    "Persimmon": fuyus.persimmon,
    "LLaVA": references.llava,
    "LLaVA-NeXT": references.llava_next,
    "BLIP-2": references.blip2,
    "InstructBLIP": references.instructblip,
    "Kosmos-2": references.kosmos2,
    "Idefics": test_idefics.idefics,
    "Idefics2": test_variable.idefics2,
    "DeepSeek-VL": test_hybrid.low_only,
    "DeepSeek-VL 7B": test_hybrid.hybrid,
    "Fuyu": fuyu,
}


def changed(model, seed: int = 5):
    """Every weight another one, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_what_transformers_reads(name, tmp_path):
    theirs = MODELS[name](1)
    like = saved.write(theirs, tmp_path / "like", "today")
    ours = changed(load(like, "cpu"))
    save(ours, tmp_path / "made", like=like)
    opened, told = type(theirs).from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again = from_transformers(opened.eval())
    assert again.config == ours.config
    assert again.state_dict().keys() == ours.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_what_only_theirs_has_comes_from_the_folder_it_is_like(tmp_path):
    """DeepSeek-VL's tower has a head that nobody reads."""
    theirs = test_hybrid.low_only(1)
    like = saved.write(theirs, tmp_path / "like", "hub")
    save(changed(load(like, "cpu")), tmp_path / "made", like=like)
    opened = transformers.DeepseekVLForConditionalGeneration.from_pretrained(tmp_path / "made")
    heads = {key: value for key, value in theirs.state_dict().items() if "vision_model.head." in key}
    assert heads and all(torch.equal(value, opened.state_dict()[key]) for key, value in heads.items())


def test_tokenizers_and_number_types_come_along(tmp_path):
    like = saved.write(references.llava(), tmp_path / "like", "today")
    (like / "tokenizer.json").write_text("{}")
    save(load(like, "cpu"), tmp_path / "made", torch.bfloat16, like=like)
    assert (tmp_path / "made" / "tokenizer.json").read_text() == "{}"
    assert {value.dtype for value in saved.taken(tmp_path / "made" / "model.safetensors").values()} == {torch.bfloat16}
    assert load(tmp_path / "made", "cpu").config == load(like, "cpu").config


# --- what cannot be written -----------------------------------------------------------------------------------------


def test_another_model_than_the_one_it_is_to_be_like(tmp_path):
    like = saved.write(references.llava(0), tmp_path / "like", "today")
    other = from_transformers(references.llava(1))
    with pytest.raises(ValueError, match="`like` is a VLMConfig.* and the model to be saved is a VLMConfig"):
        save(other, tmp_path / "made", like=like)
    assert not (tmp_path / "made").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    like = saved.write(references.llava(), tmp_path / "like", "today")
    before = sorted(path.name for path in like.iterdir())
    with pytest.raises(FileExistsError, match="is not empty"):
        save(load(like, "cpu"), like, like=like)
    assert sorted(path.name for path in like.iterdir()) == before


def test_weights_that_are_computed_are_not_written(tmp_path):
    """LLaVA 1.0's projection is one map, and transformers' class has two."""
    like = saved.write(references.llava(projector_hidden_act="linear"), tmp_path / "like", "today")
    with pytest.raises(ValueError, match="it computes them: connector.0"):
        save(changed(load(like, "cpu")), tmp_path / "made", like=like)


def test_a_system_without_a_class_of_its_own(tmp_path):
    like = test_own_folders.yi_vl_folder(tmp_path / "like", test_own_folders.yi_vl(0), apart=True)
    with pytest.raises(ValueError, match="transformers has no class LlavaLlamaForCausalLM"):
        save(load(like, "cpu"), tmp_path / "made", like=like)
