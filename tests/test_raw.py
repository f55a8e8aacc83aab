"""Raw patches beside an encoder's: what is counted, what is looked at while it learns, and what was run is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import minivlm.pretraining
import minivlm.raw
from minivlm.budget import budget
from minivlm.designs import build
from minivlm.evaluate import evaluate
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.raw import (
    ARMS,
    ENCODER_PICTURES,
    SIZES,
    TASKS,
    TEST_SIDES,
    Watched,
    begun,
    bundled_raw,
    examine,
    flops,
    questions,
    raw_run,
    stage,
    stream,
    table,
)
from minivlm.storage import bundled
from minivlm.streams import Bank
from minivlm.train import Stage, train


def test_a_run_is_kept_and_not_run_again(tmp_path, monkeypatch):
    made = raw_run("several sizes", 0, "smoke", tmp_path, "no")
    assert (made.design, made.tokens, made.steps, made.sizes) == ("otterhd", 72, 10, [32, 48, 64])
    assert list(made.at_step) == ["0", "5", "10"] and list(made.at_size) == [str(side) for side in TEST_SIDES]
    assert all(set(shares) == set(TASKS) for shares in (*made.at_step.values(), *made.at_size.values()))
    assert made.at_step["10"] == made.at_size["64"]
    monkeypatch.setattr(minivlm.raw, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert raw_run("several sizes", 0, "smoke", tmp_path) == made
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table([made]).splitlines()]
    assert rows[0][:3] == ["learns from", "seed", "COLOR, 64 px"] and rows[0][4] == "LOC, 32 px"
    assert rows[2][:2] == ["several sizes", "0"] and rows[2][2] == f"{100 * made.at_size['64']['COLOR']:.0f}"
    assert rows[2][-1] == f"{100 * made.at_size['96']['LOC']:.0f}"


def test_what_reads_one_size_is_asked_at_that_size_and_charged_for_its_encoder(tmp_path):
    made = raw_run("encoder", 0, "smoke", tmp_path, "no")
    assert list(made.at_size) == ["64"] and made.design == "llava" and made.tokens == 64
    assert made.steps == 2 and list(made.at_step) == ["0", "1", "2"]  # a fifth of the others', as many looks
    assert made.spent(0) == made.flops["before"] > 0 and made.spent(3) - made.spent(1) == 2 * made.flops["step"]
    wider = replace(made, at_size={"64": made.at_size["64"], "96": made.at_size["64"]})
    assert table([made, wider]).splitlines()[2].endswith(f"| {100 * made.at_size['64']['LOC']:.0f} | - |")


def test_unknown_words_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown scale 'tiny'; choose one of smoke, cpu, gpu"):
        raw_run("encoder", 0, "tiny", tmp_path)
    with pytest.raises(ValueError, match="unknown arm 'two sizes'; choose one of one size, several sizes, encoder"):
        raw_run("two sizes", 0, "smoke", tmp_path)


def test_examine_says_what_the_evaluation_of_banks_says():
    """The bundled LLaVA-1.5, once on live pictures, once on features of a bank."""
    model, (scenes, asked) = bundled("llava15", "cpu"), questions(60)
    found = examine(model, scenes, asked, 64)
    want = evaluate(model, mini_tokenizer(), asked, Bank.make(model, scenes).features)
    assert found == {task: pytest.approx(want[task].accuracy) for task in TASKS}
    assert min(found.values()) > 0.6  # it can see


def test_examine_draws_the_pictures_at_the_side_that_it_is_told():
    model, sides = begun("fuyu", 0), []
    model.register_forward_pre_hook(lambda _, given: sides.append(tuple(given[0].images.shape[3:])))
    for side in (24, 64):
        examine(model, *questions(60), side)
    assert sides == [(24, 24)] * 2 + [(64, 64)] * 2  # in two batches


def test_the_test_is_made_of_single_objects_that_each_question_is_about():
    scenes, asked = questions(200)
    assert ((scenes.shape >= 0).sum(dim=1) == 1).all()
    assert {len(sample) for sample in asked} == {3} and {q.task for sample in asked for q in sample} == set(TASKS)


def test_a_look_comes_before_every_so_many_steps_and_changes_nothing():
    seen, source = [], stream(SIZES["smoke"], (16,), 0, "cpu")
    watched = Watched(source, 3, seen.append)
    assert watched.batch_size == source.batch_size
    models = [begun("fuyu", 0) for _ in range(2)]
    losses = [
        [record["loss"] for record in train(model, [stage(each, 7)], quiet=True)]
        for model, each in zip(models, (watched, source), strict=True)
    ]
    assert seen == [0, 3, 6] and losses[0] == losses[1]


def test_connector_and_decoder_learn_and_the_encoder_does_not():
    model, size = begun("llava", 0), SIZES["smoke"]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model, [stage(stream(size, (64,), 0, "cpu"), 2)], quiet=True)
    moved = {name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"connector", "language"}


def test_the_encoder_is_charged_for_the_pictures_that_it_was_trained_on(monkeypatch, tmp_path):
    """Counted on the very stages of the recipe, none of which is run."""
    stages: list[Stage] = []
    monkeypatch.setattr(minivlm.pretraining, "train_whole", lambda _, given, *__, **___: stages.extend(given))
    monkeypatch.setattr(minivlm.pretraining, "save", lambda *_: None)
    minivlm.pretraining.pretrain_clip(tmp_path, tmp_path, 0)
    assert sum(stage.steps * stage.source.batch_size for stage in stages) == ENCODER_PICTURES


def test_operations_are_those_of_a_picture_and_its_words_times_the_batch():
    size = replace(SIZES["smoke"], batch_size=2, per_scene=1)
    raw, llava = flops("fuyu", size), flops("llava", size)
    encoder = budget("llava", "mini").flops["vision"]
    parts = budget("llava", "mini", words=9).flops
    assert llava["step"] == 2 * (encoder + 3 * (parts["connector"] + parts["language"]))  # the encoder only reads
    assert raw["before"] == 0 and llava["before"] == 3 * ENCODER_PICTURES * encoder
    tokens, words, width, mlp, depth, vocabulary = 72, 9, 128, 384, 4, 512
    places = tokens + words
    block = 2 * places * (4 * width**2 + 3 * width * mlp) + 4 * places**2 * width
    reading = depth * block + 2 * places * width * vocabulary + 2 * 64 * 192 * width
    assert raw["step"] == pytest.approx(2 * 3 * reading, rel=0.01)
    assert flops("fuyu", replace(size, batch_size=6))["step"] == 3 * raw["step"]


def test_a_question_and_its_answer_take_about_the_eight_places_that_are_counted():
    _, asked = questions(300)
    lengths = [len(mini_tokenizer().encode(f"{q.text} {q.answer}")) + 1 for sample in asked for q in sample]
    assert sum(lengths) / len(lengths) == pytest.approx(8, abs=0.5)


def test_the_arms_differ_in_nothing_but_what_they_are_named_for():
    one, several = (build(ARMS[name].design, device="cpu").config for name in ("one size", "several sizes"))
    assert one == several
    batches = [stream(SIZES["smoke"], arm.sizes, 0, "cpu")(3, range(4)).inputs[0] for arm in ARMS.values()]
    assert all(torch.equal(batch.input_ids, batches[0].input_ids) for batch in batches)
    assert [batch.images.shape[-1] for batch in batches][::2] == [64, 64]


def test_results_that_come_with_the_package_hold_what_the_lesson_says():
    """Colours carry over to other sizes; places hardly from one size, in part from several; an encoder is faster."""
    by_arm = {arm: {run.seed: run for run in bundled_raw() if run.arm == arm} for arm in ARMS}
    for seed, one in by_arm["one size"].items():
        several, encoder = (by_arm[arm][seed] for arm in ("several sizes", "encoder"))
        for run in (one, several):
            assert min(shares["COLOR"] for shares in run.at_size.values()) > 0.7, (run.arm, seed)
            assert max(shares["SHAPE"] for shares in run.at_size.values()) < 0.35, (run.arm, seed)
        ours, theirs = ({int(side): s["LOC"] for side, s in run.at_size.items()} for run in (several, one))
        assert theirs[64] > 0.9 and max(theirs[side] for side in theirs if side != 64) < 0.35, seed
        assert all(ours[side] - theirs[side] > 0.1 for side in (32, 40, 48, 56)) and ours[64] < theirs[64], seed
        assert max(ours[80], ours[96]) < min(ours[side] for side in (32, 48, 64)), seed
        after, raw = (run.at_step["100"] for run in (encoder, one))
        assert min(after["COLOR"], after["SHAPE"]) > 0.9 and after["LOC"] > 0.6, seed
        assert raw["COLOR"] < 0.7 and max(raw["SHAPE"], raw["LOC"]) < 0.3, seed
        assert encoder.spent(0) > 10 * one.spent(one.steps)
