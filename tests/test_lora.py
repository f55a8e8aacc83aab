"""Adapters beside a decoder that stays: what they compute, what learns, and that nothing else moves."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from references import assert_same, pictures, randomise, words
from torch import Tensor, nn

from minivlm import VLM, Batch, build
from minivlm.fusion.fusion import Interleaved
from minivlm.language.tokenizer import Tokenizer
from minivlm.recipes import VLM_SIZES, vlm_stages
from minivlm.storage import warm_start
from minivlm.train import train

DESIGNS = ("llava15", "flamingo", "cogvlm")  # its blocks run as they are, with layers between, and beside experts
SIZE = replace(VLM_SIZES["smoke"], scenes=8, batch_size=4, align_steps=2, steps=3)


@pytest.fixture(params=DESIGNS)
def vlm(request) -> VLM:
    return randomise(build(request.param, device="cpu"))


def batch() -> Batch:
    """Two samples of words around a picture."""
    ids = words(2, 9)
    ids[0, 2] = ids[1, 5] = Tokenizer.image_id
    return Batch(pictures(2, 1, 3, 64, 64), ids, ids.where(ids != Tokenizer.image_id, -100))


def names_that_learn(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def new_parts(model: VLM) -> tuple[str, ...]:
    """What is not pretrained."""
    return ("connector",) if isinstance(model.config.fusion, Interleaved) else ("connector", "fusion")


def own_weights(model: VLM) -> dict[str, Tensor]:
    """The decoder's own, under the names they have without adapters."""
    named = model.language.named_parameters()
    return {name.replace(".base_layer", ""): weight.detach() for name, weight in named if ".lora_" not in name}


# --- what they compute ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_new_adapters_change_no_bit(vlm):
    before = vlm(batch()).logits
    vlm.adapt_language(3)
    assert torch.equal(vlm(batch()).logits, before)
    assert vlm.parts[-1] == "adapter"


@torch.no_grad()
def test_an_adapted_map_is_its_own_with_twice_the_narrow_one_beside_it(vlm):
    """W x + 2 B A x, for every map of every block; and the model is one whose maps are W + 2 B A."""
    merged = deepcopy(vlm)
    vlm.adapt_language(3)
    randomise(vlm.adapter, seed=1)
    exact = replace(batch(), images=batch().images.double())
    vlm.double(), merged.double()
    maps = {name: module for name, module in merged.language.blocks.named_modules() if isinstance(module, nn.Linear)}
    assert len(vlm.adapter) == len(maps) == 7 * 4
    for name, whole in maps.items():
        adapted, x = vlm.language.blocks.get_submodule(name), torch.randn(5, whole.in_features).double()
        w, a, b = adapted.weight, adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
        assert a.shape == (3, whole.in_features) and b.shape == (whole.out_features, 3)
        assert_same(adapted(x), torch.stack([w @ row + 2 * (b @ (a @ row)) for row in x]))
        whole.weight += 2 * b @ a
    assert_same(vlm(exact).logits, merged(exact).logits, 1e-9)


# --- what learns ----------------------------------------------------------------------------------------------------


def test_adapters_learn_without_the_decoder_and_the_decoder_without_them(vlm, capsys):
    new, own = new_parts(vlm), sum(weight.numel() for weight in vlm.language.parameters())
    vlm.train_only(*new)
    plain = names_that_learn(vlm)
    vlm.adapt_language(2)
    randomise(vlm)
    vlm.train_only(*new, "adapter")
    learning, lines = names_that_learn(vlm), capsys.readouterr().out.splitlines()
    adapters = {name for name in learning if ".lora_" in name}
    assert learning - adapters == plain and len(adapters) == 2 * 7 * 4
    added = sum(weight.numel() for name, weight in vlm.named_parameters() if name in adapters)
    assert lines[-2].split()[1:4] == ["0", "of", f"{own:,}"] and lines[-1].split()[1:4] == [
        f"{added:,}",
        "of",
        f"{added:,}",
    ]
    vlm(batch()).loss.backward()
    moving = {name for name, weight in vlm.named_parameters() if weight.grad is not None and (weight.grad != 0).any()}
    assert moving >= adapters and moving <= learning
    vlm.train_only("language")
    assert not names_that_learn(vlm) & adapters and len(names_that_learn(vlm)) == len(own_weights(vlm))


@pytest.mark.parametrize("language", ["lora", "frozen"])
@pytest.mark.parametrize("name", DESIGNS)
def test_training_moves_what_is_beside_the_decoder_and_no_bit_of_it(name, language):
    model = warm_start(build(name, device="cpu"))
    if language == "lora":
        model.adapt_language(4)
    before, connector = deepcopy(own_weights(model)), deepcopy(list(model.connector.parameters()))
    train(model, vlm_stages(model, SIZE, language=language), quiet=True)
    assert len(before) > 4 * 7 and before.keys() == own_weights(model).keys()
    assert all(torch.equal(weight, before[key]) for key, weight in own_weights(model).items())
    assert any(not torch.equal(new, old) for new, old in zip(model.connector.parameters(), connector, strict=True))
    assert all(weight.any() for weight in model.adapter.parameters()), "an adapter has not left 0"


@pytest.mark.parametrize(
    ("chosen", "parts"), [({}, ("language",)), (dict(language="lora"), ("adapter",)), (dict(language="frozen"), ())]
)
def test_the_second_stage_trains_of_the_decoder_what_is_asked(vlm, chosen, parts):
    first, second = vlm_stages(vlm, SIZE, **chosen)
    assert first.trains == new_parts(vlm) and second.trains == (*new_parts(vlm), *parts)
