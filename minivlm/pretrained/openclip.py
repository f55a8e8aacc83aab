"""Models of open_clip."""

from __future__ import annotations

from typing import Any

from torch import nn

from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.pretrained.keys import WB, Rules, State, activation, refuse, rename, split_packed
from minivlm.pretrained.towers import pair
from minivlm.vision.vit import clip_vit

_OPEN_CLIP_LAYERS: Rules = [
    (rf"transformer\.resblocks\.(\d+)\.ln_1{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"transformer\.resblocks\.(\d+)\.attn\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"transformer\.resblocks\.(\d+)\.attn\.out_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"transformer\.resblocks\.(\d+)\.ln_2{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"transformer\.resblocks\.(\d+)\.mlp\.c_fc{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"transformer\.resblocks\.(\d+)\.mlp\.c_proj{WB}", r"blocks.\1.mlp.down.\2"),
]
_OPEN_CLIP: Rules = [
    (r"visual\.class_embedding", "vision.class_embedding"),
    (r"visual\.positional_embedding", "vision.position_embedding"),
    (r"visual\.conv1\.weight", "vision.patch_embedding.weight"),
    (rf"visual\.ln_pre{WB}", r"vision.pre_norm.\1"),
    (rf"visual\.ln_post{WB}", r"vision.final_norm.\1"),
    (r"visual\.proj", "image_projection.weight"),
    (r"token_embedding\.weight", "text.embedding.weight"),
    (r"positional_embedding", "text.position_embedding"),
    (rf"ln_final{WB}", r"text.final_norm.\1"),
    (r"text_projection", "text_projection.weight"),
    (r"logit_scale", "logit_scale"),
    *[(rf"visual\.{theirs}", f"vision.{ours}") for theirs, ours in _OPEN_CLIP_LAYERS],
    *[(theirs, f"text.{ours}") for theirs, ours in _OPEN_CLIP_LAYERS],
]


def _open_clip_activation(module: nn.Module) -> str:
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return activation({"QuickGELU": "quick_gelu"}.get(type(module).__name__, type(module).__name__))


def open_clip(model: Any) -> tuple[CLIPConfig, State]:
    vision, block = model.visual, model.visual.transformer.resblocks[0]
    refuse("open_clip model", {
        f"pooling {vision.pool_type!r}": vision.pool_type != "tok",
        f"text pooling {model.text_pool_type!r}": model.text_pool_type not in ("argmax", "eos"),
        "texts read in both directions": model.attn_mask is None,
        "no pre-norm": not isinstance(vision.ln_pre, nn.LayerNorm),
        "layer scale": not isinstance(block.ls_1, nn.Identity),
    })  # fmt: skip
    state = rename(split_packed(model.state_dict()), _OPEN_CLIP)
    for key in ("image_projection.weight", "text_projection.weight"):
        state[key] = state[key].T

    def sizes(layers: nn.ModuleList) -> dict[str, Any]:
        return dict(
            width=layers[0].ln_1.normalized_shape[0],
            depth=len(layers),
            heads=layers[0].attn.num_heads,
            mlp_width=layers[0].mlp.c_fc.out_features,
            activation=_open_clip_activation(layers[0].mlp.gelu),
            eps=layers[0].ln_1.eps,
        )

    ours = CLIPConfig(
        clip_vit(
            image_size=pair(vision.image_size),
            patch_size=pair(vision.patch_size)[0],
            **sizes(vision.transformer.resblocks),
        ),
        clip_text(vocab_size=model.vocab_size, context=model.context_length, **sizes(model.transformer.resblocks)),
        embed_dim=state["image_projection.weight"].shape[0],
        eos_id=None if model.text_pool_type == "argmax" else model.text_eos_id,
    )
    return ours, state
