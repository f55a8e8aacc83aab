"""Every named design, as data: what its parts are, in the small controlled setting and in the published system.

`mini()` is the controlled setting: the same 64-pixel encoder and the same decoder for all, so that only the design
differs. `published()` is the real system's exact architecture; build it on the meta device to count, or to load
weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from minivlm.connectors.projection import LinearProjection, MLPProjection, NormedMLPProjection
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.contrastive.towers import TextConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.tokenizer import Tokenizer
from minivlm.model import ConnectorConfig, VLMConfig
from minivlm.runtime import pick_device
from minivlm.vision.vit import ViTConfig, clip_vit, siglip_vit

Config = CLIPConfig | SigLIPConfig | VLMConfig
PRESETS = ("mini", "published")


@dataclass(frozen=True)
class Design:
    """A named design: where it comes from, its answers to the three questions, and its two presets."""

    title: str
    year: int
    paper: str
    vision: str
    connector: str
    fusion: str
    mini: Callable[[], Config]
    published: Callable[[], Config]


MINI_VOCABULARY = 512  # room for words that later lessons add, so that trained weights keep their meaning
MINI_CONTEXT = 96  # ids a mini text tower reads: a caption of nine objects


def mini_vision(tower: Callable[..., ViTConfig] = clip_vit) -> ViTConfig:
    """The encoder of the controlled setting: 64 pixels in 8x8 patches."""
    sizes = dict(image_size=(64, 64), patch_size=8, width=128, depth=5, heads=4, mlp_width=512)
    return tower(**sizes, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def mini_language() -> LlamaConfig:
    """The decoder of the controlled setting."""
    return LlamaConfig(MINI_VOCABULARY, width=128, depth=4, heads=4, kv_heads=4, mlp_width=384, tied=True)


def mini_vlm(connector: ConnectorConfig) -> VLMConfig:
    return VLMConfig(mini_vision(), connector, mini_language(), Tokenizer.image_id, Tokenizer.eos_id)


def _mini_text(text: Callable[..., TextConfig]) -> TextConfig:
    return text(MINI_VOCABULARY, context=MINI_CONTEXT, width=128, depth=2, heads=4, mlp_width=512)


def _clip_mini() -> CLIPConfig:
    return CLIPConfig(mini_vision(), _mini_text(clip_text), embed_dim=128, eos_id=Tokenizer.eos_id)


def _siglip_mini() -> SigLIPConfig:
    return SigLIPConfig(mini_vision(siglip_vit), _mini_text(siglip_text))


def _clip_large(pixels: int) -> ViTConfig:
    return clip_vit(image_size=(pixels, pixels), patch_size=14, width=1024, depth=24, heads=16, mlp_width=4096)


def _clip_published() -> CLIPConfig:
    text = clip_text(49408, context=77, width=768, depth=12, heads=12, mlp_width=3072)
    return CLIPConfig(_clip_large(336), text, embed_dim=768, eos_id=None)


def _siglip_published() -> SigLIPConfig:
    vision = siglip_vit(image_size=(384, 384), patch_size=14, width=1152, depth=27, heads=16, mlp_width=4304)
    text = siglip_text(32000, context=64, width=1152, depth=27, heads=16, mlp_width=4304)
    return SigLIPConfig(vision, text)


def _vicuna_7b(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(vocab_size, width=4096, depth=32, heads=32, kv_heads=32, mlp_width=11008, eps=1e-5)


def _llava_published() -> VLMConfig:
    return VLMConfig(_clip_large(224), LinearProjection(), _vicuna_7b(32003), image_id=32000, eos_id=2)


def _llava15_published() -> VLMConfig:
    return VLMConfig(_clip_large(336), MLPProjection(), _vicuna_7b(32064), image_id=32000, eos_id=2)


def _yi_vl_published() -> VLMConfig:
    vision = clip_vit(image_size=(448, 448), patch_size=14, width=1280, depth=32, heads=16, mlp_width=5120)
    language = LlamaConfig(64000, width=4096, depth=32, heads=32, kv_heads=4, mlp_width=11008, eps=1e-5, rope_theta=5e6)
    return VLMConfig(vision, NormedMLPProjection(), language, image_id=64000 - 1, eos_id=2)


DESIGNS: dict[str, Design] = {
    "clip": Design(
        "CLIP", 2021, "arXiv:2103.00020", "ViT", "two linear heads", "one space, softmax loss",
        _clip_mini, _clip_published,
    ),
    "siglip": Design(
        "SigLIP", 2023, "arXiv:2303.15343", "ViT", "attention pooling", "one space, sigmoid loss",
        _siglip_mini, _siglip_published,
    ),
    "llava": Design(
        "LLaVA", 2023, "arXiv:2304.08485", "CLIP ViT", "linear projection", "interleaved",
        lambda: mini_vlm(LinearProjection()), _llava_published,
    ),
    "llava15": Design(
        "LLaVA-1.5", 2023, "arXiv:2310.03744", "CLIP ViT", "MLP projection", "interleaved",
        lambda: mini_vlm(MLPProjection()), _llava15_published,
    ),
    "yi_vl": Design(
        "Yi-VL", 2024, "arXiv:2403.04652", "CLIP ViT", "MLP projection with norms", "interleaved",
        lambda: mini_vlm(NormedMLPProjection()), _yi_vl_published,
    ),
}  # fmt: skip


def find(name: str) -> Design:
    """The design of that name; ValueError naming the nearest ones if there is none."""
    if name not in DESIGNS:
        near = difflib.get_close_matches(str(name), DESIGNS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown design {name!r}; {hint}there are: {', '.join(DESIGNS)}")
    return DESIGNS[name]


def configure(name: str, preset: str = "mini") -> Config:
    """The configuration of that design in that preset; ValueError naming what there is for another."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    return getattr(find(name), preset)()


def build(name: str, preset: str = "mini", device: str | torch.device | None = None) -> nn.Module:
    """A model of that design with random weights, on `device` (default: the best there is).

    `device="meta"` allocates nothing, which is how a published system of many billions of weights is counted.
    """
    config = configure(name, preset)
    with torch.device(pick_device(device)):
        return config.build()
