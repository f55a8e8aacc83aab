"""Questions on pages: every answer is true and where its box says, none can be guessed, and all words are known."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from functools import cache

import pytest
import torch
from pages import draw, read, unevenness

from minivlm.data.documents import INKS, PAPERS, Line, Page, Stamp, render_pages
from minivlm.data.reading import PAGE_TASKS, PageQuestion, ask_pages, page_bank
from minivlm.data.typesetting import ALPHABET, KEYS, held_out
from minivlm.evaluate import Question
from minivlm.language.tokenizer import mini_tokenizer

PLACES = "first second third fourth fifth sixth".split()
SPLITS = ("train", "test")


@cache
def asked(split: str, n: int = 1500) -> tuple[list[Page], list[list[PageQuestion]]]:
    pages = draw(n, 11, split=split)
    return pages, ask_pages(pages, torch.Generator().manual_seed(12), per_page=12)


def named(question: PageQuestion, page: Page) -> Line | Stamp | None:
    """The part that a question is about, from nothing but its words and the page; None for the paper."""
    words = question.text.split()
    if "paper" in words:
        return None
    if "stamp" in words:
        return page.stamp
    if "digit" in words:
        return page.needle
    if words[-2] == "line":
        found = [line for line, place in zip(page.lines, PLACES, strict=False) if words[2] in (place, line.ink)]
    else:
        found = [value for key, value in page.table if key.text == words[-2].upper()]
    assert len(found) == 1, "the question does not single out one part"
    return found[0]


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_true_and_its_box_is_round_what_it_is_about(split):
    for page, row in zip(*asked(split), strict=True):
        for q in row:
            part = named(q, page)
            if q.task == "COARSE":
                assert q.answer == (page.paper if part is None else part.ink)
            else:
                assert q.answer.replace(" ", "") == part.text.lower() and len(q.answer) == 2 * len(part.text) - 1
            left, top, right, bottom = (0, 0, 128, 128) if part is None else part.box
            assert q.box == (left / 128, top / 128, right / 128, bottom / 128)


def test_boxes_are_shares_of_the_width_and_of_the_height():
    pages = draw(40, 3, (72, 216))
    for page, row in zip(pages, ask_pages(pages, torch.Generator()), strict=True):
        for q in row:
            left, top, right, bottom = named(q, page).box if "paper" not in q.text else (0, 0, 216, 72)
            assert q.box == (left / 216, top / 72, right / 216, bottom / 72)


def test_the_answer_is_read_in_the_box():
    """What lies outside is painted over with paper."""
    pages = draw(30, 5)
    rows = ask_pages(pages, torch.Generator(), ("OCR", "KEY"))
    for page, picture, row in zip(pages, render_pages(pages), rows, strict=True):
        for q in row:
            if "stamp" in q.text:
                continue
            left, top, right, bottom = (round(128 * edge) for edge in q.box)
            seen = torch.tensor(PAPERS[page.paper])[:, None, None].repeat(1, 128, 128)
            seen[:, top:bottom, left:right] = picture[:, top:bottom, left:right]
            assert read(seen, page, named(q, page), ALPHABET).lower() == q.answer.replace(" ", "")


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_test_asks_for_texts_that_are_new(split):
    for page, row in zip(*asked(split), strict=True):
        for q in row:
            is_text = q.task in ("OCR", "KEY")
            assert q.novel == (is_text and split == "test") == (is_text and held_out(named(q, page).text))


@pytest.mark.parametrize("split", SPLITS)
def test_the_chance_is_one_in_all_texts_of_the_split(split):
    share = {"train": 0.8, "test": 0.2}[split]
    for row in asked(split)[1]:
        for q in row:
            n = len(q.answer.split())
            many = {"OCR": share * 34**n, "KEY": share * 10**n, "NEEDLE": 10, "COARSE": 6}[q.task]
            assert q.chance == pytest.approx(1 / many)


@pytest.mark.parametrize("split", SPLITS)
def test_no_answer_is_likelier_whatever_the_words(split):
    """Chi-square for each wording: of digits and colours, and of glyphs where the answers are too many."""
    answers = defaultdict(list)
    for row in asked(split)[1]:
        for q in row:
            wording = " ".join("_" if word in (*PLACES, *INKS) else word for word in q.text.split())
            answers[q.task, wording] += [q.answer] if q.task != "OCR" else q.answer.split()
    several = {"NEEDLE": 10, "COARSE": 6, "OCR": 34}
    for (task, wording), given in answers.items():
        if task in several:
            assert unevenness(given, several[task]) < 4, wording
    assert len(answers) == 1 + 2 + 2 + len(KEYS)


@pytest.mark.parametrize("split, values", [("train", 800), ("test", 200)])
def test_no_value_is_likelier_in_a_table(split, values):
    given = [value.text for page in asked(split)[0] for _, value in page.table]
    of_split = [v for v in map("{:03}".format, range(1000)) if held_out(v) == (split == "test")]
    assert len(of_split) == pytest.approx(values, abs=30) and set(given) <= set(of_split)
    assert unevenness(given, len(of_split)) < 4


def test_neither_the_length_of_a_text_nor_its_place_tells_a_glyph():
    pages, _ = asked("train")
    for n in (3, 4, 5, 6):
        for place in (0, n - 1):
            assert unevenness([line.text[place] for p in pages for line in p.lines if len(line.text) == n], 34) < 4
    for rank in range(2):
        assert unevenness([page.lines[rank].text[0] for page in pages if page.lines], 34) < 4


def test_every_word_is_one_id():
    tokenizer = mini_tokenizer()
    for split in SPLITS:
        for row in asked(split)[1]:
            for q in row:
                for text in (q.text, q.answer):
                    assert len(tokenizer.encode(text)) == len(text.split()) and text == text.lower()
                    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert all(len(tokenizer.encode(key)) == 1 for key in KEYS)


def test_evaluation_reads_all_that_it_needs():
    questions = [q for row in asked("test")[1] for q in row]
    assert all(isinstance(q, Question) for q in questions[:50])
    assert {q.task for q in questions} == set(PAGE_TASKS)


def test_a_page_is_asked_nothing_twice_and_each_task_about_as_often():
    for split in SPLITS:
        rows = asked(split)[1]
        assert all(len(set(row)) == len(row) <= 12 for row in rows)
        sizes = Counter(q.task for row in rows for q in row)
        assert max(sizes.values()) < 2 * min(sizes.values())


def test_same_seed_same_questions():
    pages = draw(30)
    once, again, other = (ask_pages(pages, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert {q.task for row in ask_pages(pages, torch.Generator(), ("KEY",)) for q in row} == {"KEY"}


def test_unknown_tasks_are_refused():
    for tasks in (("READ",), ()):
        with pytest.raises(ValueError, match="choose some of OCR, NEEDLE, KEY, COARSE"):
            ask_pages(draw(1), torch.Generator(), tasks)


def fingerprint(bank: tuple[list[Page], list[list[PageQuestion]]]) -> str:
    return hashlib.sha256(repr(bank).encode()).hexdigest()


def test_the_bank_is_fixed():
    pages, questions = page_bank(per_task=50)
    assert len(pages) == len(questions) == 50 and {q.task for row in questions for q in row} == set(PAGE_TASKS)
    assert {q.novel for row in questions for q in row if q.task in ("OCR", "KEY")} == {True}
    assert {page.size for page in page_bank(per_task=5, size=(72, 216))[0]} == {(72, 216)}
    assert fingerprint((pages, questions)) != fingerprint(page_bank(per_task=50, seed=1))
    assert fingerprint((pages, questions)) != fingerprint(page_bank(per_task=50, split="train"))
    assert fingerprint((pages, questions)) == "0af595df3a98bebd283bb27944434bd00f9a0fe8c8ed0a099a17323b6855539e"
