"""CogVLM as its hub has it: EVA2-CLIP, the gated projection between two tags, and a Vicuna of which every block has
maps for words and maps for pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from minivlm.connectors.glu_projection import GLUProjection
from minivlm.fusion.visual_expert import VisualExpertConfig
from minivlm.language.llama import LlamaConfig
from minivlm.model import VLMConfig
from minivlm.pretrained.files import Weights
from minivlm.pretrained.keys import REST, WB, Rules, State, activation, refuse, rename, under
from minivlm.pretrained.towers import pair
from minivlm.vision.vit import ViTConfig, eva2_vit

_LAYER = r"transformer\.layers\.(\d+)\."
_VISION: Rules = [
    (r"patch_embedding\.cls_embedding", "class_embedding"),
    (r"patch_embedding\.position_embedding\.weight", "position_embedding"),
    (rf"patch_embedding\.proj{WB}", r"patch_embedding.\1"),
    (rf"{_LAYER}input_layernorm{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"{_LAYER}attention\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"{_LAYER}attention\.dense{WB}", r"blocks.\1.attention.out.\2"),
    (rf"{_LAYER}mlp\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"{_LAYER}mlp\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"{_LAYER}post_attention_layernorm{WB}", r"blocks.\1.mlp_norm.\2"),
]
_CONNECTOR: Rules = [
    (r"linear_proj\.linear_proj\.weight", "enter.weight"),
    (rf"linear_proj\.norm1{WB}", r"norm.\1"),
    (r"linear_proj\.gate_proj\.weight", "mlp.gate.weight"),
    (r"linear_proj\.dense_h_to_4h\.weight", "mlp.up.weight"),
    (r"linear_proj\.dense_4h_to_h\.weight", "mlp.down.weight"),
    (r"boi", "begin"),
    (r"eoi", "end"),
]
_BLOCK = r"layers\.(\d+)\."
_LANGUAGE: Rules = [
    (r"embed_tokens\.weight", "language.embedding.weight"),
    (rf"{_BLOCK}input_layernorm\.weight", r"language.blocks.\1.attention_norm.weight"),
    (rf"{_BLOCK}post_attention_layernorm\.weight", r"language.blocks.\1.mlp_norm.weight"),
    (rf"{_BLOCK}self_attn\.language_expert_([qkv])\.weight", r"language.blocks.\1.attention.\2.weight"),
    (rf"{_BLOCK}self_attn\.language_expert_dense\.weight", r"language.blocks.\1.attention.out.weight"),
    (rf"{_BLOCK}self_attn\.vision_expert_([qkv])\.weight", r"fusion.experts.\1.\2.weight"),
    (rf"{_BLOCK}self_attn\.vision_expert_dense\.weight", r"fusion.experts.\1.out.weight"),
    (rf"{_BLOCK}mlp\.language_mlp\.(gate|up|down)_proj\.weight", r"language.blocks.\1.mlp.\2.weight"),
    (rf"{_BLOCK}mlp\.vision_mlp\.(gate|up|down)_proj\.weight", r"fusion.experts.\1.mlp.\2.weight"),
    (r"norm\.weight", "language.final_norm.weight"),
]
_RULES: Rules = [
    *under(r"model\.vision\.", _VISION, "vision."),
    *under(r"model\.vision\.", _CONNECTOR, "connector."),
    *under(r"model\.", _LANGUAGE, ""),
    (r"lm_head\.weight", "language.head.weight"),
    REST,
]
_FLAT = ("vision.class_embedding", "connector.begin", "connector.end")


def cogvlm(folder: Path, told: dict[str, Any]) -> tuple[VLMConfig, State]:
    """Theirs is told beside the ids where a picture stands; here its padding's id, which no text holds, says so.
    ValueError for CogVLM2, which shrinks the grid and whose experts have biases."""
    state = rename(_split(Weights(folder)), _RULES)
    heads, kv_heads = told["num_attention_heads"], told.get("num_multi_query_heads")
    refuse(
        "CogVLM",
        {
            "grouped heads (CogVLM2)": kv_heads not in (None, heads),
            "a convolution behind the encoder (CogVLM2)": any(key.startswith("model.vision.conv") for key in state),
            f"activation {told.get('hidden_act', 'silu')!r}": told.get("hidden_act", "silu") != "silu",
        },
    )
    language = LlamaConfig(
        told["vocab_size"],
        width=told["hidden_size"],
        depth=told["num_hidden_layers"],
        heads=heads,
        kv_heads=heads,
        mlp_width=told["intermediate_size"],
        eps=told["rms_norm_eps"],
    )
    connector, reads = GLUProjection(told["intermediate_size"]), dict(layer=-1, fusion=VisualExpertConfig())
    ids = dict(image_id=told.get("pad_token_id", 0), eos_id=told.get("eos_token_id", 2))
    ours = VLMConfig(_vision(told["vision_config"]), connector, language, **ids, **reads)
    return ours, {key: value.flatten() if key in _FLAT else value for key, value in state.items()}


def _vision(told: dict[str, Any]) -> ViTConfig:
    return eva2_vit(
        pair(told["image_size"]),
        patch_size=told["patch_size"],
        width=told["hidden_size"],
        depth=told["num_hidden_layers"],
        heads=told["num_heads"],
        mlp_width=told["intermediate_size"],
        activation=activation(told["hidden_act"]),
        eps=told["layer_norm_eps"],
    )


def _split(weights: Weights) -> State:
    """q, k and v apart, and without what is computed anyway."""
    apart: State = {}
    for key, value in weights.items():
        packed = re.fullmatch(r"(.*\.attention\.|.*_expert_)query_key_value\.(weight|bias)", key)
        if packed:
            parts = zip("qkv", value.chunk(3), strict=True)
            apart |= {f"{packed[1]}{name}.{packed[2]}": part for name, part in parts}
        elif not key.endswith("rotary_emb.inv_freq"):
            apart[key] = value
    return apart
