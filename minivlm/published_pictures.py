"""The published systems that read pictures as they come, whatever their size, and both sizes of DeepSeek-VL:
`published` lists them among all others."""

from __future__ import annotations

from dataclasses import replace

from minivlm.connectors.hybrid_aligner import HybridProjection
from minivlm.connectors.perceiver import Idefics2Resampler
from minivlm.connectors.projection import LinearProjection, MLPProjection
from minivlm.connectors.separators import Separators
from minivlm.language.depths import DepthsConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.persimmon import PersimmonConfig
from minivlm.model import VLMConfig
from minivlm.vision.hybrid import HIGH_CENTRE, LOW_CENTRE, HybridConfig
from minivlm.vision.patches import PatchesConfig
from minivlm.vision.sam import SAMConfig
from minivlm.vision.variable import variable_vit
from minivlm.vision.vit import ViTConfig, siglip_vit


def idefics2() -> VLMConfig:
    """The 8B, on Mistral-7B (which looks back 4,096 places, here without limit). The processor makes pictures no longer
    than 980 pixels and, where details matter, hands on their quarters as well: `QuartersConfig` of this tower."""
    vision = variable_vit(image_size=(980, 980), patch_size=14, width=1152, depth=27, heads=16, mlp_width=4304)
    connector = Idefics2Resampler(64, depth=3, heads=16, head_dim=96, kv_heads=4, hidden=14336)
    language = LlamaConfig(32003, width=4096, depth=32, heads=32, kv_heads=8, mlp_width=14336, eps=1e-5)
    return VLMConfig(vision, connector, language, image_id=32001, eos_id=2, layer=None)


def _siglip_large() -> ViTConfig:
    sizes = dict(image_size=(384, 384), patch_size=16, width=1024, depth=24, heads=16, mlp_width=4096)
    return siglip_vit(**sizes, activation="gelu", pool="mean")


_DEEPSEEK = dict(image_id=100015, eos_id=100001, layer=None)


def deepseek_vl() -> VLMConfig:
    """The 1.3B: SigLIP alone."""
    language = LlamaConfig(102400, width=2048, depth=24, heads=16, kv_heads=16, mlp_width=5632, eps=1e-6)
    return VLMConfig(_siglip_large(), MLPProjection(), language, **_DEEPSEEK)


def deepseek_vl_hybrid() -> VLMConfig:
    """The 7B: SAM-B beside SigLIP."""
    sizes = dict(image_size=(1024, 1024), patch_size=16, width=768, depth=12, heads=12, mlp_width=3072)
    high = SAMConfig(**sizes, window=14, global_blocks=(2, 5, 8, 11), out_width=256, **HIGH_CENTRE)
    vision = HybridConfig(high, replace(_siglip_large(), **LOW_CENTRE))
    language = LlamaConfig(102400, width=4096, depth=30, heads=32, kv_heads=32, mlp_width=11008, eps=1e-6)
    return VLMConfig(vision, HybridProjection(vision.high_width), language, **_DEEPSEEK)


def fuyu() -> VLMConfig:
    """A picture of which nothing is said is as large as it may be without being shrunk."""
    language = PersimmonConfig(262144, width=4096, depth=36, heads=64, mlp_width=16384, eps=1e-5, rope_theta=25000.0)
    vision = PatchesConfig(30, limit=(1080, 1920), image_size=(1080, 1920))
    separators = Separators(newline=71019)
    return VLMConfig(vision, LinearProjection(), language, image_id=71011, eos_id=2, layer=None, separators=separators)


def otterhd() -> VLMConfig:
    """Fuyu's network, trained on squares of 448, 512 and 768 pixels and tested at up to 1,024."""
    return replace(fuyu(), vision=PatchesConfig(30, image_size=(1024, 1024)))


def fuyu_mod() -> VLMConfig:
    """Hypothetical: nobody published it. Fuyu-8B's sizes, with a router for every second block of its decoder."""
    return replace(fuyu(), language=DepthsConfig(fuyu().language))
