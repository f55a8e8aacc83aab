"""Reading: questions on pages with one answer each, which no guess gets, and where on the page it is read.

Texts, digits, inks and papers are drawn alike, each for itself, so that nothing in a question tells its answer. COARSE
needs no reading, and NEEDLE cannot be read on a page of half the size.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from minivlm.data.boxes import WHOLE, Box
from minivlm.data.documents import INKS, PAPERS, Line, Page, Stamp
from minivlm.data.tasks import ORDINALS
from minivlm.data.typesetting import ALPHABET, DIGITS, HELD_OUT, held_out, sample_pages


@dataclass(frozen=True)
class PageQuestion:
    """A question whose answer is one word, or a text's glyphs with spaces between.

    box  round what it is about
    chance  of guessing the answer, where its length is known
    novel  its answer is a text that training never shows
    """

    task: str
    text: str
    answer: str
    box: Box
    chance: float
    novel: bool


def _read(page: Page, task: str, question: str, part: Line | Stamp, alphabet: str) -> PageQuestion:
    """The question whose answer is the text of a part."""
    novel = held_out(part.text)
    texts = len(alphabet) ** len(part.text) * (HELD_OUT if novel else 1 - HELD_OUT)
    return PageQuestion(task, question, " ".join(part.text.lower()), page.share(part.box), 1 / texts, novel)


def _ocr(page: Page, chance: random.Random) -> PageQuestion | None:
    """Of a line, told by its place or by an ink that no other line has; or of the stamp."""
    told_by = chance.choice(("place", "ink", "stamp"))
    if told_by == "stamp":
        return _read(page, "OCR", "read the stamp .", page.stamp, ALPHABET)
    times = Counter(line.ink for line in page.lines)
    lines = {line.ink: line for line in page.lines if times[line.ink] == 1}
    if told_by == "place":
        lines = dict(zip(ORDINALS, page.lines, strict=False))
    if not lines:
        return None
    name, line = chance.choice(list(lines.items()))
    return _read(page, "OCR", f"read the {name} line .", line, ALPHABET)


def _key(page: Page, chance: random.Random) -> PageQuestion | None:
    if not page.table:
        return None
    key, value = chance.choice(page.table)
    return _read(page, "KEY", f"what is the {key.text.lower()} ?", value, DIGITS)


def _needle(page: Page, chance: random.Random) -> PageQuestion:
    box, chances = page.share(page.needle.box), 1 / len(DIGITS)
    return PageQuestion("NEEDLE", "what is the small digit ?", page.needle.text, box, chances, False)


def _coarse(page: Page, chance: random.Random) -> PageQuestion:
    if chance.random() < 0.5:
        return PageQuestion("COARSE", "what color is the paper ?", page.paper, WHOLE, 1 / len(PAPERS), False)
    box = page.share(page.stamp.box)
    return PageQuestion("COARSE", "what color is the stamp ?", page.stamp.ink, box, 1 / len(INKS), False)


_MAKERS: dict[str, Callable[[Page, random.Random], PageQuestion | None]] = {
    "OCR": _ocr, "NEEDLE": _needle, "KEY": _key, "COARSE": _coarse,
}  # fmt: skip
PAGE_TASKS = tuple(_MAKERS)
_WEIGHTS = {"OCR": 1.5, "KEY": 2.0}  # proposed so much more often, because they apply so much less


def ask_pages(
    pages: Sequence[Page], generator: torch.Generator, tasks: Sequence[str] = PAGE_TASKS, per_page: int = 8
) -> list[list[PageQuestion]]:
    """For each page up to `per_page` different questions: that many proposals of random tasks, of which some do not
    apply and some come twice. ValueError for an unknown task."""
    unknown = set(tasks) - set(PAGE_TASKS)
    if unknown or not tasks:
        raise ValueError(f"unknown tasks {sorted(unknown)}; choose some of {', '.join(PAGE_TASKS)}")
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    weights = [_WEIGHTS.get(task, 1.0) for task in tasks]
    asked = []
    for page in pages:
        proposals = (_MAKERS[task](page, chance) for task in chance.choices(tasks, weights, k=per_page))
        asked.append(list(dict.fromkeys(question for question in proposals if question is not None)))
    return asked


def page_bank(
    tasks: Sequence[str] = PAGE_TASKS,
    per_task: int = 500,
    seed: int = 0,
    split: str = "test",
    size: tuple[int, int] = (128, 128),
) -> tuple[list[Page], list[list[PageQuestion]]]:
    """`per_task` fixed pages with, for each task, 0.9 to 1.6 times as many questions on them; always the same."""
    generator = torch.Generator().manual_seed(95_000_000 + seed)
    pages = sample_pages(per_task, generator, size, split)
    return pages, ask_pages(pages, generator, tasks, per_page=3 * len(tasks))
