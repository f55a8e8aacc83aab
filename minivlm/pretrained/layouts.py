"""The names that a model's weights have had in files, over the years, to those that its class has today in memory.

transformers moved parts about twice: what its releases up to 4.51 wrote (and most of the hub holds), what later ones
write, and what a model of today calls its own weights may be three names for one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from minivlm.pretrained.keys import Rules

_TOWER: Rules = [(r"vision_model\.(.*)", r"\1")]
_LANGUAGE: Rules = [
    (r"language_model\.lm_head\.(.*)", r"lm_head.\1"),
    (r"language_model\.model\.(.*)", r"model.language_model.\1"),
]
_LLAVA: Rules = [
    *_LANGUAGE,
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.*)", r"model.vision_tower.\1"),
    (r"(multi_modal_projector\..*|image_newline)", r"model.\1"),
]
_DEEPSEEK: Rules = [(r"model\.vision_model\.vision_model\.(.*)", r"model.vision_model.\1")]
_LAYER = r"(?:vit\.)?encoder\.layer\.(\d+)\."
_VIT: Rules = [
    *[
        (rf"{_LAYER}attention\.attention\.{theirs}\.(.*)", rf"layers.\1.attention.{ours}_proj.\2")
        for theirs, ours in zip(("query", "key", "value"), "qkv", strict=True)
    ],
    (rf"{_LAYER}attention\.output\.dense\.(.*)", r"layers.\1.attention.o_proj.\2"),
    (rf"{_LAYER}intermediate\.dense\.(.*)", r"layers.\1.mlp.fc1.\2"),
    (rf"{_LAYER}output\.dense\.(.*)", r"layers.\1.mlp.fc2.\2"),
    (rf"{_LAYER}(layernorm_before|layernorm_after)\.(.*)", r"layers.\1.\2.\3"),
]
_LAYOUTS: dict[str, Rules] = {
    "CLIPVisionModel": _TOWER,
    "SiglipVisionModel": _TOWER,
    "ViTModel": _VIT,
    "LlavaForConditionalGeneration": _LLAVA,
    "LlavaNextForConditionalGeneration": _LLAVA,
    "FuyuForCausalLM": [*_LANGUAGE, (r"(vision_embed_tokens\..*)", r"model.\1")],
    "DeepseekVLForConditionalGeneration": _DEEPSEEK,
    "DeepseekVLHybridForConditionalGeneration": _DEEPSEEK,
}
# What a model computes from its configuration; files of old releases hold it nevertheless.
_COMPUTED = re.compile(r"(?:.*\.)?(?:position_ids|rotary_emb\.inv_freq|embed_positions\.weights)")


def in_memory(keys: Iterable[str], kind: str) -> dict[str, str]:
    """Today's names in memory of a file's keys, for the class of transformers called `kind`, each with the key. A key
    that no layout knows keeps its name; what a model computes by itself is left out.

    ValueError where two keys become one name.
    """
    named: dict[str, str] = {}
    for key in keys:
        if _COMPUTED.fullmatch(key):
            continue
        name = _renamed(key, _LAYOUTS.get(kind, []))
        if name in named:
            raise ValueError(
                f"{named[name]} and {key} are two names for the same weight, {name}: files of two releases?"
            )
        named[name] = key
    return named


def _renamed(key: str, rules: Rules) -> str:
    for pattern, name in rules:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, name, key)
    return key
