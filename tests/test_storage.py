"""Files: what was saved is what is loaded, whole or not at all, and whatever is something else is refused by name."""

from __future__ import annotations

import json
import pickle

import pytest
import tiny
import torch
from references import randomise
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from minivlm import DESIGNS, build, load, save
from minivlm.storage import read


def metadata(path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["minivlm"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """A file that is as it should be; tests make it worse."""
    save(randomise(tiny.vlm()), path)
    return path


# --- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_what_is_loaded_is_what_was_saved(path, name):
    model = randomise(build(name, device="cpu"))
    save(model, path)
    loaded = load(path, "cpu")
    assert loaded.config == model.config
    assert type(loaded) is type(model) and not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_part_can_be_saved_alone(path, part):
    model = randomise(getattr(build("llava15", device="cpu"), part))
    save(model, path)
    loaded = load(path, "cpu")
    assert loaded.config == model.config
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_tied_head_is_stored_once_and_stays_tied(saved):
    assert "language.embedding.weight" in load_file(saved) and "language.head.weight" not in load_file(saved)
    loaded = load(saved, "cpu")
    assert loaded.language.head.weight is loaded.language.embedding.weight


def test_half_the_digits_take_half_the_room(path, saved):
    half = path.with_name("half.safetensors")
    model = load(saved, "cpu")
    save(model, half, torch.float16)
    assert {value.dtype for value in load_file(half).values()} == {torch.float16}
    loaded = load(half, "cpu")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    for name, value in model.named_parameters():
        assert value.dtype == torch.float32  # the model in memory stays as it was
        assert torch.equal(loaded.get_parameter(name), value.half().float())


def test_saving_makes_the_folders_it_needs_and_leaves_nothing_else(tmp_path):
    save(tiny.vlm(), tmp_path / "a" / "b" / "model.safetensors")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["model.safetensors"]


def test_a_crash_while_saving_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def half_written(weights, path, metadata) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("minivlm.storage.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        save(tiny.vlm(), saved)
    assert saved.read_bytes() == before
    monkeypatch.undo()
    save(tiny.vlm(), saved)  # what was left half written is in nobody's way
    assert torch.equal(load(saved, "cpu").connector[0].weight, tiny.vlm().connector[0].weight)


# --- files that are something else ----------------------------------------------------------------------------------


class Harm:
    """What a pickle can do: unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
def test_a_pickle_is_refused_by_its_name(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match=f"model{suffix} is a pickle.*convert it to safetensors"):
        load(path)


def test_a_pickle_is_refused_by_its_content(path):
    torch.save({"weight": torch.ones(3), "harm": Harm()}, path)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(path)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(
        ValueError, match=r"model.safetensors is not a whole safetensors file .*copy or download it again"
    ):
        load(saved)


def test_a_missing_file_is_reported(path):
    with pytest.raises(FileNotFoundError, match="no file .*model.safetensors: train one with"):
        load(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        load(tmp_path)


@pytest.mark.parametrize("other", [None, {"format": "pt"}])
def test_a_file_of_another_program_is_refused(path, other):
    save_file({"weight": torch.ones(3)}, path, metadata=other)
    with pytest.raises(ValueError, match="was not written by minivlm.save: open other programs' weights with from_tr"):
        load(path)


# --- weights and configurations that do not fit ---------------------------------------------------------------------


def rewrite(path, change=lambda config: None, weights=None) -> None:
    """The file with its configuration changed in place by `change`, and with other `weights`, if given."""
    config = metadata(path)
    change(config)
    save_file(load_file(path) if weights is None else weights, path, metadata={"minivlm": json.dumps(config)})


def test_missing_and_surplus_weights_are_listed(saved):
    weights = load_file(saved)
    del weights["connector.0.bias"], weights["language.embedding.weight"]
    rewrite(saved, weights=weights | {"extra": torch.ones(1)})
    with pytest.raises(ValueError, match="the weights do not fit this VLM") as caught:
        load(saved, "cpu")
    lines = set(map(str.strip, str(caught.value).splitlines()[1:]))
    wanted = {"missing connector.0.bias", "missing language.embedding.weight", "missing language.head.weight"}
    assert lines == wanted | {"surplus extra"}


def test_weights_of_another_design_are_refused(tmp_path, path):
    save(tiny.towers("clip"), path)
    clip = load_file(path)
    save(tiny.vlm(), path)
    rewrite(path, weights=clip)
    with pytest.raises(ValueError, match="the weights do not fit this VLM") as caught:
        load(path, "cpu")
    for line in ("missing connector.0.weight", "missing language.embedding.weight", "surplus text_projection.weight"):
        assert line in str(caught.value)
    assert "vision.class_embedding" not in str(caught.value)  # both have it


def test_weights_of_another_size_are_listed(saved):
    rewrite(saved, lambda config: config["language"].update(mlp_width=23))
    with pytest.raises(ValueError, match=r"language.blocks.0.mlp.up.weight is \(24, 16\), wanted \(23, 16\)"):
        load(saved, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(kind="Mamba"), "unknown configuration 'Mamba': .*known: CLIPConfig"),
        (lambda c: c["connector"].update(kind="object"), "unknown configuration 'object'"),
        (lambda c: c.pop("kind"), "unknown configuration None"),
        (lambda c: c.update(experts=8), r"stored VLMConfig does not fit .*missing \[\], fields unknown \['experts'\]"),
        (lambda c: c["language"].update(experts=8), r"stored LlamaConfig .*fields unknown \['experts'\]"),
        (lambda c: c["vision"].pop("pool"), r"stored ViTConfig .*fields missing \['pool'\], fields unknown \[\]"),
        (lambda c: c["language"].update(heads=3), "3"),  # its own check speaks
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message):
        read(saved)


def test_a_field_with_a_default_may_be_missing(saved):
    rewrite(saved, lambda config: config["language"].pop("head_dim"))  # an older version did not know it
    assert load(saved, "cpu").config == tiny.vlm().config


def test_a_configuration_that_is_no_json_is_refused(saved):
    save_file(load_file(saved), saved, metadata={"minivlm": "{broken"})
    with pytest.raises(ValueError, match="model.safetensors holds a configuration that does not make sense here"):
        load(saved)
