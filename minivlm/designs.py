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

from minivlm import mini, mini_sounds, mini_videos, published
from minivlm.contrastive.clip import CLIPConfig
from minivlm.contrastive.mmv import MMVConfig
from minivlm.contrastive.siglip import SigLIPConfig
from minivlm.model import VLMConfig
from minivlm.runtime import pick_device

Config = CLIPConfig | SigLIPConfig | MMVConfig | VLMConfig
PRESETS = ("mini", "published")
VARIANTS = mini.VARIANTS | mini_videos.VARIANTS  # all of which are mini


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

    @property
    def answers(self) -> bool:
        """Does it answer questions? Towers side by side only compare pictures with texts, and with sounds."""
        return isinstance(self.mini(), VLMConfig)


DESIGNS: dict[str, Design] = {
    "clip": Design(
        "CLIP", 2021, "arXiv:2103.00020", "ViT", "two linear heads", "one space, softmax loss",
        mini.clip, published.clip,
    ),
    "siglip": Design(
        "SigLIP", 2023, "arXiv:2303.15343", "ViT", "attention pooling", "one space, sigmoid loss",
        mini.siglip, published.siglip,
    ),
    "mmv_fac": Design(
        "MMV, fine and coarse", 2020, "arXiv:2006.16228", "TSM-ResNet50, beside one that hears", "projection heads",
        "one space fine, one coarse",
        mini_sounds.mmv_fac, published.mmv_fac,
    ),
    "llava": Design(
        "LLaVA", 2023, "arXiv:2304.08485", "CLIP ViT", "linear projection", "interleaved",
        mini.llava, published.llava,
    ),
    "llava15": Design(
        "LLaVA-1.5", 2023, "arXiv:2310.03744", "CLIP ViT", "MLP projection", "interleaved",
        mini.llava15, published.llava15,
    ),
    "llava_next": Design(
        "LLaVA-NeXT", 2024, "llava-vl.github.io/blog/2024-01-30-llava-next", "CLIP ViT on tiles", "MLP projection",
        "interleaved, rows ended by a newline",
        mini.llava_next, published.llava_next,
    ),
    "yi_vl": Design(
        "Yi-VL", 2024, "arXiv:2403.04652", "CLIP ViT", "MLP projection with norms", "interleaved",
        mini.yi_vl, published.yi_vl,
    ),
    "moondream2": Design(
        "moondream2", 2024, "github.com/vikhyat/moondream", "SigLIP ViT", "MLP projection", "interleaved",
        mini.moondream2, published.moondream2,
    ),
    "deepseek_vl": Design(
        "DeepSeek-VL 1.3B", 2024, "arXiv:2403.05525", "SigLIP ViT", "MLP projection", "interleaved",
        mini.deepseek_vl, published.deepseek_vl,
    ),
    "deepseek_vl_hybrid": Design(
        "DeepSeek-VL 7B", 2024, "arXiv:2403.05525", "SigLIP ViT and SAM", "a projection for each encoder",
        "interleaved",
        mini.deepseek_vl_hybrid, published.deepseek_vl_hybrid,
    ),
    "deco": Design(
        "DeCo", 2024, "arXiv:2405.20985", "CLIP ViT", "average pooling", "interleaved",
        mini.deco, published.deco,
    ),
    "smolvlm": Design(
        "SmolVLM", 2025, "arXiv:2504.05299", "SigLIP ViT", "pixel shuffle", "interleaved",
        mini.smolvlm, published.smolvlm,
    ),
    "blip2": Design(
        "BLIP-2", 2023, "arXiv:2301.12597", "EVA-CLIP ViT", "Q-Former", "interleaved",
        mini.blip2, published.blip2,
    ),
    "instructblip": Design(
        "InstructBLIP", 2023, "arXiv:2305.06500", "EVA-CLIP ViT", "Q-Former that reads the question", "interleaved",
        mini.instructblip, published.instructblip,
    ),
    "flamingo_resampler": Design(
        "Flamingo's resampler", 2022, "arXiv:2204.14198", "CLIP ViT", "Perceiver resampler", "interleaved",
        mini.flamingo_resampler, published.flamingo_resampler,
    ),
    "flamingo": Design(
        "Flamingo", 2022, "arXiv:2204.14198", "NFNet", "Perceiver resampler", "gated cross attention",
        mini.flamingo, published.flamingo,
    ),
    "open_flamingo": Design(
        "OpenFlamingo", 2023, "arXiv:2308.01390", "CLIP ViT", "Perceiver resampler", "gated cross attention",
        mini.open_flamingo, published.open_flamingo,
    ),
    "idefics": Design(
        "Idefics", 2023, "arXiv:2306.16527", "CLIP ViT", "Perceiver resampler", "gated cross attention",
        mini.idefics, published.idefics,
    ),
    "idefics2": Design(
        "Idefics2", 2024, "arXiv:2405.02246", "SigLIP ViT for any size", "Perceiver resampler", "interleaved",
        mini.idefics2, published.idefics2,
    ),
    "qwen_vl": Design(
        "Qwen-VL", 2023, "arXiv:2308.12966", "CLIP ViT", "one cross attention with 2-D positions", "interleaved",
        mini.qwen_vl, published.qwen_vl,
    ),
    "honeybee_c": Design(
        "Honeybee, C-Abstractor", 2023, "arXiv:2312.06742", "CLIP ViT", "convolutions around a pooling", "interleaved",
        mini.honeybee_c, published.honeybee_c,
    ),
    "honeybee_d": Design(
        "Honeybee, D-Abstractor", 2023, "arXiv:2312.06742", "CLIP ViT", "deformable attention", "interleaved",
        mini.honeybee_d, published.honeybee_d,
    ),
    "mm1": Design(
        "MM1", 2024, "arXiv:2403.09611", "CLIP ViT", "C-Abstractor", "interleaved",
        mini.mm1, published.mm1,
    ),
    "kosmos2": Design(
        "Kosmos-2", 2023, "arXiv:2306.14824", "CLIP ViT", "one cross attention", "interleaved",
        mini.kosmos2, published.kosmos2,
    ),
    "llama_vid": Design(
        "LLaMA-VID", 2023, "arXiv:2311.17043", "EVA-CLIP ViT", "context and content tokens", "interleaved",
        mini.llama_vid, published.llama_vid,
    ),
    "cogvlm": Design(
        "CogVLM", 2023, "arXiv:2311.03079", "EVA-CLIP ViT", "gated MLP between two tags", "visual experts",
        mini.cogvlm, published.cogvlm,
    ),
    "beit3": Design(
        "BEiT-3", 2022, "arXiv:2208.10442", "patches", "none", "multiway blocks",
        mini.beit3, published.beit3,
    ),
    "fuyu": Design(
        "Fuyu", 2023, "adept.ai/blog/fuyu-8b", "raw patches", "linear projection",
        "interleaved, rows ended by a newline",
        mini.fuyu, published.fuyu,
    ),
    "otterhd": Design(
        "OtterHD", 2023, "arXiv:2311.04219", "raw patches", "linear projection",
        "interleaved, rows ended by a newline",
        mini.otterhd, published.otterhd,
    ),
    "mod": Design(
        "Mixture-of-Depths (in small only)", 2024, "arXiv:2404.02258", "CLIP ViT", "MLP projection", "interleaved",
        mini.mod, published.mod,
    ),
    "fuyu_mod": Design(
        "Fuyu with depths (hypothetical)", 2024, "arXiv:2404.02258", "raw patches", "linear projection",
        "interleaved, rows ended by a newline",
        mini.fuyu_mod, published.fuyu_mod,
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
    """The configuration of that design in that preset, or of that variant (`VARIANTS`); ValueError naming what there is
    for another."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if preset == "mini" and name in VARIANTS:
        return VARIANTS[name]()
    return getattr(find(name), preset)()


def at_budget(config: VLMConfig, tokens: int) -> VLMConfig:
    """The same design with `tokens` visual tokens a picture; ValueError where its connector leaves no choice, or cannot
    make so many of its grid."""
    connector, grid = config.connector, config.vision.grid
    if hasattr(connector, "at_budget"):
        config = replace(config, connector=connector.at_budget(tokens, grid))
    if config.num_tokens != tokens:
        kind = type(connector).__name__
        grids = " and ".join(f"{rows}x{cols}" for rows, cols in config.vision.views(config.vision.image_size))
        made = f"{kind} makes {config.num_tokens} tokens of {grids} patches"
        raise ValueError(f"{made}, not {tokens}: it has no choice")
    return config


def build(name: str, preset: str = "mini", device: str | torch.device | None = None) -> nn.Module:
    """A model of that design with random weights, on `device` (default: the best there is).

    `device="meta"` allocates nothing, which is how a published system of many billions of weights is counted.
    """
    config = configure(name, preset)
    with torch.device(pick_device(device)):
        return config.build()
