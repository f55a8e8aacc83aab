"""Folders of published systems: a model that transformers saved, opened by `load`, computes what it computed; whatever
is not whole, not ours or not safe is refused by name."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import references
import saved
import test_decoders
import test_fuyu
import test_hybrid
import test_idefics
import test_kosmos2
import test_parity
import test_qformer
import test_tiles
import test_variable
import torch
from references import words
from torch import nn

from minivlm import Batch, load, published, save
from minivlm.pretrained.empty import weightless
from minivlm.pretrained.layouts import in_memory

pytestmark = pytest.mark.usefixtures("no_graph")

# Tests of `from_transformers` against the published classes, which are run again with a folder in between.
ROADS = {
    "CLIP": (test_parity, lambda: test_parity.test_clip(0, 1.0, True)),
    "CLIP's tower": (test_parity, lambda: test_parity.test_clip_vision(1, 1.0)),
    "SigLIP": (test_parity, lambda: test_parity.test_siglip(1, 1.0)),
    "SigLIP's tower": (test_parity, lambda: test_parity.test_siglip_vision(2, 1.0)),
    "ViT": (test_parity, lambda: test_parity.test_vit(1, 1.0)),
    "Llama": (test_parity, lambda: test_parity.test_llama(1, 1.0, "left", False)),
    "Llama, tied": (test_parity, lambda: test_parity.test_llama(2, 1.0, "left", True)),
    "OPT": (test_decoders, lambda: test_decoders.test_scores_are_those_of_the_published_class("opt", "left", 1.0, 0)),
    "Phi": (test_decoders, lambda: test_decoders.test_scores_are_those_of_the_published_class("phi", "left", 1.0, 1)),
    "LLaVA": (test_parity, lambda: test_parity.test_llava(0, 1.0)),
    "LLaVA-1.5": (test_parity, lambda: test_parity.test_llava15(1, 1.0, -2)),
    "LLaVA-1.5, untied": (test_parity, lambda: test_parity.test_llava15(2, 1.0, -2)),
    "LLaVA with SigLIP": (test_parity, lambda: test_parity.test_llava_with_a_siglip_tower(0, 1.0)),
    "LLaVA-NeXT": (test_tiles, lambda: test_tiles.test_llava_next(1, 1.0, 2)),
    "BLIP-2 on Llama": (test_qformer, lambda: test_qformer.test_blip2(0, 1.0, "llama")),
    "BLIP-2 on OPT": (test_qformer, lambda: test_qformer.test_blip2(1, 1.0, "opt")),
    "InstructBLIP": (test_qformer, lambda: test_qformer.test_instructblip(1, 1.0, "llama")),
    "Kosmos-2": (test_kosmos2, lambda: test_kosmos2.test_kosmos2(((2, 6), (0, 1)), 1.0, 1)),
    "Idefics": (test_idefics, lambda: test_idefics.test_idefics(0, 1.0)),
    "Idefics, tied": (test_idefics, lambda: test_idefics.test_idefics(2, 1.0)),
    "Idefics2": (test_variable, lambda: test_variable.test_idefics2(1, 1.0)),
    "DeepSeek-VL": (test_hybrid, lambda: test_hybrid.test_deepseek_vl(1, 1.0, False)),
    "DeepSeek-VL 7B": (test_hybrid, lambda: test_hybrid.test_deepseek_vl(1, 1.0, True)),
    "Fuyu": (test_fuyu, lambda: test_fuyu.test_fuyu(((7, 13), (12, 6)), "left", 1.0, 1)),
    "OtterHD": (test_fuyu, lambda: test_fuyu.test_otterhd_is_the_same_network_on_squares_of_any_size(11, 0)),
}


MOVED = ("ViT", "LLaVA", "Fuyu", "DeepSeek")  # whose names differ between the layouts
BESIDE = ("CLIP", "InstructBLIP", "Kosmos-2")  # whose old files hold more than weights
TRIED = [
    (road, layout)
    for road in ROADS
    for layout in saved.LAYOUTS
    if layout == "today" or road.startswith(MOVED) or road.endswith("tower") or (layout == "hub" and road in BESIDE)
]


@pytest.mark.parametrize(("road", "layout"), TRIED)
def test_a_saved_model_computes_what_it_computed(road, layout, monkeypatch, tmp_path):
    module, compare = ROADS[road]
    opened = []

    def through_a_folder(theirs):
        opened.append(load(saved.write(theirs, tmp_path / str(len(opened)), layout), "cpu"))
        return opened[-1]

    monkeypatch.setattr(module, "from_transformers", through_a_folder)
    compare()
    assert opened and not opened[-1].training


# --- number types, devices, memory ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return saved.write(references.llava(), tmp_path_factory.mktemp("llava") / "folder", "today")


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_any_number_type_becomes_the_one_asked_for(stored, tmp_path):
    theirs = references.llava().to(stored)
    folder = saved.write(theirs, tmp_path, "today")
    for asked in (torch.float32, torch.bfloat16):
        ours = load(folder, "cpu", asked)
        assert {value.dtype for value in (*ours.parameters(), *ours.buffers())} == {asked}
        wanted = theirs.model.language_model.norm.weight.to(asked)
        assert torch.equal(ours.language.final_norm.weight, wanted)


def test_weights_are_views_of_their_file_until_they_are_looked_at(llava):
    """Nothing is copied that is in the type asked for, and what is learned never reaches the file."""
    ours, again = load(llava, "cpu"), load(llava, "cpu")
    files = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(llava) in line]
    assert set(files) == {str(path) for path in llava.glob("*.safetensors")}
    weight = ours.connector[0].weight
    weight += 1.0
    assert torch.equal(weight, again.connector[0].weight + 1.0)
    assert torch.equal(load(llava, "cpu").connector[0].weight, again.connector[0].weight)


def test_nothing_is_allocated_for_weights_before_they_come():
    """A published system whose weights are many gigabytes."""
    before = peak()
    with weightless():
        model = published.cogvlm().build()
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) > 17e9
    assert peak() - before < 2e9
    assert model.vision.mean.device.type == "cpu" and nn.Linear(2, 2).weight.device.type == "cpu"


def peak() -> int:
    """Most bytes that this process has had at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_tied_head_is_one_weight_after_loading(tmp_path):
    folder = saved.write(references.llama(tie_word_embeddings=True), tmp_path, "today")
    ours = load(folder, "cpu")
    assert ours.head.weight is ours.embedding.weight


def test_a_loaded_model_learns_and_is_saved(llava, tmp_path):
    ours = load(llava, "cpu")
    with torch.enable_grad():
        ids = words(2, 5)
        ours.loss(Batch(None, ids, ids)).backward()
    assert ours.language.embedding.weight.grad.abs().max() > 0
    save(ours, tmp_path / "ours.safetensors")
    again = load(tmp_path / "ours.safetensors", "cpu")
    assert again.config == ours.config
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in ours.state_dict().items())


# --- what cannot be opened ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(llava, tmp_path):
    """A folder as it should be; tests make it worse."""
    return Path(shutil.copytree(llava, tmp_path / "copy"))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_every_missing_surplus_and_misshapen_weight_is_listed(folder):
    path = max(shards(folder), key=lambda path: len(saved.taken(path)))
    state = saved.taken(path)
    gone, bent = list(state)[:2]
    del state[gone]
    saved.put(state | {bent: torch.zeros(1), "language_model.surprise": torch.zeros(1)}, path)
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    del told["weight_map"][gone]
    index.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="the weights do not fit this LlavaForConditionalGeneration") as error:
        load(folder, "cpu")
    names = in_memory([gone, bent], "LlavaForConditionalGeneration")
    missing, misshapen = names
    assert f"missing {missing}" in str(error.value) and f"{misshapen} is (1,)" in str(error.value)
    assert "surplus language_model.surprise" in str(error.value)


def test_two_names_for_one_weight_are_refused(folder):
    name = "language_model.model.norm.weight"
    path = next(path for path in shards(folder) if name in saved.taken(path))
    state = saved.taken(path)
    saved.put(state | {name.replace("language_model.model.", "model.language_model."): state[name]}, path)
    with pytest.raises(ValueError, match="two names for the same weight"):
        load(folder, "cpu")


def test_a_folder_that_is_half_downloaded(folder):
    first, *others = shards(folder)
    first.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of {len(others) + 1} files are missing \({first.name}\)"):
        load(folder, "cpu")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="half downloaded"):
        load(folder, "cpu")


def test_an_index_that_promises_more_than_there_is(folder):
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["promised.weight"] = shards(folder)[0].name
    index.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="weights that its files do not hold: promised.weight"):
        load(folder, "cpu")


@pytest.mark.parametrize("kept", [100, -100])
def test_a_file_that_is_cut_off(folder, kept):
    path = shards(folder)[0]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{path.name} is not a whole safetensors file"):
        load(folder, "cpu")


def test_a_configuration_that_is_cut_off(folder):
    (folder / "config.json").write_text((folder / "config.json").read_text()[:50])
    with pytest.raises(ValueError, match="config.json is not whole"):
        load(folder, "cpu")


def test_pickles_are_never_opened(folder):
    for path in [*shards(folder), folder / "model.safetensors.index.json"]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load(folder, "cpu")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"only as pickles \(pytorch_model.bin\)"):
        load(folder, "cpu")


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(architectures=["Qwen2VLForConditionalGeneration"]), "holds Qwen2VLForConditionalGeneration; there are: "),
        (dict(architectures=None, model_type="bert"), "a model of type 'bert' that does not name its class"),
        (dict(vision_feature_select_strategy="full"), "vision_feature_select_strategy 'full'"),
    ],
)
def test_what_is_not_ours_is_refused_by_name(folder, changes, said):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=said):
        load(folder, "cpu")
