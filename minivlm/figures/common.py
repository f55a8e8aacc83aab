"""What all figures share: colours that colour-blind readers can tell apart, and a picture never without its words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from minivlm.batch import Batch
from minivlm.model import Output

# Okabe & Ito's eight colours (2008)
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#000000",
}


def colours(names: Collection[str]) -> list[str]:
    """A colour of the palette for each name; ValueError for more names than there are colours to tell apart."""
    if not 0 < len(names) <= len(PALETTE):
        raise ValueError(f"a figure tells 1 to {len(PALETTE)} things apart by colour, got {len(names)}: draw several")
    return list(PALETTE.values())[: len(names)]


def wrapped(text: str, width: int) -> str:
    """Text in lines, none of which begins with the comma or question mark that a tokenizer has set apart."""
    return textwrap.fill(re.sub(r" ([,.?])", "\N{NO-BREAK SPACE}\\1", text), width, break_on_hyphens=False)


def words_at(
    batch: Batch, output: Output, decode: Callable[[list[int]], str], sample: int, places: Iterable[int]
) -> list[str]:
    """The words at some places of a sample's sequence; "·" for a begin or end mark, which has no text."""
    index = output.layout.index[sample].tolist()
    return [decode([int(batch.input_ids[sample, index[place]])]) or "·" for place in places]


def told_apart(words: Sequence[str]) -> list[str]:
    """Words, numbered where they come again."""
    return [f"{word} ({words[:i].count(word) + 1})" if word in words[:i] else word for i, word in enumerate(words)]


def in_lines(text: str) -> str:
    """Text in lines that are read without scrolling, none of which ends within a word, as those of a page would."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def show(figure: Figure, alt: str) -> None:
    """Display `figure`, then print its description in lines; ValueError for an empty one. The figure is closed."""
    if not alt.strip():
        raise ValueError("a picture needs its description in words: pass alt=...")
    from IPython.display import display

    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)
    print(in_lines(alt))
