"""The controlled setting: what stands beside the designs in comparisons differs from them in what it is for."""

from __future__ import annotations

import pytest
import torch

from minivlm import VLM, mini
from minivlm.gates import openings
from minivlm.model import VLMConfig


def made(config: VLMConfig) -> VLM:
    with torch.device("meta"):
        return config.build()


def learning(config: VLMConfig) -> int:
    """How many weights learn beside a frozen decoder."""
    model = made(config)
    model.train_only(*(part for part in model.parts if part in ("connector", "fusion")))
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("name", mini.VARIANTS)
def test_a_variant_shares_encoder_decoder_and_connector_with_its_design(name):
    config, design = mini.VARIANTS[name](), {"flamingo": mini.flamingo, "cogvlm": mini.cogvlm}[name.split("_")[0]]()
    assert (config.vision, config.language, config.layer) == (design.vision, design.language, design.layer)
    assert type(config.connector) is type(design.connector) and config.num_tokens == design.num_tokens
    assert config != design and made(config)


def test_the_deep_resampler_learns_with_as_many_weights_as_flamingo():
    deep, flamingo = (learning(config) for config in (mini.VARIANTS["flamingo_resampler_deep"](), mini.flamingo()))
    assert deep == pytest.approx(flamingo, rel=0.02)
    assert "fusion" not in made(mini.VARIANTS["flamingo_resampler_deep"]()).parts


def test_cogvlm_is_taken_apart_expert_by_expert():
    variants = (mini.VARIANTS["cogvlm_interleaved"], mini.VARIANTS["cogvlm_mlp"])
    without, some, whole = (made(config()) for config in (*variants, mini.cogvlm))
    assert "fusion" not in without.parts
    assert {tuple(expert) for expert in some.fusion.experts} == {("mlp",)}
    assert {tuple(expert) for expert in whole.fusion.experts} == {("q", "k", "v", "out", "mlp")}


def test_open_gates_let_looks_through_from_the_start_and_are_all_that_differs():
    torch.manual_seed(0)
    shut = mini.flamingo().build()
    torch.manual_seed(0)
    opened = mini.VARIANTS["flamingo_open"]().build()
    others = dict(shut.named_parameters())
    changed = {name for name, value in opened.named_parameters() if not torch.equal(value, others[name])}
    assert changed == {"fusion.layers.0.attention_gate", "fusion.layers.1.attention_gate"}
    assert openings(opened) == pytest.approx({"layer 1, look": 0.76159, "layer 1, MLP": 0,
                                              "layer 2, look": 0.76159, "layer 2, MLP": 0}, abs=1e-5)  # fmt: skip
