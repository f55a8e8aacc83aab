"""Questions on a bank of pages: a step is the same whoever asks, and its features are those of the pages it asks of."""

from __future__ import annotations

import tiny
import torch
from pages import draw
from references import assert_same

from minivlm.data.documents import render_pages
from minivlm.data.reading import ask_pages
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.pages import PageBank, PageDialogs, squashed
from minivlm.streams import generator

T = mini_tokenizer()
PAGES = draw(9, 3)


def bank() -> PageBank:
    return PageBank.make(tiny.vlm(), PAGES, batch_size=4)


def test_a_bank_holds_what_the_encoder_makes_of_each_page_in_its_own_size():
    model, made = tiny.vlm(), bank()
    size = model.config.vision.image_size
    for page, features in zip(PAGES, made.features, strict=True):
        picture = torch.nn.functional.interpolate(render_pages([page]), size, mode="bicubic", antialias=True)
        assert_same(features, model.features(picture.clamp(0, 1)[None])[0])
    assert squashed(render_pages(PAGES[:1]), size).shape == (1, 3, *size)


def test_every_question_is_on_its_own_page():
    made, step = bank(), 4
    stream = PageDialogs(T, made, 5, per_page=6, seed=2)
    [batch] = stream(step, range(5)).inputs
    chance = generator(2, step)
    chosen = torch.randint(9, (5,), generator=chance)
    asked = ask_pages([PAGES[i] for i in chosen], chance, per_page=6)
    assert torch.equal(batch.features, made.features[chosen])
    for row, mask, questions in zip(batch.input_ids, batch.text_mask, asked, strict=True):
        words = T.decode(row[mask].tolist())
        assert words.split() == " ".join(f"{q.text} {q.answer}" for q in questions).split()


def test_half_of_the_rows_and_no_pictures():
    made = bank()
    stream = PageDialogs(T, made, 6, ("NEEDLE", "COARSE"), seed=1)
    [whole], step = stream(0, range(6)).inputs, stream(0, range(2, 4))
    [part] = step.inputs
    assert torch.equal(part.features, whole.features[2:4]) and step.weight == int((part.labels >= 0).sum())
    assert [r[m].tolist() for r, m in zip(part.input_ids, part.text_mask, strict=True)] == [
        r[m].tolist() for r, m in zip(whole.input_ids[2:4], whole.text_mask[2:4], strict=True)
    ]
    [blind] = PageDialogs(T, made, 6, ("NEEDLE", "COARSE"), blind=True, seed=1)(0, range(6)).inputs
    assert blind.visual is None
    shown = [
        row[mask][row[mask] != T.image_id].tolist() for row, mask in zip(whole.input_ids, whole.text_mask, strict=True)
    ]
    assert shown == [row[mask].tolist() for row, mask in zip(blind.input_ids, blind.text_mask, strict=True)]
