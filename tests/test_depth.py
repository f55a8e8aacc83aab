"""Depths side by side: what the arms share and where they part, what is kept, and what the bundled runs hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import minivlm.depth
from minivlm.data.scenes import sample_scenes
from minivlm.depth import (
    PLAIN,
    SIZES,
    TASKS,
    DepthResult,
    begun,
    bundled_depths,
    deepened,
    depth_run,
    depths_table,
    ruled,
    stages,
)
from minivlm.language.depths import Lottery, PredictingRouter
from minivlm.streams import Bank, generator
from minivlm.tables import interval
from minivlm.train import train

DEPTHS = (0.25, 3)


def test_a_run_is_kept_and_not_run_again(tmp_path, monkeypatch):
    made = depth_run("mod", 0, *DEPTHS, "smoke", tmp_path, "no")
    assert (made.capacity, made.every, made.tokens, made.steps) == (0.25, 3, 64, 6)
    assert set(made.accuracy) == set(TASKS) and set(made.worked) == {"pictures", "words"}
    assert 0 < made.left("flops") < 1 and set(made.milliseconds) == {"own", "plain"}
    monkeypatch.setattr(minivlm.depth, "train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert depth_run("mod", 0, *DEPTHS, "smoke", tmp_path) == made


def test_arms_with_a_router_share_what_they_learned_with_lots_and_the_plain_one_does_not(tmp_path, monkeypatch):
    seen = []

    def watched(model, given, folder=None, precision=None):
        seen.append((type(model.language).__name__, [stage.name for stage in given], folder and folder.name))
        return train(model, given, folder, precision, quiet=True)

    monkeypatch.setattr(minivlm.depth, "train_whole", watched)
    for design in (PLAIN, "mod", "mod_random"):
        depth_run(design, 1, *DEPTHS, "smoke", tmp_path, "no")
    assert [names for _, names, _ in seen] == [["align", "lots"], ["rule"]] * 3
    assert [folder for *_, folder in seen][::2] == ["lots-1-0-smoke-seed1"] + ["lots-0.25-3-smoke-seed1"] * 2
    assert [kind for kind, *_ in seen] == ["Llama"] * 2 + ["Depths"] * 4


def test_routers_draw_lots_first_and_then_go_by_their_rule_with_the_same_weights():
    config = deepened("mod", *DEPTHS)
    first = begun(config, 0)
    assert all(type(router) is Lottery for router in first.language.routers)
    second = ruled(first, config)
    assert all(type(router) is PredictingRouter for router in second.language.routers)
    ours, theirs = second.state_dict(), first.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert {name.split(".")[3] for name in ours.keys() - theirs.keys()} == {"predictor"}
    assert second.config == config


def test_depths_are_those_asked_for_and_the_plain_decoder_has_none():
    assert list(deepened("mod", 0.25, 3).language.routed) == [2]
    assert deepened("mod_random", 0.5, 1).language.places(10) == 5
    assert deepened(PLAIN, 0.25, 3).language == deepened("mod", 0.25, 3).language.decoder


def test_the_stages_ask_different_questions_and_only_the_first_leaves_the_decoder_alone():
    model = begun(deepened("mod", *DEPTHS), 0)
    bank = Bank.make(model, sample_scenes(12, generator(0, 0)))
    found = stages(bank, SIZES["smoke"], 0)
    assert [stage.trains for stage in found] == [("connector",)] + [("connector", "language")] * 2
    first, second = (stage.source(0, range(4)).inputs[0].input_ids for stage in found[1:])
    assert first.shape != second.shape or not torch.equal(first, second)


def test_what_cannot_be_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown scale 'tiny'; choose one of smoke, cpu, gpu"):
        depth_run("mod", 0, scale="tiny", folder=tmp_path)
    with pytest.raises(ValueError, match="unknown arm 'llava'; choose one of llava15, mod, mod_auxiliary, mod_random"):
        depth_run("llava", 0, scale="smoke", folder=tmp_path)
    with pytest.raises(ValueError, match="capacity is a share of the places"):
        depth_run("mod", 0, capacity=2.0, scale="smoke", folder=tmp_path)


def made_up(design: str, seed: int, share: float, own: int = 60) -> DepthResult:
    return DepthResult(
        design, 64, seed, "cpu", 10, capacity=0.125, every=3,
        accuracy={"COLOR": share, "SHAPE": share + 0.1, "EXIST": share + 0.2}, worked={"pictures": 0.02, "words": 0.4},
        flops={"own": own, "plain": 80}, milliseconds={"own": 9.0, "plain": 10.0}, machine={},
    )  # fmt: skip


def test_the_table_has_a_row_an_arm_the_best_first():
    lines = depths_table([made_up("mod_random", 0, 0.3), made_up("mod", 0, 0.5), made_up("mod", 1, 0.6)]).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][:3] == ["design", "capacity", "every"] and [row[0] for row in rows[2:]] == ["mod", "mod_random"]
    assert rows[3] == ["mod_random", "12.5%", "3", "30", "40", "50", "40", "2", "40", "75", "90"]
    middle, half = interval([0.5, 0.6])
    assert rows[2][3] == f"{100 * middle:.0f} ± {100 * half:.0f}"
    assert len(depths_table([made_up("mod", 0, 0.5), replace(made_up("mod", 0, 0.5), every=2)]).splitlines()) == 4


def test_results_that_come_with_the_package_hold_what_the_lesson_says():
    """A fifth of the operations is gone, and of the time nearly as much; learned and random answer alike, and where the
    router goes is another matter with every seed."""
    here = [run for run in bundled_depths() if (run.capacity, run.every) == (0.25, 2)]
    learned, lots = ({run.seed: run for run in here if run.design == arm} for arm in ("mod", "mod_random"))
    assert set(learned) == set(lots) == {0, 1, 2}
    gains = [learned[seed].mean - lots[seed].mean for seed in learned]
    middle, half = interval(gains)
    assert abs(middle) <= half and max(map(abs, gains)) < 0.06
    for run in here:
        assert 0.7 < run.left("flops") < 0.85 and 0.6 < run.left("milliseconds") < 1
        assert run.accuracy["COLOR"] > 0.15 + max(run.accuracy["SHAPE"], run.accuracy["EXIST"]), run
    for run in lots.values():
        assert all(share == pytest.approx(0.25, abs=0.02) for share in run.worked.values())
    for kind in ("pictures", "words"):
        shares = [run.worked[kind] for run in learned.values()]
        assert max(shares) - min(shares) > 0.15
