"""Towers of transformers: CLIP, SigLIP, ViT, and both towers of a contrastive pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.pretrained.keys import WB, Rules, State, activation, refuse, rename, split_packed
from minivlm.vision.vit import ViTConfig, clip_vit, siglip_vit, vit

ENCODER_LAYERS: Rules = [
    (rf"encoder\.layers\.(\d+)\.layer_norm1{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj{WB}", r"blocks.\1.attention.\2.\3"),
    (rf"encoder\.layers\.(\d+)\.self_attn\.out_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"encoder\.layers\.(\d+)\.layer_norm2{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"encoder\.layers\.(\d+)\.mlp\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"encoder\.layers\.(\d+)\.mlp\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
]
VISION: Rules = [
    (r"embeddings\.class_embedding", "class_embedding"),
    (rf"embeddings\.patch_embedding{WB}", r"patch_embedding.\1"),
    (r"embeddings\.position_embedding\.weight", "position_embedding"),
    (rf"pre_layrnorm{WB}", r"pre_norm.\1"),  # the typo is theirs
    (rf"post_layernorm{WB}", r"final_norm.\1"),
    *ENCODER_LAYERS,
    (r"head\.probe", "pool.probe"),
    (rf"head\.attention\.([qkv]){WB}", r"pool.attention.\1.\2"),
    (rf"head\.attention\.out_proj{WB}", r"pool.attention.out.\1"),
    (rf"head\.layernorm{WB}", r"pool.norm.\1"),
    (rf"head\.mlp\.fc1{WB}", r"pool.mlp.up.\1"),
    (rf"head\.mlp\.fc2{WB}", r"pool.mlp.down.\1"),
]
_TEXT: Rules = [
    (r"embeddings\.token_embedding\.weight", "embedding.weight"),
    (r"embeddings\.position_embedding\.weight", "position_embedding"),
    (rf"final_layer_norm{WB}", r"final_norm.\1"),
    *ENCODER_LAYERS,
]
_VIT: Rules = [
    (r"embeddings\.cls_token", "class_embedding"),
    (r"embeddings\.position_embeddings", "position_embedding"),
    (rf"embeddings\.patch_embeddings\.projection{WB}", r"patch_embedding.\1"),
    (rf"layers\.(\d+)\.layernorm_before{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"layers\.(\d+)\.layernorm_after{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"layers\.(\d+)\.attention\.([qkv])_proj{WB}", r"blocks.\1.attention.\2.\3"),
    (rf"layers\.(\d+)\.attention\.o_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"layers\.(\d+)\.mlp\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"layers\.(\d+)\.mlp\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"layernorm{WB}", r"final_norm.\1"),
    (rf"pooler\.dense{WB}", r"pool.\1"),
]


def pair(size: int | list | tuple) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _tower_sizes(config: Any) -> dict[str, Any]:
    return dict(
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        activation=activation(config.hidden_act),
        eps=config.layer_norm_eps,
    )


def vision_config(config: Any, tower: Callable[..., ViTConfig]) -> ViTConfig:
    return tower(image_size=pair(config.image_size), patch_size=config.patch_size, **_tower_sizes(config))


def _text_config(config: Any, tower: Callable) -> Any:
    return tower(vocab_size=config.vocab_size, context=config.max_position_embeddings, **_tower_sizes(config))


def clip_vision(model: Any) -> tuple[ViTConfig, State]:
    return vision_config(model.config, clip_vit), rename(model.state_dict(), VISION)


def siglip_vision(model: Any) -> tuple[ViTConfig, State]:
    refuse("SigLIP tower", {"no pooling head": not getattr(model.config, "vision_use_head", True)})
    return vision_config(model.config, siglip_vit), rename(split_packed(model.state_dict()), VISION)


def vit_tower(model: Any) -> tuple[ViTConfig, State]:
    config = model.config
    refuse(
        "ViT",
        {
            "no pooler": model.pooler is None,
            f"pooler activation {config.pooler_act!r}": config.pooler_act != "tanh",
            "qkv_bias=False": not config.qkv_bias,
        },
    )
    state = rename(model.state_dict(), _VIT)
    for key in ("class_embedding", "position_embedding"):
        state[key] = state[key].flatten(0, -2).squeeze(0)  # (1, N, D) -> (N, D); the class token -> (D,)
    return vision_config(config, vit), state


def clip(model: Any) -> tuple[CLIPConfig, State]:
    config, state = model.config, model.state_dict()
    eos = config.text_config.eos_token_id
    ours = CLIPConfig(
        vision_config(config.vision_config, clip_vit),
        _text_config(config.text_config, clip_text),
        config.projection_dim,
        None if eos == 2 else eos,  # 2 is how transformers marks OpenAI's configurations: read off at the largest id
    )
    own: Rules = [("visual_projection.weight", "image_projection.weight"), ("text_projection.weight",
    "text_projection.weight"),
                  ("logit_scale", "logit_scale"), (r"(vision|text)_model\..*", "")]  # fmt: skip
    return ours, _two_towers(state, own)


def siglip(model: Any) -> tuple[SigLIPConfig, State]:
    config, state = model.config, split_packed(model.state_dict())
    refuse(
        "SigLIP",
        {"a projection of another width": config.text_config.projection_size != config.vision_config.hidden_size},
    )
    ours = SigLIPConfig(vision_config(config.vision_config, siglip_vit), _text_config(config.text_config, siglip_text))
    own: Rules = [(rf"text_model\.head{WB}", r"text_projection.\1"), ("logit_(scale|bias)", r"logit_\1"),
                  (r"(vision|text)_model\..*", "")]  # fmt: skip
    return ours, _two_towers(state, own)


def _two_towers(state: State, own: Rules) -> State:
    """Both towers and what is `own` to the pair; in `own`, a key renamed to nothing belongs to a tower."""
    rest = rename(state, own)
    rest.pop("", None)
    text = {key: value for key, value in state.items() if not key.startswith("text_model.head.")}
    return {
        **rename(state, VISION, "vision_model.", "vision."),
        **rename(text, _TEXT, "text_model.", "text."),
        **{key: value.reshape(()) if key.startswith("logit") else value for key, value in rest.items()},
    }
