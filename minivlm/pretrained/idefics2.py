"""The vision part and the connector of Idefics2 of transformers."""

from __future__ import annotations

from typing import Any

from minivlm.connectors.perceiver import Idefics2Resampler
from minivlm.model import VLMConfig
from minivlm.pretrained.keys import Rules, State, refuse, rename
from minivlm.pretrained.towers import VISION, vision_config
from minivlm.pretrained.vlms import decoded
from minivlm.vision.variable import VariableViTConfig, variable_vit

RESAMPLER: Rules = [
    (r"modality_projection\.(gate|up|down)_proj\.weight", r"enter.\1.weight"),
    (r"perceiver_resampler\.layers\.(\d+)\.input_(context|latents)_norm\.weight", r"layers.\1.\2_norm.weight"),
    (r"perceiver_resampler\.layers\.(\d+)\.self_attn\.([qkv])_proj\.weight", r"layers.\1.attention.\2.weight"),
    (r"perceiver_resampler\.layers\.(\d+)\.self_attn\.o_proj\.weight", r"layers.\1.attention.out.weight"),
    (r"perceiver_resampler\.layers\.(\d+)\.post_attention_layernorm\.weight", r"layers.\1.mlp_norm.weight"),
    (r"perceiver_resampler\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"layers.\1.mlp.\2.weight"),
    (r"perceiver_resampler\.(latents|norm\.weight)", r"\1"),
]


def idefics2(model: Any) -> tuple[VLMConfig, State]:
    """Pictures come whole or cut in quarters, and in words that say where they begin, as the processor has it: that is
    a matter of the text, not of the model."""
    vision, connector, state = idefics2_parts(model)
    return decoded(model, vision, connector, state)


def idefics2_parts(model: Any) -> tuple[VariableViTConfig, Idefics2Resampler, State]:
    """Of an `Idefics2ForConditionalGeneration` the tower's and the connector's configuration, and the weights of both,
    under "vision." and "connector."; ValueError for a variant that ours does not compute."""
    config, state = model.config, model.state_dict()
    text, perceiver = config.text_config, config.perceiver_config
    refuse(
        "Idefics2",
        {
            f"activation {text.hidden_act!r} before the resampler": text.hidden_act != "silu",
            f"activation {perceiver.hidden_act!r} in the resampler": perceiver.hidden_act != "silu",
        },
    )
    connector = Idefics2Resampler(
        perceiver.resampler_n_latents,
        depth=perceiver.resampler_depth,
        heads=perceiver.resampler_n_heads,
        head_dim=perceiver.resampler_head_dim,
        kv_heads=perceiver.num_key_value_heads,
        hidden=text.intermediate_size,
        eps=perceiver.rms_norm_eps,
    )
    return (
        vision_config(config.vision_config, variable_vit),
        connector,
        {
            **rename(state, VISION, "model.vision_model.", "vision."),
            **rename(state, RESAMPLER, "model.connector.", "connector."),
        },
    )
