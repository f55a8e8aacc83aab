"""Decoders of transformers, and SmolLM2 from its package."""

from __future__ import annotations

import warnings
from typing import Any

from minivlm.language.llama import LlamaConfig
from minivlm.language.magneto import MagnetoConfig
from minivlm.language.opt import OPTConfig
from minivlm.language.persimmon import PersimmonConfig
from minivlm.language.phi import PhiConfig
from minivlm.pretrained.keys import WB, Rules, State, refuse, rename, split_heads

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
OPT: Rules = [
    (r"model\.decoder\.embed_tokens\.weight", "embedding.weight"),
    (r"model\.decoder\.embed_positions\.weight", "position_embedding.weight"),
    (rf"model\.decoder\.layers\.(\d+)\.self_attn_layer_norm{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"model\.decoder\.layers\.(\d+)\.self_attn\.([qkv])_proj{WB}", r"blocks.\1.attention.\2.\3"),
    (rf"model\.decoder\.layers\.(\d+)\.self_attn\.out_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"model\.decoder\.layers\.(\d+)\.final_layer_norm{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"model\.decoder\.layers\.(\d+)\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"model\.decoder\.layers\.(\d+)\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"model\.decoder\.final_layer_norm{WB}", r"final_norm.\1"),
    (r"lm_head\.weight", "head.weight"),
]
PHI: Rules = [
    (r"model\.embed_tokens\.weight", "embedding.weight"),
    (rf"model\.layers\.(\d+)\.input_layernorm{WB}", r"blocks.\1.norm.\2"),
    (rf"model\.layers\.(\d+)\.self_attn\.([qkv])_proj{WB}", r"blocks.\1.attention.\2.\3"),
    (rf"model\.layers\.(\d+)\.self_attn\.dense{WB}", r"blocks.\1.attention.out.\2"),
    (rf"model\.layers\.(\d+)\.mlp\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"model\.layers\.(\d+)\.mlp\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"model\.final_layernorm{WB}", r"final_norm.\1"),
    (rf"lm_head{WB}", r"head.\1"),
]
MAGNETO: Rules = [
    (r"model\.embed_tokens\.weight", "embedding.weight"),
    (rf"model\.layers\.(\d+)\.self_attn_layer_norm{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"model\.layers\.(\d+)\.self_attn\.([qkv])_proj{WB}", r"blocks.\1.attention.\2.\3"),
    (rf"model\.layers\.(\d+)\.self_attn\.inner_attn_ln{WB}", r"blocks.\1.attention.out.norm.\2"),
    (rf"model\.layers\.(\d+)\.self_attn\.out_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"model\.layers\.(\d+)\.final_layer_norm{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"model\.layers\.(\d+)\.ffn\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"model\.layers\.(\d+)\.ffn\.ffn_layernorm{WB}", r"blocks.\1.mlp.down.norm.\2"),
    (rf"model\.layers\.(\d+)\.ffn\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"model\.layer_norm{WB}", r"final_norm.\1"),
    (r"lm_head\.weight", "head.weight"),
]
PERSIMMON: Rules = [
    (r"(?:model\.)?embed_tokens\.weight", "embedding.weight"),
    (rf"(?:model\.)?layers\.(\d+)\.input_layernorm{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"(?:model\.)?layers\.(\d+)\.self_attn\.([qkv])_proj{WB}", r"blocks.\1.attention.\2.\3"),
    (rf"(?:model\.)?layers\.(\d+)\.self_attn\.([qk])_layernorm{WB}", r"blocks.\1.attention.\2_norm.\3"),
    (rf"(?:model\.)?layers\.(\d+)\.self_attn\.dense{WB}", r"blocks.\1.attention.out.\2"),
    (rf"(?:model\.)?layers\.(\d+)\.post_attention_layernorm{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"(?:model\.)?layers\.(\d+)\.mlp\.dense_h_to_4h{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"(?:model\.)?layers\.(\d+)\.mlp\.dense_4h_to_h{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"(?:model\.)?final_layernorm{WB}", r"final_norm.\1"),
    (r"lm_head\.weight", "head.weight"),
]


def llama_config(config: Any) -> LlamaConfig:
    """Mistral is a Llama as far as its window reaches, on shorter texts: a warning says how long those are."""
    refuse("decoder", {f"model type {config.model_type!r}": config.model_type not in ("llama", "mistral")})
    rope = config.rope_parameters
    refuse(
        "Llama",
        {
            f"rope type {rope['rope_type']!r}": rope["rope_type"] != "default",
            "biases": any(getattr(config, name, False) for name in ("attention_bias", "mlp_bias")),
            f"activation {config.hidden_act!r}": config.hidden_act != "silu",
        },
    )
    window = getattr(config, "sliding_window", None)
    if window is not None:
        warnings.warn(
            f"this decoder looks back {window} places only (sliding_window), ours without limit: both are equal up to "
            f"{window} places",
            stacklevel=2,
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


def opt_config(config: Any) -> OPTConfig:
    refuse(
        "OPT",
        {
            f"words of width {config.word_embed_proj_dim}": config.word_embed_proj_dim != config.hidden_size,
            "norms behind the halves of a block": not config.do_layer_norm_before,
            "no final norm": config._remove_final_layer_norm,
            "no biases": not config.enable_bias,
            "norms without weights": not config.layer_norm_elementwise_affine,
            "an untied head": not config.tie_word_embeddings,
            f"activation {config.activation_function!r}": config.activation_function != "relu",
        },
    )
    return OPTConfig(
        config.vocab_size,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.ffn_dim,
        context=config.max_position_embeddings,
    )


def opt(model: Any) -> tuple[OPTConfig, State]:
    return opt_config(model.config), rename(model.state_dict(), OPT)


def phi_config(config: Any) -> PhiConfig:
    rope = config.rope_parameters
    refuse(
        "Phi",
        {
            f"rope type {rope['rope_type']!r}": rope["rope_type"] != "default",
            "grouped heads": config.num_key_value_heads != config.num_attention_heads,
            "norms of queries and keys": config.qk_layernorm,
            "a tied head": config.tie_word_embeddings,
            f"activation {config.hidden_act!r}": config.hidden_act not in ("gelu_new", "gelu_pytorch_tanh"),
        },
    )
    return PhiConfig(
        config.vocab_size,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        eps=config.layer_norm_eps,
        rope_theta=rope["rope_theta"],
        rotary_share=rope["partial_rotary_factor"],
    )


def phi(model: Any) -> tuple[PhiConfig, State]:
    return phi_config(model.config), rename(model.state_dict(), PHI)


def magneto_config(config: Any) -> MagnetoConfig:
    """Of the text model of Kosmos-2."""
    refuse(
        "Magneto",
        {
            "words that are not scaled": not config.scale_embedding,
            f"padding id {config.pad_token_id}, from which its places count": config.pad_token_id != 1,
            "cross-attention": config.add_cross_attention,
            "an untied head": not config.tie_word_embeddings,
            f"activation {config.activation_function!r}": config.activation_function != "gelu",
        },
    )
    return MagnetoConfig(
        config.vocab_size,
        width=config.embed_dim,
        depth=config.layers,
        heads=config.attention_heads,
        mlp_width=config.ffn_dim,
        eps=config.layer_norm_eps,
    )


def magneto(model: Any) -> tuple[MagnetoConfig, State]:
    return magneto_config(model.config), rename(model.state_dict(), MAGNETO)


def persimmon_config(config: Any) -> PersimmonConfig:
    refuse("decoder", {f"model type {config.model_type!r}": config.model_type != "persimmon"})
    rope = config.rope_parameters
    share = rope["partial_rotary_factor"]
    refuse(
        "Persimmon",
        {
            f"rope type {rope['rope_type']!r}": rope["rope_type"] != "default",
            f"{share} of a head turned, not its half": share != 0.5,
            "no norms of queries and keys": not config.qk_layernorm,
            "a tied head": config.tie_word_embeddings,
            f"activation {config.hidden_act!r}": config.hidden_act != "relu2",
        },
    )
    return PersimmonConfig(
        config.vocab_size,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        eps=config.layer_norm_eps,
        rope_theta=rope["rope_theta"],
    )


def persimmon(model: Any) -> tuple[PersimmonConfig, State]:
    ours = persimmon_config(model.config)
    return ours, rename(split_heads(model.state_dict(), ours.heads), PERSIMMON)
