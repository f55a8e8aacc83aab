"""Fuyu and OtterHD of transformers."""

from __future__ import annotations

from typing import Any

from minivlm.pretrained.decoders import PERSIMMON, persimmon_config
from minivlm.pretrained.keys import WB, Rules, State, refuse, rename, split_heads

_OWN: Rules = [
    (rf"model\.vision_embed_tokens{WB}", r"connector.0.\1"),
    (r"lm_head\.weight", "language.head.weight"),
]


def fuyu_state(model: Any) -> State:
    """The weights of a `FuyuForCausalLM` under our names: a `LinearProjection` at `connector.`, a `Persimmon` at
    `language.`; its vision has none. ValueError for a variant that ours does not compute, or a key without a place."""
    config = model.config
    language = persimmon_config(config.text_config)
    refuse(
        "Fuyu",
        {
            f"{config.num_channels} colour channels": config.num_channels != 3,
            "a tied head": config.tie_word_embeddings,
        },
    )
    state = split_heads(model.state_dict(), language.heads)
    decoder = "model.language_model."
    own = {key: value for key, value in state.items() if not key.startswith(decoder)}
    return {**rename(own, _OWN), **rename(state, PERSIMMON, decoder, "language.")}
