"""Models and stages small enough to be trained within a test, in this process or in another one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import minivlm
from minivlm import mini_sounds
from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.projection import MLPProjection
from minivlm.connectors.qformer import InstructQFormerConfig
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.data.scenes import sample_scenes
from minivlm.language.llama import LlamaConfig
from minivlm.language.tokenizer import Tokenizer, mini_tokenizer
from minivlm.model import VLM, VLMConfig
from minivlm.streams import Bank, CaptionPairs, Dialogs, generator
from minivlm.train import Source, Stage, Step
from minivlm.vision.vit import clip_vit, siglip_vit

TOKENIZER = mini_tokenizer()
VISION = dict(image_size=(16, 16), patch_size=8, width=16, depth=2, heads=2, mlp_width=24)
TEXT = dict(vocab_size=len(TOKENIZER), context=24, width=12, depth=1, heads=2, mlp_width=24)


def vlm(width: int = 16) -> VLM:
    """The same weights each time."""
    torch.manual_seed(0)
    language = LlamaConfig(len(TOKENIZER), width=width, depth=2, heads=2, kv_heads=1, mlp_width=24, tied=True)
    return VLMConfig(clip_vit(**VISION), MLPProjection(), language, Tokenizer.image_id, Tokenizer.eos_id).build()


def reader() -> VLM:
    """One whose connector reads the question, at most 9 words of it."""
    torch.manual_seed(0)
    bert = BertConfig(width=12, depth=2, heads=2, mlp_width=16)
    connector = InstructQFormerConfig(3, VocabularyConfig(len(TOKENIZER), context=9), bert)
    return replace(vlm().config, connector=connector).build()


def towers(kind: str) -> nn.Module:
    """A "clip" or a "siglip", the same weights each time."""
    torch.manual_seed(0)
    if kind == "clip":
        return CLIPConfig(clip_vit(**VISION), clip_text(**TEXT), embed_dim=10, eos_id=Tokenizer.eos_id).build()
    return SigLIPConfig(siglip_vit(**VISION), siglip_text(**TEXT)).build()


def mmv() -> nn.Module:
    """One with fine and coarse spaces, of pictures and spectrograms of 64 x 64; the same weights each time."""
    torch.manual_seed(0)
    config, small = mini_sounds.mmv_fac(), dict(width=16, depth=1, heads=2, mlp_width=16)
    return replace(config, vision=replace(config.vision, **small), audio=replace(config.audio, **small)).build()


def bank(model: VLM, scenes: int = 12) -> Bank:
    return Bank.make(model, sample_scenes(scenes, generator(0, 0)))


def vlm_stages(model: VLM) -> list[Stage]:
    """Both of LLaVA's stages, with samples that have different numbers of words to learn."""
    seen = bank(model)
    captions = Dialogs(TOKENIZER, seen, 4, captions=True)
    questions = Dialogs(TOKENIZER, seen, 4, seed=1)
    return [
        Stage("align", captions, 5, lr=2e-3, trains=("connector",)),
        Stage("instruct", questions, 6, lr=1e-3, trains=("connector", "language")),
    ]


def pairs(seed: int = 0) -> CaptionPairs:
    return CaptionPairs(TOKENIZER, 8, context=24, seed=seed, size=16)


@dataclass(frozen=True)
class Trap:
    """A source that does something before it gives the batch of one step."""

    source: Source
    at: int
    does: Callable[[], object]

    @property
    def batch_size(self) -> int:
        return self.source.batch_size

    def __call__(self, step: int, rows: range) -> Step:
        if step == self.at:
            self.does()
        return self.source(step, rows)


def command(*words: object) -> dict:
    """Arguments of `subprocess` for a Python process that imports the minivlm, and the tests, that this one does."""
    paths = [str(Path(module).parent) for module in (__file__, Path(minivlm.__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return dict(args=[sys.executable, *map(str, words)], env=environment)
