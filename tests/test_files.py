"""A user's own data: read right, or refused with every problem named by file and line."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from minivlm.data.files import DataError, Record, load_image, read_folder

GOOD = {"image": "a.png", "question": "what is it ?", "answer": "red"}


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    return tmp_path


def write(folder, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "data.jsonl").write_text(text + "\n", encoding="utf-8")


def problems(folder) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        read_folder(folder)
    return caught.value.problems


def test_questions_and_captions_are_read_in_order(folder):
    write(folder, GOOD, "", {"image": "a.png", "caption": "rot für dich"})
    image = folder / "a.png"
    assert read_folder(folder) == [Record(image, "what is it ?", "red"), Record(image, caption="rot für dich")]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder):
    (folder / "data.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert len(read_folder(folder)) == 1


@pytest.mark.parametrize(
    "line, message",
    [
        ("{not json", "not a line of JSON"),
        ("[1, 2]", "want an object"),
        ("[" * 100_000, "not a line of JSON"),
        ({**GOOD, "answer": "  "}, "answer is empty"),
        ({**GOOD, "question": ""}, "question is empty"),
        ({"image": "a.png", "caption": ""}, "caption is empty"),
        ({**GOOD, "answer": 3}, "answer is no text but 3"),
        ({**GOOD, "image": None}, "image is no text but null"),
        ({**GOOD, "image": ""}, "image is empty"),
        ({**GOOD, "label": "x"}, "unknown keys label"),
        ({"image": "a.png", "question": "what ?"}, "the keys are image, question"),
        ({**GOOD, "caption": "red"}, "the keys are image, question, answer, caption"),
        ({}, "the keys are none"),
        ({**GOOD, "image": "b.png"}, "no such picture"),
        ({**GOOD, "image": "bad.png"}, "not a picture that can be read"),
        ({**GOOD, "image": "cut.png"}, "not a picture that can be read"),
        ({**GOOD, "image": "../out.png"}, "lies outside"),
        ({**GOOD, "image": "link.png"}, "lies outside"),
        ({**GOOD, "image": "a\0.png"}, "no file name"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_number(folder, line, message):
    Image.effect_noise((64, 64), 50).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:600])
    (folder / "bad.png").write_text("no picture")
    outside = folder.parent / "out.png"
    Image.new("RGB", (2, 2)).save(outside)
    (folder / "link.png").symlink_to(outside)
    write(folder, GOOD, line)
    (problem,) = problems(folder)
    assert problem.startswith(f"{folder / 'data.jsonl'}:2: ") and message in problem


def test_bytes_that_are_not_utf8_are_refused(folder):
    (folder / "data.jsonl").write_bytes(json.dumps(GOOD).encode() + b'\n{"image": "\xff"}\n')
    (problem,) = problems(folder)
    assert ":2: not a line of JSON" in problem


def test_all_problems_are_told_at_once(folder):
    write(folder, {"image": "b.png", "caption": ""}, GOOD, "nonsense", {**GOOD, "image": "b.png"})
    found = problems(folder)
    assert [problem.split(":")[1] for problem in found] == ["1", "1", "3", "4"]
    with pytest.raises(DataError, match="4 problems"):
        read_folder(folder)


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_an_empty_file_is_refused(folder, text):
    (folder / "data.jsonl").write_text(text)
    assert "data.jsonl:1: the file is empty" in problems(folder)[0]


def test_a_missing_file_is_refused(folder):
    assert "no such file" in problems(folder)[0]
    assert issubclass(DataError, ValueError)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_whole_picture_is_resized_to_height_and_width(folder):
    red = load_image(folder / "a.png", (5, 7))
    assert red.shape == (3, 5, 7) and red.dtype == torch.float32
    assert red[0].eq(1).all() and red[1:].eq(0).all()
    halves = Image.new("RGB", (40, 20), "blue")
    halves.paste((255, 0, 0), (0, 0, 20, 20))
    halves.save(folder / "halves.png")
    row = load_image(folder / "halves.png", 8)[0, 4]
    assert row[:3].min() > 0.9 and row[5:].max() < 0.1


def test_exif_orientation_is_obeyed(folder):
    picture = Image.new("RGB", (4, 8), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: top left goes top right
    picture.save(folder / "turned.png", exif=exif)
    dark = (load_image(folder / "turned.png", (4, 8)).sum(dim=0) < 0.5).nonzero().tolist()
    assert dark == [[0, 7]]


def test_transparency_is_laid_on_white(folder):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(folder / "clear.png")
    assert load_image(folder / "clear.png", 4).eq(1).all()


def test_sixteen_bits_a_pixel_are_scaled_not_clipped(folder):
    Image.new("I;16", (4, 4), 0x8000).save(folder / "deep.png")
    assert (load_image(folder / "deep.png", 4) - 0.5).abs().max() < 0.01


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_three_channels(folder, mode):
    Image.new(mode, (4, 3)).save(folder / "any.tiff")
    assert load_image(folder / "any.tiff", 2).shape == (3, 2, 2)


def test_a_picture_that_is_none_is_refused(folder):
    (folder / "text.png").write_text("hello")
    for name, message in (("none.png", "no such picture"), ("text.png", "not a picture"), (".", "no such picture")):
        with pytest.raises(DataError, match=message):
            load_image(folder / name, 8)


def test_lines_may_be_put_into_splits(folder):
    write(folder, GOOD | {"split": "test"}, {"image": "a.png", "caption": "red", "split": "test"})
    assert [record.split for record in read_folder(folder)] == ["test", "test"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"split": "dev"}, 'split is "dev"; want one of train, test'),
        ({"split": None}, "split is null; want one of train, test"),
        ({}, "no split, while line 1 has one: give every line one, or no line"),
        ({"split": "train"}, "a.png is in 'train' here and in 'test' on line 1"),
    ],
)
def test_a_split_that_is_wrong_is_said_with_its_line(folder, second, message):
    write(folder, GOOD | {"split": "test"}, "", GOOD | second)
    assert problems(folder) == (f"{folder / 'data.jsonl'}:3: {message}",)
    write(folder, GOOD, GOOD | {"split": "test"})
    assert problems(folder) == (
        f"{folder / 'data.jsonl'}:2: a split, while line 1 has none: give every line one, or no line",
    )
