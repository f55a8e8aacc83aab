"""Endless, seeded batches of pages: to learn to read from, and to be asked about.

Step n of a stream is always the same, whoever asks for it and whatever was asked before.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.batch import Batch
from minivlm.data.documents import Page, render_pages
from minivlm.data.glyph_maps import glyph_maps
from minivlm.data.page_texts import sample_pairs, tell_page
from minivlm.data.reading import PAGE_TASKS, ask_pages
from minivlm.data.typesetting import sample_charts, sample_pages, sample_size
from minivlm.language.tokenizer import Tokenizer
from minivlm.model import VLM
from minivlm.streams import about_texts, generator
from minivlm.train import Step
from minivlm.vision.vision import VisionConfig, resized

PAGE = (128, 128)  # pixels of a page of which nothing else is said


@dataclass(frozen=True)
class GlyphPages:
    """Pictures and their glyph maps for `Reader`. An encoder that reads less than a page gets pages made small and,
    apart, their tiles; one for pictures of `any_size` gets a new size each step. `charts`: half of them are charts."""

    vision: VisionConfig
    batch_size: int
    any_size: bool = False
    charts: bool = True
    seed: int = 0
    device: str | torch.device = "cpu"

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        size = self._size(chance)
        charts = sample_charts(self.batch_size // 2, chance, size) if self.charts else []
        pages = [*charts, *sample_pages(self.batch_size - len(charts), chance, size)][rows.start : rows.stop]
        images = render_pages(pages, self.device)
        parts = [self._whole(pages, images)]
        if images.shape[2:] != parts[0][0].shape[2:]:
            parts.append(self._tiles(pages, images))
        return Step(tuple(torch.cat(group).to(self.device) for group in zip(*parts, strict=True)), len(rows))

    def _size(self, chance: torch.Generator) -> tuple[int, int]:
        if not self.any_size:
            return PAGE
        height, width = (side // 8 * 8 for side in sample_size(chance))
        return height, width

    def _whole(self, pages: Sequence[Page], images: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        """Pages as the encoder reads them whole, with squares of half a place."""
        size = images.shape[2:] if self.any_size else self.vision.image_size
        [(rows, _)] = self.vision.views(tuple(size))
        maps = glyph_maps(pages, images.shape[2] // (2 * rows))
        return squashed(images, tuple(size)), maps.glyph, maps.ink, maps.paper

    def _tiles(self, pages: Sequence[Page], images: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        height, width = self.vision.image_size
        maps = glyph_maps(pages, height // (2 * self.vision.grid[0]))
        down, across = images.shape[2] // height, images.shape[3] // width
        cut = (tiles(x, down, across) for x in (images, maps.glyph[:, None], maps.ink[:, None]))
        pictures, glyph, ink = cut
        return pictures, glyph[:, 0], ink[:, 0], maps.paper.repeat_interleave(down * across)


def tiles(x: Tensor, down: int, across: int) -> Tensor:
    """(B, C, H, W) -> (B * down * across, C, H / down, W / across), the tiles of each row after row."""
    x = x.unflatten(3, (across, -1)).unflatten(2, (down, -1))  # (B, C, down, h, across, w)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def squashed(images: Float[Tensor, "B 3 H W"], size: tuple[int, int]) -> Float[Tensor, "B 3 h w"]:
    """All pictures at that (height, width), whatever their shape; in [0, 1] as they came."""
    return resized(images, size, "bicubic").clamp(0, 1)


@dataclass(frozen=True)
class PageBank:
    """Pages, and what a frozen encoder makes of them in the size that it takes a picture for whole."""

    pages: list[Page]
    features: Float[Tensor, "S 1 N D"]

    @classmethod
    @torch.no_grad()
    def make(cls, model: VLM, pages: list[Page], batch_size: int = 64) -> PageBank:
        device, size = next(model.parameters()).device, model.config.vision.image_size
        parts = [pages[start : start + batch_size] for start in range(0, len(pages), batch_size)]
        features = [model.features(squashed(render_pages(part, device), size)[:, None]).cpu() for part in parts]
        return cls(pages, torch.cat(features))


@dataclass(frozen=True)
class PageDialogs:
    """Batches of a bank's pages with fresh questions, `per_page` proposals on each; `blind`: without the pictures."""

    tokenizer: Tokenizer
    bank: PageBank
    batch_size: int
    tasks: Sequence[str] = PAGE_TASKS
    per_page: int = 8
    blind: bool = False
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        chosen = torch.randint(len(self.bank.pages), (self.batch_size,), generator=chance)
        asked = ask_pages([self.bank.pages[i] for i in chosen.tolist()], chance, self.tasks, self.per_page)
        dialogs = [[(q.text, q.answer) for q in sample] for sample in asked[rows.start : rows.stop]]
        features = None if self.blind else self.bank.features[chosen[rows.start : rows.stop]]
        batch = Batch.pack(self.tokenizer, dialogs, features=features)
        return Step((batch,), int((batch.labels >= 0).sum()))


@dataclass(frozen=True)
class PagePairs:
    """Text alone, the shortest: pairs of words as pages have them, and one word of a pair asks for the other."""

    tokenizer: Tokenizer
    batch_size: int
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        dialogs = sample_pairs(self.batch_size, dice(generator(self.seed, step)))
        texts = [" , ".join(map(" ".join, pairs)) for pairs in dialogs]
        return about_texts(self.tokenizer, texts[rows.start : rows.stop], dialogs, rows)


@dataclass(frozen=True)
class PageTexts:
    """Text alone: a page told in words, and up to `per_page` questions on it."""

    tokenizer: Tokenizer
    batch_size: int
    per_page: int = 12
    seed: int = 0

    def __call__(self, step: int, rows: range) -> Step:
        chance = generator(self.seed, step)
        pages = sample_pages(self.batch_size, chance)
        asked = ask_pages(pages, chance, per_page=self.per_page)
        dialogs = [[(q.text, q.answer) for q in sample] for sample in asked]
        texts = [tell_page(page, dice(chance)) for page in pages]
        return about_texts(self.tokenizer, texts[rows.start : rows.stop], dialogs, rows)


def dice(generator: torch.Generator) -> random.Random:
    """Python's kind of chance, drawn from torch's."""
    return random.Random(int(torch.randint(2**62, (), generator=generator)))
