"""Fuyu and OtterHD of transformers."""

from __future__ import annotations

from typing import Any

from minivlm.connectors.projection import LinearProjection
from minivlm.connectors.separators import Separators
from minivlm.model import VLMConfig
from minivlm.pretrained.decoders import PERSIMMON, persimmon_config
from minivlm.pretrained.keys import WB, Rules, State, refuse, rename, split_heads
from minivlm.vision.patches import PatchesConfig

_OWN: Rules = [
    (rf"model\.vision_embed_tokens{WB}", r"connector.0.\1"),
    (r"lm_head\.weight", "language.head.weight"),
]


NEWLINE = 71019  # `|NEWLINE|` of Fuyu's tokenizer


def fuyu(model: Any) -> tuple[VLMConfig, State]:
    """The class of transformers is handed the newlines among the ids and does not know which word they are: Fuyu's own,
    or `newline_token_id` if a configuration has one. The processor's limit is not the model's, so ours has none."""
    config = model.config
    language = persimmon_config(config.text_config)
    refuse(
        "Fuyu",
        {
            f"{config.num_channels} colour channels": config.num_channels != 3,
            "a tied head": config.tie_word_embeddings,
            "no single end id": not isinstance(config.text_config.eos_token_id, int),
        },
    )
    state = split_heads(model.state_dict(), language.heads)
    decoder = "model.language_model."
    own = {key: value for key, value in state.items() if not key.startswith(decoder)}
    ours = VLMConfig(
        PatchesConfig(config.patch_size),
        LinearProjection(),
        language,
        image_id=config.image_token_id,
        eos_id=config.text_config.eos_token_id,
        layer=None,
        separators=Separators(newline=getattr(config, "newline_token_id", NEWLINE)),
    )
    return ours, {**rename(own, _OWN), **rename(state, PERSIMMON, decoder, "language.")}
