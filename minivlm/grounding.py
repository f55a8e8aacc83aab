"""Grounding: a model that answers with places. It is given words for them, reads dialogs about boxes, and is scored by
how much of the true box its own covers.

With the boxes go ordinary questions, so that what the model could do before is practised on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch
from minivlm.data.boxes import Box
from minivlm.data.referring import Referent, iou, locate, name, referents, said_box, tell
from minivlm.data.tasks import ask
from minivlm.language.tokenizer import GroundedTokenizer
from minivlm.mini import grounded
from minivlm.model import VLM
from minivlm.pretrained.keys import load_exactly
from minivlm.streams import Bank, generator
from minivlm.train import Step

ORDINARY = ("COLOR", "SHAPE", "LOC")  # tasks of the questions beside


def with_places(model: VLM, side: int) -> VLM:
    """A mini model that knows words for `side` x `side` places as well: all weights are the given model's, the rows of
    the new marks are random, those of the places `place_rows`. The given model stays as it is."""
    wider = grounded(model.config, side).build()
    known = model.language.embedding.weight.detach().cpu()
    marks = wider.language.embedding.weight.detach()[len(known) : -side * side]
    rows = torch.cat([known, marks, place_rows(side, known)])
    state = dict(model.state_dict()) | dict.fromkeys(("language.embedding.weight", "language.head.weight"), rows)
    load_exactly(wider, state)
    return wider.to(next(model.parameters()).device).eval()


def place_rows(side: int, known: Float[Tensor, "V D"]) -> Float[Tensor, "places D"]:
    """Embeddings of the words for places, row by row, as long as the `known` ones on average: waves along the picture's
    rows and along its columns. So near places begin alike, and what is learned of one holds for its neighbours."""
    waves = torch.arange(1, 17) / 2  # half waves across the picture
    turns = torch.pi * waves * torch.arange(side)[:, None] / side  # (side, 16)
    along = torch.cat([turns.cos(), turns.sin()], dim=1) * (-waves / 4).exp().repeat(2)
    along = along - along.mean(dim=0)  # (side, 32)
    both = torch.cat([along.repeat_interleave(side, dim=0), along.repeat(side, 1)], dim=1)  # (places, 64)
    turned = torch.empty(both.shape[1], known.shape[1])
    mixed = both @ torch.nn.init.orthogonal_(turned, generator=torch.Generator().manual_seed(0))
    return mixed / mixed.norm(dim=1).mean() * known.norm(dim=1).mean()


@dataclass(frozen=True)
class Grounding:
    """Batches of a bank's scenes: up to `located` phrases to be found, one box to be named, `ordinary` questions; and
    every `told`-th scene is to be told with its boxes."""

    tokenizer: GroundedTokenizer
    bank: Bank
    batch_size: int
    located: int = 4
    ordinary: int = 4
    told: int = 8
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        chosen = torch.randint(len(self.bank.scenes), (self.batch_size,), generator=chance)
        scenes, side = self.bank.scenes[chosen], self.tokenizer.side
        dialogs = [[(q.text, q.answer) for q in asked] for asked in ask(scenes, chance, ORDINARY, self.ordinary)]
        for number, (dialog, found) in enumerate(zip(dialogs, referents(scenes), strict=True)):
            order = torch.randperm(len(found), generator=chance).tolist()
            dialog += [locate(found[i], side) for i in order[: self.located]]
            dialog += [name(found[i], side) for i in order[-1:]]
            dialog += [tell(found, side)] if number % self.told == 0 and found else []
        here = slice(rows.start, rows.stop)
        batch = Batch.pack(self.tokenizer, dialogs[here], features=self.bank.features[chosen[here]])
        return Step((batch,), int((batch.labels >= 0).sum()))


@dataclass(frozen=True)
class Located:
    """What was asked for in scene `scene`, the box that a model said (None: what it said is no box), and how good it
    is: the IoU with the true one, 0 for none."""

    scene: int
    referent: Referent
    said: Box | None

    @property
    def iou(self) -> float:
        return 0.0 if self.said is None else iou(self.referent.box, self.said)


def locate_all(
    model: VLM,
    tokenizer: GroundedTokenizer,
    found: Sequence[Sequence[Referent]],
    features: Float[Tensor, "S M N D"],
    blind: bool = False,
    batch_size: int = 128,
) -> list[Located]:
    """Ask for every referent of S pictures (`features` as `VLM.features` made them), by greedy generation. `blind`
    leaves the pictures out."""
    asked = [(number, referent) for number, some in enumerate(found) for referent in some]
    located = []
    for start in range(0, len(asked), batch_size):
        some = asked[start : start + batch_size]
        pictures = torch.tensor([number for number, _ in some])
        texts = _said(
            model,
            tokenizer,
            [locate(referent, tokenizer.side)[0] for _, referent in some],
            None if blind else features[pictures],
        )
        boxes = (said_box(text, tokenizer.side) for text in texts)
        located += [Located(number, referent, box) for (number, referent), box in zip(some, boxes, strict=True)]
    return located


def name_all(
    model: VLM,
    tokenizer: GroundedTokenizer,
    found: Sequence[Sequence[Referent]],
    features: Float[Tensor, "S M N D"],
) -> list[bool]:
    """Of every referent: is its whole name said of its box?"""
    asked = [
        (number, referent, name(referent, tokenizer.side)) for number, some in enumerate(found) for referent in some
    ]
    pictures = torch.tensor([number for number, _, _ in asked])
    texts = _said(model, tokenizer, [turn[0] for _, _, turn in asked], features[pictures])
    return [text == turn[1] for text, (_, _, turn) in zip(texts, asked, strict=True)]


def _said(model: VLM, tokenizer: GroundedTokenizer, questions: list[str], features: Tensor | None) -> list[str]:
    batch = Batch.pack(tokenizer, [[(question, "")] for question in questions], features=features)
    words = model.generate(batch.to(next(model.parameters()).device), max_new_tokens=6)
    return [tokenizer.decode(row) for row in words.tolist()]
