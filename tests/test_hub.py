"""Names on the hub, with the hub's own client and a small server in the hub's place: downloaded once and found again
without network, and one clear error for each thing that can go wrong."""

from __future__ import annotations

from pathlib import Path

import hubs
import pytest
import references
import saved
import torch
from references import pictures

from minivlm import load
from minivlm.pretrained.hub import folder_of, is_published

NAME = "someone/a-tower"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> Path:
    return saved.write(references.vit(), tmp_path_factory.mktemp("hub") / "tower", "today")


def test_a_name_is_downloaded_once_and_found_again_without_network(tower, monkeypatch, tmp_path):
    with hubs.serving(monkeypatch, tmp_path, {NAME: tower}):
        first = load(NAME, "cpu")
        assert load(NAME, "cpu", revision=hubs.SHA).config == first.config
    hubs.to(monkeypatch, NOWHERE, tmp_path)
    again = load(NAME, "cpu")
    images = pictures(2, 3, *first.config.image_size)
    wanted = load(tower, "cpu")(images)[1]
    assert torch.equal(first(images)[1], wanted) and torch.equal(again(images)[1], wanted)


def test_only_what_is_needed_is_downloaded(tower, monkeypatch, tmp_path):
    (tower / "flax_model.msgpack").write_bytes(b"x")
    (tower / "pytorch_model.bin").write_bytes(b"x")
    with hubs.serving(monkeypatch, tmp_path, {NAME: tower}):
        names = {path.name for path in folder_of(NAME).iterdir()}
    assert names == {path.name for path in tower.iterdir()} - {"flax_model.msgpack", "pytorch_model.bin"}


def test_each_trouble_has_an_error_of_its_own(tower, monkeypatch, tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    folders = {NAME: tower, "someone/asked-for": tower, "someone/pickled": pickled}
    with hubs.serving(monkeypatch, tmp_path / "cache", folders, gated={"someone/asked-for"}):
        with pytest.raises(PermissionError, match="someone/asked-for is given only .* log in with `hf auth login`"):
            load("someone/asked-for")
        with pytest.raises(
            FileNotFoundError, match="no folder someone/unknown here, and no someone/unknown on the hub"
        ):
            load("someone/unknown")
        with pytest.raises(FileNotFoundError, match="a-tower on the hub has no revision 'v9'"):
            load(NAME, revision="v9")
        with pytest.raises(ValueError, match=r"someone/pickled on the hub holds .* pickles \(pytorch_model.bin\)"):
            load("someone/pickled")


@pytest.mark.parametrize("offline", [False, True])
def test_without_network_and_without_a_copy(offline, monkeypatch, tmp_path):
    hubs.to(monkeypatch, NOWHERE, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(ConnectionError, match="the hub cannot be reached .* no folder someone/a-tower"):
        load(NAME)


def test_a_download_that_breaks_off_is_no_model(tower, monkeypatch, tmp_path):
    last = sorted(tower.glob("*.safetensors"))[-1].name
    with hubs.serving(monkeypatch, tmp_path, {NAME: tower}, broken={last}):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 1)
        with pytest.raises(OSError, match="half downloaded|only in part"):
            load(NAME, "cpu")
    with hubs.serving(monkeypatch, tmp_path, {NAME: tower}):  # and goes on where it was
        load(NAME, "cpu")


def test_names_are_told_from_paths(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert is_published("llava-hf/llava-1.5-7b-hf") and is_published("open_clip:ViT-B-32/openai")
    assert is_published(tmp_path) and is_published(str(tmp_path))
    for path in ("runs/model.safetensors", "runs/model.pt", tmp_path / "a.safetensors", "model", "a/b/c", Path("a/b")):
        assert not is_published(path)
