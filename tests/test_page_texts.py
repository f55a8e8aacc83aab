"""What a decoder reads about pages: true of the page, whole, and nothing in it that is not asked."""

from __future__ import annotations

import random

import torch

from minivlm.data.documents import INKS, PAPERS
from minivlm.data.page_texts import FEWEST, MOST, sample_pairs, tell_page
from minivlm.data.reading import ask_pages, page_bank
from minivlm.data.typesetting import KEYS, sample_pages
from minivlm.designs import build
from minivlm.evaluate import evaluate
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.pages import PagePairs, PageTexts
from minivlm.pretrained.keys import load_exactly
from minivlm.storage import bundled, warm_start

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def look_up(told: str, question: str) -> str:
    """The answer that somebody gives who has only the text."""
    parts = [part.split() for part in told.removesuffix(" .").split(" . ")]
    lines = [part[1:] for part in parts if part[0] == "line"]
    rest = {part[0]: part[1:] for part in parts if part[0] != "line"}
    words = question.split()
    if words[:2] == ["read", "the"] and words[3] == "line":
        [line] = [lines[ORDINALS.index(words[2])]] if words[2] in ORDINALS else [x for x in lines if x[0] == words[2]]
        return " ".join(line[1:])
    if words[:3] == ["read", "the", "stamp"]:
        return " ".join(rest["stamp"][1:])
    if words[:2] == ["what", "color"]:
        return rest[words[4]][0]
    return " ".join(rest["small" if words[3] == "small" else words[3]])


def test_whoever_reads_the_text_can_answer_every_question_on_the_page():
    pages = sample_pages(100, torch.Generator().manual_seed(1))
    asked = ask_pages(pages, torch.Generator().manual_seed(2), per_page=20)
    chance, count = random.Random(3), 0
    for page, questions in zip(pages, asked, strict=True):
        told = tell_page(page, chance)
        for question in questions:
            assert look_up(told, question.text) == question.answer, (told, question)
            count += 1
    assert count > 500


def test_lines_stay_in_order_and_the_rest_stands_anywhere():
    pages = sample_pages(200, torch.Generator().manual_seed(1))
    chance, places = random.Random(3), set()
    for page in pages:
        parts = tell_page(page, chance).removesuffix(" .").split(" . ")
        assert [part.split()[1] for part in parts if part.startswith("line")] == [line.ink for line in page.lines]
        assert len(parts) == len(page.lines) + len(page.table) + 3
        places.add(parts.index(f"small {page.needle.text}") / (len(parts) - 1))
    assert {0.0, 1.0} <= places and len(places) > 8


def test_pairs_have_each_name_once_and_values_that_fit():
    names, sizes = set(), set()
    for pairs in sample_pairs(300, random.Random(1)):
        sizes.add(len(pairs))
        assert len(dict(pairs)) == len(pairs)
        for name, value in pairs:
            names.add(name)
            assert value in PAPERS if name == "paper" else len(value) == 1 and (value.isdigit() or name in INKS)
    assert sizes == set(range(FEWEST, MOST + 1)) and names == {"small", "stamp", "paper", *KEYS, *INKS}


def test_streams_read_the_text_and_learn_the_answers_whatever_part_is_wanted():
    tokenizer = mini_tokenizer()
    for stream in (PagePairs(tokenizer, 6, seed=1), PageTexts(tokenizer, 6, seed=1)):
        [whole], [part] = (stream(3, rows).inputs for rows in (range(6), range(2, 4)))
        width = part.input_ids.shape[1]
        assert torch.equal(whole.input_ids[2:4, :width], part.input_ids) and whole.visual is None
        for ids, labels, segments in zip(whole.input_ids, whole.labels, whole.segments, strict=True):
            assert (labels[segments == 0] < 0).all()
            said = tokenizer.decode(ids[segments == 0].tolist()).split()
            answers = [tokenizer.decode([i]) for i in labels[labels >= 0].tolist()]
            assert set(answers) - {""} <= set(said)
        assert not torch.equal(stream(4, range(6)).inputs[0].input_ids[:, :9], whole.input_ids[:, :9])


def test_the_decoder_that_has_read_about_pages_finds_in_them_what_the_other_does_not():
    pages, questions = page_bank(per_task=60)
    chance = random.Random(5)
    texts = [tell_page(page, chance) for page in pages]
    model = warm_start(build("deepseek_vl", device="cpu"))
    before = evaluate(model, mini_tokenizer(), questions, None, told=texts)
    load_exactly(model.language, bundled("decoder_pages", "cpu").state_dict())
    after = evaluate(model, mini_tokenizer(), questions, None, told=texts)
    assert after["NEEDLE"].accuracy > 0.9 and after["COARSE"].accuracy > 0.9 and after["KEY"].accuracy > 0.5
    assert before["NEEDLE"].accuracy < 0.3
