"""Fewer bits: integers as arithmetic has them, what is left as it was, and costs that are those of the copies."""

from __future__ import annotations

import pytest
import torch
from references import pictures, randomise, words
from torch import Tensor, nn

from minivlm import VLM, Batch, build
from minivlm.language.tokenizer import Tokenizer
from minivlm.precision import (
    PRECISIONS,
    Int8Linear,
    PrecisionCost,
    in_precision,
    like,
    megabytes,
    precision_costs,
    precision_table,
)


def batch() -> Batch:
    """Two samples of words around a picture."""
    ids = words(2, 9)
    ids[0, 2] = ids[1, 5] = Tokenizer.image_id
    return Batch(pictures(2, 1, 3, 64, 64), ids)


def by_hand(linear: nn.Linear, x: Tensor) -> Tensor:
    """Row by row and column by column, in whole numbers of Python."""
    rows = []
    for place in x.tolist():
        step = max(map(abs, place)) / 127
        numbers = [round(value / step) for value in place]
        row = []
        for weights, bias in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True):
            own = max(map(abs, weights)) / 127
            total = sum(a * round(w / own) for a, w in zip(numbers, weights, strict=True))
            row.append(total * step * own + bias)
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize("places", [1, 5, 33])
def test_eight_bits_are_whole_numbers_with_a_scale_each_row(places):
    linear = randomise(nn.Linear(23, 11))
    with torch.no_grad():
        linear.weight[3] *= 50  # a row that would spoil the others if it shared their scale
        x = torch.randn(places, 23, generator=torch.Generator().manual_seed(1))
        x[0] *= 100
        made = Int8Linear(linear)(x)
        assert torch.allclose(made, by_hand(linear, x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(made, linear(x), rtol=1e-4, atol=1e-4)
        off_x, off_w = (rows.abs().amax(dim=1, keepdim=True) / 254 for rows in (x, linear.weight))  # half a step
        most = off_x * linear.weight.abs().sum(dim=1) + x.abs().sum(dim=1, keepdim=True) * off_w.T
        assert ((made - linear(x)).abs() <= 1.001 * (most + 23 * off_x * off_w.T)).all()


def test_more_axes_and_no_bias_and_a_row_of_zeros():
    linear = randomise(nn.Linear(6, 4, bias=False))
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    x[1, 2] = 0
    with torch.no_grad():
        made = Int8Linear(linear)(x)
        flat = torch.cat([Int8Linear(linear)(x[i, j][None].float()) for i in range(2) for j in range(3)])
    assert made.shape == (2, 3, 4) and made.dtype == torch.bfloat16
    assert torch.equal(made.flatten(0, 1), flat.to(torch.bfloat16))
    assert (made[1, 2] == 0).all()


@pytest.mark.parametrize("name", ["llava15", "flamingo", "cogvlm", "mod"])
def test_a_copy_has_fewer_bits_and_the_model_stays(name):
    model = randomise(build(name, device="cpu"))
    if name == "llava15":
        model.adapt_language(2)
        randomise(model.adapter)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        truth = model(batch()).logits
        scores = {precision: in_precision(model, precision) for precision in PRECISIONS}
        scores = {name: one(like(batch(), one)).logits for name, one in scores.items()}
    assert torch.equal(scores["fp32"], truth)
    for precision in ("bf16", "int8"):
        error = (scores[precision].float() - truth).abs().mean() / truth.abs().mean()
        assert 1e-4 < error < 0.1, precision
    assert scores["bf16"].dtype == torch.bfloat16 and scores["int8"].dtype == torch.float32
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[key], value) for key, value in before.items())


def test_int8_is_of_the_maps_of_the_decoders_blocks_alone():
    model = build("llava15", device="cpu")
    model.adapt_language(2)
    maps = {name for name, module in in_precision(model, "int8").named_modules() if isinstance(module, Int8Linear)}
    assert len(maps) == 7 * 4 and all(name.startswith("language.blocks.") for name in maps)
    assert all(name.endswith("base_layer") for name in maps)


def test_megabytes_are_those_of_the_weights():
    linear = nn.Linear(100, 50, bias=False)
    assert megabytes(linear) == 0.02 and megabytes(linear.to(torch.bfloat16)) == 0.01
    assert megabytes(Int8Linear(linear.float())) == pytest.approx((5000 + 4 * 50) / 1e6)


def test_costs_are_those_of_each_copy():
    model, asked = randomise(build("llava15", device="cpu")), []

    def accuracy(one: VLM) -> float:
        asked.append((next(one.parameters()).dtype, any(isinstance(m, Int8Linear) for m in one.modules())))
        return len(asked) / 4

    plain, half, eight = precision_costs(model, batch(), accuracy, rounds=2)
    assert asked == [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)]
    assert (plain.agreement, plain.difference, plain.accuracy) == (1.0, 0.0, 0.25)
    for cost, precision in ((half, "bf16"), (eight, "int8")):
        one = in_precision(model, precision)
        with torch.no_grad():
            output = one(like(batch(), one))
            made = output.logits[output.layout.valid].float()
            truth = model(batch()).logits[output.layout.valid]
        assert cost.precision == precision and cost.milliseconds > 0
        assert cost.megabytes == megabytes(one) < plain.megabytes
        assert cost.difference == pytest.approx(float((made - truth).abs().mean()), rel=1e-5)
        assert cost.agreement == pytest.approx(float((made.argmax(-1) == truth.argmax(-1)).float().mean()))
    assert half.megabytes == pytest.approx(plain.megabytes / 2, rel=0.01)
    assert precision_costs(model, batch(), rounds=1)[0].accuracy is None


def test_the_table_says_what_was_measured():
    rows = precision_table(
        [PrecisionCost("int8", 219.4, 81.6, 0.987, 0.1234, 0.5), PrecisionCost("fp32", 1, 2, 1, 0, None)]
    )
    assert rows.splitlines()[2:] == [
        "| int8 | 219 | 82 | 98.7% | 0.123 | 50.0% |",
        "| fp32 | 1 | 2 | 100.0% | 0.000 | - |",
    ]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'int4'; choose one of fp32, bf16, int8"):
        in_precision(build("llava15", device="cpu"), "int4")
