"""Idefics of transformers."""

from __future__ import annotations

from typing import Any

import torch

from minivlm.connectors.perceiver import IdeficsResampler
from minivlm.fusion.cross_attention import IdeficsCrossAttention
from minivlm.language.llama import LlamaConfig
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import LLAMA
from minivlm.pretrained.keys import Rules, State, refuse, rename
from minivlm.pretrained.towers import VISION, vision_config
from minivlm.vision.vit import clip_vit

RESAMPLER: Rules = [
    (r"blocks\.(\d+)\.0\.(context|latents)_layer_norm\.(.*)", r"layers.\1.\2_norm.\3"),
    (r"blocks\.(\d+)\.0\.(q|k)_layer_norm\.(.*)", r"layers.\1.attention.\2_norm.\3"),
    (r"blocks\.(\d+)\.0\.(q|k|v)_proj\.weight", r"layers.\1.attention.\2.weight"),
    (r"blocks\.(\d+)\.0\.output_proj\.weight", r"layers.\1.attention.out.weight"),
    (r"blocks\.(\d+)\.1\.ln\.(.*)", r"layers.\1.mlp_norm.\2"),
    (r"blocks\.(\d+)\.1\.fc\.weight", r"layers.\1.mlp.up.weight"),
    (r"blocks\.(\d+)\.1\.c_proj\.weight", r"layers.\1.mlp.down.weight"),
    (r"latents", "latents"),
    (r"layer_norm\.(.*)", r"norm.\1"),
]
_GATED_LAYERS: Rules = [
    (r"(\d+)\.input_layernorm\.weight", r"\1.attention_norm.weight"),
    (r"(\d+)\.cross_attn\.([qkv])_proj\.weight", r"\1.attention.\2.weight"),
    (r"(\d+)\.cross_attn\.o_proj\.weight", r"\1.attention.out.weight"),
    (r"(\d+)\.cross_attn\.([qk])_layer_norm\.weight", r"\1.attention.\2_norm.weight"),
    (r"(\d+)\.alpha_cross_attn", r"\1.attention_gate"),
    (r"(\d+)\.post_attention_layernorm\.weight", r"\1.mlp_norm.weight"),
    (r"(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"\1.mlp.\2.weight"),
    (r"(\d+)\.alpha_dense", r"\1.mlp_gate"),
]
_PARTS = {
    "model.vision_model.": (VISION, "vision."),
    "model.perceiver_resampler.": (RESAMPLER, "connector."),
    "model.gated_cross_attn_layers.": (_GATED_LAYERS, "fusion.layers."),
}


def idefics(model: Any) -> tuple[VLMConfig, State]:
    """Theirs is told beside the ids who sees which picture; ours finds a picture by its id, the second of the words
    added to Llama's, as in the published tokenizer. Its two tables of words, old and added, become one."""
    config, state = model.config, model.state_dict()
    rope, depth = config.rope_parameters, config.num_hidden_layers
    refuse(
        "Idefics",
        {
            "no resampler": not config.use_resampler,
            f"{config.additional_vocab_size} added words, so none for a picture": config.additional_vocab_size < 2,
            f"{depth} blocks in groups of {config.cross_layer_interval}": depth % config.cross_layer_interval != 0,
            f"rope type {rope['rope_type']!r}": rope["rope_type"] != "default",
            f"activation {config.hidden_act!r}": config.hidden_act != "silu",
            "no single end id": not isinstance(config.eos_token_id, int),
        },
    )
    language = LlamaConfig(
        config.vocab_size + config.additional_vocab_size,
        width=config.hidden_size,
        depth=depth,
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        eps=config.rms_norm_eps,
        rope_theta=rope["rope_theta"],
        tied=config.tie_word_embeddings,
    )
    ours = VLMConfig(
        vision_config(config.vision_config, clip_vit),
        _resampler(config.perceiver_config),
        language,
        image_id=config.vocab_size + 1,
        eos_id=config.eos_token_id,
        layer=-1,
        class_token=True,
        fusion=_cross_attention(config),
    )
    words = {key: value for key, value in state.items() if not key.startswith(tuple(_PARTS))}
    renamed = rename(_one_table(words), LLAMA, into="language.")
    for prefix, (rules, into) in _PARTS.items():
        renamed |= rename(state, rules, prefix, into)
    return ours, {key: value.flatten() if key.endswith("_gate") else value for key, value in renamed.items()}


def _resampler(config: Any) -> IdeficsResampler:
    return IdeficsResampler(
        config.resampler_n_latents,
        depth=config.resampler_depth,
        heads=config.resampler_n_heads,
        head_dim=config.resampler_head_dim,
        head_norms=config.qk_layer_norms_perceiver,
    )


def _cross_attention(config: Any) -> IdeficsCrossAttention:
    return IdeficsCrossAttention(
        every=config.cross_layer_interval,
        heads=config.num_attention_heads,
        visual_width=config.vision_config.embed_dim,
        mlp_width=config.intermediate_size,
        head_norms=config.qk_layer_norms,
        vector_gates=config.alpha_type == "vector",
        eps=config.rms_norm_eps,
    )


def _one_table(words: State) -> State:
    """The rows of the added words behind those of the old, in the embedding and in the head."""
    tables = {"model.embed_tokens.": "additional_embedding.", "lm_head.": "additional_fc."}
    joined = dict(words)
    for table, added in tables.items():
        rows = joined.pop(f"{table}{added}weight")
        joined[f"{table}weight"] = torch.cat([joined[f"{table}weight"], rows])
    return joined
