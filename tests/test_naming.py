"""Sentences on pictures: what they say is so."""

from __future__ import annotations

import re

import pytest

from minivlm.data.naming import KIND, KINDS, NAME, PLACE, kind_sentence, tell_emoji, tell_scene
from minivlm.data.scenes import Object, Scene, boxes, sample_scenes
from minivlm.smol import named
from minivlm.streams import generator


def test_an_emoji_is_told_by_its_name_and_its_kind():
    by_name = {one.name: one for one in named("train") + named("test")}
    assert tell_emoji(by_name["snail"]) == [
        (NAME, "This is a snail, a kind of animal or plant."),
        (KIND, "It is an animal or plant."),
    ]
    assert tell_emoji(by_name["avocado"])[0] == (NAME, "This is an avocado, a kind of food or drink.")


def test_every_kind_has_a_sentence_of_its_own():
    sentences = [kind_sentence(category) for category in KINDS]
    assert len(set(sentences)) == len(KINDS) == 9
    assert all(re.fullmatch(r"It is (an [aeiou]|a [^aeiou])[a-z ]+\.", sentence) for sentence in sentences)


@pytest.mark.parametrize(
    ("at", "told"),
    [((0.2, 0.5), "left of"), ((0.9, 0.6), "right of"), ((0.6, 0.1), "above"), ((0.4, 0.9), "below")],
)
def test_the_first_of_two_stands_where_it_is_told(at, told):
    first, second = Object(0, 4, 0, *at), Object(2, 0, 2, 0.5, 0.5)
    answer = f"A small {first.name} is {told} a large {second.name}."
    assert tell_scene(Scene((first, second), 0)) == [(PLACE, answer)]


def test_one_object_alone_is_told_as_it_is():
    only = Object(1, 3, 1, 0.5, 0.5)
    assert tell_scene(Scene((only,), 0)) == [(PLACE, f"This is a {only.describe()}.")]


def test_where_things_stand_is_true_of_what_is_drawn():
    """By the middles of the boxes round their pixels."""
    scenes = sample_scenes(60, generator(0, 0), min_objects=2, max_objects=3)
    drawn = boxes(scenes, 240)
    for number in range(len(scenes)):
        first, second = (((box[:2] + box[2:]) / 2).tolist() for box in drawn[number, :2])
        dx, dy = first[0] - second[0], first[1] - second[1]
        told = re.search("left|right|above|below", tell_scene(scenes[number])[0][1])[0]
        if abs(abs(dx) - abs(dy)) > 8:  # else pixels do not tell which is more
            true = {"left": dx < -abs(dy), "right": dx > abs(dy), "above": dy < -abs(dx), "below": dy > abs(dx)}
            assert true[told], number
