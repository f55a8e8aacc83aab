"""Every named design, as data: what its parts are, in the small controlled setting and in the published system.

`mini()` is the controlled setting: the same 64-pixel encoder and the same decoder for all, so that only the design
differs. `published()` is the real system's exact architecture; build it on the meta device to count, or to load
weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from minivlm import published
from minivlm.connectors.pooling import AveragePooling, PixelShuffle
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
MINI_TOKENS = 16  # visual tokens of a picture, where a connector is free to choose: a quarter of the patches
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


DESIGNS: dict[str, Design] = {
    "clip": Design(
        "CLIP", 2021, "arXiv:2103.00020", "ViT", "two linear heads", "one space, softmax loss",
        _clip_mini, published.clip,
    ),
    "siglip": Design(
        "SigLIP", 2023, "arXiv:2303.15343", "ViT", "attention pooling", "one space, sigmoid loss",
        _siglip_mini, published.siglip,
    ),
    "llava": Design(
        "LLaVA", 2023, "arXiv:2304.08485", "CLIP ViT", "linear projection", "interleaved",
        lambda: mini_vlm(LinearProjection()), published.llava,
    ),
    "llava15": Design(
        "LLaVA-1.5", 2023, "arXiv:2310.03744", "CLIP ViT", "MLP projection", "interleaved",
        lambda: mini_vlm(MLPProjection()), published.llava15,
    ),
    "yi_vl": Design(
        "Yi-VL", 2024, "arXiv:2403.04652", "CLIP ViT", "MLP projection with norms", "interleaved",
        lambda: mini_vlm(NormedMLPProjection()), published.yi_vl,
    ),
    "deco": Design(
        "DeCo", 2024, "arXiv:2405.20985", "CLIP ViT", "average pooling", "interleaved",
        lambda: mini_vlm(AveragePooling(MINI_TOKENS)), published.deco,
    ),
    "smolvlm": Design(
        "SmolVLM", 2025, "arXiv:2504.05299", "SigLIP ViT", "pixel shuffle", "interleaved",
        lambda: mini_vlm(PixelShuffle(factor=2)), published.smolvlm,
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


def at_budget(config: VLMConfig, tokens: int) -> VLMConfig:
    """The same design with `tokens` visual tokens a picture; ValueError where its connector leaves no choice, or cannot
    make so many of its grid."""
    connector, grid = config.connector, config.vision.grid
    if hasattr(connector, "at_budget"):
        config = replace(config, connector=connector.at_budget(tokens, grid))
    with torch.device("meta"):
        made = config.connector.build(config.vision.width, config.language.width, grid).num_tokens(grid)
    if made != tokens:
        kind = type(connector).__name__
        raise ValueError(f"{kind} makes {made} tokens of {grid[0]}x{grid[1]} patches, not {tokens}: it has no choice")
    return config


def build(name: str, preset: str = "mini", device: str | torch.device | None = None) -> nn.Module:
    """A model of that design with random weights, on `device` (default: the best there is).

    `device="meta"` allocates nothing, which is how a published system of many billions of weights is counted.
    """
    config = configure(name, preset)
    with torch.device(pick_device(device)):
        return config.build()
