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
from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.c_abstractor import CAbstraction
from minivlm.connectors.context_content import ContextContentConfig
from minivlm.connectors.cross_resampler import Kosmos2Resampler, QwenVLResampler
from minivlm.connectors.d_abstractor import DAbstraction
from minivlm.connectors.glu_projection import GLUProjection
from minivlm.connectors.perceiver import FlamingoResampler, IdeficsResampler
from minivlm.connectors.pooling import AveragePooling, PixelShuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NormedMLPProjection
from minivlm.connectors.qformer import InstructQFormerConfig, QFormerConfig
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.contrastive.towers import TextConfig
from minivlm.fusion.cross_attention import FlamingoCrossAttention, IdeficsCrossAttention
from minivlm.fusion.fusion import FusionConfig, Interleaved
from minivlm.fusion.multiway import MultiwayConfig
from minivlm.fusion.visual_expert import VisualExpertConfig
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

    @property
    def answers(self) -> bool:
        """Does it answer questions? Two towers only compare pictures with texts."""
        return isinstance(self.mini(), VLMConfig)


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


MINI_BERT = BertConfig(width=96, depth=3, heads=4, mlp_width=192)  # its first and its last block look at the picture
MINI_WORDS = VocabularyConfig(MINI_VOCABULARY, context=MINI_CONTEXT)  # a Q-Former reads what the decoder reads


INTERLEAVED = Interleaved()


def mini_vlm(connector: ConnectorConfig, fusion: FusionConfig = INTERLEAVED) -> VLMConfig:
    return VLMConfig(mini_vision(), connector, mini_language(), Tokenizer.image_id, Tokenizer.eos_id, fusion=fusion)


def _mini_flamingo(every: int) -> VLMConfig:
    """Where no picture is seen, only the decoder runs: what it said without pictures it goes on saying."""
    fusion = FlamingoCrossAttention(every=every, heads=4, head_dim=32, visual_width=128, blind_mlp=False)
    return mini_vlm(FlamingoResampler(MINI_TOKENS, depth=2, heads=4, head_dim=32), fusion)


def _mini_idefics() -> VLMConfig:
    """As `_mini_flamingo`, with the decoder's own kind of blocks."""
    fusion = IdeficsCrossAttention(every=2, heads=4, mlp_width=384, visual_width=128, blind_mlp=False)
    return mini_vlm(IdeficsResampler(MINI_TOKENS, depth=2, heads=4, head_dim=32), fusion)


def _mini_text(text: Callable[..., TextConfig]) -> TextConfig:
    return text(MINI_VOCABULARY, context=MINI_CONTEXT, width=128, depth=2, heads=4, mlp_width=512)


def _clip_mini() -> CLIPConfig:
    return CLIPConfig(mini_vision(), _mini_text(clip_text), embed_dim=128, eos_id=Tokenizer.eos_id)


def _siglip_mini() -> SigLIPConfig:
    return SigLIPConfig(mini_vision(siglip_vit), _mini_text(siglip_text))


def _d_abstraction_mini() -> DAbstraction:
    """Points a patch or two away, as four are on the published grid of 24 rows; wired as one reads the paper. With the
    wiring of the released configuration it does not learn shapes within the steps that all others need, and with two
    layers it does for some seeds only."""
    return DAbstraction(MINI_TOKENS, width=96, depth=1, heads=4, points=2, mlp_width=384, pooled="tgt")


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
    "moondream2": Design(
        "moondream2", 2024, "github.com/vikhyat/moondream", "SigLIP ViT", "MLP projection", "interleaved",
        lambda: mini_vlm(MLPProjection("gelu_tanh", hidden=1024)), published.moondream2,
    ),
    "deco": Design(
        "DeCo", 2024, "arXiv:2405.20985", "CLIP ViT", "average pooling", "interleaved",
        lambda: mini_vlm(AveragePooling(MINI_TOKENS)), published.deco,
    ),
    "smolvlm": Design(
        "SmolVLM", 2025, "arXiv:2504.05299", "SigLIP ViT", "pixel shuffle", "interleaved",
        lambda: mini_vlm(PixelShuffle(factor=2)), published.smolvlm,
    ),
    "blip2": Design(
        "BLIP-2", 2023, "arXiv:2301.12597", "EVA-CLIP ViT", "Q-Former", "interleaved",
        lambda: mini_vlm(QFormerConfig(MINI_TOKENS, MINI_BERT)), published.blip2,
    ),
    "instructblip": Design(
        "InstructBLIP", 2023, "arXiv:2305.06500", "EVA-CLIP ViT", "Q-Former that reads the question", "interleaved",
        lambda: mini_vlm(InstructQFormerConfig(MINI_TOKENS, MINI_WORDS, MINI_BERT)), published.instructblip,
    ),
    "flamingo_resampler": Design(
        "Flamingo's resampler", 2022, "arXiv:2204.14198", "CLIP ViT", "Perceiver resampler", "interleaved",
        lambda: mini_vlm(FlamingoResampler(MINI_TOKENS, depth=2, heads=4, head_dim=32)), published.flamingo_resampler,
    ),
    "flamingo": Design(
        "Flamingo", 2022, "arXiv:2204.14198", "NFNet", "Perceiver resampler", "gated cross attention",
        lambda: _mini_flamingo(every=2), published.flamingo,
    ),
    "open_flamingo": Design(
        "OpenFlamingo", 2023, "arXiv:2308.01390", "CLIP ViT", "Perceiver resampler", "gated cross attention",
        lambda: _mini_flamingo(every=1), published.open_flamingo,
    ),
    "idefics": Design(
        "Idefics", 2023, "arXiv:2306.16527", "CLIP ViT", "Perceiver resampler", "gated cross attention",
        _mini_idefics, published.idefics,
    ),
    "qwen_vl": Design(
        "Qwen-VL", 2023, "arXiv:2308.12966", "CLIP ViT", "one cross attention with 2-D positions", "interleaved",
        lambda: mini_vlm(QwenVLResampler(MINI_TOKENS, heads=4)), published.qwen_vl,
    ),
    "honeybee_c": Design(
        "Honeybee, C-Abstractor", 2023, "arXiv:2312.06742", "CLIP ViT", "convolutions around a pooling", "interleaved",
        lambda: mini_vlm(CAbstraction(MINI_TOKENS, width=128, depth=1)), published.honeybee_c,
    ),
    "honeybee_d": Design(
        "Honeybee, D-Abstractor", 2023, "arXiv:2312.06742", "CLIP ViT", "deformable attention", "interleaved",
        lambda: mini_vlm(_d_abstraction_mini()), published.honeybee_d,
    ),
    "mm1": Design(
        "MM1", 2024, "arXiv:2403.09611", "CLIP ViT", "C-Abstractor", "interleaved",
        lambda: mini_vlm(CAbstraction(MINI_TOKENS, width=128, depth=1)), published.mm1,
    ),
    "kosmos2": Design(
        "Kosmos-2", 2023, "arXiv:2306.14824", "CLIP ViT", "one cross attention", "interleaved",
        lambda: mini_vlm(Kosmos2Resampler(MINI_TOKENS, heads=4)), published.kosmos2,
    ),
    "llama_vid": Design(
        "LLaMA-VID", 2023, "arXiv:2311.17043", "EVA-CLIP ViT", "context and content tokens", "interleaved",
        lambda: mini_vlm(ContextContentConfig(1 + MINI_TOKENS, MINI_WORDS, queries=MINI_TOKENS, bert=MINI_BERT)),
        published.llama_vid,
    ),
    "cogvlm": Design(
        "CogVLM", 2023, "arXiv:2311.03079", "EVA-CLIP ViT", "gated MLP between two tags", "visual experts",
        lambda: mini_vlm(GLUProjection(hidden=384), VisualExpertConfig()), published.cogvlm,
    ),
    "beit3": Design(
        "BEiT-3", 2022, "arXiv:2208.10442", "patches", "none", "multiway blocks",
        lambda: mini_vlm(LinearProjection(), MultiwayConfig()), published.beit3,
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
    if config.num_tokens != tokens:
        kind = type(connector).__name__
        made = f"{kind} makes {config.num_tokens} tokens of {grid[0]}x{grid[1]} patches"
        raise ValueError(f"{made}, not {tokens}: it has no choice")
    return config


def build(name: str, preset: str = "mini", device: str | torch.device | None = None) -> nn.Module:
    """A model of that design with random weights, on `device` (default: the best there is).

    `device="meta"` allocates nothing, which is how a published system of many billions of weights is counted.
    """
    config = configure(name, preset)
    with torch.device(pick_device(device)):
        return config.build()
