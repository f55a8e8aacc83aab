"""Naming: what a picture shows, in sentences: emoji by their human name and category, scenes by what stands where."""

from __future__ import annotations

from minivlm.data.emoji import Emoji
from minivlm.data.scenes import Object, Scene

NAME, KIND, PLACE = "What is this?", "What kind of thing is this?", "What stands where?"
KINDS = {  # of the categories of emoji; "Component" (hair without a head) has none that is held out
    "Activities": "game or celebration",
    "Animals & Nature": "animal or plant",
    "Flags": "flag",
    "Food & Drink": "food or drink",
    "Objects": "object",
    "People & Body": "person or body part",
    "Smileys & Emotion": "face or feeling",
    "Symbols": "symbol",
    "Travel & Places": "place or vehicle",
}


def tell_emoji(emoji: Emoji) -> list[tuple[str, str]]:
    """Questions and answers on an emoji of one of the `KINDS`: its name and kind, and its kind alone."""
    name, kind = emoji.name, KINDS[emoji.category]
    return [(NAME, f"This is {_a(name)}, a kind of {kind}."), (KIND, kind_sentence(emoji.category))]


def kind_sentence(category: str) -> str:
    """The answer to `KIND` for a category."""
    return f"It is {_a(KINDS[category])}."


def tell_scene(scene: Scene) -> list[tuple[str, str]]:
    """A question and its answer on the first two objects of a scene, in reading order, or on its only one."""
    first, *others = scene.objects
    told = _a(first.describe())
    return [(PLACE, f"{told.capitalize()} is {_relation(first, others[0])}." if others else f"This is {told}.")]


def _relation(first: Object, second: Object) -> str:
    """Where the first stands, seen from the second: along the axis on which they are further apart."""
    dx, dy = first.x - second.x, first.y - second.y
    side = ("left of" if dx < 0 else "right of") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")
    return f"{side} {_a(second.describe())}"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
