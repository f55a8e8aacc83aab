"""The published systems' exact architectures and sizes, built on the meta device to count, or to load real weights."""

from __future__ import annotations

from minivlm.connectors.bert import VocabularyConfig
from minivlm.connectors.c_abstractor import CAbstraction
from minivlm.connectors.context_content import ContextContentConfig
from minivlm.connectors.cross_resampler import Kosmos2Resampler, QwenVLResampler
from minivlm.connectors.d_abstractor import DAbstraction
from minivlm.connectors.perceiver import FlamingoResampler
from minivlm.connectors.pooling import AveragePooling, PixelShuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NormedMLPProjection
from minivlm.connectors.qformer import InstructQFormerConfig, QFormerConfig
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.language.llama import LlamaConfig
from minivlm.language.magneto import MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.phi import PhiConfig
from minivlm.model import VLMConfig
from minivlm.vision.vit import ViTConfig, clip_vit, eva_vit, siglip_vit


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


def moondream2() -> VLMConfig:
    """As of March 2024, reading a picture whole (later releases also cut large ones into tiles); with Phi-1.5."""
    sizes = dict(image_size=(378, 378), patch_size=14, width=1152, depth=27, heads=16, mlp_width=4304)
    language = PhiConfig(51200, width=2048, depth=24, heads=32, mlp_width=8192)
    connector = MLPProjection("gelu_tanh", hidden=8192)
    vision = siglip_vit(**sizes, pool="mean")
    return VLMConfig(vision, connector, language, image_id=51200 - 1, eos_id=50256, layer=None)


def deco() -> VLMConfig:
    return VLMConfig(_clip_large(336), AveragePooling(tokens=144), _vicuna_7b(32064), image_id=32000, eos_id=2)


def smolvlm() -> VLMConfig:
    """SmolVLM-256M, reading a picture whole (it also cuts large ones into tiles)."""
    sizes = dict(image_size=(512, 512), patch_size=16, width=768, depth=12, heads=12, mlp_width=3072)
    language = LlamaConfig(49280, width=576, depth=30, heads=9, kv_heads=3, mlp_width=1536, eps=1e-5, rope_theta=1e5)
    vision = siglip_vit(**sizes, pool="mean")
    return VLMConfig(vision, PixelShuffle(factor=4), language, image_id=49190, eos_id=49279, layer=None)


def _eva_giant() -> ViTConfig:
    """EVA-CLIP's, without the last of its 40 blocks, as BLIP-2 and all after it read it."""
    return eva_vit(image_size=(224, 224), patch_size=14, width=1408, depth=39, heads=16, mlp_width=6144)


_BERT_WORDS = VocabularyConfig(30523)  # bert-base-uncased's, and the mark that a text starts


def blip2() -> VLMConfig:
    """With OPT-2.7B."""
    language = OPTConfig(50304, width=2560, depth=32, heads=32, mlp_width=10240)
    connector = QFormerConfig(tokens=32)
    reads = dict(layer=None, class_token=True)
    return VLMConfig(_eva_giant(), connector, language, image_id=50265, eos_id=50118, **reads)


def instructblip() -> VLMConfig:
    """With Vicuna-7B."""
    connector = InstructQFormerConfig(tokens=32, vocabulary=_BERT_WORDS)
    reads = dict(layer=None, class_token=True)
    return VLMConfig(_eva_giant(), connector, _vicuna_7b(32001), image_id=32000, eos_id=2, **reads)


def llama_vid() -> VLMConfig:
    """In the form it is named for: a picture, or a second of a video, is 2 tokens. (For single pictures it can also
    hand on every patch: 1 + 16*16 tokens.)"""
    connector = ContextContentConfig(tokens=2, vocabulary=_BERT_WORDS)
    reads = dict(layer=-1, class_token=True)
    return VLMConfig(_eva_giant(), connector, _vicuna_7b(32003), image_id=32000, eos_id=2, **reads)


def flamingo_resampler() -> VLMConfig:
    """OpenFlamingo's encoder, read before its final norm, and resampler. The published decoder (MPT-7B) meets the
    latents in cross-attention layers of its own; here they stand among the words of a Vicuna of about its size."""
    connector = FlamingoResampler(tokens=64, depth=6, heads=8, head_dim=64)
    return VLMConfig(_clip_large(224), connector, _vicuna_7b(32003), image_id=32000, eos_id=2, layer=-1)


def qwen_vl() -> VLMConfig:
    sizes = dict(image_size=(448, 448), patch_size=14, width=1664, depth=48, heads=16, mlp_width=8192)
    vision = clip_vit(**sizes, activation="gelu", eps=1e-6, class_token=False, pool="mean")
    language = LlamaConfig(
        151936, width=4096, depth=32, heads=32, kv_heads=32, mlp_width=11008, eps=1e-6, qkv_bias=True
    )
    connector = QwenVLResampler(tokens=256, heads=32)
    return VLMConfig(vision, connector, language, image_id=151859, eos_id=151643, layer=-1)


def honeybee_c() -> VLMConfig:
    connector = CAbstraction(tokens=144)
    return VLMConfig(_clip_large(336), connector, _vicuna_7b(32064), image_id=32000, eos_id=2, layer=-1)


def honeybee_d() -> VLMConfig:
    connector = DAbstraction(tokens=144)
    return VLMConfig(_clip_large(336), connector, _vicuna_7b(32064), image_id=32000, eos_id=2, layer=-1)


def mm1() -> VLMConfig:
    """MM1's paper tells the encoder (ViT-H at 378 pixels), the kind of connector and its 144 tokens, but it comes with
    no weights and few sizes: the connector and the layer that it
    reads are Honeybee's here, and a Llama of 7 billion weights stands in for the
    decoder."""
    sizes = dict(image_size=(378, 378), patch_size=14, width=1280, depth=32, heads=16, mlp_width=5120)
    connector = CAbstraction(tokens=144)
    return VLMConfig(clip_vit(**sizes), connector, _vicuna_7b(32064), image_id=32000, eos_id=2, layer=-1)


def kosmos2() -> VLMConfig:
    """Of its own it has no id for a picture; its padding's, which no text holds, stands for one here."""
    language = MagnetoConfig(65037, width=2048, depth=24, heads=32, mlp_width=8192)
    connector = Kosmos2Resampler(tokens=64, heads=32)
    return VLMConfig(_clip_large(224), connector, language, image_id=1, eos_id=2, layer=None, class_token=True)
