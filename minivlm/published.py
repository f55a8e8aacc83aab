"""The published systems' exact architectures and sizes, built on the meta device to count, or to load real weights."""

from __future__ import annotations

from minivlm.connectors.pooling import AveragePooling, PixelShuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NormedMLPProjection
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.language.llama import LlamaConfig
from minivlm.model import VLMConfig
from minivlm.vision.vit import ViTConfig, clip_vit, siglip_vit


def _clip_large(pixels: int) -> ViTConfig:
    return clip_vit(image_size=(pixels, pixels), patch_size=14, width=1024, depth=24, heads=16, mlp_width=4096)


def clip() -> CLIPConfig:
    text = clip_text(49408, context=77, width=768, depth=12, heads=12, mlp_width=3072)
    return CLIPConfig(_clip_large(336), text, embed_dim=768, eos_id=None)


def siglip() -> SigLIPConfig:
    vision = siglip_vit(image_size=(384, 384), patch_size=14, width=1152, depth=27, heads=16, mlp_width=4304)
    text = siglip_text(32000, context=64, width=1152, depth=27, heads=16, mlp_width=4304)
    return SigLIPConfig(vision, text)


def _vicuna_7b(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(vocab_size, width=4096, depth=32, heads=32, kv_heads=32, mlp_width=11008, eps=1e-5)


def llava() -> VLMConfig:
    return VLMConfig(_clip_large(224), LinearProjection(), _vicuna_7b(32003), image_id=32000, eos_id=2)


def llava15() -> VLMConfig:
    return VLMConfig(_clip_large(336), MLPProjection(), _vicuna_7b(32064), image_id=32000, eos_id=2)


def yi_vl() -> VLMConfig:
    vision = clip_vit(image_size=(448, 448), patch_size=14, width=1280, depth=32, heads=16, mlp_width=5120)
    language = LlamaConfig(64000, width=4096, depth=32, heads=32, kv_heads=4, mlp_width=11008, eps=1e-5, rope_theta=5e6)
    return VLMConfig(vision, NormedMLPProjection(), language, image_id=64000 - 1, eos_id=2)


def deco() -> VLMConfig:
    return VLMConfig(_clip_large(336), AveragePooling(tokens=144), _vicuna_7b(32064), image_id=32000, eos_id=2)


def smolvlm() -> VLMConfig:
    """SmolVLM-256M, reading a picture whole (it also cuts large ones into tiles)."""
    sizes = dict(image_size=(512, 512), patch_size=16, width=768, depth=12, heads=12, mlp_width=3072)
    language = LlamaConfig(49280, width=576, depth=30, heads=9, kv_heads=3, mlp_width=1536, eps=1e-5, rope_theta=1e5)
    vision = siglip_vit(**sizes, pool="mean")
    return VLMConfig(vision, PixelShuffle(factor=4), language, image_id=49190, eos_id=49279, layer=None)
