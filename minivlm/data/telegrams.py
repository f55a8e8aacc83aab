"""Telegrams: a scene in its fewest words, "red circle , blue square", and quizzes of one word that ask for the other.

The first reading lesson of a decoder. To answer "what color is the circle ?" it must gather what is asked, find that
among the objects and fetch the word beside it; none of the three pays before the others are there, and a small decoder
stays for thousands of steps at naming some colour or other of the scene. Here the word asked with is the last one read
and the answer its neighbour: that is found in hundreds, and full sentences build on it.
"""

from __future__ import annotations

import random
from collections import Counter

import torch

from minivlm.data.scenes import COLOR_NAMES, SHAPE_NAMES, Scene, Scenes


def telegram(scene: Scene) -> str:
    """Colour and shape of every object, in reading order."""
    return " , ".join(o.name for o in scene.objects)


def quiz(scenes: Scenes, generator: torch.Generator, per_scene: int = 12) -> list[list[tuple[str, str]]]:
    """For each scene `per_scene` times a (colour, shape) or (shape, colour) of an object of which it has no other; none
    where all come twice."""
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    asked = []
    for i in range(len(scenes)):
        names = [(COLOR_NAMES[o.color], SHAPE_NAMES[o.shape]) for o in scenes[i].objects]
        times = Counter(word for name in names for word in name)
        pairs = [pair for name in names for pair in (name, name[::-1]) if times[pair[0]] == 1]
        asked.append(chance.choices(pairs, k=per_scene) if pairs else [])
    return asked
