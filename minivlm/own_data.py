"""A user's own material: a folder of pictures and what is asked of them, for `compare` instead of scenes.

`data.jsonl` in it has questions with answers and, where there are any, captions, which the first stage learns from
(else it learns from the questions too). Lines say which split they are in; where none does, the last fifth of the
pictures, in the order of the file, are for the test. Words that the mini vocabulary lacks are added to it, as many as
have room.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch, each_apart
from minivlm.data.files import DataError, Record, load_image, read_folder
from minivlm.language.tokenizer import ROOM, Tokenizer, mini_tokenizer
from minivlm.material import SIZES, Exam
from minivlm.model import VLM
from minivlm.recipes import Size, two_stages
from minivlm.streams import generator
from minivlm.train import Stage, Step

TASK = "own"
Turns = list[tuple[str, str]]  # questions and answers on one picture


@dataclass(frozen=True)
class OwnQuestion:
    """A question of a user's own. `chance`: the share that always giving the commonest answer of training gets."""

    text: str
    answer: str
    chance: float
    task: str = TASK
    novel: bool = False


@dataclass(frozen=True)
class OwnBank:
    """What a frozen encoder makes of some pictures, and what each is asked, or told in a caption."""

    features: Float[Tensor, "S 1 N D"]
    dialogs: list[Turns]


@dataclass(frozen=True)
class OwnDialogs:
    """Batches of a bank's pictures, each with at most `per_picture` of its turns, drawn anew. `apart`: every turn in a
    sample of its own."""

    tokenizer: Tokenizer
    bank: OwnBank
    batch_size: int
    per_picture: int
    blind: bool = False
    apart: bool = False
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        pictures = torch.randint(len(self.bank.dialogs), (self.batch_size,), generator=chance)
        dialogs = []
        for picture in pictures.tolist():
            turns = self.bank.dialogs[picture]
            drawn = torch.randperm(len(turns), generator=chance)[: self.per_picture]
            dialogs.append([turns[i] for i in drawn.tolist()])
        dialogs, pictures = dialogs[rows.start : rows.stop], pictures[rows.start : rows.stop]
        if self.apart:
            dialogs, pictures = each_apart(dialogs, pictures)
        batch = Batch.pack(self.tokenizer, dialogs, features=None if self.blind else self.bank.features[pictures])
        return Step((batch,), int((batch.labels >= 0).sum()))


@dataclass(frozen=True)
class OwnMaterial:
    """The records of a folder, `train` and `test`; `size.scenes` is the number of pictures to train on."""

    name: str
    size: Size
    train: tuple[Record, ...]
    test: tuple[Record, ...]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The mini vocabulary with the words that it lacks."""
        texts = (text for r in (*self.train, *self.test) for text in (r.question, r.answer, r.caption) if text)
        return extended(texts)

    def bank(self, model: VLM, seed: int) -> tuple[OwnBank, OwnBank]:
        """For the first stage, and for the second; the same for every seed."""
        told = [record for record in self.train if record.caption] or self.train
        return _bank(model, told), _bank(model, [record for record in self.train if record.question])

    def exam(self, model: VLM) -> Exam:
        answers = Counter(record.answer for record in self.train if record.question)
        chance = max(answers.values()) / answers.total()
        bank = _bank(model, self.test)
        questions = [[OwnQuestion(*turn, chance) for turn in turns] for turns in bank.dialogs]
        first = load_image(self.test[0].image, model.config.vision.image_size)
        return Exam(questions, bank.features, first[None, None], told=None)

    def stages(self, model: VLM, bank: tuple[OwnBank, OwnBank], seed: int, language: str) -> list[Stage]:
        apart = model.connector.conditioned
        told, asked = (self._source(one, seed + n, apart=apart) for n, one in enumerate(bank))
        return two_stages(model, told, asked, self.size, language)

    def blind_stages(self, bank: tuple[OwnBank, OwnBank], seed: int) -> list[Stage]:
        asked = self._source(bank[1], seed + 1, blind=True)
        return [Stage("instruct", asked, self.size.steps, lr=1e-3, trains=("language",))]

    def _source(self, bank: OwnBank, seed: int, **how: bool) -> OwnDialogs:
        return OwnDialogs(self.tokenizer, bank, self.size.batch_size, self.size.per_scene, seed=seed, **how)


def own_material(folder: str | Path, scale: str, steps: int | None) -> OwnMaterial:
    """A user's own folder at that scale; `steps` replaces those of the second stage. ValueError (`DataError` for lines
    that are wrong) where nothing is left to train on or to ask, or words are too many."""
    records = read_folder(folder)
    train, test = _split(records)
    for split, some in (("train", train), ("test", test)):
        if not any(record.question for record in some):
            raise DataError([f"{folder}: no question to {split} on among {len(some)} lines; add lines, or splits"])
    size = replace(SIZES[scale], scenes=len({record.image for record in train}))
    size = size if steps is None else replace(size, steps=steps)
    known = hashlib.sha256(repr([replace(r, image=Path(r.image.name)) for r in records]).encode()).hexdigest()[:12]
    test = tuple(record for record in test if record.question)
    material = OwnMaterial(f"{Path(folder).resolve().name}-{known}", size, tuple(train), test)
    material.tokenizer  # noqa: B018 (too many words are said before anything is trained)
    return material


def _split(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Those to train on and those for the test: as they say, or by their pictures, the last fifth for the test."""
    if records[0].split is not None:
        return tuple([record for record in records if record.split == split] for split in ("train", "test"))
    pictures = list(dict.fromkeys(record.image for record in records))
    test = set(pictures[-max(1, len(pictures) // 5) :])
    return [r for r in records if r.image not in test], [r for r in records if r.image in test]


def _bank(model: VLM, records: Sequence[Record]) -> OwnBank:
    """The pictures of some records as the model's encoder has them, each once, with all its turns."""
    dialogs: dict[Path, Turns] = {}
    for record in records:
        turn = ("", record.caption) if record.caption else (record.question, record.answer)
        dialogs.setdefault(record.image, []).append(turn)
    device, size = next(model.parameters()).device, model.config.vision.image_size
    with torch.no_grad():
        features = [model.features(load_image(path, size)[None, None].to(device)).cpu() for path in dialogs]
    return OwnBank(torch.cat(features), list(dialogs.values()))


def extended(texts: Iterable[str]) -> Tokenizer:
    """The mini tokenizer with the words of these texts that it lacks behind its own; ValueError where they are more
    than have room."""
    known = mini_tokenizer()
    words = (word for text in texts for word in known.split(text))
    new = [word for word in dict.fromkeys(words) if word not in known.ids]
    room = ROOM - 1 - len(known)  # the last id is the newline of raw patches
    if len(new) > room:
        raise ValueError(
            f"{len(new)} words are not in the vocabulary, which has room for {room} more: use fewer words; "
            f"the last are {', '.join(new[-5:])}"
        )
    return Tokenizer([*known.words[known.first_word :], *new])
