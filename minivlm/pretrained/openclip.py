"""Models of open_clip: one that is there, one of a folder, and one by its name and the tag of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.pretrained.files import Weights, json_of
from minivlm.pretrained.hub import folder_of
from minivlm.pretrained.keys import WB, Rules, State, activation, check_fit, refuse, rename, split_packed
from minivlm.pretrained.towers import pair
from minivlm.vision.vit import clip_vit

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
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


def open_clip_pretrained(name: str) -> tuple[CLIPConfig, State]:
    """Of a configuration of open_clip and a tag of its weights, "ViT-B-32/laion2b_s34b_b79k". The activation is the one
    that those weights were trained with. ValueError for a name or a tag that open_clip does not have."""
    from open_clip import get_model_config, get_pretrained_cfg, list_pretrained_tags_by_model

    model, _, tag = name.partition("/")
    told, weights = get_model_config(model), get_pretrained_cfg(model, tag)
    if told is None:
        raise ValueError(f"open_clip has no configuration {model!r}: see open_clip.list_models()")
    if not weights:
        tags = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"open_clip has no weights {tag!r} for {model}; there are: {tags}")
    if not weights.get("hf_hub"):
        raise ValueError(f"open_clip has {tag!r} for {model} only as a pickle, which can run any code when opened")
    folder = folder_of(weights["hf_hub"].strip("/"), weights=OPEN_CLIP_WEIGHTS)
    return _read_open_clip({**told, "quick_gelu": weights.get("quick_gelu", False)}, folder)


def open_clip_folder(folder: Path) -> tuple[CLIPConfig, State]:
    """Of a folder as the hub has open_clip's models."""
    return _read_open_clip(json_of(folder / OPEN_CLIP_CONFIG)["model_cfg"], folder)


def _read_open_clip(told: dict[str, Any], folder: Path) -> tuple[CLIPConfig, State]:
    from open_clip.model import CLIP

    known = {key: value for key, value in told.items() if key not in ("custom_text", "multimodal_cfg")}
    refuse(
        "open_clip model",
        {
            "text tower in a class of its own": bool(told.get("custom_text")) or "hf_model_name" in told["text_cfg"],
            "decoder of captions": "multimodal_cfg" in told,
            "timm tower": "timm_model_name" in told["vision_cfg"],
        },
    )
    with torch.device("meta"):
        theirs = CLIP(**known).eval()
    state = dict(Weights(folder, OPEN_CLIP_WEIGHTS))
    check_fit(theirs, state)
    theirs.load_state_dict(state, assign=True)
    return open_clip(theirs)
