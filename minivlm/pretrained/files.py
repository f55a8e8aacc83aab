"""A folder's weights: safetensors, one file or many, of which a tensor is read when somebody looks at its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

WHOLE = "model.safetensors"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_AGAIN = "download it again"


class Weights(Mapping[str, Tensor]):
    """The tensors of a folder by name, in the type they are stored in. A tensor is a view of its file, which the
    system reads when its numbers are needed and may forget again: asking for all of them costs no memory.

    FileNotFoundError for a folder without weights or with some missing; ValueError for pickles and damaged files.
    """

    def __init__(self, folder: Path, name: str = WHOLE):
        self._files = {file: _opened(file) for file in _files(folder, name)}
        self._where = {key: file for file, opened in self._files.items() for key in opened.keys()}  # noqa: SIM118
        promised = _index(folder, name).get("weight_map", {})
        missing = sorted(promised.keys() - self._where.keys())
        if missing:
            raise ValueError(f"{folder}: its index names weights that its files do not hold: {', '.join(missing)}")

    def __getitem__(self, key: str) -> Tensor:
        return self._files[self._where[key]].get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def json_of(path: Path) -> dict[str, Any]:
    """FileNotFoundError where there is none, ValueError where it is broken."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}: half downloaded, or not a model's folder; check the path"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole ({error}): {_AGAIN}") from error


def _index(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.index.json"
    return json_of(path) if path.is_file() else {}


def _files(folder: Path, name: str) -> list[Path]:
    """Those that the index names, or the one of that name."""
    shards = sorted(set(_index(folder, name).get("weight_map", {}).values())) or [name]
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if not missing:
        return [folder / shard for shard in shards]
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if shards == [name] and not others and pickles:
        raise ValueError(only_pickles(str(folder), pickles))
    if shards == [name] and not others:
        raise FileNotFoundError(f"{folder} holds no weights: no {name}, and no index of several files")
    raise FileNotFoundError(
        f"{folder} is half downloaded: {len(missing)} of {len(shards)} files are missing ({', '.join(missing)}), "
        f"there are {', '.join(others) or 'none'}; {_AGAIN}"
    )


def only_pickles(where: str, pickles: list[str]) -> str:
    return (
        f"{where} holds its weights only as pickles ({', '.join(pickles)}), which can run any code when opened: "
        "take a revision with safetensors, or convert it where you trust it"
    )


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): {_AGAIN}") from error
