"""Endless, seeded batches of scenes for each kind of model: captions, questions, and text alone.

Step n of a stream is always the same, whoever asks for it and whatever was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import IGNORE, Batch, each_apart
from minivlm.data.captions import caption
from minivlm.data.episodes import Episodes, sample_episodes
from minivlm.data.scenes import (
    COLOR_NAMES,
    SHAPE_NAMES,
    SIZE_NAMES,
    TRAINED_PAIRS,
    Scenes,
    render,
    sample_scenes,
)
from minivlm.data.tasks import TASKS, ask
from minivlm.data.telegrams import quiz, telegram
from minivlm.language.tokenizer import Tokenizer
from minivlm.model import VLM
from minivlm.train import Step


def generator(seed: int, step: int) -> torch.Generator:
    """The source of all chance in one step of one stream."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


@dataclass(frozen=True)
class CaptionPairs:
    """(pictures, captions) for a two-tower model. `objects` is the range of objects a scene has."""

    tokenizer: Tokenizer
    batch_size: int
    context: int
    seed: int = 0
    objects: tuple[int, int] = (1, 1)
    size: int = 64
    device: str | torch.device = "cpu"
    describe: Callable = caption

    def scenes(self, step: int) -> Scenes:
        """All scenes of that step, as its captions tell of them."""
        return self._sample(generator(self.seed, step))

    def _sample(self, chance: torch.Generator) -> Scenes:
        low, high = self.objects
        return sample_scenes(self.batch_size, chance, min_objects=low, max_objects=high)

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        scenes = self._sample(chance)
        texts = [self.describe(scenes[i], chance) for i in range(len(scenes))]
        images = render(scenes[rows.start : rows.stop], self.size, self.device)
        ids = self.tokenizer.pad(texts[rows.start : rows.stop], self.context).to(self.device)
        return Step((images, ids), len(rows))


@dataclass(frozen=True)
class Regions:
    """Pictures with captions, and each object's patch with the phrase that names it, for `RegionCLIP`.

    The phrases are all sizes of all combinations of colour and shape that training shows.
    """

    pairs: CaptionPairs
    grid: tuple[int, int]

    @property
    def batch_size(self) -> int:
        return self.pairs.batch_size

    def __call__(self, step: int, rows: range) -> Step:
        scenes = self.pairs.scenes(step)[rows.start : rows.stop]
        images, captions = self.pairs(step, rows).inputs
        sample, column = (scenes.shape >= 0).nonzero(as_tuple=True)
        row, col = ((scenes.y * self.grid[0]).long(), (scenes.x * self.grid[1]).long())
        patch = (row * self.grid[1] + col)[sample, column]
        named = torch.stack([scenes.size, scenes.color, scenes.shape], dim=-1)[sample, column]  # (R, 3)
        phrases = [(size, *pair) for size in range(len(SIZE_NAMES)) for pair in TRAINED_PAIRS]
        target = (named[:, None] == torch.tensor(phrases)).all(dim=-1).int().argmax(dim=1)  # (R,)
        texts = [f"a {SIZE_NAMES[z]} {COLOR_NAMES[c]} {SHAPE_NAMES[s]}" for z, c, s in phrases]
        ids = self.pairs.tokenizer.pad(texts, context=6)
        device = self.pairs.device
        return Step((images, captions, *(x.to(device) for x in (sample, patch, ids, target))), len(rows))


@dataclass(frozen=True)
class Bank:
    """Scenes and what a frozen encoder makes of their pictures, computed once."""

    scenes: Scenes
    features: Float[Tensor, "S 1 N D"]

    @classmethod
    @torch.no_grad()
    def make(cls, model: VLM, scenes: Scenes, batch_size: int = 256) -> Bank:
        device, size = next(model.parameters()).device, model.config.vision.image_size
        parts = [scenes[start : start + batch_size] for start in range(0, len(scenes), batch_size)]
        features = [model.features(render(part, size, device)[:, None]).cpu() for part in parts]
        return cls(scenes, torch.cat(features))


@dataclass(frozen=True)
class Dialogs:
    """Batches of a bank's scenes with fresh questions (`per_scene` of them on each), or with a caption. `apart`: every
    question in a sample of its own, for connectors that read it; the same questions, whether apart or not."""

    tokenizer: Tokenizer
    bank: Bank
    batch_size: int
    tasks: Sequence[str] = TASKS
    per_scene: int = 8
    captions: bool = False
    blind: bool = False
    apart: bool = False
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        chosen = torch.randint(len(self.bank.scenes), (self.batch_size,), generator=chance)
        scenes = self.bank.scenes[chosen]
        if self.captions:
            dialogs = [[("", caption(scenes[i]))] for i in range(len(scenes))]
        else:
            asked = ask(scenes, chance, tasks=self.tasks, per_scene=self.per_scene)
            dialogs = [[(q.text, q.answer) for q in sample] for sample in asked]
        dialogs, pictures = dialogs[rows.start : rows.stop], chosen[rows.start : rows.stop]
        if self.apart:
            dialogs, pictures = each_apart(dialogs, pictures)
        features = None if self.blind else self.bank.features[pictures]
        batch = Batch.pack(self.tokenizer, dialogs, features=features)
        return Step((batch,), int((batch.labels >= 0).sum()))


@dataclass(frozen=True)
class Telegrams:
    """Text alone, the shortest: objects as pairs of words, and one word of a pair asks for the other."""

    tokenizer: Tokenizer
    batch_size: int
    per_scene: int = 12
    objects: tuple[int, int] = (4, 6)
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        scenes = sample_scenes(self.batch_size, chance, min_objects=self.objects[0], max_objects=self.objects[1])
        return _read(self.tokenizer, [telegram(scenes[i]) for i in rows], quiz(scenes, chance, self.per_scene), rows)


@dataclass(frozen=True)
class Descriptions:
    """Text alone: a scene described in words, then questions on it; what a decoder can learn before it sees.

    Every `retold`-th scene is also to be told again.
    """

    tokenizer: Tokenizer
    batch_size: int
    tasks: Sequence[str] = TASKS
    per_scene: int = 12
    objects: tuple[int, int] = (1, 9)
    retold: int = 4
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        scenes = sample_scenes(self.batch_size, chance, min_objects=self.objects[0], max_objects=self.objects[1])
        asked = ask(scenes, chance, self.tasks, self.per_scene)
        told = {i: caption(scenes[i]) for i in rows}
        dialogs = [[(q.text, q.answer) for q in sample] for sample in asked]
        for i in rows:
            if i % self.retold == 0:
                dialogs[i].append(("", told[i]))
        return _read(self.tokenizer, list(told.values()), dialogs, rows)


def _read(tokenizer: Tokenizer, told: list[str], dialogs: list[list[tuple[str, str]]], rows: range) -> Step:
    """What is `told` of some rows is read by all questions of that row's dialog, and is not itself to be learned."""
    batch = Batch.pack(tokenizer, dialogs[rows.start : rows.stop], contexts=told)
    return Step((batch,), int((batch.labels >= 0).sum()))


@dataclass(frozen=True)
class Shots:
    """Episodes of `cases` cases on a bank of single objects: shown, or (`told`) named in words. Every label is to be
    learned; the more cases come before it, the more there is to tell it from."""

    tokenizer: Tokenizer
    bank: Bank
    batch_size: int
    cases: int = 5
    told: bool = False
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        episodes = sample_episodes(self.bank.scenes, self.batch_size, self.cases, generator(self.seed, step))
        batch = pack_episodes(self.tokenizer, episodes[rows.start : rows.stop], self.bank, self.told)
        return Step((batch,), int((batch.labels >= 0).sum()))


def pack_episodes(tokenizer: Tokenizer, episodes: Episodes, bank: Bank, told: bool = False) -> Batch:
    """One sequence an episode: "dax or wug ? <image> is dax . <image> is wug . ...", or with names in place of the
    pictures."""
    rows, learned = [], []
    for labels, scenes, answers in zip(episodes.labels, episodes.scene.tolist(), episodes.answer.tolist(), strict=True):
        ids, places = [tokenizer.bos_id, *tokenizer.encode(f"{labels[0]} or {labels[1]} ?")], []
        for scene, answer in zip(scenes, answers, strict=True):
            shown = bank.scenes[scene].objects[0].name if told else "<image>"
            ids += tokenizer.encode(f"{shown} is {labels[answer]} .")
            places.append(len(ids) - 2)
        rows.append(ids)
        learned.append(places)
    ids, places = torch.tensor(rows), torch.tensor(learned)  # every word of an episode is one id: rows of one length
    labels = torch.full_like(ids, IGNORE).scatter(1, places, ids.gather(1, places))
    return Batch(None, ids, labels, features=None if told else bank.features[episodes.scene, 0])
