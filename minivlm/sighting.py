"""Sighting: a decoder reads videos whose visual tokens are exact words, a token a place (`data.sightings`), and a
connector learns to give it just those tokens.

So what follows from the order of frames is learned without pictures, as scenes are learned from text; and what an
encoder and a connector are to give afterwards is known, word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm import mini
from minivlm.batch import Batch
from minivlm.connectors.projection import NoProjection
from minivlm.data.cues import BEAT, CELL, CUES, asked_cues, place_cues
from minivlm.data.sightings import SIGHT_WORDS, THINGS, sighted, sighted_things, without_cells
from minivlm.data.videos import BEATS, Videos, sample_videos
from minivlm.data.watching import VIDEO_TASKS, ask_videos
from minivlm.frames import VideoBank
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.layout import Layout
from minivlm.model import VLM
from minivlm.outputs import layer_outputs
from minivlm.spelling import SpellingOutput
from minivlm.streams import generator
from minivlm.train import Step

ASKED_BLOCK = 3
GRIDS = ((1, 1), (1, 2), (2, 2), (4, 4), (4, 4))  # the largest twice as often


class Sighted(VLM):
    """The mini designs' decoder alone. Every place of a frame is a picture of one token, and its features are how often
    each of `SIGHT_WORDS` is told of it: the token is the sum of those words' embeddings, as they are now."""

    def __init__(self):
        one_place = replace(mini.vision(), image_size=(8, 8), depth=2)
        super().__init__(replace(mini.vlm(NoProjection()), vision=one_place))
        self.register_buffer("ids", word_ids(), persistent=False)

    def _sequence(self, batch: Batch) -> tuple[Tensor, Layout, Any]:
        if batch.features is not None:
            batch = replace(batch, features=batch.features @ self.language.embedding(self.ids))
        return super()._sequence(batch)


class Following(nn.Module):
    """A decoder that answers; and after so many of its `blocks` says at each place what there is to follow, after
    `ASKED_BLOCK` at each word of a question when that is which it names (`data.cues`), all in its own words. From
    answers alone it learns in thousands of steps neither to count what happens nor to tell what came first; told so
    everywhere, it learns that in hundreds. The blocks that follow find a place by its cues, as by its shape. Where in
    the frame a thing is, it says after the block `placed`, or never (None)."""

    def __init__(self, model: Sighted, blocks: int, placed: int | None = None):
        super().__init__()
        self.model, self.train_only = model, model.train_only
        self.after = dict.fromkeys(range(CELL), blocks) | ({} if placed is None else {CELL: placed})  # by row of `CUES`

    def forward(self, batch: Batch, places: Int[Tensor, "B M 6"], asked: Int[Tensor, "B L"]) -> SpellingOutput:
        """`places` and `asked`: what to say, as `place_cues` and `asked_cues` tell it."""
        names = {number: f"blocks.{number - 1}" for number in (*self.after.values(), ASKED_BLOCK)}
        with layer_outputs(self.model.language, names.values()) as states:
            output = self.model(batch)
        missed = self._missed(states[names[ASKED_BLOCK]], asked, CUES[BEAT])
        for row, number in self.after.items():
            of_places = states[names[number]][:, 1 : places.shape[1] + 1]  # behind the mark of the beginning
            missed = missed + self._missed(of_places, places[..., row], CUES[row])
        return SpellingOutput(output.loss + missed)

    def _missed(self, states: Float[Tensor, "B M D"], wanted: Int[Tensor, "B M"], words: Sequence[str]) -> Tensor:
        """The loss of a choice among these words, in which an object to which nothing happens, as to most, counts a
        twentieth; 0 where there is nothing to say."""
        decoder, there = self.model.language, wanted >= 0
        said = decoder.logits(decoder.final_norm(states[there]))[:, [mini_tokenizer().ids[word] for word in words]]
        weights = said.new_tensor([0.05 if word == "object" else 1 for word in words])
        return F.cross_entropy(said, wanted[there], weights) if there.any() else said.sum()


def word_ids(device: torch.device | str = "cpu") -> Int[Tensor, " words"]:
    """The decoder's id of each of `SIGHT_WORDS`."""
    return torch.tensor([mini_tokenizer().ids[word] for word in SIGHT_WORDS], device=device)


def as_pictures(told: Float[Tensor, "B T places words"]) -> Float[Tensor, "B M 1 words"]:
    """Every place of every frame as a picture of its own, as `Sighted` reads them."""
    return told.flatten(1, 2)[:, :, None]


View = tuple[int, int] | int  # a grid of places; or a number of things, a token each


def viewed(videos: Videos, view: View) -> tuple[Videos, Float[Tensor, "B T places words"]]:
    """What there is to ask about, and what is told of it. Of a number below `THINGS`, only so many movers are there."""
    if not isinstance(view, int):
        return videos, sighted(videos, view)
    left = videos.only(view) if view < THINGS else videos
    return left, sighted_things(left, view)


@dataclass(frozen=True)
class Sightings:
    """Fresh videos in exact words for `Following`, all of a batch as one of `views`, with `per_video` proposals of
    questions on each (a task that is named twice is proposed twice as often). A share `by_place` of them, where a frame
    has several places, is told without the words for where in the frame a thing is: that then is known by its place's
    number alone, as from a connector that does not say it."""

    tokenizer: Tokenizer
    batch_size: int
    views: Sequence[View] = GRIDS
    tasks: Sequence[str] = VIDEO_TASKS
    per_video: int = 10
    frames: int = BEATS
    by_place: float = 0.0
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        view = self.views[int(torch.randint(len(self.views), (), generator=chance))]
        videos, told = viewed(sample_videos(self.batch_size, chance, self.frames), view)
        told = without_cells(told, torch.rand(self.batch_size, generator=chance) < self.by_place)
        asked = ask_videos(videos, chance, self.tasks, self.per_video)[rows.start : rows.stop]
        dialogs = [[(q.text, q.answer) for q in some] for some in asked]
        batch = Batch.pack(self.tokenizer, dialogs, features=as_pictures(told[rows.start : rows.stop]))
        words = [[self.tokenizer.words[i] for i in ids] for ids in batch.input_ids.tolist()]
        cues = place_cues(videos, told).flatten(1, 2)[rows.start : rows.stop]
        asked = asked_cues(videos[rows.start : rows.stop], words)
        return Step((batch, cues, asked), int((batch.labels >= 0).sum()))


def token_places(model: VLM) -> tuple[int, int] | None:
    """Rows and columns of the places that a design's visual tokens stand for; None where they stand for none."""
    layout = model.connector.layout(model.config.vision.grid)
    if (layout.row < 0).any():
        return None
    return int(layout.row.max()) + 1, int(layout.col.max()) + 1


class Spelled(nn.Module):
    """A model's own connector, and the words of its decoder as they are now."""

    def __init__(self, model: VLM):
        super().__init__()
        self.connector = model.connector
        embedding = model.language.embedding.weight.detach()
        self.register_buffer("words", embedding[word_ids(embedding.device)], persistent=False)  # (words, D)

    def forward(self, features: Float[Tensor, "F N D"], told: Float[Tensor, "F K words"]) -> SpellingOutput:
        """How far each token is from the sum of the words `told` of its place, squared, as a share of those sums'
        spread."""
        wanted = told @ self.words  # (F, K, D)
        missed = (self.connector(features) - wanted).square().mean()
        return SpellingOutput(missed / wanted.var(dim=(0, 1)).mean())


@dataclass(frozen=True)
class SightedFrames:
    """Batches for `Spelled`: the features of frames of a bank, and what is `told` of each place of them; not
    where in the frame that is, if its number tells it, for patches hardly know."""

    features: Float[Tensor, "F N D"]
    told: Float[Tensor, "F K words"]
    batch_size: int = 64
    seed: int = 0

    @classmethod
    def make(cls, bank: VideoBank, grid: tuple[int, int], batch_size: int = 64, seed: int = 0) -> SightedFrames:
        told = without_cells(sighted(bank.videos, grid)).flatten(0, 1)
        return cls(bank.features.flatten(0, 1), told, batch_size, seed)

    def __call__(self, step: int, rows: range) -> Step:
        chosen = torch.randint(len(self.told), (self.batch_size,), generator=generator(self.seed, step))
        chosen = chosen[rows.start : rows.stop]
        return Step((self.features[chosen].float(), self.told[chosen]), len(rows))
