"""Region-text contrast: the right patch meets the right phrase, and the loss is the one written out slowly."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from minivlm.contrastive.regions import RegionCLIP
from minivlm.data.scenes import COLOR_NAMES, HELD_OUT, SHAPE_NAMES, SIZE_NAMES
from minivlm.streams import CaptionPairs, Regions

GRID = (2, 2)  # of the tiny tower: 16 pixels in patches of 8


@pytest.fixture
def source() -> Regions:
    return Regions(CaptionPairs(tiny.TOKENIZER, 6, context=24, seed=1, objects=(2, 4), size=16, describe=short), GRID)


def short(scene, chance) -> str:
    return f"a {scene.objects[0].describe()}"


def test_each_place_is_named_by_what_stands_there(source):
    _, _, sample, patch, phrases, target = source(0, range(6)).inputs
    scenes = source.pairs.scenes(0)
    named = [tiny.TOKENIZER.decode(phrases[t].tolist()) for t in target.tolist()]
    objects = [(b, o) for b in range(6) for o in scenes[b].objects]
    assert sample.tolist() == [b for b, _ in objects]
    assert patch.tolist() == [2 * int(o.y * 2) + int(o.x * 2) for _, o in objects]
    assert named == [f"a {o.describe()}" for _, o in objects]


def test_half_of_the_rows_gives_half_of_the_places(source):
    whole, half = source(3, range(6)).inputs, source(3, range(3, 6)).inputs
    mine = whole[2] >= 3
    assert torch.equal(half[0], whole[0][3:])
    assert half[2].tolist() == [b - 3 for b in whole[2][mine].tolist()]
    assert torch.equal(half[3], whole[3][mine]) and torch.equal(half[5], whole[5][mine])


def test_no_phrase_names_a_held_out_combination(source):
    phrases = [tiny.TOKENIZER.decode(row.tolist()) for row in source(0, range(6)).inputs[4]]
    held_out = {f"a {size} {COLOR_NAMES[c]} {SHAPE_NAMES[s]}" for size in SIZE_NAMES for c, s in HELD_OUT}
    assert len(set(phrases)) == len(SIZE_NAMES) * (len(COLOR_NAMES) * len(SHAPE_NAMES) - len(HELD_OUT))
    assert not held_out & set(phrases)


def test_the_loss_place_by_place(source):
    clip = tiny.towers("clip")
    images, captions, sample, patch, phrases, target = source(0, range(6)).inputs
    with torch.no_grad():
        loss = RegionCLIP(clip)(images, captions, sample, patch, phrases, target).loss
        tokens, words = clip.vision(images)[0], clip.encode_text(phrases)
        costs = []
        for b, n, wanted in zip(sample.tolist(), patch.tolist(), target.tolist(), strict=True):
            place = clip.image_projection(tokens[b, 1 + n])  # the class token comes first
            scores = [float(clip.logit_scale.exp() * (place / place.norm()) @ word) for word in words]
            costs.append(math.log(sum(math.exp(score) for score in scores)) - scores[wanted])
        expected = clip(images, captions).loss + sum(costs) / len(costs)
    assert loss == pytest.approx(float(expected), abs=1e-5)
