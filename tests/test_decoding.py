"""Decoding at fixed shapes: the same words as `VLM.generate`, from memory that stays where it is."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import tiny
import torch
from references import pictures, randomise, words

from minivlm import build
from minivlm.batch import Batch
from minivlm.bench.training import no_compiler
from minivlm.decoding import FixedDecoding, captured
from minivlm.model import VLM

IMAGE = tiny.TOKENIZER.image_id


def speaker() -> VLM:
    model = randomise(tiny.vlm())
    return replaced_end(model, model.config.language.vocab_size - 1)


def replaced_end(model: VLM, eos_id: int) -> VLM:
    model.config = replace(model.config, eos_id=eos_id)
    return model


def asked(seed: int, lengths: tuple[int, ...] = (7, 5, 6)) -> Batch:
    """Texts of those lengths with one picture each."""
    ids, longest = words(len(lengths), max(lengths), seed=seed) % 40 + 8, max(lengths)
    ids[:, 1] = IMAGE
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Batch(pictures(len(lengths), 1, 3, 16, 16, seed=seed), ids, text_mask=mask)


def test_the_words_are_those_of_generate_whatever_was_said_before():
    model = speaker()
    fixed = FixedDecoding(model, asked(0), 9)
    said = [model.generate(asked(seed), 9) for seed in range(4)]
    assert all(each.shape == (3, 9) for each in said), "a sample ended: take another end"
    assert len({tuple(each.flatten().tolist()) for each in said}) == 4
    for seed in (0, 1, 2, 3, 1):
        assert torch.equal(fixed(asked(seed)), said[seed])
    assert torch.equal(fixed(asked(1, (5, 7, 3))), model.generate(asked(1, (5, 7, 3)), 9))


def test_after_its_end_a_sample_is_filled():
    model = speaker()
    free = model.generate(asked(0), 9)
    end = next(int(word) for word in free[0, 1:6] if (free[1:] == word).sum() == 0)
    replaced_end(model, end)
    wanted = free.clone()
    wanted[0, (free[0] == end).nonzero()[0, 0] :] = end
    assert torch.equal(FixedDecoding(model, asked(0), 9)(asked(0)), wanted)


def test_no_tensor_of_a_step_moves():
    """What a captured graph reads and writes must stay where it was captured."""
    fixed = FixedDecoding(speaker(), asked(0), 5)

    def places() -> list[int]:
        held = [fixed.place, fixed.word, fixed.mask, fixed.layout.position]
        return [x.data_ptr() for x in (*held, *(x for layer in fixed.cache for x in (layer.k, layer.v)))]

    before = places()
    fixed(asked(1))
    assert places() == before


def test_a_step_is_run_once_a_word_after_the_first():
    steps = []

    def counted(step):
        return lambda: (steps.append(1), step())

    fixed = FixedDecoding(speaker(), asked(0), 6, counted)
    fixed(asked(0))
    assert len(steps) == 5
    FixedDecoding(speaker(), asked(0), 1, counted)(asked(0))
    assert len(steps) == 5


def test_what_has_no_fixed_shapes_is_refused():
    model = speaker()
    with pytest.raises(ValueError, match=r"made for \(samples, places\) \(3, 10\), got \(3, 12\)"):
        FixedDecoding(model, asked(0), 3)(asked(0, (9, 5, 6)))
    with pytest.raises(ValueError, match="words must be at least 1, got 0"):
        FixedDecoding(model, asked(0), 0)
    for name in ("flamingo", "mod"):
        design = build(name, device="cpu")
        batch = Batch(pictures(1, 1, 3, 64, 64), torch.tensor([[1, IMAGE, 9, 10]]))
        with pytest.raises(ValueError, match=r"use VLM\.generate"):
            FixedDecoding(design, batch, 3)


@pytest.mark.skipif("COMPILED" not in os.environ, reason="compiling takes half a minute: set COMPILED=1")
@pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))
def test_compiled_says_the_same():
    model = speaker()
    fixed = FixedDecoding(model, asked(0), 9, torch.compile)
    for seed in range(3):
        assert torch.equal(fixed(asked(seed)), model.generate(asked(seed), 9))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU, on which alone graphs are captured")
def test_captured_says_the_same():
    model = speaker().cuda()
    fixed = FixedDecoding(model, asked(0).to("cuda"), 9, captured)
    for seed in range(3):
        batch = asked(seed).to("cuda")
        assert torch.equal(fixed(batch), model.generate(batch, 9))
