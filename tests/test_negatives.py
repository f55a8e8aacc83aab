"""Hard negatives: the loss written out pair by pair, over all processes; and scenes that foils tell."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import minivlm.contrastive.negatives as negatives
from minivlm.contrastive.clip import softmax_loss
from minivlm.contrastive.negatives import hard_negative_loss
from minivlm.data.captions import caption, swap_colors, swap_foil
from minivlm.data.scenes import HELD_OUT, Object, Scene, sample_scenes

SCALE = torch.tensor(7.0)


def unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, their texts, and a foil of each."""
    return unit(5, seed=1), unit(5, seed=2), unit(5, seed=3)


def test_the_loss_written_out(vectors):
    image, text, foil = (x.tolist() for x in vectors)

    def score(a: list[float], b: list[float]) -> float:
        return math.exp(7.0 * sum(x * y for x, y in zip(a, b, strict=True)))

    cost = 0.0
    for i in range(5):
        own = score(image[i], text[i])
        cost -= math.log(own / sum(score(image[i], other) for other in text + foil)) / 2
        cost -= math.log(own / sum(score(text[i], other) for other in image)) / 2
    assert hard_negative_loss(*vectors, SCALE) == pytest.approx(cost / 5, abs=1e-5)


def test_foils_far_from_every_picture_cost_nothing():
    image, text = F.normalize(unit(5, seed=1).abs(), dim=-1), unit(5, seed=2)
    far = F.normalize(-image.mean(dim=0, keepdim=True), dim=-1).expand(5, -1)
    scale = torch.tensor(60.0)
    assert hard_negative_loss(image, text, far, scale) == pytest.approx(float(softmax_loss(image, text, scale)))


def test_a_picture_is_drawn_to_its_text_and_pushed_from_its_foil(vectors):
    image, text, foil = (x[:1].clone().requires_grad_() for x in vectors)
    hard_negative_loss(image, text, foil, SCALE).backward()
    assert text.grad @ image.T < 0 < foil.grad @ image.T  # learning goes down the gradient


def test_half_a_batch_sees_the_foils_of_all(vectors, monkeypatch):
    """Two processes with a part each give, on average, the loss of the whole batch."""
    parts = [tuple(x[rows] for x in vectors) for rows in (slice(0, 3), slice(3, 5))]
    starts = (0, 3)
    losses = []
    for part, start in zip(parts, starts, strict=True):
        whole = {id(mine): every for mine, every in zip(part, vectors, strict=True)}
        monkeypatch.setattr(negatives, "gathered", lambda mine, whole=whole, start=start: (whole[id(mine)], start))
        losses.append(hard_negative_loss(*part, SCALE) * len(part[0]) / 5)
    monkeypatch.undo()
    assert sum(losses) == pytest.approx(float(hard_negative_loss(*vectors, SCALE)), abs=1e-5)


# --- the scenes that foils tell -------------------------------------------------------------------------------------


def test_two_objects_exchange_their_colours_and_nothing_else():
    chance = torch.Generator().manual_seed(0)
    scene = Scene((Object(0, 0, 0, 0.2, 0.2), Object(1, 2, 2, 0.5, 0.5)), background=3)
    swapped = swap_colors(scene, chance)
    assert swapped == Scene((Object(0, 2, 0, 0.2, 0.2), Object(1, 0, 2, 0.5, 0.5)), background=3)
    assert swap_foil(scene, chance) == caption(swapped)
    for same in (Object(1, 0, 2, 0.5, 0.5), Object(0, 2, 2, 0.5, 0.5)):  # the colour of the first, or its shape
        assert swap_colors(Scene((scene.objects[0], same), 0), chance) is None


def test_a_training_foil_holds_no_combination_that_training_never_shows():
    chance = torch.Generator().manual_seed(0)
    scenes = sample_scenes(400, chance, min_objects=2, max_objects=4)
    made = {split: [swap_colors(scenes[i], chance, split) for i in range(len(scenes))] for split in ("train", "test")}
    novel = {
        split: sum((o.color, o.shape) in HELD_OUT for scene in found if scene for o in scene.objects)
        for split, found in made.items()
    }
    assert novel["train"] == 0 and novel["test"] > 50
    assert sum(scene is not None for scene in made["train"]) > 150
