"""The small tokenizer: nothing is lost, whatever the text."""

from __future__ import annotations

import pytest

from minivlm import mini
from minivlm.data.tasks import vocabulary
from minivlm.language.grounding import cell_word, ground, grounded
from minivlm.language.tokenizer import ROOM, SPECIALS, GroundedTokenizer, Tokenizer, grounded_tokenizer, mini_tokenizer

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


# --- words for places -----------------------------------------------------------------------------------------------


def test_places_stand_behind_all_words_and_change_no_other_id():
    plain, placed = mini_tokenizer(), grounded_tokenizer(4)
    text = "where is the zebra ?"
    assert placed.encode(text) == plain.encode(text) and placed.words[: len(plain)] == plain.words
    assert placed.encode(cell_word(0)) == [ROOM + 5] and len(placed) == ROOM + 5 + 16
    assert placed.encode(cell_word(15)) == [len(placed) - 1]
    assert len(placed.encode(cell_word(16))) > 1  # no such place: spelled


def test_grounded_text_needs_no_spaces_and_comes_back():
    placed = grounded_tokenizer(4)
    boxes = [(0.1, 0.1, 0.3, 0.6), (0.0, 0.0, 1.0, 1.0)]
    text = f"there are {ground('two red circles', boxes, 4)} , and {ground('a star', boxes[:1], 4)} ."
    ids = placed.encode(text)
    assert placed.encode(text.replace("<", " <").replace(">", "> ")) == ids
    assert min(ids) > placed.image_id and len(ids) == 25
    assert placed.decode(ids) == text and grounded(placed.decode(ids), 4) == grounded(text, 4)


def test_too_many_words_for_the_room_are_refused():
    with pytest.raises(ValueError, match="need at most 252 words and a side of 1 to 100, got 253 and 4"):
        GroundedTokenizer([str(n) for n in range(253)], 4)
    words = len(mini_tokenizer().words) - len(Tokenizer([]).words)
    for side in (0, 101):
        with pytest.raises(ValueError, match=f"got {words} and {side}"):
            grounded_tokenizer(side)
