"""Decoders of transformers, and SmolLM2 from its package."""

from __future__ import annotations

from typing import Any

from minivlm.language.llama import LlamaConfig
from minivlm.pretrained.keys import Rules, State, refuse, rename

LLAMA: Rules = [
    (r"(?:model\.)?embed_tokens\.weight", "embedding.weight"),
    (r"(?:model\.)?layers\.(\d+)\.input_layernorm\.weight", r"blocks.\1.attention_norm.weight"),
    (r"(?:model\.)?layers\.(\d+)\.self_attn\.([qkv])_proj\.weight", r"blocks.\1.attention.\2.weight"),
    (r"(?:model\.)?layers\.(\d+)\.self_attn\.o_proj\.weight", r"blocks.\1.attention.out.weight"),
    (r"(?:model\.)?layers\.(\d+)\.post_attention_layernorm\.weight", r"blocks.\1.mlp_norm.weight"),
    (r"(?:model\.)?layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"blocks.\1.mlp.\2.weight"),
    (r"(?:model\.)?norm\.weight", "final_norm.weight"),
    (r"lm_head\.weight", "head.weight"),
]


def llama_config(config: Any) -> LlamaConfig:
    refuse("decoder", {f"model type {config.model_type!r}": config.model_type != "llama"})
    rope = config.rope_parameters
    refuse(
        "Llama",
        {
            f"rope type {rope['rope_type']!r}": rope["rope_type"] != "default",
            "biases": bool(config.attention_bias or config.mlp_bias),
            f"activation {config.hidden_act!r}": config.hidden_act != "silu",
        },
    )
    return LlamaConfig(
        config.vocab_size,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        mlp_width=config.intermediate_size,
        eps=config.rms_norm_eps,
        rope_theta=rope["rope_theta"],
        tied=config.tie_word_embeddings,
        head_dim=config.head_dim,
    )


def llama(model: Any) -> tuple[LlamaConfig, State]:
    return llama_config(model.config), rename(model.state_dict(), LLAMA)
