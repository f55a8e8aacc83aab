"""The small tokenizer: nothing is lost, whatever the text."""

from __future__ import annotations

import pytest

from minivlm import mini
from minivlm.data.tasks import vocabulary
from minivlm.language.tokenizer import SPECIALS, Tokenizer, mini_tokenizer

TOKENIZER = Tokenizer("what colour is the circle red ? .".split())


@pytest.mark.parametrize(
    "text",
    [
        "what colour is the circle ?",
        "the zebra is red .",
        "zebra zebra",
        "café 北京 🦓 is red",
        "<0x41> is the circle",  # spelled like the name of a byte, but a word all the same
        "",
    ],
)
def test_roundtrip(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_case_spaces_and_punctuation_are_evened_out():
    assert TOKENIZER.encode("  What COLOUR is\nthe circle?") == TOKENIZER.encode("what colour is the circle ?")


def test_known_words_take_one_id_and_unknown_ones_their_bytes():
    assert len(TOKENIZER.encode("the circle")) == 2
    assert TOKENIZER.encode("né") == [len(SPECIALS) + byte for byte in " né".encode()]


def test_only_the_picture_has_a_mark_in_texts():
    assert TOKENIZER.encode("<image> the") == [Tokenizer.image_id, *TOKENIZER.encode("the")]
    ids = TOKENIZER.encode("the <eos> <pad> <bos> circle")
    assert not {Tokenizer.eos_id, Tokenizer.pad_id, Tokenizer.bos_id} & set(ids)


def test_specials_are_left_out_of_texts():
    ids = [Tokenizer.bos_id, Tokenizer.image_id, *TOKENIZER.encode("red zebra"), Tokenizer.eos_id, Tokenizer.pad_id]
    assert TOKENIZER.decode(ids) == "red zebra"


def test_bytes_that_are_no_text_do_not_stop_decoding():
    assert TOKENIZER.decode([len(SPECIALS) + 0xFF, *TOKENIZER.encode("red")]) == "\ufffd red"


@pytest.mark.parametrize("wrong", [-1, len(TOKENIZER)])
def test_ids_outside_the_vocabulary_are_refused(wrong):
    with pytest.raises(ValueError, match=f"id {wrong} is outside the vocabulary of {len(TOKENIZER)}"):
        TOKENIZER.decode([wrong])


def test_a_word_listed_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Tokenizer(["red", "blue", "red"])


def test_texts_are_cut_or_padded_to_the_context():
    red, the = TOKENIZER.encode("red the")
    padded = TOKENIZER.pad(["red", "red the the the"], context=5)
    assert padded.tolist() == [
        [Tokenizer.bos_id, red, Tokenizer.eos_id, Tokenizer.pad_id, Tokenizer.pad_id],
        [Tokenizer.bos_id, red, the, the, Tokenizer.eos_id],
    ]


# --- the vocabulary of the mini models ------------------------------------------------------------------------------


def test_mini_vocabulary_covers_the_tasks_and_fits_the_models():
    tokenizer = mini_tokenizer()
    missing = [word for word in vocabulary() if word not in tokenizer.ids]
    assert not missing
    assert len(tokenizer) <= mini.VOCABULARY


def test_every_listed_word_can_be_reached():
    tokenizer = mini_tokenizer()
    listed = tokenizer.words[len(SPECIALS) + 256 :]
    assert not [word for word in listed if tokenizer.encode(word) != [tokenizer.ids[word]]]
