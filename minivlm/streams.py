"""Endless, seeded batches of scenes for each kind of model: captions, questions, and text alone.

Step n of a stream is always the same, whoever asks for it and whatever was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minivlm.batch import IGNORE, Batch, each_apart
from minivlm.data.captions import caption
from minivlm.data.episodes import RULES, Episodes, sample_episodes, tell
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
        return about_texts(
            self.tokenizer, [telegram(scenes[i]) for i in rows], quiz(scenes, chance, self.per_scene), rows
        )


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
        return about_texts(self.tokenizer, list(told.values()), dialogs, rows)


def about_texts(tokenizer: Tokenizer, told: list[str], dialogs: list[list[tuple[str, str]]], rows: range) -> Step:
    """What is `told` of some rows is read by all questions of that row's dialog, and is not itself to be learned."""
    batch = Batch.pack(tokenizer, dialogs[rows.start : rows.stop], contexts=told)
    return Step((batch,), int((batch.labels >= 0).sum()))


@dataclass(frozen=True)
class Shots:
    """Episodes on a bank of single objects, of `fewest` to `most` shots, as many in all of a batch, and of one rule. Of
    the cases, the share `told` is told in words; `asked`: is the one asked about? (None: as the rest.)"""

    tokenizer: Tokenizer
    bank: Bank
    batch_size: int
    fewest: int = 2
    most: int = 6
    told: float = 0.0
    asked: bool | None = None
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        shots = int(torch.randint(self.fewest, self.most + 1, (), generator=chance))
        rule = RULES[int(torch.randint(len(RULES), (), generator=chance))]
        episodes = sample_episodes(self.bank.scenes, self.batch_size, shots, rule, chance)
        told = torch.rand(episodes.scene.shape, generator=chance) < self.told
        if self.asked is not None:
            told[:, -1] = self.asked
        here = slice(rows.start, rows.stop)
        return Step((pack_episodes(self.tokenizer, episodes[here], self.bank, told[here]),), len(rows))


def pack_episodes(
    tokenizer: Tokenizer, episodes: Episodes, bank: Bank, told: Bool[Tensor, "B cases"] | None = None
) -> Batch:
    """One sequence an episode, the answer last, which alone is to be learned. What is `told` (default: nothing) has no
    picture."""
    told = torch.zeros_like(episodes.scene, dtype=torch.bool) if told is None else told
    texts = zip(tell(episodes, bank.scenes, told), episodes.right(), strict=True)
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(f"{text} {answer}")] for text, answer in texts])
    labels = torch.full_like(ids, IGNORE)
    labels[:, -1] = ids[:, -1]
    shown = (~told).sum(dim=1)  # (B,)
    if not shown.any():
        return Batch(None, ids, labels)
    first = torch.argsort(told.int(), dim=1, stable=True)[:, : int(shown.max())]  # pictures first, in their order
    return Batch(
        None,
        ids,
        labels,
        features=bank.features[episodes.scene.gather(1, first), 0],
        image_mask=torch.arange(first.shape[1]) < shown[:, None],
    )
