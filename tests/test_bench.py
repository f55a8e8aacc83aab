"""The benchmark: both sides do the same work, times are taken in turns, and what is said of them is what they say."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch
from references import assert_same

from minivlm import mini
from minivlm.__main__ import main
from minivlm.bench import report, rivals
from minivlm.bench.growth import GROWING, Growth, fitted, growth, operations
from minivlm.bench.loading import Peak, ours, theirs, written
from minivlm.bench.peak import Share, share_of_peak
from minivlm.bench.saying import RIVAL, _ratios, saying
from minivlm.bench.timing import Ratio, alternate, ratio
from minivlm.bench.training import clip_steps, no_compiler, packed_and_apart, step_of
from minivlm.pretrained import from_transformers

RATIO = Ratio("a step", "ours", "theirs", [10.0, 20.0], 2.0, [1.5, 2.5], 1.3, 3)


# --- times ----------------------------------------------------------------------------------------------------------


def test_all_have_their_turn_in_every_round():
    turns: list[str] = []
    took = alternate({name: lambda name=name: turns.append(name) for name in "abc"}, 3)
    assert "".join(turns) == "abc" + "cba" + "abc" + "cba"  # the first to warm up
    assert {name: len(times) for name, times in took.items()} == {"a": 3, "b": 3, "c": 3}
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        alternate({}, 0)


def test_times_are_milliseconds_of_the_work_alone():
    took = alternate({"slow": lambda: time.sleep(0.05), "quick": lambda: None}, 2)
    naps = iter([0.3, 0.0])
    assert alternate({"slow at first": lambda: time.sleep(next(naps))}, 1)["slow at first"][0] < 250
    assert all(50 <= each < 500 for each in took["slow"]) and all(each < 20 for each in took["quick"])


def test_a_ratio_is_the_median_of_rounds_not_of_sums():
    made = ratio("w", ("ours", [1.0, 10.0, 4.0]), ("theirs", [2.0, 50.0, 4.0]), 1.3)
    assert (made.ratio, made.milliseconds, made.spread) == (2.0, [4.0, 4.0], [1.5, 3.5])
    assert ratio("w", ("ours", [2.0]), ("theirs", [3.0]), 1.3).spread == [1.5, 1.5]
    with pytest.raises(ValueError, match="w: 1 and 2 rounds"):
        ratio("w", ("ours", [1.0]), ("theirs", [1.0, 2.0]), 1.3)


# --- the work -------------------------------------------------------------------------------------------------------


def test_both_llavas_have_the_same_weights_task_and_loss():
    theirs = rivals.llava()
    ours, work = from_transformers(theirs), rivals.task(3, 9)
    loss = theirs(**work.theirs).loss
    assert_same(ours(work.batch).loss, loss)
    assert_same(ours.loss(work.batch), loss)
    assert sum(p.numel() for p in ours.vision.parameters()) == sum(
        p.numel() for p in theirs.model.vision_tower.parameters() if p.requires_grad
    )
    for name in ("width", "depth", "heads", "mlp_width", "vocab_size"):
        assert getattr(ours.config.language, name) == getattr(mini.language(), name)
        if name != "vocab_size":
            depth = name == "depth"  # the block that is not read is left out
            assert getattr(ours.config.vision, name) == getattr(mini.vision(), name) - depth
    assert int((work.batch.labels >= 0).sum()) == int((work.theirs["labels"] >= 0).sum()) == 3 * rivals.ANSWER


@pytest.mark.parametrize("make", [rivals.clip, rivals.open_clip])
def test_both_clips_have_the_sizes_of_the_mini_one(make):
    ours = from_transformers(make()).config
    wanted = mini.clip()
    plain = replace(wanted.vision, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert (ours.vision, ours.text, ours.embed_dim) == (plain, wanted.text, wanted.embed_dim)


def test_a_step_learns_and_leaves_no_gradient():
    model = torch.nn.Linear(3, 1)
    before = model.weight.clone()
    step_of(model, lambda: model(torch.ones(2, 3)).sum())()
    assert (model.weight < before).all() and model.weight.grad is None


def test_packed_questions_are_learned_as_those_apart():
    """The same loss, and the same gradient of every weight that learns."""
    model, packed, apart = packed_and_apart(3)
    assert len(apart) > len(packed) == 3 and packed.images is None and apart.features is None
    assert int((packed.labels >= 0).sum()) == int((apart.labels >= 0).sum())
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    losses = model.loss(packed), model(apart).loss
    assert_same(*losses)
    for own, other in zip(*(torch.autograd.grad(loss, learning) for loss in losses), strict=True):
        assert_same(own, other)


def test_nothing_is_timed_that_says_something_else(monkeypatch):
    made = saying(2, 3, 1, {"llava15": (None, 1.3)}, prompt=4)
    assert [one.what for one in made] == ["3 words, batch 2, with reading", "3 words, batch 2, after the first"]
    assert {(one.ours, one.rival) for one in made} == {("llava15", RIVAL)}
    real = rivals.llava
    monkeypatch.setattr("minivlm.bench.saying.from_transformers", lambda model: from_transformers(real(seed=1)).eval())
    with pytest.raises(RuntimeError, match="times say nothing"):
        saying(2, 3, 1, {"llava15": (None, 1.3)}, prompt=4)


def test_what_reading_takes_is_left_out_of_later_words():
    took = {"ours, 1": [10.0], "ours, 9": [14.0], f"{RIVAL}, 1": [10.0], f"{RIVAL}, 9": [18.0]}
    whole, later = _ratios(took, "ours", 1.3, 4, 9)
    assert (whole.milliseconds, later.milliseconds, later.ratio) == ([14.0, 18.0], [4.0, 8.0], 2.0)


def test_clip_is_timed_beside_both():
    assert [one.rival for one in clip_steps(2, 1)] == ["transformers' CLIP", "open_clip's CLIP"]


def test_without_a_compiler_the_reason_is_said(monkeypatch):
    monkeypatch.setattr("minivlm.bench.training.shutil.which", lambda name: None)
    assert "no C++ compiler" in no_compiler()
    monkeypatch.setattr("minivlm.bench.training.shutil.which", lambda name: "/bin/x" if name == "clang++" else None)
    assert no_compiler() is None


# --- growth ---------------------------------------------------------------------------------------------------------


def test_operations_are_those_that_a_pencil_gives():
    """Of the decoder: 6 a weight and place, forward and backward; of attention, 12 a channel and pair that is seen."""
    model, batch = GROWING["words"](30, samples=2)
    length, config = 1 + 64 + 30, mini.language()
    maps = config.depth * (4 * config.width**2 + 3 * config.width * config.mlp_width) + config.width * config.vocab_size
    pairs = length * (length + 1) / 2
    connector = 2 * 2 * 64 * (3 * 2 * 128 * 128 - 128 * 128)  # its input needs no gradient
    wanted = 2 * (6 * maps * length + 12 * config.depth * config.width * pairs) + connector
    assert operations(model, batch) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("what, lengths", [("visual tokens", (4, 16)), ("frames", (16, 32)), ("words", (1, 2))])
def test_what_grows_is_what_is_said(what, lengths):
    short, long = (model(batch).layout.lengths for model, batch in (GROWING[what](size) for size in _sizes(what)))
    assert (long - short).tolist() == [lengths[1] - lengths[0]] * 4


def _sizes(what: str) -> tuple[int, int]:
    return {"visual tokens": (4, 16), "frames": (1, 2), "words": (1, 2)}[what]


def test_the_fit_is_the_line_that_times_lie_on():
    flops = [10**9, 4 * 10**9, 10**10]
    fixed, rate = fitted(flops, [5 + 2e-9 * x for x in flops])
    assert (fixed, rate) == (pytest.approx(5), pytest.approx(2e-9))
    off = Growth("x", [1, 2, 3], flops, [7.0, 13.0, 30.0], fixed, rate)
    assert off.misfit == pytest.approx(0.2)  # 30 ms where the line has 25
    steep = fitted([1, 2, 4], [1.0, 2.0, 8.0])
    nearest = min(
        ((a / 50, b / 50) for a in range(-100, 100) for b in range(100)),
        key=lambda line: sum(((line[0] + line[1] * x) / y - 1) ** 2 for x, y in ((1, 1.0), (2, 2.0), (4, 8.0))),
    )
    assert steep == (pytest.approx(nearest[0], abs=0.02), pytest.approx(nearest[1], abs=0.02))


def test_growth_is_measured_and_bad_sizes_are_refused():
    made = growth("words", report.FEW["words"], 1)
    assert made.sizes == report.FEW["words"] and len(made.milliseconds) == 3 and min(made.milliseconds) > 0
    assert made.flops == sorted(made.flops)
    with pytest.raises(ValueError, match="one of visual tokens, frames, words"):
        growth("pictures", [1, 2, 3], 1)
    with pytest.raises(ValueError, match="three sizes or more"):
        growth("words", [1, 2], 1)
    with pytest.raises(ValueError, match="16, 64, 256, ..., not 20"):
        GROWING["visual tokens"](20)


def test_a_share_is_of_what_was_measured(monkeypatch):
    took = {"step": [20.0], "product": [1.0]}
    monkeypatch.setattr("minivlm.bench.peak.alternate", lambda works, rounds: {name: took[name] for name in works})
    monkeypatch.setattr("minivlm.bench.peak.operations", lambda model, batch: 5 * 10**9)
    made = share_of_peak(4, 1000, 1, 0.25)
    assert (made.step, made.peak, made.share) == (pytest.approx(1.0), pytest.approx(2.0), pytest.approx(0.5))


def test_both_loaders_open_the_same_folder(tmp_path):
    folder = written(16, tmp_path)
    wanted = from_transformers(theirs(folder))
    opened = ours(folder)
    assert opened.config == wanted.config
    assert all(torch.equal(value, opened.state_dict()[key]) for key, value in wanted.state_dict().items())


# --- the report -----------------------------------------------------------------------------------------------------


def done() -> report.Bench:
    grown = Growth("words", [1, 2, 3], [10**9, 2 * 10**9, 3 * 10**9], [3.0, 5.0, 7.7], 1.0, 2e-9)
    share = Share("a step", 0.02, 0.05, 0.25)
    peak = Peak("opening a folder of 9 MB", 9.0, 10.0, 1.1)
    return report.Bench("smoke", report.made_on(), [RATIO], [grown], [share], {"captured": "no GPU"}, [peak])


def test_a_run_is_read_as_it_was_written(tmp_path):
    report.write(done(), tmp_path / "bench-smoke.json")
    assert report.read(tmp_path / "bench-smoke.json") == done()
    assert report.bundled_bench("no such scale") is None


def test_the_table_says_what_was_measured():
    table = report.bench_table(done())
    assert "| a step | ours | 10.0 | theirs | 20.0 | 2.00 | 1.50 to 2.50 | 1.3 |" in table
    assert "1 to 3 words: 1.0 ms + 2.0 ms a GFLOP, off by at most 10%" in table
    assert "40% of 50 GFLOPs a second" in table and "(wanted 25%)" in table
    assert "opening a folder of 9 MB takes: 9 MB beside transformers' 10 MB, 90% of it (wanted 110% at most)" in table
    assert "Left out: captured (no GPU)." in table
    assert torch.__version__.partition("+")[0] in table and done().machine["date"] in table


def test_the_command_measures_prints_and_keeps_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "GROWING", ["words"])
    main(["bench", "--scale", "smoke", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    kept = json.loads((tmp_path / "bench-smoke.json").read_text(encoding="utf-8"))
    assert (
        len(kept["ratios"]) == 9
        and len(kept["peaks"]) == 1
        and told.endswith(report.bench_table(report.read(tmp_path / "bench-smoke.json")) + "\n")
    )
    (peak,), megabytes = kept["peaks"], int(kept["peaks"][0]["what"].split()[-2])
    assert all(0.5 * megabytes < peak[who] < 5 * megabytes for who in ("ours", "theirs"))
    assert {"compiled training", "saying, compiled", "saying, a batch, compiled"} <= kept["skipped"].keys()
    assert all(f"{one['ratio']:.2f} times as fast as" in told for one in kept["ratios"])
