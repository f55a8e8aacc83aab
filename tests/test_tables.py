"""Tables of results: what is said of runs is what was measured, with how sure it is."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import comparisons
import pytest
from comparisons import MACHINE, made

from minivlm.compare import LINE
from minivlm.comparison import bundled_comparison, collect, margins_by_design, timed
from minivlm.course.readme import connectors_table, fusions_table
from minivlm.data.tasks import TASKS
from minivlm.layout import Kind
from minivlm.ledger import Ledger
from minivlm.runs import KEPT_MARGINS
from minivlm.tables import (
    IDENTITY,
    Compared,
    Result,
    bundled_results,
    identity,
    interval,
    paired,
    setting,
    table,
)


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
    about = "design | tokens | decoder | connector weights | weights that learn"
    assert head == f"| {about} | COLOR | SHAPE | mean | told in words |"
    assert line.count("|") == head.count("|")
    assert rows == [
        "| blip2 | 16 | tuned | 12 k | 68 k | 61 ± 13 | 61 ± 13 | 61 ± 13 | - |",  # 12.706 x 1.41 / sqrt(2)
        "| deco | 16 | tuned | 12 k | 68 k | 70 ± 0 | 40 ± 25 | 55 ± 12 | - |",  # 4.303 x 10 / sqrt(3), and half of it
        "| blip2 | 64 | tuned | 12 k | 68 k | 20 | 20 | 20 | - |",
        "| blind | - | tuned | - | 68 k | 90 | 90 | 90 | - |",
    ]
    assert table(results).splitlines()[0].count("|") == 1 + 7 + len(TASKS)
    assert table(reversed(results), ("COLOR", "SHAPE")).splitlines()[2:] == rows


def test_what_of_the_decoder_learned_makes_a_row_of_its_own_with_what_it_still_reads():
    told = {"COLOR": 0.8, "SHAPE": 0.6, "BIND": 0.0}
    results = [
        made(language="lora", right=0.4, told=told),
        made(language="frozen", right=0.6, seed=0, told=told),
        made(language="frozen", right=0.6, seed=1, told={"COLOR": 0.9, "SHAPE": 0.7}),
        made(right=0.5, seed=0, told=told),
        made(right=0.5, seed=1),  # nobody asked this one, so nothing is said of them all
    ]
    assert table(results, ("COLOR", "SHAPE")).splitlines()[2:] == [
        "| deco | 16 | frozen | 12 k | 68 k | 60 ± 0 | 60 ± 0 | 60 ± 0 | 75 ± 64 |",  # 12.706 x 7.07 / sqrt(2)
        "| deco | 16 | tuned | 12 k | 68 k | 50 ± 0 | 50 ± 0 | 50 ± 0 | - |",
        "| deco | 16 | lora | 12 k | 68 k | 40 | 40 | 40 | 70 |",
    ]


def test_results_of_two_settings_make_no_table():
    with pytest.raises(ValueError, match="two results of deco, tuned, with 16 tokens and seed 0: compare those of one"):
        table([made(), made(steps=1200)])


def test_differences_are_those_of_the_same_seed():
    some = [made(seed=seed, told={"COLOR": right}) for seed, right in ((3, 0.9), (0, 0.5), (1, 0.7))]
    others = [made(seed=seed, told={"COLOR": right}) for seed, right in ((1, 0.4), (2, 0.0), (3, 1.0))]
    assert paired(some, others, lambda run: run.told["COLOR"]) == pytest.approx([0.3, -0.1])
    assert paired(some, some[:0], lambda run: run.told["COLOR"]) == []


def test_the_setting_is_said():
    results = [made(seed=1), made(seed=0), made(seed=0, machine={**MACHINE, "date": "2026-01-04"})]
    assert setting(results[:1]) == "600 steps at scale cpu, seeds 1; x86_64 CPU, torch 2.9, 2026-01-02"
    assert setting(results) == "600 steps at scale cpu, seeds 0, 1; x86_64 CPU, torch 2.9, 2026-01-02 to 2026-01-04"
    assert setting([*results, made(scale="gpu", steps=9)]).startswith("9, 600 steps at scale cpu, gpu, seeds 0, 1; ")
    with pytest.raises(ValueError, match="no results"):
        setting([])


def test_results_that_are_collected_come_with_the_package(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "runs.jsonl")
    results = [comparisons.compared(seed=seed, right=seed / 7) for seed in (0, 1)]
    older = replace(results[0], accuracy=dict.fromkeys(TASKS, 0.9), seconds=1.0)
    for run in (older, results[1], comparisons.compared(scale="gpu"), results[0]):
        ledger.add(asdict(run))
    ledger.add({key: asdict(results[0])[key] for key in IDENTITY} | {"seed": 2, "failed": "no luck", "machine": {}})
    out = tmp_path / "results" / "compare-cpu.json"
    assert collect(ledger.path, "cpu", out) == results and out.read_bytes().endswith(b"\n")
    assert len(out.read_text().splitlines()) == 4, "a line a run, between two brackets"
    monkeypatch.setattr("minivlm.tables.files", lambda name: {"minivlm": tmp_path}[name])
    assert bundled_results("cpu", Compared, "compare-") == results == bundled_comparison()
    assert bundled_comparison("gpu") == []


def test_milliseconds_measured_anew_are_of_all_designs_in_turn(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "runs.jsonl")
    results = [comparisons.compared(name, seed) for name in ("llava15", "deco", "blind") for seed in (0, 1)]
    for run in results:
        ledger.add(asdict(run))
    read = {}

    def alternate(works, rounds):
        read.update({name: int((work().layout.kind > Kind.TEXT).sum()) for name, work in works.items()})
        return {name: [9.0, float(read[name]), 0.0][:rounds] for name in works}

    monkeypatch.setattr("minivlm.comparison.alternate", alternate)
    again = collect(ledger.path, "cpu", tmp_path / "all.json", rounds=3)
    assert read == {"llava15": 64, "deco": 16, "blind": 0}, "visual tokens"
    medians = {"llava15": 9.0, "deco": 9.0, "blind": 0.0}
    assert again == [replace(run, milliseconds=medians[run.design]) for run in results]
    with pytest.raises(ValueError, match="mine"):
        timed([comparisons.compared("mine")])


def test_older_results_are_still_read():
    assert len(bundled_results()) > 60 and {type(run) for run in bundled_results()} == {Result}


@pytest.mark.parametrize(
    "change", [dict(seed=4), dict(tokens=4), dict(language="lora"), dict(data="mine"), dict(parts="1")]
)
def test_what_makes_another_run(change):
    run = comparisons.compared()
    assert identity(asdict(run)) != identity(asdict(replace(run, **change)))
    assert identity(asdict(run)) == identity(asdict(replace(run, seconds=7.0, accuracy={})))


def test_margins_of_all_runs_in_a_file_of_less_than_a_megabyte(tmp_path):
    """Of 33 designs, three seeds and nine tasks."""
    ledger, margins = Ledger(tmp_path / "runs.jsonl"), dict.fromkeys(TASKS, [-12.34] * KEPT_MARGINS)
    for n in range(99):
        ledger.add(asdict(comparisons.compared(seed=n, margins=margins)))
    assert len(collect(ledger.path, "cpu", tmp_path / "all.json")) == 99
    assert (tmp_path / "all.json").stat().st_size < 1_000_000 > ledger.path.stat().st_size
    assert max(map(len, ledger.path.read_bytes().splitlines())) < LINE


def test_margins_of_a_rating_are_those_of_all_seeds():
    runs = [
        comparisons.compared(name, seed, margins={"A": [seed + 0.5, 1.0], "B": [-seed]})
        for name, seeds in (("a", (1, 0)), ("b", (0, 1, 2)))
        for seed in seeds
    ]
    tasks, of = margins_by_design(runs)
    assert tasks == ["A", "A", "B"]
    assert of == {"a": [[0.5, 1.0, 0], [1.5, 1.0, -1]], "b": [[0.5, 1.0, 0], [1.5, 1.0, -1]]}, "of seeds that all have"
    with pytest.raises(ValueError, match="not asked the same"):
        margins_by_design([*runs, comparisons.compared("c", 0, margins={"A": [1.0]})])
    with pytest.raises(ValueError, match="no results"):
        margins_by_design([])


def test_the_readme_says_so_where_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("minivlm.tables.files", lambda _: tmp_path)
    assert connectors_table() == "Not yet measured."
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cpu.json").write_text(json.dumps([asdict(made())]), encoding="utf-8")
    told, _, words = connectors_table().rpartition("\n\n")
    assert told == table([made()]) and words == f"{setting([made()])}."
    assert fusions_table() == "Not yet measured."


def test_the_readme_has_connectors_in_one_table_and_all_else_in_another(tmp_path, monkeypatch):
    monkeypatch.setattr("minivlm.tables.files", lambda name: {"minivlm": tmp_path}[name])
    (tmp_path / "results").mkdir()
    connectors = [made("deco"), made("blip2", tokens=1, right=0.4)]
    blind = made("blind", tokens=0, right=0.1)
    others = [made("flamingo"), made("flamingo_open", right=0.4), made("deco", language="frozen", right=0.3)]
    stored = json.dumps([asdict(result) for result in (*connectors, blind, *others)])
    (tmp_path / "results" / "cpu.json").write_text(stored, encoding="utf-8")
    assert connectors_table().startswith(table([*connectors, blind]) + "\n\n")
    assert fusions_table().startswith(table([*others, blind]) + "\n\n")
