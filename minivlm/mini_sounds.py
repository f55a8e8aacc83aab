"""The designs that hear in the controlled setting: the encoder that all mini designs share beside a small one that
hears."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from minivlm import mini
from minivlm.contrastive.mmv import MMVConfig, WordsConfig
from minivlm.language.tokenizer import Tokenizer
from minivlm.vision.spectrogram import SpectrogramViTConfig
from minivlm.vision.vit import clip_vit


def hearing() -> SpectrogramViTConfig:
    """The encoder's sizes but for its depth: a quarter of a second is two patches wide."""
    encoder = mini.vision(partial(SpectrogramViTConfig, **clip_vit.keywords))
    return replace(encoder, depth=2, mean=(-4.6,) * 3, std=(2.2,) * 3)


def mmv(graph: str) -> MMVConfig:
    """Word vectors of the decoder's width; a coarse space half as wide as the fine one, as in the published model, but
    where both are one."""
    text = WordsConfig(mini.VOCABULARY, context=40, word_width=128, width=256, pad_id=Tokenizer.pad_id)
    return MMVConfig(mini.vision(), hearing(), text, fine=128, coarse=128 if graph == "shared" else 64, graph=graph)


def mmv_fac() -> MMVConfig:
    return mmv("fac")
