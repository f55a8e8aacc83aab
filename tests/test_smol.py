"""The runs with SmolLM2: what learns, what is kept, what goes on, and what is counted. The decoder here is a small one
with SmolLM2's words."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from references import randomise

import minivlm.smol
from minivlm.data.naming import KINDS
from minivlm.evaluate import wilson
from minivlm.language.chat import ChatTokenizer
from minivlm.language.llama import LlamaConfig
from minivlm.smol import (
    SIZES,
    SmolResult,
    bundled_smol,
    costs_of_fewer_bits,
    examine,
    named,
    smol_run,
    smol_table,
    some,
    taught,
    training_bank,
)
from minivlm.speaking import with_smollm2


@pytest.fixture
def small(opened, monkeypatch) -> None:
    """A small decoder stands in for SmolLM2."""
    tokenizer = ChatTokenizer(opened[1])
    sizes = dict(width=36, depth=9, heads=3, kv_heads=1, mlp_width=40, tied=True)
    decoder = randomise(LlamaConfig(len(tokenizer), **sizes).build())
    monkeypatch.setattr(
        minivlm.smol, "with_smollm2", lambda name, tokens: with_smollm2(name, tokens, (decoder, tokenizer))
    )


def test_a_run_is_kept_and_not_run_again(small, tmp_path, monkeypatch):
    made = smol_run("deco", 4, 0, "smoke", folder=tmp_path)
    assert (made.design, made.tokens, made.steps, made.asked, made.learned) == ("deco", 4, 4, 9, "lora")
    assert set(made.right) == {"sees", "blind", "constant"} and len(made.said) == 8
    assert all(0 <= count <= 9 for count in made.right.values()) and max(made.log_prob.values()) < 0
    monkeypatch.setattr(minivlm.smol, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert smol_run("deco", 4, 0, "smoke", folder=tmp_path) == made
    for other in (dict(design="llava15", tokens=None), dict(seed=1), dict(steps=3)):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            smol_run(**dict(design="deco", tokens=4, seed=0, scale="smoke", folder=tmp_path) | other)


@pytest.mark.parametrize("design", ["deco", "flamingo", "cogvlm"])
def test_what_learns_is_beside_the_decoder_and_no_bit_of_it(design, small, tmp_path):
    torch.manual_seed(0)  # as the run begins
    first, _ = minivlm.smol.with_smollm2(design, None)
    start = {name: value.clone() for name, value in first.named_parameters()}
    model, _, losses = taught(design, None, 0, SIZES["smoke"], tmp_path)
    assert len(losses) == 4
    after = {name.replace(".base_layer", ""): value for name, value in model.named_parameters()}
    same = {name for name in start if torch.equal(start[name], after[name])}
    moved = {name.partition(".")[0] for name in start.keys() - same}
    assert moved == ({"connector"} if design == "deco" else {"connector", "fusion"})
    learning = [
        part for part in ("connector", "fusion") if any(p.requires_grad for p in getattr(model, part).parameters())
    ]
    assert set(learning) == moved  # to the end
    assert any(layer[1]["default"].weight.any() for layer in model.adapter) == (design == "deco")


def test_a_design_that_routes_its_decoder_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="mod routes the decoder's places, and the decoder stays"):
        taught("mod", None, 0, SIZES["smoke"], tmp_path)


def test_a_stopped_run_goes_on_and_a_finished_one_is_opened(small, tmp_path, monkeypatch):
    whole, _, losses = taught("deco", 4, 3, SIZES["smoke"], tmp_path / "whole")
    real = minivlm.smol.Sentences.__call__

    def stopped(source, step, rows):
        if source.seed == 7 and step == 1:
            raise KeyboardInterrupt
        return real(source, step, rows)

    monkeypatch.setattr(minivlm.smol.Sentences, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        taught("deco", 4, 3, SIZES["smoke"], tmp_path / "run")
    monkeypatch.setattr(minivlm.smol.Sentences, "__call__", real)
    for _ in range(2):
        again, _, found = taught("deco", 4, 3, SIZES["smoke"], tmp_path / "run")
        assert found == losses
        state = again.state_dict()
        assert all(torch.allclose(state[key], value) for key, value in whole.state_dict().items())
        monkeypatch.setattr(minivlm.smol.Sentences, "__call__", lambda *_: pytest.fail("trained again"))


def test_training_shows_no_emoji_of_the_test_and_scenes_of_one_or_two_objects(small):
    model, _ = minivlm.smol.with_smollm2("deco", 4)
    bank = training_bank(model, replace(SIZES["smoke"], emoji=60, scenes=40), 0)
    assert len(bank.features) == len(bank.dialogs) == 100
    held_out = {one.name for one in named("test")}
    shown = [dialog[0][1] for dialog in bank.dialogs]
    names = [told.removeprefix("This is a").removeprefix("n").split(", a kind of ")[0].strip() for told in shown[:60]]
    assert not held_out & set(names) and set(names) <= {one.name for one in named("train")}
    scenes = shown[60:]
    assert sum(" of " in told or " above " in told or " below " in told for told in scenes) in range(8, 33)


def test_some_are_drawn_without_repeating():
    emojis = named("test")
    drawn = some(emojis, 50, 1)
    assert len({one.codepoints for one in drawn}) == 50 and drawn == some(emojis, 50, 1) != some(emojis, 50, 2)
    assert drawn == some(emojis, None, 1)[:50] and len(some(emojis, None, 1)) == 360


def test_what_is_counted_is_what_was_scored(small, monkeypatch):
    """Scores by hand: the model that sees is right about every third emoji, the blind one says "flag"."""
    model, tokenizer = minivlm.smol.with_smollm2("deco", 4)
    emojis, kinds = some(named("test"), 30, 5), list(KINDS)
    truth = [kinds.index(one.category) for one in emojis]

    def scored(model, tokenizer, features):
        rows = 1 if features is None else len(features)
        scores = torch.full((rows, 9), -4.0)
        for row in range(rows):
            scores[row, 2 if features is None else (truth[row] + (row % 3 > 0)) % 9] = -0.5
        return scores

    monkeypatch.setattr(minivlm.smol, "kind_scores", scored)
    found = examine(model, tokenizer, emojis)
    flags = sum(one.category == "Flags" for one in emojis)
    people = sum(one.category == "People & Body" for one in emojis)
    assert found["asked"] == 30 and found["right"] == {"sees": 10, "blind": flags, "constant": people}
    assert found["log_prob"]["sees"] == pytest.approx((10 * -0.5 + 20 * -4) / 30)
    assert found["log_prob"]["blind"] == pytest.approx((flags * -0.5 + (30 - flags) * -4) / 30)
    assert list(found["said"]) == [one.name for one in emojis[:8]]


def test_fewer_bits_are_asked_the_same(small):
    model, tokenizer = minivlm.smol.with_smollm2("deco", 4)
    randomise(model)
    emojis = some(named("test"), 4, 5)
    plain, *others = costs_of_fewer_bits(model, tokenizer, emojis, rounds=1)
    assert plain.accuracy == examine(model, tokenizer, emojis)["right"]["sees"] / 4
    assert plain.agreement == 1 and all(cost.difference > 0 and 4 * cost.accuracy in range(5) for cost in others)


def test_the_table_says_what_a_run_came_to():
    run = SmolResult("deco", 16, 1, "cpu", 600, "lora", [3.251, 1.0], 360, {"sees": 180, "blind": 60, "constant": 72},
                     {"sees": -1.234, "blind": -2.5}, {}, {})  # fmt: skip
    low, high = wilson(180, 360)
    assert smol_table([run]).splitlines()[2] == (
        f"| deco | 16 | lora | 600 | 1 | 360 | 50.0% [{low:.1%}, {high:.1%}] | 16.7% | 20.0% "
        "| -1.23 | -2.50 | 3.25 to 1.00 |"
    )


def test_runs_that_come_with_the_package_are_found_by_their_scale(tmp_path, monkeypatch):
    run = SmolResult("deco", 16, 1, "cpu", 600, "lora", [3.0, 1.0], 9, {"sees": 4}, {"sees": -1.0}, {}, {})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "smol-cpu.json").write_text(json.dumps([asdict(run)]), encoding="utf-8")
    monkeypatch.setattr("minivlm.tables.files", lambda package: tmp_path)
    assert bundled_smol() == [run] and bundled_smol("gpu") == []


def test_unknown_words_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown scale 'tiny'"):
        smol_run("deco", 4, 0, "tiny", folder=tmp_path)
