"""Data in shards: pictures and texts of a dataset on the Hugging Face hub, or of a folder of Parquet files or of tar
files (WebDataset), read as they are needed, however many they are. Needs `pip install -e '.[hub]'`.

Shards are shuffled anew in every pass over them, and dealt like cards to a fixed number of lanes, each of which gives
the same rows of every batch. So what stands in a batch depends on its step alone, and a process that is asked for some
rows of every batch reads the shards of their lanes only. Of shards before the step that a run goes on at, rows are
counted: by its last bytes in a Parquet file, by reading it in any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from minivlm.data.files import DataError

PICTURES = ("image", "jpg", "jpeg", "png", "webp")  # names of columns, or of a tar's files, the first there is
CAPTIONS = ("caption", "text", "txt")
MOST_LANES = 64  # that are read side by side unless more are asked for


@dataclass(frozen=True)
class Sample:
    """A picture file's bytes, and either a question and its answer or, to no question (""), a caption. `name` says
    where it is from."""

    picture: bytes
    question: str
    answer: str
    name: str


class Shards:
    """The shards of a split, endlessly, in an order shuffled anew for each pass over them.

    `name`: a dataset's on the hub, or a folder. Rows are shuffled in blocks of `block` within a shard. Opening it reads
    the first row. DataError where there is no such data or split, or where rows have no picture or no text.
    """

    def __init__(self, name: str | Path, split: str = "train", seed: int = 0, block: int = 100):
        self.name, self.seed, self.block = name, seed, block
        self._dataset, self._files = _opened(name, split)
        self.length = cache(self._length)

    def __len__(self) -> int:
        return self._dataset.num_shards

    def at(self, turn: int) -> int:
        """Which shard's turn it is."""
        again, place = divmod(turn, len(self))
        return int(torch.randperm(len(self), generator=_chance(self.seed, again))[place])

    def rows(self, turn: int, start: int = 0) -> Iterator[Sample]:
        """The samples of the shard whose turn it is, from the `start`-th on."""
        shard = self.at(turn)
        rows = iter(self._shard(shard))
        for number in count():
            block = list(islice(rows, self.block))
            if not block:
                return
            order = torch.randperm(len(block), generator=_chance(self.seed, turn, number)).tolist()
            for place, i in enumerate(order, start=number * self.block):
                if place >= start:
                    yield sample(block[i], f"row {number * self.block + i} of {self._files[shard]}")

    def _length(self, shard: int) -> int:
        """How many rows it has."""
        if not self._files[shard].endswith(".parquet"):
            return sum(1 for _ in self._shard(shard))
        import fsspec
        from pyarrow.parquet import read_metadata

        with fsspec.open(self._files[shard]) as file:
            return read_metadata(file).num_rows

    def _shard(self, shard: int) -> Any:
        return self._dataset.shard(num_shards=len(self), index=shard)


@dataclass(frozen=True)
class Lanes:
    """Batches of `batch_size` rows of shards that are dealt to so many lanes (None: as many as divide a batch and there
    are shards for). For each process to read shards of its own, their number is to be a multiple of the processes'."""

    shards: Shards
    batch_size: int
    lanes: int | None = None
    _open: dict[int, Lane] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if self.lanes is not None and (self.lanes < 1 or self.batch_size % self.lanes):
            raise ValueError(f"a batch of {self.batch_size} does not split over {self.lanes} lanes: take one that does")

    @cached_property
    def number(self) -> int:
        if self.lanes is not None:
            return self.lanes
        most = min(len(self.shards), self.batch_size, MOST_LANES)
        return next(lanes for lanes in range(most, 0, -1) if self.batch_size % lanes == 0)

    def __call__(self, step: int, rows: range) -> list[Sample]:
        """Those of the rows of that step's batch."""
        share = self.batch_size // self.number
        samples = []
        for lane in range(rows.start // share, -(-rows.stop // share)):
            low, high = max(rows.start - lane * share, 0), min(rows.stop - lane * share, share)
            if lane not in self._open:
                self._open[lane] = Lane(self.shards, lane, self.number, share)
            samples += self._open[lane].take(step * share + low, high - low)
        return samples


class Lane:
    """All rows of every `step`-th shard from the `first` on; `share` of them make a batch."""

    def __init__(self, shards: Shards, first: int, step: int, share: int):
        self.shards, self.turns, self.share = shards, (first, step), share
        self._place, self._rows = 0, self._from(0)

    def take(self, start: int, number: int) -> list[Sample]:
        """So many, from the `start`-th on: at once where that is the next, or is in the same batch."""
        if not 0 <= start - self._place < self.share:
            self._place, self._rows = start, self._from(start)
        taken = list(islice(self._rows, start - self._place, start - self._place + number))
        self._place = start + number
        return taken

    def _from(self, start: int) -> Iterator[Sample]:
        for turn in count(*self.turns):
            if start and start >= (length := self.shards.length(self.shards.at(turn))):
                start -= length
                continue
            yield from self.shards.rows(turn, start)
            start = 0


def sample(row: dict[str, Any], name: str) -> Sample:
    """A row of a dataset, its columns (in a tar, those of its "json" too) as they are usually named. DataError, which
    names the row, for one without picture or text."""
    fields = row | (row["json"] if isinstance(row.get("json"), dict) else {})
    picture = next((fields[key] for key in PICTURES if fields.get(key) is not None), None)
    data = picture.get("bytes") if isinstance(picture, dict) else picture
    told = next((fields[key] for key in CAPTIONS if isinstance(fields.get(key), str)), None)
    question, answer = fields.get("question"), fields.get("answer")
    asked = isinstance(question, str) and isinstance(answer, str)
    if not isinstance(data, bytes) or not (asked or told is not None):
        wanted = f"bytes of a picture ({', '.join(PICTURES)}), and a question and answer or a text"
        raise DataError([f"{name}: want {wanted} ({', '.join(CAPTIONS)}); got columns {', '.join(row)}"])
    return Sample(data, question, answer, name) if asked else Sample(data, "", told, name)


def _opened(name: str | Path, split: str) -> tuple[Any, list[str]]:
    """The dataset as a stream, its pictures not decoded, and the file of each shard."""
    try:
        from datasets import load_dataset_builder
    except ImportError as error:
        raise ImportError("data in shards needs datasets: pip install -e '.[hub]'") from error
    try:
        builder = load_dataset_builder(str(name))
        files = builder.config.data_files
        if split not in files:
            raise DataError([f"{name} has no split {split!r}, only {', '.join(map(str, files))}"])
        dataset = builder.as_streaming_dataset(split=split).decode(False)
        first = next(iter(dataset), None)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError([f"{name}: {error}"]) from error
    if first is None:
        raise DataError([f"{name} has no rows in its {split} split"])
    sample(first, f"the first row of {name}")
    if dataset.num_shards != len(files[split]):
        raise DataError([f"{name} has {dataset.num_shards} shards in {len(files[split])} files: want one in each"])
    return dataset, list(files[split])


def _chance(*seeds: int) -> torch.Generator:
    """The source of chance of one shuffle."""
    told = 0
    for seed in seeds:
        told = (told * 1_000_003 + seed) % 2**63
    return torch.Generator().manual_seed(told)
