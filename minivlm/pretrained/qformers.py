"""BLIP-2 and InstructBLIP of transformers: an EVA tower, a Q-Former, and a Llama or an OPT."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from minivlm.connectors.bert import BertConfig, VocabularyConfig
from minivlm.connectors.qformer import InstructQFormerConfig, QFormerConfig
from minivlm.language.llama import LlamaConfig
from minivlm.language.opt import OPTConfig
from minivlm.model import ConnectorConfig, VLMConfig
from minivlm.pretrained.decoders import LLAMA, OPT, llama_config, opt_config
from minivlm.pretrained.keys import WB, Rules, State, activation, refuse, rename, split_packed
from minivlm.pretrained.towers import VISION, vision_config
from minivlm.vision.vit import eva_vit

_EVA: Rules = [
    (r"embeddings\.position_embedding", "position_embedding"),
    (rf"encoder\.layers\.(\d+)\.self_attn\.([qkv]){WB}", r"blocks.\1.attention.\2.\3"),
    (rf"encoder\.layers\.(\d+)\.self_attn\.projection{WB}", r"blocks.\1.attention.out.\2"),
    *VISION,
]
_LAYER = r"qformer\.encoder\.layer\.(\d+)\."
_MINE = r"connector.encoder.blocks.\1."
QFORMER: Rules = [
    (r"query_tokens", "connector.encoder.queries"),
    (rf"qformer\.(?:embeddings\.)?layernorm{WB}", r"connector.encoder.norm.\1"),
    (r"qformer\.embeddings\.word_embeddings\.weight", "connector.encoder.words.weight"),
    (r"qformer\.embeddings\.position_embeddings\.weight", "connector.encoder.positions"),
    (rf"{_LAYER}attention\.attention\.([qkv])(?:uery|ey|alue){WB}", rf"{_MINE}attention.part.\2.\3"),
    (rf"{_LAYER}attention\.output\.dense{WB}", rf"{_MINE}attention.part.out.\2"),
    (rf"{_LAYER}attention\.output\.LayerNorm{WB}", rf"{_MINE}attention.norm.\2"),
    (rf"{_LAYER}crossattention\.attention\.([qkv])(?:uery|ey|alue){WB}", rf"{_MINE}cross.part.\2.\3"),
    (rf"{_LAYER}crossattention\.output\.dense{WB}", rf"{_MINE}cross.part.out.\2"),
    (rf"{_LAYER}crossattention\.output\.LayerNorm{WB}", rf"{_MINE}cross.norm.\2"),
    (rf"{_LAYER}intermediate_query\.dense{WB}", rf"{_MINE}mlp.part.up.\2"),
    (rf"{_LAYER}output_query\.dense{WB}", rf"{_MINE}mlp.part.down.\2"),
    (rf"{_LAYER}output_query\.LayerNorm{WB}", rf"{_MINE}mlp.norm.\2"),
    (rf"{_LAYER}intermediate\.dense{WB}", rf"{_MINE}word_mlp.part.up.\2"),
    (rf"{_LAYER}output\.dense{WB}", rf"{_MINE}word_mlp.part.down.\2"),
    (rf"{_LAYER}output\.LayerNorm{WB}", rf"{_MINE}word_mlp.norm.\2"),
    (rf"language_projection{WB}", r"connector.out.\1"),
]


def blip2(model: Any) -> tuple[VLMConfig, State]:
    refuse("BLIP-2", {"words in the Q-Former": model.config.qformer_config.use_qformer_text_input})
    bert, tokens = bert_config(model.config.qformer_config), model.config.num_query_tokens
    return _vlm(model, "BLIP-2", QFormerConfig(tokens, bert))


def instructblip(model: Any) -> tuple[VLMConfig, State]:
    config = model.config.qformer_config
    vocabulary = VocabularyConfig(config.vocab_size, config.max_position_embeddings)
    connector = InstructQFormerConfig(model.config.num_query_tokens, vocabulary, bert_config(config))
    return _vlm(model, "InstructBLIP", connector)


def bert_config(config: Any) -> BertConfig:
    return BertConfig(
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        cross_every=config.cross_attention_frequency,
        activation=activation(config.hidden_act),
        eps=config.layer_norm_eps,
    )


def _vlm(model: Any, what: str, connector: ConnectorConfig) -> tuple[VLMConfig, State]:
    config, state = model.config, model.state_dict()
    refuse(
        what,
        {
            "qkv_bias=False": not config.vision_config.qkv_bias,
            f"decoder {config.text_config.model_type!r}": config.text_config.model_type not in ("llama", "opt"),
            "no <image> id": config.image_token_id is None,
            "no single end id": not isinstance(config.text_config.eos_token_id, int),
        },
    )
    language, rules = _decoder(config.text_config)
    ours = VLMConfig(
        vision_config(config.vision_config, eva_vit),
        connector,
        language,
        image_id=config.image_token_id,
        eos_id=config.text_config.eos_token_id,
        layer=None,
        class_token=True,
    )
    rest = {key: value for key, value in state.items() if not key.startswith(("vision_model.", "language_model."))}
    bridge = rename(rest, QFORMER)
    bridge["connector.encoder.queries"] = bridge["connector.encoder.queries"][0]  # (1, Q, D)
    return ours, {
        **_eva(state),
        **bridge,
        **rename(state, rules, "language_model.", "language."),
    }


def _decoder(config: Any) -> tuple[LlamaConfig | OPTConfig, Rules]:
    return (opt_config(config), OPT) if config.model_type == "opt" else (llama_config(config), LLAMA)


def _eva(state: State) -> State:
    """The tower. Its q, k and v are packed as `qkv`; its class token and positions have an axis for the batch."""
    packed = {key.replace(".qkv.", ".in_proj_"): value for key, value in state.items()}
    tower = rename(split_packed(packed), _EVA, "vision_model.", "vision.")
    flat: dict[str, Tensor] = {
        "vision.class_embedding": tower["vision.class_embedding"].flatten(),
        "vision.position_embedding": tower["vision.position_embedding"][0],  # (1, 1+N, D)
    }
    return tower | flat
