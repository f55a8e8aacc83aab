"""A user's own pictures and questions: learned from, asked about, and never both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import own_design
import pytest
import tiny
import torch
from PIL import Image

from minivlm.batch import IGNORE
from minivlm.compare import compare
from minivlm.data.files import DataError
from minivlm.language.tokenizer import ROOM, mini_tokenizer
from minivlm.own_data import OwnBank, OwnDialogs, extended, own_material

COLORS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Forty plain pictures, with a question and a caption each, of which one word is new."""
    folder = tmp_path_factory.mktemp("mine") / "walls"
    folder.mkdir()
    lines = []
    for n in range(40):
        color = COLORS[n % 4]
        Image.new("RGB", (32, 32), color).save(folder / f"{n}.png")
        lines.append({"image": f"{n}.png", "question": "what color is the wall ?", "answer": color})
        if n % 2:
            lines.append({"image": f"{n}.png", "caption": f"a {color} wall ."})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return folder


def test_designs_known_and_of_ones_own_learn_from_it(folder, tmp_path):
    how = dict(seeds=(0,), scale="smoke", steps=60, folder=tmp_path, data=folder)
    known, mine, blind = compare({"llava15": None, "mine": own_design.rows}, **how)
    assert [run.design for run in (known, mine, blind)] == ["llava15", "mine", "blind"]
    assert known.accuracy["own"] > 0.8 and mine.accuracy["own"] > 0.8 and blind.accuracy["own"] <= 0.5
    assert known.told == {} and known.data.startswith("walls-") and len(known.margins["own"]) == 8
    assert known.samples == (3 + 60) * 8
    before = (tmp_path / "runs.jsonl").read_bytes()
    assert len(compare({"llava15": None, "mine": own_design.rows}, **how)) == 3
    assert (tmp_path / "runs.jsonl").read_bytes() == before


def test_other_data_under_the_same_name_is_other_data(folder, tmp_path):
    copy = tmp_path / "walls"
    shutil.copytree(folder, copy)
    first = own_material(copy, "smoke", None)
    assert first.name == own_material(folder, "smoke", None).name
    text = (copy / "data.jsonl").read_text(encoding="utf-8")
    (copy / "data.jsonl").write_text(text.replace("wall ?", "house ?"), encoding="utf-8")
    assert own_material(copy, "smoke", None).name != first.name


def test_the_last_fifth_of_the_pictures_is_for_the_test(folder):
    material = own_material(folder, "smoke", 7)
    assert [record.image.name for record in material.test] == [f"{n}.png" for n in range(32, 40)]
    assert {record.image.name for record in material.train} == {f"{n}.png" for n in range(32)}
    assert material.size.steps == 7 and material.size.scenes == 32
    assert all(record.question for record in material.test)


def test_lines_may_say_their_split(folder, tmp_path):
    lines = [json.loads(line) for line in (folder / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["split"] = "test" if int(line["image"].split(".")[0]) < 4 else "train"
    copy = tmp_path / "walls"
    shutil.copytree(folder, copy)
    (copy / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert [record.image.name for record in own_material(copy, "smoke", None).test] == [f"{n}.png" for n in range(4)]


def test_the_first_stage_reads_captions_where_there_are_any(folder):
    material, model = own_material(folder, "smoke", None), tiny.vlm().eval()
    told, asked = material.bank(model, 0)
    assert [turn for turn, *_ in told.dialogs[:2]] == [("", "a green wall ."), ("", "a yellow wall .")]
    assert len(told.dialogs) == 16 and len(asked.dialogs) == 32 and asked.features.shape[:2] == (32, 1)
    plain = OwnBank(torch.zeros(1, 1, 1, 1), [[("what ?", "red")]])
    align, instruct = material.stages(model, (told, plain), 0, "tuned")
    assert align.source.bank is told and instruct.source.bank is plain and align.trains == ("connector",)


def test_batches_hold_each_picture_s_own_turns_apart_or_not():
    numbers = torch.arange(5.0).view(5, 1, 1, 1)
    dialogs = [[(f"{COLORS[n % 4]} {k} ?", COLORS[n % 4]) for k in range(3)] for n in range(5)]
    bank, tokenizer = OwnBank(numbers, dialogs), mini_tokenizer()
    packed, apart = (OwnDialogs(tokenizer, bank, 6, 2, apart=apart, seed=1) for apart in (False, True))
    [one], [other] = packed(3, range(6)).inputs, apart(3, range(6)).inputs
    assert len(one) == 6 and len(other) == 12 and packed(3, range(6)).weight == 24  # a word and an end each
    for row, number in enumerate(one.features.flatten().int().tolist()):
        said = one.labels[row][(one.labels[row] != IGNORE) & (one.labels[row] != tokenizer.eos_id)]
        assert tokenizer.decode(said.tolist()) == f"{COLORS[number % 4]} {COLORS[number % 4]}"
    assert other.features.flatten().tolist() == one.features.flatten().repeat_interleave(2).tolist()
    [part] = packed(3, range(2, 4)).inputs
    assert part.features.tolist() == one.features[2:4].tolist()
    assert OwnDialogs(tokenizer, bank, 6, 2, blind=True)(0, range(6)).inputs[0].features is None


def test_new_words_are_added_behind_the_known_as_many_as_have_room():
    known = mini_tokenizer()
    more = extended(["a ZEBRA, red?", "a zebra grazes"])
    assert more.encode("zebra grazes") == [len(known), len(known) + 1]
    assert more.encode("what color is the circle ?") == known.encode("what color is the circle ?")
    room = ROOM - 1 - len(known)
    assert len(extended([" ".join(f"w{n}" for n in range(room))])) == ROOM - 1, "the last id is a newline's"
    with pytest.raises(ValueError, match=f"{room + 1} words are not in the vocabulary, which has room for {room} more"):
        extended([" ".join(f"w{n}" for n in range(room + 1))])


def test_nothing_to_train_on_or_to_ask_is_said(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    line = {"image": "a.png", "question": "what ?", "answer": "red"}
    for lines, split in (([line], "train"), ([line | {"split": "train"}], "test")):
        (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        with pytest.raises(DataError, match=f"no question to {split} on among 0 lines"):
            own_material(tmp_path, "smoke", None)
