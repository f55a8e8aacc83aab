"""Spelling: the words are those that stand at each place, the loss is what it says, and only the connector learns."""

from __future__ import annotations

import math

import pytest
import torch

from minivlm.data.documents import INKS
from minivlm.data.typesetting import sample_pages
from minivlm.designs import build
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.pages import PageBank
from minivlm.spelling import BLANK, LENGTH, RARE, SHARPNESS, PagePlaces, Spelling, place_words
from minivlm.train import Stage, train

TOKENIZER = mini_tokenizer()


def standing(page, places: int) -> dict[tuple[int, int], list[tuple[str, str]]]:
    """Glyph and ink of each quarter of each place, by looking at every glyph of the page; of two in a quarter the later
    one. The needle's ink is "needle"."""
    side, quarters = 128 // places // 2, {}
    for part in page.printed:
        for letter, (_, _, x, y) in zip(part.text, list(part.pastes())[-len(part.text) :], strict=True):
            quarters[y // side, x // side] = (letter.lower(), "needle" if part is page.needle else part.ink)
    found = {}
    for (row, col), what in quarters.items():
        found.setdefault((row // 2, col // 2), []).append(what)
    return found


def test_the_words_are_those_that_stand_at_each_place_of_each_view():
    pages = sample_pages(60, torch.Generator().manual_seed(1))
    words, shared = place_words(pages, ((8, 8), (16, 16)), TOKENIZER), 0
    assert words.shape == (60, 64 + 256, 10)
    spelled = {TOKENIZER.encode(letter)[-1]: letter for letter in "io"}  # no words of their own
    for page, rows in zip(pages, words.tolist(), strict=True):
        for side, places in ((8, rows[:64]), (16, rows[64:])):
            found = standing(page, side)
            for place, ids in enumerate(places):
                what = found.get(divmod(place, side), [])
                needle = [letter for letter, ink in what if ink == "needle"]
                wanted = [letter for letter, _ in what] + [ink for _, ink in what if ink in INKS] or [page.paper]
                wanted = ["small", *needle] if needle else wanted
                shared += bool(needle) and len(what) > 1
                assert sorted(spelled.get(i) or TOKENIZER.decode([i]) for i in ids if i) == sorted(wanted)
    assert shared > 1  # needles with something else at their place


def test_batches_say_how_much_each_word_and_each_place_counts():
    pages = sample_pages(5, torch.Generator().manual_seed(1))
    model = build("deepseek_vl", device="cpu")
    bank = PageBank(pages, torch.randn(5, 1, 64, 128))
    source = PagePlaces.make(model, TOKENIZER, bank, batch_size=4)
    features, words, share, weight = source(0, range(4)).inputs
    small = TOKENIZER.encode("small")[0]
    for sample in range(4):
        [number] = (bank.features[:, 0] == features[sample]).all(dim=(1, 2)).nonzero().flatten().tolist()
        for place in range(64):
            said, there = words[sample, place], words[sample, place] != 0
            assert (
                torch.allclose(share[sample, place][there], 1 / there.sum()) and not share[sample, place][~there].any()
            )
            blank = there.sum() == 1 and TOKENIZER.decode(said[there].tolist()) == pages[number].paper
            wanted = RARE if small in said else BLANK if blank else 1.0
            assert math.isclose(float(weight[sample, place]), wanted, rel_tol=1e-6)
    assert torch.equal(source(0, range(1, 3)).inputs[1], words[1:3])


def test_the_loss_is_a_weighted_cross_entropy_over_cosines():
    model = build("deepseek_vl", device="cpu")
    spelling = Spelling(model)
    features = torch.randn(2, 3, 128)
    words = torch.randint(4, 500, (2, 3, 2))
    share, weight = torch.rand(2, 3, 2), torch.rand(2, 3)
    tokens, embeddings = model.connector(features), model.language.embedding.weight
    length = embeddings.norm(dim=1).mean()
    missed, off = 0.0, 0.0
    for p in range(2):
        for n in range(3):
            token = tokens[p, n]
            cosines = torch.stack([token @ e / (token.norm() * e.norm()) for e in embeddings])
            chances = (SHARPNESS * cosines).exp() / (SHARPNESS * cosines).exp().sum()
            missed -= weight[p, n] * sum(share[p, n, w] * chances[words[p, n, w]].log() for w in range(2))
            off += (token.norm() - length) ** 2 / 6
    assert torch.allclose(
        spelling(features, words, share, weight).loss, missed / weight.sum() + LENGTH * off, atol=1e-4
    )


def test_only_the_connector_learns():
    torch.manual_seed(0)
    model = build("deepseek_vl", device="cpu")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    bank = PageBank(sample_pages(8, torch.Generator().manual_seed(1)), torch.randn(8, 1, 64, 128))
    source = PagePlaces.make(model, TOKENIZER, bank, batch_size=8)
    record = train(Spelling(model), [Stage("spell", source, 12, lr=3e-3)], quiet=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith("connector"), key
    assert record[-1]["loss"] < record[0]["loss"] - 0.3


def test_what_keeps_no_places_is_refused():
    with pytest.raises(ValueError, match="Perceiver keeps no places"):
        Spelling(build("idefics2", device="cpu"))
