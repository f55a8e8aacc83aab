"""Data in shards to test with: pictures of one colour each, whose red says the number that their texts say."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

LENGTHS = (5, 8, 3, 6)  # of the shards


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 12), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def numbers(lengths: Sequence[int] = LENGTHS) -> list[range]:
    """The numbers that each shard has."""
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def write_parquet(folder: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    """Questions: "is it 7 ?" is answered "7"."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir()
    for shard, some in enumerate(numbers(lengths)):
        pictures = [{"bytes": png(n), "path": f"{n}.png"} for n in some]
        columns = dict(image=pictures, question=[f"is it {n} ?" for n in some], answer=[str(n) for n in some])
        parquet.write_table(pyarrow.table(columns), folder / f"train-{shard:05d}-of-{len(lengths):05d}.parquet")
    return folder


def write_tars(folder: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    """Captions: "7"."""
    folder.mkdir()
    for shard, some in enumerate(numbers(lengths)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for n in some:
                add(tar, f"{n:04d}.png", png(n))
                add(tar, f"{n:04d}.txt", str(n).encode())
                add(tar, f"{n:04d}.json", json.dumps({"width": 20}).encode())
    return folder


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
