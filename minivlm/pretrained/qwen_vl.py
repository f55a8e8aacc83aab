"""Qwen-VL as its hub has it: a ViT-bigG of open_clip's naming, a resampler of one cross attention, and a Qwen-7B."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from minivlm.connectors.cross_resampler import QwenVLResampler, resized
from minivlm.language.llama import LlamaConfig
from minivlm.model import VLMConfig
from minivlm.pretrained.files import Weights
from minivlm.pretrained.keys import REST, WB, Rules, State, refuse, rename, under
from minivlm.vision.vit import ViTConfig, clip_vit

_LAYER = r"transformer\.resblocks\.(\d+)\."
_VISION: Rules = [
    (r"conv1\.weight", "patch_embedding.weight"),
    (r"positional_embedding", "position_embedding"),
    (rf"ln_pre{WB}", r"pre_norm.\1"),
    (rf"{_LAYER}ln_1{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"{_LAYER}attn\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"{_LAYER}attn\.out_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"{_LAYER}ln_2{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"{_LAYER}mlp\.c_fc{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"{_LAYER}mlp\.c_proj{WB}", r"blocks.\1.mlp.down.\2"),
]
_CONNECTOR: Rules = [
    (r"attn_pool\.query", "queries"),
    (r"attn_pool\.kv_proj\.weight", "enter.weight"),
    (rf"attn_pool\.attn\.([qkv]){WB}", r"attention.\1.\2"),
    (rf"attn_pool\.attn\.out_proj{WB}", r"attention.out.\1"),
    (rf"attn_pool\.ln_q{WB}", r"query_norm.\1"),
    (rf"attn_pool\.ln_kv{WB}", r"patch_norm.\1"),
    (rf"ln_post{WB}", r"norm.\1"),
    (r"proj", "out.weight"),
]
_BLOCK = r"h\.(\d+)\."
_LANGUAGE: Rules = [
    (r"wte\.weight", "embedding.weight"),
    (rf"{_BLOCK}ln_1\.weight", r"blocks.\1.attention_norm.weight"),
    (rf"{_BLOCK}attn\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"{_BLOCK}attn\.c_proj\.weight", r"blocks.\1.attention.out.weight"),
    (rf"{_BLOCK}ln_2\.weight", r"blocks.\1.mlp_norm.weight"),
    (rf"{_BLOCK}mlp\.w2\.weight", r"blocks.\1.mlp.gate.weight"),
    (rf"{_BLOCK}mlp\.w1\.weight", r"blocks.\1.mlp.up.weight"),
    (rf"{_BLOCK}mlp\.c_proj\.weight", r"blocks.\1.mlp.down.weight"),
    (r"ln_f\.weight", "final_norm.weight"),
]
_RULES: Rules = [
    *under(r"transformer\.visual\.", _VISION, "vision."),
    *under(r"transformer\.visual\.", _CONNECTOR, "connector."),
    *under(r"transformer\.", _LANGUAGE, "language."),
    (r"lm_head\.weight", "language.head.weight"),
    REST,
]
# Fixed waves, which ours computes; and what files of some releases hold beside the weights.
_COMPUTED = re.compile(r"transformer\.(visual\.attn_pool\.pos_embed|rotary_emb\.inv_freq|h\.\d+\.attn\.masked_bias)")


def qwen_vl(folder: Path, told: dict[str, Any]) -> tuple[VLMConfig, State]:
    """The id of a picture is that of the slots which theirs overwrites, the second behind where a picture starts.
    Beyond `seq_length` places theirs turns queries and keys otherwise (dynamic NTK, log-n), which ours does not."""
    visual = told["visual"]
    refuse(
        "Qwen-VL",
        {
            "biases": not told.get("no_bias", True),
            f"{told.get('rotary_pct', 1.0)} of a head turned": told.get("rotary_pct", 1.0) != 1.0,
            f"keys {told.get('kv_channels')} wide": told.get("kv_channels") not in (None, _head(told)),
        },
    )
    vision = _vision(visual)
    state = rename(_split(Weights(folder), visual["heads"]), _RULES)
    if "vision.position_embedding" in state:  # learned on a coarser grid, stretched in every pass
        state["vision.position_embedding"] = resized(state["vision.position_embedding"].float(), vision.grid)
    if "connector.out.weight" in state:
        state["connector.out.weight"] = state["connector.out.weight"].T
    connector = QwenVLResampler(visual.get("n_queries", 256), heads=visual["output_dim"] // 128)
    ids = dict(image_id=visual["image_start_id"] + 2, eos_id=told.get("eos_token_id", 151643))
    return VLMConfig(vision, connector, _language(told), **ids, layer=-1), state


def _head(told: dict[str, Any]) -> int:
    return told["hidden_size"] // told["num_attention_heads"]


def _vision(told: dict[str, Any]) -> ViTConfig:
    return clip_vit(
        (told["image_size"],) * 2,
        patch_size=told["patch_size"],
        width=told["width"],
        depth=told["layers"],
        heads=told["heads"],
        mlp_width=int(told["width"] * told["mlp_ratio"]),
        activation="gelu",
        eps=1e-6,
        class_token=False,
        pool="mean",
        final_norm=False,
    )


def _language(told: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        told["vocab_size"],
        width=told["hidden_size"],
        depth=told["num_hidden_layers"],
        heads=told["num_attention_heads"],
        kv_heads=told["num_attention_heads"],
        mlp_width=told["intermediate_size"] // 2,
        eps=told["layer_norm_epsilon"],
        rope_theta=told.get("rotary_emb_base", 10000.0),
        tied=told.get("tie_word_embeddings", False),
        qkv_bias=True,
    )


def _split(weights: Weights, heads: int) -> State:
    """q, k and v apart: in the encoder head after head, each with its three; elsewhere one after the other."""
    apart: State = {}
    for key, value in weights.items():
        packed = re.fullmatch(r"(.*\.)(attn\.in_proj\.|attn\.in_proj_|attn\.c_attn\.)(weight|bias)", key)
        if packed:
            mixed = packed[2] == "attn.in_proj."
            parts = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(1, 2) if mixed else value.chunk(3)
            apart |= {f"{packed[1]}attn.{name}.{packed[3]}": part for name, part in zip("qkv", parts, strict=True)}
        elif not _COMPUTED.fullmatch(key):
            apart[key] = value
    return apart
