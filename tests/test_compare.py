"""Designs side by side: one setting for all, each run made once, and a table that says what was found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
import torch

from minivlm import DESIGNS, VLM, build
from minivlm.compare import PER_TASK, Result, bundled_results, collect, compare, interval, setting, table
from minivlm.course.readme import connectors_table
from minivlm.data.tasks import TASKS, evaluation_bank
from minivlm.designs import at_budget, configure
from minivlm.model import VLMConfig
from minivlm.train import Stage, train

ROWS = ("deco", "instructblip", "blind")
SMOKE = dict(tokens=16, scale="smoke", steps=2)
MACHINE = {"device": "x86_64 CPU", "torch": "2.9", "python": "3.11", "date": "2026-01-02", "precision": "default"}


@dataclass
class Run:
    """What went on in one training and the asking after it."""

    stages: list[Stage]
    losses: list[float] = field(default_factory=list)
    pictured: set[bool] = field(default_factory=set)  # did a batch that the model read hold a picture?
    asked: list[tuple[bool, object]] = field(default_factory=list)


@pytest.fixture(scope="module")
def runs() -> Iterator[list[Run]]:
    """A record of every run of `compare` while these tests last, in order."""
    import minivlm.compare as module

    runs, evaluate, forward = [], module.evaluate, VLM.forward

    def training(model, stages, **options):
        runs.append(Run(stages))
        runs[-1].losses = [record["loss"] for record in train(model, stages, **options)]

    def asking(model, tokenizer, questions, features, blind):
        runs[-1].asked.append((blind, questions))
        return evaluate(model, tokenizer, questions, features, blind=blind)

    def reading(model, batch, *rest, **options):
        runs[-1].pictured.add(batch.features is not None or batch.images is not None)
        return forward(model, batch, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train", training)
        patch.setattr(module, "evaluate", asking)
        patch.setattr(module, "pick_device", lambda: torch.device("cpu"))
        patch.setattr(VLM, "forward", reading)
        yield runs


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result], dict[tuple[str, int], Run]]:
    """Two designs and the blind one, with two seeds: where the results are, the results, and each run."""
    folder = tmp_path_factory.mktemp("compared") / "results"
    results = compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE)
    return folder, results, {(r.design, r.seed): run for r, run in zip(results, runs, strict=True)}


def made(design: str = "deco", seed: int = 0, tokens: int = 16, right: float = 0.5, **changes) -> Result:
    """A result that nobody measured."""
    result = Result(design, tokens, seed, "cpu", 600, 12345, dict.fromkeys(TASKS, right), MACHINE)
    return replace(result, **changes)


# --- the runs -------------------------------------------------------------------------------------------------------


def test_every_design_has_a_result_for_every_seed_the_blind_one_last(compared):
    folder, results, _ = compared
    assert [(r.design, r.tokens, r.seed) for r in results] == [
        (name, 0 if name == "blind" else 16, seed) for seed in (3, 5) for name in ROWS
    ]
    for result in results:
        assert (result.scale, result.steps) == ("smoke", 2)
        assert tuple(sorted(result.accuracy)) == tuple(sorted(TASKS))
        assert all(0 <= share <= 1 for share in result.accuracy.values())
        assert result.machine["torch"] == torch.__version__ and result.machine["precision"] == "default"
        weights = 0 if result.design == "blind" else sum(p.numel() for p in build(result.design).connector.parameters())
        assert result.connector_weights == weights
    assert len(list(folder.iterdir())) == 6


def test_all_are_trained_on_the_same_and_asked_the_same(compared):
    _, results, runs = compared
    for seed in (3, 5):
        mine = {name: runs[name, seed] for name in ROWS}
        last = [run.stages[-1] for run in mine.values()]
        assert len({id(stage.source.bank) for stage in last}) == 1 and {stage.steps for stage in last} == {2}
        assert len({(stage.source.seed, stage.source.per_scene, stage.source.batch_size) for stage in last}) == 1
        assert len({(stage.lr, stage.source.tasks) for stage in last}) == 1
        assert [stage.trains for stage in last] == [("connector", "language")] * 2 + [("language",)]
        assert [stage.source.apart for stage in last] == [False, True, False]
        assert [[stage.name for stage in run.stages] for run in mine.values()] == [["align", "instruct"]] * 2 + [
            ["instruct"]
        ]
    banks = [runs["deco", seed].stages[0].source.bank for seed in (3, 5)]
    assert not torch.equal(*(bank.scenes.color for bank in banks)), "every seed has scenes of its own"
    questions = evaluation_bank(per_task=PER_TASK["smoke"])[1]
    assert all(run.asked == [(name == "blind", questions)] for (name, _), run in runs.items())


def test_the_blind_one_never_reads_a_picture(compared):
    assert all(run.pictured == {name != "blind"} for (name, _), run in compared[2].items())


def test_all_designs_share_the_encoder_whose_features_are_made_once():
    configs = [design.mini() for design in DESIGNS.values() if design.answers]
    assert len({(config.vision, config.layer, config.class_token, config.language) for config in configs}) == 1


def test_what_is_there_is_not_run_again_and_what_is_missing_comes_out_the_same(compared, runs):
    folder, results, first = compared
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    before = len(runs)
    assert compare(["deco", "instructblip"], seeds=(3, 5, 3), folder=folder, **SMOKE) == results
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times and len(runs) == before
    lost = folder / "deco-16-smoke-2-seed5.json"
    lost.unlink()
    assert compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE) == results
    assert len(runs) == before + 1 and runs[-1].losses == first["deco", 5].losses
    assert {path for path in folder.iterdir() if path.stat().st_mtime_ns != times[path]} == {lost}
    assert first["deco", 3].losses != first["deco", 5].losses != first["instructblip", 5].losses


def test_a_run_that_was_killed_while_writing_leaves_no_result(compared, monkeypatch):
    folder, results, _ = compared
    path = folder / "blind-0-smoke-2-seed3.json"
    content = path.read_bytes()
    path.unlink()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minivlm.storage.os.replace", killed)
        compare([], seeds=(3,), folder=folder, **SMOKE)
    assert not path.exists() and len(collect(folder, "smoke", folder.parent / "some.json")) == 5
    assert compare([], seeds=(3,), folder=folder, **SMOKE) == [results[2]]
    assert json.loads(path.read_bytes())["accuracy"] == json.loads(content)["accuracy"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(designs=["deco", "llava15"]), "llava15: MLPProjection makes 64 tokens of 8x8 patches, not 16"),
        (dict(designs=["deco", "smolvlm"], tokens=7), "smolvlm: squares of patches make no 7 tokens"),
        (dict(designs=["deco", "llama_vid"]), "llama_vid: .* make no 16 of 8x8 patches; they can give 2, 5"),
        (dict(designs=["deco", "clip"]), "clip answers no questions"),
        (dict(designs=["deko"]), "did you mean deco"),
        (dict(designs=["deco"], scale="huge"), "unknown scale 'huge'; choose one of smoke, cpu, gpu"),
        (dict(designs=["deco"], steps=0), "steps must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(wrong, message, runs, tmp_path):
    before = len(runs)
    with pytest.raises(ValueError, match=message):
        compare(**{**SMOKE, "seeds": (0,), "folder": tmp_path / "results", **wrong})
    assert len(runs) == before and not (tmp_path / "results").exists()


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, design in DESIGNS.items() if design.answers])
def test_a_design_makes_as_many_tokens_as_are_asked_for_or_says_that_it_cannot(name):
    config, counts = configure(name), []
    for tokens in (1, 4, 5, 7, 16, 17, 64, 66):
        try:
            changed = at_budget(config, tokens)
        except ValueError as error:
            assert str(tokens) in str(error)
            continue
        counts.append(tokens)
        with torch.device("meta"):
            assert changed.build().connector.num_tokens(config.vision.grid) == tokens
        assert replace(changed, connector=config.connector) == config  # nothing else is changed
    own = at_budget(config, int(_tokens(config)))
    assert own == config and counts


def _tokens(config: VLMConfig) -> int:
    with torch.device("meta"):
        return config.build().connector.num_tokens(config.vision.grid)


def test_a_projection_has_no_choice():
    with pytest.raises(ValueError, match="LinearProjection makes 64 tokens of 8x8 patches, not 63: it has no choice"):
        at_budget(configure("llava"), 63)


# --- what is said of them -------------------------------------------------------------------------------------------


def test_an_interval_is_students():
    assert interval([0.5, 0.7]) == pytest.approx((0.6, 12.706 * 0.1))
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3)))
    assert interval([0.3] * 4) == (pytest.approx(0.3), pytest.approx(0))
    mean, half = interval([0.4])
    assert mean == 0.4 and math.isnan(half)
    for n, factor in ((10, 2.262), (11, 2.228), (16, 2.131), (31, 2.042), (121, 1.980)):  # tables of t, 97.5 %
        values = [0.0, 1.0] * (n // 2) + [0.5] * (n % 2)
        deviation = math.sqrt(sum((value - 0.5) ** 2 for value in values) / (n - 1))
        assert interval(values) == pytest.approx((0.5, factor * deviation / math.sqrt(n)), rel=2e-3)


def test_a_table_has_the_best_first_the_blind_last_and_says_how_sure():
    results = [
        made("blind", seed=0, tokens=0, right=0.9, connector_weights=0),
        *(made("deco", seed=seed, right=right) for seed, right in enumerate((0.30, 0.40, 0.50))),
        *(made("blip2", seed=seed, right=right) for seed, right in enumerate((0.60, 0.62))),
        made("blip2", seed=0, tokens=64, right=0.2),
    ]
    for result in results[1:4]:
        result.accuracy["COLOR"] = 0.7
    head, line, *rows = table(results, ("COLOR", "SHAPE")).splitlines()
    assert head == "| design | tokens | connector weights | COLOR | SHAPE | mean |"
    assert line.count("|") == head.count("|")
    assert rows == [
        "| blip2 | 16 | 12 k | 61 ± 13 | 61 ± 13 | 61 ± 13 |",  # 12.706 x 1.41 / sqrt(2)
        "| deco | 16 | 12 k | 70 ± 0 | 40 ± 25 | 55 ± 12 |",  # 4.303 x 10 / sqrt(3), and half of it
        "| blip2 | 64 | 12 k | 20 | 20 | 20 |",
        "| blind | - | - | 90 | 90 | 90 |",
    ]
    assert table(results).splitlines()[0].count("|") == 1 + 4 + len(TASKS)
    assert table(reversed(results), ("COLOR", "SHAPE")).splitlines()[2:] == rows


def test_results_of_two_settings_make_no_table():
    with pytest.raises(ValueError, match="two results of deco with 16 tokens and seed 0: compare those of one scale"):
        table([made(), made(steps=1200)])


def test_the_setting_is_said():
    results = [made(seed=1), made(seed=0), made(seed=0, machine={**MACHINE, "date": "2026-01-04"})]
    assert setting(results[:1]) == "600 steps at scale cpu, seeds 1; x86_64 CPU, torch 2.9, 2026-01-02"
    assert setting(results) == "600 steps at scale cpu, seeds 0, 1; x86_64 CPU, torch 2.9, 2026-01-02 to 2026-01-04"
    assert setting([*results, made(scale="gpu", steps=9)]).startswith("9, 600 steps at scale cpu, gpu, seeds 0, 1; ")
    with pytest.raises(ValueError, match="no results"):
        setting([])


def test_results_that_are_collected_come_with_the_package(compared, tmp_path, monkeypatch):
    folder, results, _ = compared
    (folder / "deco-16-cpu-2-seed3.json").write_text(json.dumps(asdict(made())), encoding="utf-8")
    try:
        out = tmp_path / "results" / "smoke.json"
        found = collect(folder, "smoke", out)
    finally:
        (folder / "deco-16-cpu-2-seed3.json").unlink()
    monkeypatch.setattr("minivlm.compare.files", lambda name: {"minivlm": tmp_path}[name])
    assert sorted(found, key=repr) == sorted(results, key=repr) and bundled_results("smoke") == found
    assert bundled_results("gpu") == []
    assert "deco" in table(found) and out.read_bytes().endswith(b"\n")


def test_the_readme_says_so_where_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("minivlm.compare.files", lambda _: tmp_path)
    assert connectors_table() == "Not yet measured."
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu.json").write_text(json.dumps([asdict(made())]), encoding="utf-8")
    told, _, words = connectors_table().rpartition("\n\n")
    assert told == table([made()]) and words == f"{setting([made()])}."
