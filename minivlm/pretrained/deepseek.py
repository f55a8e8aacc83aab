"""The vision parts and the connectors of both DeepSeek-VLs of transformers: SigLIP alone, and SigLIP beside SAM."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from minivlm.connectors.hybrid_aligner import HybridProjection
from minivlm.connectors.projection import MLPProjection
from minivlm.model import VLMConfig
from minivlm.pretrained.keys import WB, Rules, State, refuse, rename, split_packed
from minivlm.pretrained.towers import VISION, pair, vision_config
from minivlm.pretrained.vlms import decoded
from minivlm.vision.hybrid import HIGH_CENTRE, LOW_CENTRE, HybridConfig
from minivlm.vision.sam import EPS, SAMConfig
from minivlm.vision.vit import ViTConfig, siglip_vit

_SIGLIP: Rules = [(r"head\..*", ""), *VISION]  # only patches are read, so the head, which the published have not, goes
_NECK: Rules = [
    (r"neck\.conv1\.weight", "neck.narrow.weight"),
    (r"neck\.conv2\.weight", "neck.look.weight"),
    (rf"neck\.layer_norm1{WB}", r"neck.narrow_norm.\1"),
    (rf"neck\.layer_norm2{WB}", r"neck.look_norm.\1"),
]
_SAM: Rules = [
    (rf"patch_embed\.projection{WB}", r"patch_embedding.\1"),
    (r"pos_embed", "position_embedding"),
    (rf"layers\.(\d+)\.layer_norm1{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"layers\.(\d+)\.attn\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"layers\.(\d+)\.attn\.proj{WB}", r"blocks.\1.attention.out.\2"),
    (r"layers\.(\d+)\.attn\.rel_pos_h", r"blocks.\1.attention.rows"),
    (r"layers\.(\d+)\.attn\.rel_pos_w", r"blocks.\1.attention.cols"),
    (rf"layers\.(\d+)\.layer_norm2{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"layers\.(\d+)\.mlp\.lin1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"layers\.(\d+)\.mlp\.lin2{WB}", r"blocks.\1.mlp.down.\2"),
    *_NECK,
]
_HIGH_RESOLUTION: Rules = [
    *((rf"model\.vision_encoder\.{theirs}", f"high.{ours}") for theirs, ours in _SAM),
    *((theirs, f"first_{ours}") for theirs, ours in _NECK),
    (r"proj\.conv1\.weight", "shrink.0.weight"),
    (r"proj\.conv2\.weight", "shrink.1.weight"),
    (r"alpha", "alpha"),
]
_HYBRID_ALIGNER: Rules = [
    (rf"high_res_vision_proj{WB}", r"high.\1"),
    (rf"vision_proj{WB}", r"low.\1"),
    (rf"proj{WB}", r"out.\1"),
]
_MLP: Rules = [(rf"linear1{WB}", r"0.\1"), (rf"linear2{WB}", r"2.\1")]


def deepseek_vl(model: Any) -> tuple[VLMConfig, State]:
    return decoded(model, *deepseek_vl_parts(model))


def deepseek_vl_hybrid(model: Any) -> tuple[VLMConfig, State]:
    return decoded(model, *deepseek_vl_hybrid_parts(model))


def deepseek_vl_parts(model: Any) -> tuple[ViTConfig, MLPProjection, State]:
    """Of a `DeepseekVLForConditionalGeneration` the tower's and the connector's configuration, and the weights of both,
    under "vision." and "connector.". The connector reads the tower's patches after the final norm."""
    state = model.state_dict()
    weights = {**_siglip(state, "vision."), **rename(state, _MLP, "model.aligner.", "connector.")}
    return _low(model.config), MLPProjection("gelu"), weights


def deepseek_vl_hybrid_parts(model: Any) -> tuple[HybridConfig, HybridProjection, State]:
    """The same of a `DeepseekVLHybridForConditionalGeneration`. Its pictures come in [0, 1]: each tower centres them in
    its own way. ValueError for a variant that ours does not compute."""
    config, state = model.config, model.state_dict()
    vision = HybridConfig(_sam(config.high_res_vision_config), replace(_low(config), **LOW_CENTRE))
    weights = {
        **_high_resolution(state),
        **_siglip(state, "vision.low."),
        **rename(state, _HYBRID_ALIGNER, "model.aligner.", "connector."),
    }
    return vision, HybridProjection(vision.high_width), weights


def _low(config: Any) -> ViTConfig:
    kind = config.vision_config.model_type
    refuse("DeepSeek-VL", {f"vision tower {kind!r}": kind != "siglip_vision_model"})
    return vision_config(config.vision_config, partial(siglip_vit, pool="mean"))


def _siglip(state: State, into: str) -> State:
    tower = rename(state, _SIGLIP, "model.vision_model.", into)
    return {key: value for key, value in tower.items() if key != into}


def _sam(config: Any) -> SAMConfig:
    refuse(
        "SAM",
        {
            "no absolute positions": not config.use_abs_pos,
            "no relative positions": not config.use_rel_pos,
            "qkv_bias=False": not config.qkv_bias,
            f"activation {config.hidden_act!r}": config.hidden_act != "gelu",
            f"layer_norm_eps {config.layer_norm_eps}": config.layer_norm_eps != EPS,
        },
    )
    return SAMConfig(
        pair(config.image_size),
        patch_size=config.patch_size,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.mlp_dim,
        window=config.window_size,
        global_blocks=tuple(config.global_attn_indexes),
        out_width=config.output_channels,
        **HIGH_CENTRE,
    )


def _high_resolution(state: State) -> State:
    """SAM and what follows it. Its q, k and v are packed; its positions have an axis for the batch."""
    packed = {key.replace(".qkv.", ".in_proj_"): value for key, value in state.items()}
    tower = rename(split_packed(packed), _HIGH_RESOLUTION, "model.high_res_vision_", "vision.")
    shaped = {key: value.flatten(1) for key, value in tower.items() if key.endswith("narrow.weight")}
    return tower | shaped | {"vision.high.position_embedding": tower["vision.high.position_embedding"][0]}
