"""Few shots: the decoder follows words as it is, stays as it was, and what was run is not run again."""

from __future__ import annotations

import pytest
import torch

import minivlm.shots
from minivlm.data.scenes import sample_scenes
from minivlm.shots import COUNTS, SIZES, bundled_shots, examine, few_shots, stages
from minivlm.storage import bundled, warm_start
from minivlm.streams import Bank, generator
from minivlm.train import train


def test_the_bundled_decoder_follows_shots_told_in_words():
    from minivlm.designs import build

    model = warm_start(build("llava15", device="cpu"))
    bank = Bank.make(model, sample_scenes(500, generator(77, 0), max_objects=1))
    shares = examine(model, bank, 200, told=True, counts=(0, 4))
    for none, four in shares.values():
        assert none == pytest.approx(0.5, abs=0.15) and four > 0.85


def test_nothing_of_the_decoder_learns():
    from minivlm.designs import build

    model, size = warm_start(build("flamingo", device="cpu")), SIZES["smoke"]
    bank = Bank.make(model, sample_scenes(size.scenes, generator(0, 0), max_objects=1))
    gates = [layer.attention_gate.detach().clone() for layer in model.fusion.layers]
    train(model, stages(model, bank, size, 0), quiet=True)
    learned = bundled("decoder", "cpu").state_dict()
    assert all(torch.equal(value, learned[name]) for name, value in model.language.state_dict().items())
    assert not any(torch.equal(a, b.attention_gate) for a, b in zip(gates, model.fusion.layers, strict=True))


def test_a_run_is_kept_and_not_run_again(tmp_path, monkeypatch):
    made = few_shots("flamingo_resampler", 1, 0, "smoke", tmp_path)
    assert (made.tokens, made.steps, set(made.seen)) == (1, 6, {"color", "shape"})
    assert all(len(shares) == len(COUNTS) for told in (made.seen, made.told) for shares in told.values())
    monkeypatch.setattr(minivlm.shots, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert few_shots("flamingo_resampler", 1, 0, "smoke", tmp_path) == made
    with pytest.raises(ValueError, match="unknown scale 'tiny'; choose one of smoke, cpu, gpu"):
        few_shots("flamingo", None, 0, "tiny", tmp_path)
    with pytest.raises(ValueError, match="answers no questions"):
        few_shots("clip", None, 0, "smoke", tmp_path)


def test_results_that_come_with_the_package_hold_what_the_lesson_says():
    """Four shots beat none by twenty points, but for a shape that cross attention is to tell: that is a guess."""
    for run in bundled_shots():
        for rule, shares in run.seen.items():
            by_count = dict(zip(COUNTS, shares, strict=True))
            if (run.design, rule) == ("flamingo_open", "color"):
                assert max(abs(share - 0.5) for share in shares) < 0.05, run.seed
            else:
                assert by_count[4] - by_count[0] >= 0.2, (run.design, run.seed, rule)
