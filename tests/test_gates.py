"""Gates: how far they are open, and models whose gates are forced."""

from __future__ import annotations

import explorers
import pytest
import tiny
import torch
from references import randomise

from minivlm import Batch, build
from minivlm.gates import forced, openings

BATCH = Batch.pack(tiny.TOKENIZER, [explorers.DIALOG] * 2, images=explorers.PAIRS[..., :16, :16])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(BATCH).logits


def test_openings_are_the_tanh_of_each_gate_in_order():
    model = explorers.flamingo()
    layers = model.fusion.layers
    for value, layer in zip((0.3, -2.0), layers, strict=True):
        torch.nn.init.constant_(layer.attention_gate, value)
        torch.nn.init.constant_(layer.mlp_gate, 5 * value)
    found = openings(model)
    assert list(found) == ["layer 1, look", "layer 1, MLP", "layer 2, look", "layer 2, MLP"]
    wanted = torch.tensor([0.3, 1.5, -2.0, -10.0]).tanh().tolist()
    assert list(found.values()) == pytest.approx(wanted, abs=1e-6)


def test_a_gate_for_every_channel_is_open_as_far_as_they_are_in_the_mean():
    model = explorers.flamingo()
    model.fusion.layers[0].mlp_gate = torch.nn.Parameter(torch.tensor([0.5, -1.0, 0.0]))
    assert openings(model)["layer 1, MLP"] == pytest.approx((0.46212 + 0.76159) / 3, abs=1e-5)


def test_a_new_model_has_its_gates_shut():
    assert set(openings(build("idefics", device="cpu")).values()) == {0.0}


def test_gates_forced_shut_leave_the_decoder_untouched():
    model = explorers.flamingo()
    untouched = explorers.flamingo()
    for layer in untouched.fusion.layers:
        torch.nn.init.zeros_(layer.attention_gate), torch.nn.init.zeros_(layer.mlp_gate)
    assert not torch.allclose(logits(model), logits(untouched), atol=1e-2)
    with forced(model, 0):
        assert torch.equal(logits(model), logits(untouched))


@pytest.mark.parametrize("times", [0.25, 1, 1.5, -1])
def test_forced_gates_are_so_many_times_as_far_open(times):
    model = explorers.flamingo()
    before = openings(model)
    with forced(model, times):
        assert list(openings(model).values()) == pytest.approx(
            [max(-1, min(1, times * value)) for value in before.values()], abs=1e-5
        )


def test_no_gate_opens_further_than_wholly_and_nothing_breaks():
    model = explorers.flamingo()
    with forced(model, 1000):
        assert {abs(value) for value in openings(model).values()} == {1.0}
        assert logits(model).isfinite().all()


def test_afterwards_all_is_as_it_was_also_after_an_error():
    model = explorers.flamingo()
    before, said = {key: value.clone() for key, value in model.state_dict().items()}, logits(model)
    with pytest.raises(ZeroDivisionError), forced(model, 0.5):
        raise ZeroDivisionError
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(logits(model), said)
    assert all(weights.requires_grad for weights in model.fusion.parameters())


def test_a_design_without_gates_is_refused():
    model = randomise(build("cogvlm", device="cpu"))
    with pytest.raises(ValueError, match="no gates: only designs with gated cross attention"):
        openings(model)
    with pytest.raises(ValueError, match="no gates"), forced(model, 1):
        pass
