"""Data in shards: what stands in a batch depends on its step alone, every row comes once a pass, and no more is read
than is needed."""

from __future__ import annotations

import importlib
import os
from itertools import count, islice
from pathlib import Path

import pytest
import shards as written
import tiny
import torch
from references import assert_same

from minivlm.batch import Batch
from minivlm.data.files import DataError, load_image
from minivlm.data.hub import Lanes, Sample, Shards, sample
from minivlm.hub import HubDialogs, HubPairs, hub_stages
from minivlm.recipes import train_design

if os.environ.get("CI"):
    importlib.import_module("datasets")
pytest.importorskip("datasets", reason="pip install -e '.[hub]'")

ROWS = sum(written.LENGTHS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("data")
    return {"parquet": written.write_parquet(home / "parquet"), "tar": written.write_tars(home / "tar")}


@pytest.fixture(params=["parquet", "tar"])
def folder(request, folders) -> Path:
    return folders[request.param]


def told(samples: list[Sample]) -> list[int]:
    return [int(one.answer) for one in samples]


def dealt(shards: Shards, lanes: int, batch_size: int, step: int) -> list[int]:
    """The batch of a step the slow way: every lane's rows from the first on, all read."""
    share, batch = batch_size // lanes, []
    for lane in range(lanes):
        rows = (int(one.answer) for turn in count(lane, lanes) for one in shards.rows(turn))
        batch += islice(rows, step * share, (step + 1) * share)
    return batch


def test_a_pass_gives_every_row_once_with_its_own_picture(folder):
    shards = Shards(folder, block=4)
    for turn in range(0, 12, 4):
        samples = [list(shards.rows(turn + n)) for n in range(4)]
        assert sorted(n for some in samples for n in told(some)) == list(range(ROWS))
        assert sorted(sorted(told(some)) for some in samples) == [list(some) for some in written.numbers()]
    for one in samples[0]:
        assert one.picture == written.png(int(one.answer))


def test_rows_are_shuffled_within_blocks_anew_in_each_pass_and_by_each_seed(folders):
    shards = Shards(folders["parquet"], block=4)
    turns = [turn for turn in range(12) if shards.at(turn) == 1]  # the shard of 8 rows
    passes = [told(list(shards.rows(turn))) for turn in turns]
    assert len({tuple(some) for some in passes}) == 3
    assert all(sorted(some[:4]) == [5, 6, 7, 8] and sorted(some[4:]) == [9, 10, 11, 12] for some in passes)
    orders = {tuple(Shards(folders["parquet"], seed=seed).at(turn) for turn in range(12)) for seed in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize(("lanes", "used"), [(None, 4), (1, 1), (2, 2), (8, 8)])
def test_a_batch_is_what_the_lanes_give_whenever_it_is_asked_for(folder, lanes, used):
    shards = Shards(folder, block=4)
    batches = Lanes(shards, 8, lanes)
    assert batches.number == used
    for step in (0, 1, 2, 7, 6, 20, 0, 1):
        assert told(batches(step, range(8))) == dealt(shards, used, 8, step)


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_parts_of_a_batch_make_the_whole(folder, processes):
    """More processes than lanes too: each of two then takes half of what one lane gives."""
    whole, share = Lanes(Shards(folder), 8), 8 // processes
    parts = [Lanes(Shards(folder), 8) for _ in range(processes)]
    for step in (0, 1, 2, 3, 9):
        some = [lanes(step, range(share * n, share * (n + 1))) for n, lanes in enumerate(parts)]
        assert sum(map(told, some), []) == told(whole(step, range(8)))


def opened(monkeypatch) -> list[int]:
    """The shards that are read from here on."""
    read, reading = [], Shards._shard
    monkeypatch.setattr(Shards, "_shard", lambda self, shard: read.append(shard) or reading(self, shard))
    return read


def test_processes_read_shards_of_their_own(folder, monkeypatch):
    read = {}
    for process in (0, 1):
        lanes = Lanes(Shards(folder), 8)
        with monkeypatch.context() as patch:
            read[process] = opened(patch)
            lanes(0, range(4 * process, 4 * (process + 1)))
    assert len(read[0]) == len(read[1]) == 2
    assert sorted(read[0] + read[1]) == [0, 1, 2, 3]


def test_going_on_reads_of_parquet_the_shards_alone_that_it_stands_in(folders, monkeypatch):
    lanes = Lanes(Shards(folders["parquet"]), 4)
    read = opened(monkeypatch)
    lanes(100, range(4))
    assert len(read) == 4


def test_going_on_counts_a_tar_once(folders, monkeypatch):
    lanes = Lanes(Shards(folders["tar"]), 4)
    read = opened(monkeypatch)
    lanes(100, range(4))
    assert len(read) == 4 + 4


def test_batches_in_a_row_are_read_once(folder, monkeypatch):
    lanes = Lanes(Shards(folder), 2, 1)
    read = opened(monkeypatch)
    for step in range(ROWS // 2):
        lanes(step, range(0, 1))
        lanes(step, range(1, 2))
    assert sorted(read) == [0, 1, 2, 3]


# --- batches --------------------------------------------------------------------------------------------------------


def test_questions_on_pictures_are_packed(folders, tmp_path):
    lanes = Lanes(Shards(folders["parquet"]), 4)
    source = HubDialogs(tiny.TOKENIZER, lanes, (16, 24))
    step = source(3, range(1, 4))
    samples = lanes(3, range(1, 4))
    (tmp_path / "a.png").write_bytes(samples[0].picture)
    dialogs = [[(f"is it {n} ?", str(n))] for n in told(samples)]
    wanted = Batch.pack(tiny.TOKENIZER, dialogs, images=torch.zeros(3, 1, 3, 16, 24))
    assert torch.equal(step.inputs[0].input_ids, wanted.input_ids)
    assert torch.equal(step.inputs[0].labels, wanted.labels)
    assert step.weight == int((wanted.labels >= 0).sum())
    assert_same(step.inputs[0].images[0, 0], load_image(tmp_path / "a.png", (16, 24)))
    assert step.inputs[0].images.shape == wanted.images.shape


def test_captions_of_pictures_are_padded(folders):
    lanes = Lanes(Shards(folders["tar"]), 4)
    images, ids = HubPairs(tiny.TOKENIZER, lanes, context=8, size=(16, 16))(2, range(4)).inputs
    numbers = told(lanes(2, range(4)))
    assert torch.equal(ids, tiny.TOKENIZER.pad([str(n) for n in numbers], 8))
    assert_same(images[:, 0].amax(dim=(1, 2)), torch.tensor(numbers) / 255)


@pytest.mark.parametrize("name", ["llava15", "clip", "siglip"])
def test_a_design_learns_from_a_folder(folders, tmp_path, name):
    model = train_design(name, "smoke", 0, tmp_path, 1, str(folders["tar"]))
    assert next((tmp_path).glob("step-*"))
    assert not model.training


def test_sounds_are_not_learned_from_pictures(folders):
    with pytest.raises(ValueError, match="a MMV does not learn from pictures with texts alone"):
        hub_stages(tiny.mmv(), str(folders["tar"]), "smoke")


# --- trouble --------------------------------------------------------------------------------------------------------


def test_a_row_is_read_whatever_its_columns_are_called():
    assert sample({"jpg": b"1", "caption": "a"}, "r") == Sample(b"1", "", "a", "r")
    assert sample({"image": None, "png": {"bytes": b"1"}, "text": "a"}, "r") == Sample(b"1", "", "a", "r")
    row = {"webp": b"1", "txt": "a", "json": {"question": "q", "answer": "b"}}
    assert sample(row, "r") == Sample(b"1", "q", "b", "r")


@pytest.mark.parametrize(
    "row", [{"image": {"bytes": None}, "txt": "a"}, {"image": b"1", "question": "q"}, {"image": b"1", "txt": 3}, {}]
)
def test_a_row_without_picture_or_text_is_named(row):
    with pytest.raises(DataError, match="row 7: want bytes of a picture .*got columns"):
        sample(row, "row 7")


def test_a_picture_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(written, "png", lambda number: b"no picture")
    lanes = Lanes(Shards(written.write_parquet(tmp_path / "bad", (2,))), 2)
    with pytest.raises(DataError, match=r"row \d of .*train-00000-of-00001.parquet: not a picture that can be read"):
        HubDialogs(tiny.TOKENIZER, lanes, (16, 16))(0, range(2))


def test_data_that_is_not_there_is_named(folders, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        Shards(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no split 'test', only train"):
        Shards(folders["parquet"], "test")


def test_data_without_rows_is_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([("image", pyarrow.binary()), ("text", pyarrow.string())])
    parquet.ParquetWriter(tmp_path / "a.parquet", schema).close()
    with pytest.raises(DataError, match="has no rows in its train split"):
        Shards(tmp_path)


@pytest.mark.parametrize("lanes", [0, 3])
def test_lanes_that_do_not_divide_a_batch_are_refused(folders, lanes):
    with pytest.raises(ValueError, match=f"a batch of 8 does not split over {lanes} lanes"):
        Lanes(Shards(folders["tar"]), 8, lanes)
