"""Your own data: a folder of pictures and a JSON Lines file that says what is to be learned of each.

A line is `{"image": "cat.jpg", "question": "what is it ?", "answer": "cat"}`
or `{"image": "cat.jpg", "caption": "a cat"}`, and may say `"split": "train"` or `"split": "test"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

_KINDS = ({"image", "question", "answer"}, {"image", "caption"})
SPLITS = ("train", "test")


class DataError(ValueError):
    """Everything that is wrong with some data, a problem a line, so that all can be put right at once."""

    def __init__(self, problems: list[str]):
        self.problems = tuple(problems)
        count = f"{len(problems)} problems with the data:\n  " if len(problems) > 1 else ""
        super().__init__(count + "\n  ".join(problems))


@dataclass(frozen=True)
class Record:
    """A picture file with either a question and its answer or a caption, and the split that it is said to be in; what
    is not given is None."""

    image: Path
    question: str | None = None
    answer: str | None = None
    caption: str | None = None
    split: str | None = None


def read_folder(folder: str | Path, jsonl: str = "data.jsonl") -> list[Record]:
    """The records of `folder/jsonl`, in order; its picture paths are relative to `folder`. Blank lines are skipped.

    Every line is checked and every picture decoded first: one DataError names all problems with file and line number.
    """
    folder = Path(folder)
    source = folder / jsonl
    if not source.is_file():
        raise DataError([f"{source}: no such file; put one JSON object a line there, beside the pictures"])
    records, problems, pictures, splits = [], [], {}, {}
    for number, line in enumerate(source.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(_record(line, folder, pictures))
            _check_split(records[-1], splits, number)
        except DataError as error:
            problems += [f"{source}:{number}: {problem}" for problem in error.problems]
    if not records and not problems:
        problems = [f"{source}:1: the file is empty; put one JSON object a line there"]
    if problems:
        raise DataError(problems)
    return records


def _check_split(record: Record, splits: dict[Path | None, tuple[str | None, int]], number: int) -> None:
    """`splits` remembers where each picture was first put, and, under None, what the first record of all said."""
    first, line = splits.setdefault(None, (record.split, number))
    if (record.split is None) != (first is None):
        here, there = ("no", "one") if record.split is None else ("a", "none")
        raise DataError([f"{here} split, while line {line} has {there}: give every line one, or no line"])
    before, line = splits.setdefault(record.image, (record.split, number))
    if record.split != before:
        raise DataError([f"{record.image.name} is in {record.split!r} here and in {before!r} on line {line}"])


def _record(line: bytes, folder: Path, pictures: dict[Path, str | None]) -> Record:
    """One line as a Record. `pictures` remembers what is wrong with each picture, so that each is decoded once."""
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # ValueError: neither JSON nor UTF-8
        raise DataError([f"not a line of JSON: {error}"]) from error
    problems = list(_wrong_fields(fields))
    if isinstance(fields, dict) and isinstance(fields.get("image"), str) and fields["image"].strip():
        problems += _wrong_picture(fields["image"], folder, pictures)
    if problems:
        raise DataError(problems)
    return Record(**{**fields, "image": folder / fields["image"]})


def _wrong_fields(fields: object) -> Iterator[str]:
    wanted = 'an object with "image" and either "question" and "answer" or "caption"'
    if not isinstance(fields, dict):
        yield f"want {wanted}, got {json.dumps(fields)[:40]}"
        return
    if unknown := sorted(fields.keys() - set.union(*_KINDS, {"split"})):
        yield f"unknown keys {', '.join(unknown)}; want {wanted}"
    elif fields.keys() - {"split"} not in _KINDS:
        yield f"the keys are {', '.join(fields) or 'none'}; want {wanted}"
    if fields.get("split", SPLITS[0]) not in SPLITS:
        yield f"split is {json.dumps(fields['split'])[:40]}; want one of {', '.join(SPLITS)}"
    for key, value in fields.items():
        if key in set.union(*_KINDS) and not (isinstance(value, str) and value.strip()):
            yield f"{key} is empty" if isinstance(value, str) else f"{key} is no text but {json.dumps(value)[:40]}"


def _wrong_picture(name: str, folder: Path, pictures: dict[Path, str | None]) -> list[str]:
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError) as error:  # a name no file can have: too long, or with a zero byte
        return [f"{name!r} is no file name: {error}"]
    if not inside:
        return [f"{name} lies outside {folder}; put the picture inside"]
    if path not in pictures:
        pictures[path] = _why_unreadable(path)
    return [pictures[path]] if pictures[path] else []


def _why_unreadable(path: Path) -> str | None:
    try:
        load_image(path, 1)
    except DataError as error:
        return str(error)
    return None


def load_image(path: str | Path, size: int | tuple[int, int]) -> Float[Tensor, "3 H W"]:
    """A picture file as RGB in [0, 1], turned the way its EXIF says, transparency on white, the whole of it resized
    (not cropped, not padded) to `size`: (H, W) or one side, in pixels. DataError if there is none or it cannot be read.
    """
    if not Path(path).is_file():
        raise DataError([f"{path}: no such picture"])
    return decoded(path, size, str(path))


def decoded(file: str | Path | BytesIO, size: int | tuple[int, int], name: str) -> Float[Tensor, "3 H W"]:
    """The same of a file that may be open; DataError says its `name`."""
    from PIL import Image, ImageOps

    height, width = (size, size) if isinstance(size, int) else size
    try:
        with Image.open(file) as opened:
            opened.load()
            image = _rgb(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError([f"{name}: not a picture that can be read ({error})"]) from error
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3)
    return pixels.permute(2, 0, 1).float() / 255  # (3, H, W)


def _rgb(image):
    """A PIL picture of any mode as RGB, its transparent parts on white."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a pixel, which `convert` would clip to 8, not scale
        image = image.point(lambda value: value / 256).convert("L")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
