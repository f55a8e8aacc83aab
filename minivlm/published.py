"""The published systems' exact architectures and sizes, built on the meta device to count, or to load real weights."""

from __future__ import annotations

from dataclasses import replace

from minivlm import mini
from minivlm.connectors.bert import VocabularyConfig
from minivlm.connectors.c_abstractor import CAbstraction
from minivlm.connectors.context_content import ContextContentConfig
from minivlm.connectors.cross_resampler import Kosmos2Resampler, QwenVLResampler
from minivlm.connectors.d_abstractor import DAbstraction
from minivlm.connectors.glu_projection import GLUProjection
from minivlm.connectors.perceiver import FlamingoResampler, IdeficsResampler
from minivlm.connectors.pooling import AveragePooling, PixelShuffle
from minivlm.connectors.projection import LinearProjection, MLPProjection, NoProjection, NormedMLPProjection
from minivlm.connectors.qformer import InstructQFormerConfig, QFormerConfig
from minivlm.connectors.separators import LEARNED, Separators
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.mmv import GivenConfig, MMVConfig, WordsConfig
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.fusion.cross_attention import FlamingoCrossAttention, IdeficsCrossAttention
from minivlm.fusion.multiway import MultiwayConfig
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.magneto import LearnedMagnetoConfig, MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.phi import PhiConfig
from minivlm.model import VLMConfig
from minivlm.published_pictures import (  # noqa: F401 (they are found here, like all others)
    deepseek_vl,
    deepseek_vl_hybrid,
    fuyu,
    fuyu_mod,
    idefics2,
    otterhd,
)
from minivlm.vision.tiles import TilesConfig
from minivlm.vision.vit import ViTConfig, bare_patches, clip_vit, eva2_vit, eva_vit, siglip_vit


def _clip_large(pixels: int) -> ViTConfig:
    return clip_vit(image_size=(pixels, pixels), patch_size=14, width=1024, depth=24, heads=16, mlp_width=4096)


def clip() -> CLIPConfig:
    text = clip_text(49408, context=77, width=768, depth=12, heads=12, mlp_width=3072)
    return CLIPConfig(_clip_large(336), text, embed_dim=768, eos_id=None)


def siglip() -> SigLIPConfig:
    vision = siglip_vit(image_size=(384, 384), patch_size=14, width=1152, depth=27, heads=16, mlp_width=4304)
    text = siglip_text(32000, context=64, width=1152, depth=27, heads=16, mlp_width=4304)
    return SigLIPConfig(vision, text)


def mmv_fac() -> MMVConfig:
    """Projections, spaces and words of the model whose backbones are a TSM-ResNet50 over 32 frames and a ResNet50 over
    a log-mel spectrogram: neither is among ours, so it takes their features, 2048 numbers each."""
    text = WordsConfig(65536, context=16, word_width=300, width=2048, pad_id=None)
    return MMVConfig(GivenConfig(2048), GivenConfig(2048), text, fine=512, coarse=256)


def _vicuna_7b(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(vocab_size, width=4096, depth=32, heads=32, kv_heads=32, mlp_width=11008, eps=1e-5)


def _llama_7b(vocab_size: int) -> LlamaConfig:
    return replace(_vicuna_7b(vocab_size), eps=1e-6)


def llava() -> VLMConfig:
    return VLMConfig(_clip_large(224), LinearProjection(), _vicuna_7b(32003), image_id=32000, eos_id=2)


def llava15() -> VLMConfig:
    return VLMConfig(_clip_large(336), MLPProjection(), _vicuna_7b(32064), image_id=32000, eos_id=2)


def llava_next() -> VLMConfig:
    """With Vicuna-7B. A picture of which nothing is said is a square that fills its largest canvas."""
    canvases = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    vision = TilesConfig(_clip_large(336), canvases, image_size=(672, 672))
    return replace(llava15(), vision=vision, separators=Separators(newline=LEARNED, lined_from=1))


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


def flamingo() -> VLMConfig:
    """The 80B. Its paper tells the resampler (6 layers, 16 heads, 1536 wide, 64 latents), layers before every 7th block
    of Chinchilla, and that its encoder is an NFNet-F6 of 435 million weights whose features are 1536 wide. None of its
    weights came out, so others stand in: for that encoder a ViT of its width and about its size, for Chinchilla a Llama
    of about 70 billion weights (80 blocks, 8192 wide), for the squared ReLU of its new MLPs the GELU of both open
    reimplementations."""
    vision = clip_vit(image_size=(320, 320), patch_size=32, width=1536, depth=15, heads=24, mlp_width=6144)
    connector = FlamingoResampler(tokens=64, depth=6, heads=16, head_dim=128)
    language = LlamaConfig(32002, width=8192, depth=80, heads=64, kv_heads=64, mlp_width=24576, eps=1e-5)
    fusion = FlamingoCrossAttention(every=7, heads=64, head_dim=128, visual_width=1536)
    return VLMConfig(vision, connector, language, image_id=32001, eos_id=32000, layer=-1, fusion=fusion)


def open_flamingo() -> VLMConfig:
    """The 9B as it was on LLaMA-7B; the later 9B has the same layers on MPT-7B, a decoder that is not among ours."""
    connector = FlamingoResampler(tokens=64, depth=6, heads=8, head_dim=64)
    fusion = FlamingoCrossAttention(every=4, heads=8, head_dim=64, visual_width=1024)
    sizes = dict(image_id=32001, eos_id=32000, layer=-1)
    return VLMConfig(_clip_large(224), connector, _llama_7b(32003), fusion=fusion, **sizes)


def idefics() -> VLMConfig:
    """Idefics-9B."""
    sizes = dict(image_size=(224, 224), patch_size=14, width=1280, depth=32, heads=16, mlp_width=5120)
    vision = clip_vit(**sizes, activation="gelu")
    connector = IdeficsResampler(tokens=64, depth=6, heads=16, head_dim=96)
    fusion = IdeficsCrossAttention(every=4, heads=32, mlp_width=11008, visual_width=1280)
    reads = dict(layer=-1, class_token=True, fusion=fusion)
    return VLMConfig(vision, connector, _llama_7b(32002), image_id=32001, eos_id=2, **reads)


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
    no weights and few sizes: the connector and the layer that it reads are Honeybee's here, and a Llama of 7 billion
    weights stands in for the decoder."""
    sizes = dict(image_size=(378, 378), patch_size=14, width=1280, depth=32, heads=16, mlp_width=5120)
    connector = CAbstraction(tokens=144)
    return VLMConfig(clip_vit(**sizes), connector, _vicuna_7b(32064), image_id=32000, eos_id=2, layer=-1)


def kosmos2() -> VLMConfig:
    """Of its own it has no id for a picture; its padding's, which no text holds, stands for one here."""
    language = MagnetoConfig(65037, width=2048, depth=24, heads=32, mlp_width=8192)
    connector = Kosmos2Resampler(tokens=64, heads=32)
    return VLMConfig(_clip_large(224), connector, language, image_id=1, eos_id=2, layer=None, class_token=True)


def cogvlm() -> VLMConfig:
    """CogVLM-17B, with EVA2-CLIP-E less the last of its 64 blocks. Of its own it has no id for a picture; its
    padding's, which no text holds, stands for one here."""
    vision = eva2_vit(image_size=(490, 490), patch_size=14, width=1792, depth=63, heads=16, mlp_width=15360)
    reads = dict(layer=-1, fusion=VisualExpertConfig())
    return VLMConfig(vision, GLUProjection(hidden=11008), _vicuna_7b(32000), image_id=0, eos_id=2, **reads)


def beit3() -> VLMConfig:
    """The large one. A stand-in for a picture's id as in `cogvlm`."""
    return multiway(width=1024, depth=24, heads=16)


def multiway(width: int, depth: int, heads: int) -> VLMConfig:
    """A BEiT-3 of any size, reading 224 pixels: raw patches and a class token are its only encoder."""
    vision = bare_patches(image_size=(224, 224), patch_size=16, width=width)
    language = LearnedMagnetoConfig(64010, width, depth, heads, mlp_width=4 * width)
    reads = dict(layer=0, class_token=True, fusion=MultiwayConfig(own_places=True))
    return VLMConfig(vision, NoProjection(class_token=True), language, image_id=1, eos_id=2, **reads)


def mod() -> VLMConfig:
    """There is none: the paper is of text alone, and none of its weights came out. So that nothing is made up, these
    are the sizes of the only one there is, ours in small."""
    return mini.mod()
