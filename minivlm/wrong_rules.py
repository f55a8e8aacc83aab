"""Rules that somebody got wrong when a LLaVA was converted. Every one of them loads without complaint, and answers.

A rule takes the configuration and the weights of the right model, and gives those of the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minivlm.model import VLM, VLMConfig
from minivlm.pretrained.empty import filled
from minivlm.pretrained.keys import State

Rule = Callable[[VLMConfig, State], tuple[VLMConfig, State]]


def exact_gelu(config: VLMConfig, state: State) -> tuple[VLMConfig, State]:
    """The encoder's activation is the exact GELU, not the quick one that OpenAI trained CLIP with."""
    return replace(config, vision=replace(config.vision, activation="gelu")), state


def last_block(config: VLMConfig, state: State) -> tuple[VLMConfig, State]:
    """The connector reads the encoder's last block, not the one before."""
    return replace(config, layer=-1), state


def tenfold_epsilon(config: VLMConfig, state: State) -> tuple[VLMConfig, State]:
    """What the decoder's norms add below the root, so that nobody divides by zero, is ten times as much."""
    return replace(config, language=replace(config.language, eps=10 * config.language.eps)), state


def paired_channels(config: VLMConfig, state: State) -> tuple[VLMConfig, State]:
    """Rotary positions turn channels in pairs. Meta's files hold the two of a pair side by side, those of transformers
    half a head apart: here queries and keys are in the first order, and turned as if they were in the second."""
    heads = {"q": config.language.heads, "k": config.language.kv_heads}
    turned = dict(state)
    for key, value in state.items():
        name = key.split(".")[-2]
        if key.startswith("language.") and name in heads:
            turned[key] = value.unflatten(0, (heads[name], 2, -1)).transpose(1, 2).flatten(0, 2)
    return config, turned


def slower_turns(config: VLMConfig, state: State) -> tuple[VLMConfig, State]:
    """Rotary positions turn with another base: far places are nearer than they were in training."""
    return replace(config, language=replace(config.language, rope_theta=100 * config.language.rope_theta)), state


WRONG: dict[str, Rule] = {
    rule.__name__: rule for rule in (exact_gelu, last_block, tenfold_epsilon, paired_channels, slower_turns)
}


def converted_wrongly(model: VLM, rule: Rule) -> VLM:
    """The model as it would be by a wrong rule; the right one stays."""
    config, state = rule(model.config, model.state_dict())
    return filled(config, dict(state)).eval()
