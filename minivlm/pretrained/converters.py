"""Which converter opens which class of transformers or open_clip: a model in, our configuration and weights out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minivlm.pretrained.decoders import llama, magneto, opt, persimmon, phi
from minivlm.pretrained.deepseek import deepseek_vl, deepseek_vl_hybrid
from minivlm.pretrained.fuyu import fuyu
from minivlm.pretrained.idefics import idefics
from minivlm.pretrained.idefics2 import idefics2
from minivlm.pretrained.keys import State
from minivlm.pretrained.openclip import open_clip
from minivlm.pretrained.qformers import blip2, instructblip
from minivlm.pretrained.towers import clip, clip_vision, siglip, siglip_vision, vit_tower
from minivlm.pretrained.vlms import kosmos2, llava, llava_next

CONVERTERS: dict[str, Callable[[Any], tuple[Any, State]]] = {
    "CLIPModel": clip,
    "CLIPVisionModel": clip_vision,
    "SiglipModel": siglip,
    "SiglipVisionModel": siglip_vision,
    "ViTModel": vit_tower,
    "LlamaForCausalLM": llama,
    "OPTForCausalLM": opt,
    "PhiForCausalLM": phi,
    "PersimmonForCausalLM": persimmon,
    "Kosmos2TextForCausalLM": magneto,
    "LlavaForConditionalGeneration": llava,
    "LlavaNextForConditionalGeneration": llava_next,
    "Blip2ForConditionalGeneration": blip2,
    "InstructBlipForConditionalGeneration": instructblip,
    "Kosmos2ForConditionalGeneration": kosmos2,
    "IdeficsForVisionText2Text": idefics,
    "Idefics2ForConditionalGeneration": idefics2,
    "DeepseekVLForConditionalGeneration": deepseek_vl,
    "DeepseekVLHybridForConditionalGeneration": deepseek_vl_hybrid,
    "FuyuForCausalLM": fuyu,
    "CLIP": open_clip,
}
