"""Captions: a scene told whole in words, and the foil: the same words, told of another scene."""

from __future__ import annotations

from dataclasses import replace

import torch

from minivlm.data.scenes import BACKGROUND_NAMES, CELLS, HELD_OUT, Scene


def caption(scene: Scene, generator: torch.Generator | None = None) -> str:
    """Every object with size, colour, shape and cell, in reading order (with a `generator`: shuffled), and the
    background."""
    objects = list(scene.objects)
    if generator is not None:
        objects = [objects[i] for i in torch.randperm(len(objects), generator=generator)]
    told = " , ".join(f"a {o.describe()} at {CELLS[o.cell]}" for o in objects)
    return f"{told} , on {BACKGROUND_NAMES[scene.background]} ."


def swap_colors(scene: Scene, generator: torch.Generator, split: str = "test") -> Scene | None:
    """The scene with the colours of two of its objects exchanged: the same words tell it, in other places. None if no
    two can be.

    "train" makes only combinations of colour and shape that training shows. Else such a scene could be told from a
    training scene by a combination that no picture ever had.
    """
    objects = list(scene.objects)
    choices = [(i, j) for i, a in enumerate(objects) for j, b in enumerate(objects[:i])
               if a.color != b.color and a.shape != b.shape
               and (split == "test" or not {(b.color, a.shape), (a.color, b.shape)} & HELD_OUT)]  # fmt: skip
    if not choices:
        return None
    i, j = choices[int(torch.randint(len(choices), (), generator=generator))]
    a, b = objects[i], objects[j]
    objects[i], objects[j] = replace(a, color=b.color), replace(b, color=a.color)
    return Scene(tuple(objects), scene.background)


def swap_foil(scene: Scene, generator: torch.Generator) -> str | None:
    """The caption of a scene in which two objects have exchanged colours: same words, another truth. None if none
    can."""
    swapped = swap_colors(scene, generator)
    return caption(swapped) if swapped is not None else None
