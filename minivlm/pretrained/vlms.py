"""Whole vision-language models of transformers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from minivlm.connectors.cross_resampler import Kosmos2Resampler
from minivlm.connectors.projection import LinearProjection, MLPProjection
from minivlm.connectors.separators import LEARNED, Separators
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import LLAMA, MAGNETO, llama_config, magneto_config
from minivlm.pretrained.keys import WB, Rules, State, activation, refuse, rename, split_packed
from minivlm.pretrained.towers import VISION, vision_config
from minivlm.vision.tiles import TilesConfig
from minivlm.vision.vit import clip_vit, siglip_vit


def llava(model: Any) -> tuple[VLMConfig, State]:
    return _llava(model, "vision.")


def llava_next(model: Any) -> tuple[VLMConfig, State]:
    ours, state = _llava(model, "vision.tower.")
    canvases = tuple((height, width) for height, width in model.config.image_grid_pinpoints)
    tiles = TilesConfig(ours.vision, canvases, image_size=max(canvases, key=math.prod))
    state["separators.learned"] = model.state_dict()["model.image_newline"][None]
    return replace(ours, vision=tiles, separators=Separators(newline=LEARNED, lined_from=1)), state


def _llava(model: Any, vision_prefix: str) -> tuple[VLMConfig, State]:
    config, state = model.config, model.state_dict()
    vision, is_clip = config.vision_config, config.vision_config.model_type == "clip_vision_model"
    keeps = config.vision_feature_select_strategy
    refuse(
        "LLaVA",
        {
            f"vision tower {vision.model_type!r}": vision.model_type
            not in ("clip_vision_model", "siglip_vision_model"),
            f"vision_feature_select_strategy {keeps!r}": keeps != ("default" if is_clip else "full"),
            "several vision_feature_layer": not isinstance(config.vision_feature_layer, int),
            "a projector without biases": not config.multimodal_projector_bias,
            "no single end id": not isinstance(config.text_config.eos_token_id, int),
        },
    )
    own: Rules = [(r"model\.multi_modal_projector\.(linear_[12]\.(?:weight|bias))", r"\1"),
                  (r"lm_head\.weight", "language.head.weight"),
                  (r"model\.(vision_tower|language_model)\..*|model\.image_newline", "")]  # fmt: skip
    rest = rename(state, own)
    connector, projector = _llava_projector(rest, config.projector_hidden_act)
    ours = VLMConfig(
        vision_config(vision, clip_vit if is_clip else siglip_vit),
        connector,
        replace(llama_config(config.text_config), tied=config.tie_word_embeddings),
        image_id=config.image_token_id,
        eos_id=config.text_config.eos_token_id,
        layer=config.vision_feature_layer,
    )
    return ours, {
        **rename(split_packed(state), VISION, "model.vision_tower.", vision_prefix),
        **projector,
        **rename(state, LLAMA, "model.language_model.", "language."),
        "language.head.weight": rest["language.head.weight"],
    }


def _llava_projector(state: State, between: str) -> tuple[LinearProjection | MLPProjection, State]:
    """LLaVA's connector. Two linear maps with nothing between them, as transformers writes LLaVA 1.0, become one."""
    first, second = ({kind: state[f"linear_{n}.{kind}"] for kind in ("weight", "bias")} for n in (1, 2))
    if between == "linear":
        folded = second["weight"] @ first["weight"], second["weight"] @ first["bias"] + second["bias"]
        return LinearProjection(), {"connector.0.weight": folded[0], "connector.0.bias": folded[1]}
    both = {f"connector.{place}.{kind}": layer[kind] for place, layer in ((0, first), (2, second)) for kind in layer}
    return MLPProjection(activation(between), hidden=len(first["bias"])), both


_KOSMOS2_RESAMPLER: Rules = [
    (r"latent_query", "queries"),
    (rf"dense{WB}", r"enter.\1"),
    (rf"x_attn\.([qkv])_proj{WB}", r"attention.\1.\2"),
    (rf"x_attn\.out_proj{WB}", r"attention.out.\1"),
]


def kosmos2(model: Any) -> tuple[VLMConfig, State]:
    """Theirs is told beside the ids where a picture stands, whatever the ids; ours finds it by its id, for which the
    padding's is taken: no text holds it, and real padding is masked."""
    config, state = model.config, model.state_dict()
    refuse("Kosmos-2", {"no single end id": not isinstance(config.text_config.eos_token_id, int)})
    rename(state, [(r"(text_model|vision_model\.model|image_to_text_projection)\..*", "")])  # nothing else is known
    ours = VLMConfig(
        vision_config(config.vision_config, clip_vit),
        Kosmos2Resampler(config.latent_query_num, config.text_config.attention_heads),
        magneto_config(config.text_config),
        image_id=config.text_config.pad_token_id,
        eos_id=config.text_config.eos_token_id,
        layer=None,
        class_token=True,
    )
    return ours, {
        **rename(state, VISION, "vision_model.model.", "vision."),
        **rename(state, _KOSMOS2_RESAMPLER, "image_to_text_projection.", "connector."),
        **rename(state, MAGNETO, "text_model.", "language."),
    }


_PLACES: Rules = [
    (r"model\.(vision_model|connector|text_model|language_model|aligner)\..*|lm_head\.weight", ""),
    (r"model\.high_res_vision_(model\.|neck\.|proj\.|alpha).*", ""),
]


def decoded(model: Any, vision: Any, connector: Any, state: State) -> tuple[VLMConfig, State]:
    """A model of transformers whose vision and connector have been converted, which reads what the encoder gives in the
    end, with its decoder of Llama's kind."""
    config, theirs = model.config, model.state_dict()
    rename(theirs, _PLACES)  # nothing else is known
    eos_id = config.text_config.eos_token_id
    refuse(type(model).__name__, {"no single end id": not isinstance(eos_id, int)})
    language = replace(llama_config(config.text_config), tied=config.tie_word_embeddings)
    ours = VLMConfig(vision, connector, language, image_id=config.image_token_id, eos_id=eos_id, layer=None)
    name = "language_model" if hasattr(model.model, "language_model") else "text_model"
    decoder = rename(theirs, LLAMA, f"model.{name}.", "language.")
    return ours, {**state, **decoder, "language.head.weight": theirs["lm_head.weight"]}
