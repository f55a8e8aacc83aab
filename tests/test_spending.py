"""What is spent: operations equal those of the formula written out, bytes those of the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import tiny
import torch

from minivlm import Batch, budget, build
from minivlm.spending import encoder_flops, question_costs, training_flops
from minivlm.train import Stage, Step

WORDS, PATCHES, ROWS = 6, 4, 3


@dataclass(frozen=True)
class Always:
    """The same batch at each step."""

    batch: Batch
    batch_size: int = ROWS

    def __call__(self, step: int, rows: range) -> Step:
        return Step((self.batch,), len(rows))


@pytest.fixture
def model():
    return tiny.vlm()


@pytest.fixture
def source(model) -> Always:
    ids = torch.randint(300, 320, (ROWS, WORDS), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = model.image_token_id
    features = torch.rand(ROWS, 1, PATCHES, model.config.vision.width)
    return Always(Batch(None, ids, ids.clone(), features=features))


def matrices(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)


def formulas(model) -> tuple[int, int, int]:
    """Operations of the forward pass of three sequences: of the connector's matrices, the decoder's, its attention."""
    length, language = PATCHES + WORDS - 1, model.config.language
    blocks, scores = matrices(model.language.blocks), language.vocab_size * language.width
    attention = language.depth * 2 * 2 * length**2 * language.width
    return 2 * ROWS * PATCHES * matrices(model.connector), 2 * ROWS * length * (blocks + scores), ROWS * attention


def test_training_takes_three_passes_where_weights_learn_and_two_where_a_gradient_goes_through(model, source):
    connector, linear, attention = formulas(model)
    entering = 2 * ROWS * PATCHES * model.config.vision.width * model.config.language.width  # no gradient for features
    stages = {
        ("connector", "language"): 3 * (connector + linear + attention) - entering,
        ("connector",): 3 * (connector + attention) + 2 * linear - entering,
    }
    for trains, once in stages.items():
        assert training_flops(model, [Stage("one", source, 1, lr=1.0, trains=trains)]) == once
    several = [Stage("a", source, 5, lr=1.0, trains=trains) for trains in stages]
    assert training_flops(model, several) == 5 * sum(stages.values())
    assert all(p.grad is None for p in model.parameters())


def test_an_encoder_is_counted_on_one_picture():
    model = build("llava15", device="cpu")
    counted = encoder_flops(model.requires_grad_(False), torch.rand(1, 1, 3, 64, 64))
    assert counted == pytest.approx(budget("llava15", "mini").flops["vision"], rel=0.02)


def test_a_question_costs_less_without_its_picture(model):
    pictures = torch.rand(1, 1, 3, 16, 16)
    dialog = [[("what color is the circle ?", "")]]
    seen, blind = (replace(Batch.pack(tiny.TOKENIZER, dialog, images=some), labels=None) for some in (pictures, None))
    with_picture, without = (question_costs(model.requires_grad_(False), batch, rounds=3) for batch in (seen, blind))
    places = PATCHES - 1 + 1  # its tokens, in the place of its mark, which the blind one has not
    per_place = 2 * 2 * 2 * model.config.language.kv_heads * model.config.language.dim_per_head
    assert with_picture["cache_bytes"] - without["cache_bytes"] == places * per_place
    assert with_picture["flops"] - without["flops"] > encoder_flops(model, pictures) > 0 < without["milliseconds"]
