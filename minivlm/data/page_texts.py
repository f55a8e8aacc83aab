"""Pages told in words, and pairs of words as such texts have them: what a decoder reads before it sees a page.

A decoder that has only read about scenes cannot look up "small" in any page: even where each place of a page is handed
to it as the very words that stand there, it stays at guessing for thousands of steps. As with telegrams, pairs come
first, of which one word asks for the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from minivlm.data.documents import INKS, PAPERS, Page
from minivlm.data.typesetting import ALPHABET, DIGITS, KEYS

NEEDLE = "small"  # the word that asks for the needle
FEWEST, MOST = 3, 6  # pairs in a text


def tell_page(page: Page, chance: random.Random) -> str:
    """All that is asked about a page: its lines or the rows of its table in their order, and paper, stamp and needle
    anywhere among them."""
    parts = [f"line {line.ink} {_spelled(line.text)}" for line in page.lines]
    parts += [f"{key.text.lower()} {_spelled(value.text)}" for key, value in page.table]
    stamp = f"stamp {page.stamp.ink} {_spelled(page.stamp.text)}"
    for part in (f"paper {page.paper}", stamp, f"{NEEDLE} {page.needle.text}"):
        parts.insert(chance.randint(0, len(parts)), part)
    return " . ".join(parts) + " ."


def _spelled(text: str) -> str:
    return " ".join(text.lower())


def sample_pairs(n: int, chance: random.Random) -> list[list[tuple[str, str]]]:
    """`n` lists of a few (name, value), no name twice: a needle, a paper, keys, inks with the glyph that follows."""
    values = dict.fromkeys((NEEDLE, "stamp", *KEYS), tuple(DIGITS)) | {"paper": tuple(PAPERS)}
    values |= dict.fromkeys(INKS, tuple(ALPHABET.lower()))
    return [list(_pairs(values, chance)) for _ in range(n)]


def _pairs(values: dict[str, tuple[str, ...]], chance: random.Random) -> Iterator[tuple[str, str]]:
    for name in chance.sample(tuple(values), chance.randint(FEWEST, MOST)):
        yield name, chance.choice(values[name])
