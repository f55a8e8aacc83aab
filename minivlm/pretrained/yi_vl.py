"""Yi-VL as its hub has it: a Llama with a projector beside it, in LLaVA's own naming, and its encoder in a folder of
its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from minivlm.connectors.projection import NormedMLPProjection
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import LLAMA, llama_config
from minivlm.pretrained.files import Weights, json_of
from minivlm.pretrained.keys import REST, WB, Rules, State, refuse, rename, under
from minivlm.pretrained.towers import VISION, vision_config
from minivlm.vision.vit import clip_vit

_RULES: Rules = [
    *under(r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?", VISION, "vision."),
    *under(r"model\.mm_projector\.", [(rf"([0134]){WB}", r"\1.\2")], "connector."),
    *under("", LLAMA, "language."),
    REST,
]
_TOWER: Rules = [*under(r"(?:vision_model\.)?", VISION, "vision."), REST]


def yi_vl(folder: Path, told: dict[str, Any]) -> tuple[VLMConfig, State]:
    """Upstream's picture has no id of its own; the last of the vocabulary, which no text holds, stands for one."""
    kind, feature = told.get("mm_projector_type"), told.get("mm_vision_select_feature", "patch")
    refuse(
        "LLaVA in its own naming",
        {
            f"projector {kind!r}, not Yi-VL's": kind != "mlp2x_gelu_Norm",
            f"mm_vision_select_feature {feature!r}": feature != "patch",
            "start and end marks": bool(told.get("mm_use_im_start_end", False)),
        },
    )
    language = replace(_language(told), tied=told.get("tie_word_embeddings", False))
    tower = folder / told["mm_vision_tower"]
    state = rename(_weights(Weights(folder)), _RULES)
    if not any(key.startswith("vision.") for key in state):
        state |= rename(_weights(Weights(tower)), _TOWER)
    ids = dict(image_id=language.vocab_size - 1, eos_id=told.get("eos_token_id", 2))
    layer = told.get("mm_vision_select_layer", -2)
    return VLMConfig(_vision(tower), NormedMLPProjection(), language, **ids, layer=layer), state


def _language(told: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return llama_config(LlamaConfig.from_dict({**told, "model_type": "llama"}))


def _vision(tower: Path) -> Any:
    """Of a folder of the encoder alone, or of a whole CLIP."""
    from transformers import CLIPVisionConfig

    told = json_of(tower / "config.json")
    return vision_config(CLIPVisionConfig.from_dict(told.get("vision_config", told)), clip_vit)


def _weights(weights: Weights) -> State:
    return {k: v for k, v in weights.items() if not k.endswith(("rotary_emb.inv_freq", "position_ids"))}
