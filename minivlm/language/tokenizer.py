"""A tokenizer small enough to read: one id a known word, one id a byte for everything else.

The mini models share one vocabulary (`words.txt`), fixed so that their weights keep their meaning. Text is lower-cased
and split at spaces; a word that is not listed is spelled in UTF-8 bytes behind a space byte, so nothing is ever lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Int
from torch import Tensor

from minivlm.language.grounding import MARKS, cell_word

SPECIALS = ("<pad>", "<bos>", "<eos>", "<image>")
ROOM = 512  # ids that the mini models keep for ordinary words
_PUNCTUATION = str.maketrans({mark: f" {mark} " for mark in "?.,:;!"})


class Tokenizer:
    """Words to ids and back. Ids 0-3 are `SPECIALS`, the next 256 are bytes, then come the words."""

    pad_id, bos_id, eos_id, image_id = range(4)

    def __init__(self, words: Sequence[str]):
        if len(set(words)) != len(words):
            raise ValueError("the word list names a word twice")
        self.words = [*SPECIALS, *(f"<0x{byte:02x}>" for byte in range(256)), *words]
        self.ids = {word: i for i, word in enumerate(self.words) if i == self.image_id or i >= self.first_word}

    _first_byte, first_word = len(SPECIALS), len(SPECIALS) + 256

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without begin or end marks. "<image>" in the text becomes the picture's placeholder."""
        ids = []
        for word in self.split(text):
            known = self.ids.get(word)
            ids += [known] if known is not None else self._spell(word)
        return ids

    @staticmethod
    def split(text: str) -> list[str]:
        """The words of a text, each of which is one id or spelled."""
        return text.lower().translate(_PUNCTUATION).split()

    def _spell(self, word: str) -> list[int]:
        return [self._first_byte + byte for byte in f" {word}".encode()]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, specials left out; words and spelled words are separated by one space."""
        text = b""
        for i in map(int, ids):
            if not 0 <= i < len(self.words):
                raise ValueError(f"id {i} is outside the vocabulary of {len(self.words)}")
            if i >= self.first_word:
                text += b" " + self.words[i].encode()
            elif i >= self._first_byte:
                text += bytes([i - self._first_byte])
        return text.decode(errors="replace").strip()

    def pad(self, texts: Sequence[str], context: int) -> Int[Tensor, "B context"]:
        """Texts for a two-tower model: begin, words, end, cut or padded to `context` ids."""
        rows = [[self.bos_id, *self.encode(text)[: context - 2], self.eos_id] for text in texts]
        return torch.tensor([row + [self.pad_id] * (context - len(row)) for row in rows])


class GroundedTokenizer(Tokenizer):
    """A tokenizer that knows places too: behind `ROOM` ids for ordinary words stand the marks of grounded text and a
    word for each of `side` x `side` cells. Text is written and read as `language.grounding` has it."""

    def __init__(self, words: Sequence[str], side: int):
        most = ROOM - self.first_word
        if len(words) > most or not 1 <= side <= 100:  # a cell's word has four digits
            raise ValueError(f"need at most {most} words and a side of 1 to 100, got {len(words)} and {side}")
        unused = (f"<unused_{i}>" for i in range(most - len(words)))
        super().__init__([*words, *unused, *MARKS, *map(cell_word, range(side * side))])
        self.side = side

    def encode(self, text: str) -> list[int]:
        """As a `Tokenizer`; marks and places need no spaces around them."""
        return super().encode(_TAG.sub(r" \g<0> ", text))

    def decode(self, ids: Iterable[int]) -> str:
        """As a `Tokenizer`, without the spaces between marks and places, and within the marks of a phrase."""
        return _INNER_SPACE.sub("", super().decode(ids))


_TAG = re.compile("|".join(MARKS) + r"|<patch_index_\d+>")
_INNER_SPACE = re.compile(rf"(?<=>) (?={_TAG.pattern})|(?<=<phrase>) | (?=</phrase>)")


@cache
def mini_tokenizer() -> Tokenizer:
    """The vocabulary that all mini models share."""
    return Tokenizer(_mini_words())


@cache
def grounded_tokenizer(side: int) -> GroundedTokenizer:
    """That vocabulary, with words for `side` x `side` cells behind it (see `mini.grounded`)."""
    return GroundedTokenizer(_mini_words(), side)


def _mini_words() -> list[str]:
    return files("minivlm.language").joinpath("words.txt").read_text(encoding="utf-8").split()
