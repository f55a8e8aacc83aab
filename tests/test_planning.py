"""A run on paper: against sums done by hand, and against a real pass of a small model."""

from __future__ import annotations

import pytest
from test_costs import counted, real

from minivlm.costs import kept_bytes
from minivlm.memory import Memory
from minivlm.planning import A100, GPU, H100, LLAVA15, Plan, Run, plans_table

# LLaVA-1.5 7B by hand: 576 patches of 588 numbers and a class token through 23 of 24 blocks; 576 + 100 places through
# 32 blocks and a table of 32,064 words. A multiply-add is two operations.
BLOCK = 4 * 1024**2 + 2 * 1024 * 4096
VISION = 2 * 576 * 588 * 1024 + 23 * (2 * 577 * BLOCK + 4 * 577**2 * 1024)
CONNECTOR = 2 * 576 * (1024 * 4096 + 4096 * 4096)
LANGUAGE = 2 * 676 * (32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32064 * 4096) + 32 * 4 * 676**2 * 4096
SMALL = GPU("small", memory=20e9, peak=1e14)


def run(*trains: str, **change) -> Run:
    return Run(**{**dict(design="llava15", samples=1000, batch_size=64, words=100, trains=trains), **change})


@pytest.mark.parametrize(
    ("trains", "passes"),
    [
        (("connector",), (1, 3, 2)),
        (("connector", "language"), (1, 3, 3)),
        (("language",), (1, 1, 3)),
        (("vision",), (3, 2, 2)),
        (("vision", "connector", "language"), (3, 3, 3)),
    ],
    ids=str,
)
def test_operations_are_those_of_the_passes_that_learning_takes(trains, passes):
    by_hand = sum(count * part for count, part in zip(passes, (VISION, CONNECTOR, LANGUAGE), strict=True))
    assert run(*trains).flops == pytest.approx(1000 * by_hand, rel=1e-4)


@pytest.mark.parametrize(("trains", "passes"), [(("fusion",), 2), (("language",), 3), (("connector",), 2)])
def test_a_gradient_goes_through_a_decoder_and_the_layers_between_its_blocks(trains, passes):
    cost, one = run(*trains, design="idefics", samples=1), run("connector", design="idefics").budget.flops
    through = {"vision": 1, "connector": 3 if trains == ("connector",) else 1, "separators": 1}
    through |= {"language": passes, "fusion": 3 if trains == ("fusion",) else 2}
    assert cost.flops == sum(through[part] * count for part, count in one.items())


def test_what_learns_is_kept_four_times_and_what_is_frozen_once():
    vision, connector, language = 303_507_456, 20_979_712, 6_738_939_904
    assert run("connector").state_bytes == 4 * (vision + language) + 16 * connector
    assert run("connector", "language").state_bytes == 4 * vision + 16 * (connector + language)


@pytest.mark.parametrize("trains", [("connector",), ("connector", "language"), ("vision", "connector", "language")])
@pytest.mark.parametrize("name", ["llava15", "idefics"])
def test_states_kept_are_those_of_a_real_pass(name, trains):
    model, batch = real(name, images=1, count=100)
    model.train()
    for part in model.parts:
        getattr(model, part).requires_grad_(part in trains)
    with Memory() as memory:
        model(batch).loss.item()
    assert kept_bytes(counted(name, images=1, words=100).sample, trains) == pytest.approx(memory.peak, rel=0.1)


def test_a_plan_by_hand():
    learns = run("connector", "language")
    by_hand = 1000 * (VISION + 3 * CONNECTOR + 3 * LANGUAGE)
    plan = Plan(learns, SMALL, gpus=8, utilisation=0.25, price=2.0, at_once=2)
    assert plan.hours == pytest.approx(by_hand / (8 * 1e14 * 0.25) / 3600, rel=1e-4)
    assert plan.cost == pytest.approx(by_hand / (1e14 * 0.25) / 3600 * 2, rel=1e-4)
    assert plan.micro_batches == 4
    assert plan.memory_bytes == learns.state_bytes / 8 + 2 * learns.sample_bytes
    assert not plan.fits and Plan(learns, SMALL, 32, 0.25, 2.0).fits
    whole = Plan(learns, SMALL, 32, 0.25, 2.0, sharded=False)
    assert whole.memory_bytes == learns.state_bytes + learns.sample_bytes and not whole.fits


def test_plans_are_told_a_line_each():
    plans = [Plan(run("connector", batch_size=512), H100, gpus, 0.4, 2.5) for gpus in (8, 512)]
    head, rule, first, last = plans_table(plans).splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == last.count("|")
    assert first.startswith("| 8 H100 SXM | ") and " | yes | 1 | 64 | " in first
    assert last.startswith("| 512 H100 SXM | ") and " | yes | 1 | 1 | " in last


def test_what_llava_reports_is_a_share_of_the_peak_that_such_runs_reach():
    """By hand, of the second stage: 665,000 samples in 10 hours on 8 GPUs of 312 TFLOP/s."""
    align, instruct = LLAVA15
    by_hand = 665_000 * (VISION + 3 * CONNECTOR + 3 * LANGUAGE) / (10 * 3600 * 8 * 312e12)
    assert instruct.utilisation(words=100) == pytest.approx(by_hand, rel=1e-4)
    assert all(0.1 < stage.utilisation(words) < 0.5 for stage in LLAVA15 for words in (30, 100))
    assert align.cost(2.0) == 3.5 * 8 * 2
    again = Plan(instruct.run(100), A100, 8, instruct.utilisation(100), 1.0)
    assert again.hours == pytest.approx(10) and again.cost == pytest.approx(instruct.cost(1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(samples=0), "samples, batch_size and words must be at least 1, got 0, 64 and 100"),
        (dict(words=0), "must be at least 1, got 1000, 64 and 0"),
        (dict(trains=("head",)), "llava15 has vision, connector, language to train, got head"),
        (dict(trains=()), "to train, got none"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Run(**{**vars(run("connector")), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(gpus=48), "a batch of 64 does not split over 48 GPUs with 1 samples at a time: make it a multiple of 48"),
        (dict(gpus=16, at_once=8), "make it a multiple of 128"),
        (dict(gpus=0), "at least one GPU"),
        (dict(utilisation=1.5), r"utilisation in \(0, 1\]"),
        (dict(price=-1.0), "no price below 0"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{**dict(run=run("connector"), gpu=A100, gpus=8, utilisation=0.4, price=1.0), **change})
