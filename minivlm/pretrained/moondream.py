"""moondream2 as its hub has it in spring 2024: a SigLIP of timm's naming, two linear maps, and a Phi of Microsoft's
naming. Its configuration tells hardly any size, so they are read off the weights' shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minivlm.connectors.projection import MLPProjection
from minivlm.language.phi import PhiConfig
from minivlm.model import VLMConfig
from minivlm.pretrained.files import Weights
from minivlm.pretrained.keys import REST, WB, Rules, State, refuse, rename, under
from minivlm.vision.vit import siglip_vit

VISION_HEADS = 16  # what the class of the release has, whatever its configuration says
_BLOCK = r"blocks\.(\d+)\."
_VISION: Rules = [
    (rf"patch_embed\.linear{WB}", r"patch_embedding.\1"),
    (r"pos_embed", "position_embedding"),
    (rf"{_BLOCK}norm1{WB}", r"blocks.\1.attention_norm.\2"),
    (rf"{_BLOCK}attn\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"{_BLOCK}attn\.proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"{_BLOCK}norm2{WB}", r"blocks.\1.mlp_norm.\2"),
    (rf"{_BLOCK}mlp\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"{_BLOCK}mlp\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"norm{WB}", r"final_norm.\1"),
]
_LAYER = r"transformer\.h\.(\d+)\."
_LANGUAGE: Rules = [
    (r"transformer\.embd\.wte\.weight", "embedding.weight"),
    (rf"{_LAYER}ln{WB}", r"blocks.\1.norm.\2"),
    (rf"{_LAYER}mixer\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"{_LAYER}mixer\.out_proj{WB}", r"blocks.\1.attention.out.\2"),
    (rf"{_LAYER}mlp\.fc1{WB}", r"blocks.\1.mlp.up.\2"),
    (rf"{_LAYER}mlp\.fc2{WB}", r"blocks.\1.mlp.down.\2"),
    (rf"lm_head\.ln{WB}", r"final_norm.\1"),
    (rf"lm_head\.linear{WB}", r"head.\1"),
]
_RULES: Rules = [
    *under(r"vision_encoder\.encoder\.model\.visual\.", _VISION, "vision."),
    (rf"vision_encoder\.projection\.mlp\.fc1{WB}", r"connector.0.\1"),
    (rf"vision_encoder\.projection\.mlp\.fc2{WB}", r"connector.2.\1"),
    *under(r"text_model\.", _LANGUAGE, "language."),
    REST,
]


def moondream(folder: Path, told: dict[str, Any]) -> tuple[VLMConfig, State]:
    """The release that reads a picture whole; ValueError for later ones, whose connector reads crops beside it. It has
    no id for a picture: the last of the vocabulary, which no text holds, stands for one."""
    state = rename(_split(Weights(folder)), _RULES)
    vision, connector, language = _vision(state), _shape(state, "connector.0.weight"), _language(state, told)
    refuse("moondream", {"crops beside the whole picture": connector[1] != vision.width})
    patches = state["vision.patch_embedding.weight"]
    state["vision.patch_embedding.weight"] = patches.unflatten(1, (3, vision.patch_size, vision.patch_size))
    state["vision.position_embedding"] = state["vision.position_embedding"].flatten(0, -2)
    ends = told.get("text_config", {}).get("eos_token_id", 50256)
    reads = dict(image_id=language.vocab_size - 1, eos_id=ends, layer=None)
    return VLMConfig(vision, MLPProjection("gelu_tanh", hidden=connector[0]), language, **reads), state


def _split(weights: Weights) -> State:
    """q, k and v apart, of both towers, where they are one after the other."""
    apart: State = {}
    for key, value in weights.items():
        for packed in ("attn.qkv.", "mixer.Wqkv."):
            if packed in key:
                begin, kind = key.split(packed)
                parts = zip("qkv", value.chunk(3), strict=True)
                apart |= {f"{begin}{packed.split('.')[0]}.{name}.{kind}": part for name, part in parts}
                break
        else:
            apart[key] = value
    return apart


def _vision(state: State) -> Any:
    width, pixels = _shape(state, "vision.patch_embedding.weight")
    patch = round((pixels / 3) ** 0.5)
    side = patch * round(_shape(state, "vision.position_embedding")[-2] ** 0.5)
    return siglip_vit(
        (side, side),
        patch_size=patch,
        width=width,
        depth=_depth(state, "vision."),
        heads=VISION_HEADS,
        mlp_width=_shape(state, "vision.blocks.0.mlp.up.weight")[0],
        pool="mean",
    )


def _language(state: State, told: dict[str, Any]) -> PhiConfig:
    vocab_size, width = _shape(state, "language.embedding.weight")
    text = told.get("text_config", {})
    heads = text.get("n_head", 32)
    return PhiConfig(
        vocab_size,
        width=width,
        depth=_depth(state, "language."),
        heads=heads,
        mlp_width=_shape(state, "language.blocks.0.mlp.up.weight")[0],
        rotary_share=text.get("rotary_dim", 32) / (width // heads),
    )


def _shape(state: State, key: str) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"these are not moondream's weights of spring 2024: missing {key}")
    return tuple(state[key].shape)


def _depth(state: State, part: str) -> int:
    return 1 + max(int(key.split(".")[2]) for key in state if key.startswith(f"{part}blocks."))
