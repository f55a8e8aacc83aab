"""Designs side by side: one setting for all, and each run made once."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import ANY

import own_design
import pytest
import tiny
import torch
from torch import nn

from minivlm import DESIGNS, VLM, build, runs
from minivlm.compare import compare, imported
from minivlm.comparison import collect
from minivlm.data.captions import caption
from minivlm.data.tasks import TASKS, evaluation_bank
from minivlm.designs import at_budget, configure
from minivlm.evaluate import evaluate, grade
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.ledger import Ledger
from minivlm.material import PER_TASK
from minivlm.mini import VARIANTS, reader
from minivlm.recipes import LORA_RANK
from minivlm.runs import Job, encoder_of
from minivlm.spending import training_flops
from minivlm.storage import warm_start
from minivlm.tables import Compared
from minivlm.train import Stage, train, train_whole
from minivlm.vision.patches import PatchesConfig
from minivlm.vision.variable import VariableViTConfig

ROWS = ("deco", "instructblip", "blind")
SMOKE = dict(tokens=16, scale="smoke", steps=2)
SCENES, QUESTIONS = evaluation_bank(per_task=PER_TASK["smoke"])
TOLD = [caption(SCENES[i]) for i in range(len(SCENES))]


@dataclass
class Run:
    """What went on in one training and the asking after it."""

    stages: list[Stage]
    losses: list[float] = field(default_factory=list)
    pictured: set[tuple[int, bool]] = field(default_factory=set)  # asked how often before; did a batch hold pictures?
    asked: list[tuple[object, object]] = field(default_factory=list)  # the questions, and what was told with them
    counted: bool = False  # all that is left is to count what it cost


@pytest.fixture(scope="module")
def made() -> Iterator[list[Run]]:
    """A record of every run of `compare` while these tests last, in order."""
    made, forward = [], VLM.forward

    def training(model, stages, **options):
        made.append(Run(stages))
        records = train(model, stages, **options)
        made[-1].losses = [record["loss"] for record in records]
        return records

    def asking(model, tokenizer, questions, features, blind=False, told=None):
        made[-1].asked.append((questions, told))
        return grade(model, tokenizer, questions, features, blind=blind, told=told)

    def counting(model, stages):
        made[-1].counted = True
        return training_flops(model, stages)

    def reading(model, batch, *rest, **options):
        if not made[-1].counted:
            made[-1].pictured.add((len(made[-1].asked), batch.visual is not None))
        return forward(model, batch, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train_whole", training)
        patch.setattr(runs, "grade", asking)
        patch.setattr(runs, "training_flops", counting)
        patch.setattr(runs, "pick_device", lambda: torch.device("cpu"))
        patch.setattr(VLM, "forward", reading)
        yield made


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Compared], dict[tuple[str, int], Run]]:
    """Two designs and the blind one, with two seeds: where the results are, the results, and each run."""
    folder = tmp_path_factory.mktemp("compared") / "results"
    results = compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE)
    return folder, results, {(r.design, r.seed): run for r, run in zip(results, made, strict=True)}


# --- the runs -------------------------------------------------------------------------------------------------------


def test_every_design_has_a_result_for_every_seed_the_blind_one_last(compared):
    folder, results, _ = compared
    assert [(r.design, r.tokens, r.seed) for r in results] == [
        (name, 0 if name == "blind" else 16, seed) for seed in (3, 5) for name in ROWS
    ]
    for result in results:
        assert (result.scale, result.steps, result.language) == ("smoke", 2, "tuned")
        for shares in (result.accuracy, result.told):
            assert tuple(sorted(shares)) == tuple(sorted(TASKS)) and all(0 <= share <= 1 for share in shares.values())
        assert result.machine["torch"] == torch.__version__ and result.machine["precision"] == "default"
        model = build("deco" if result.design == "blind" else result.design, device="meta")
        weights = 0 if result.design == "blind" else count(model.connector)
        assert result.connector_weights == weights
        if result.design != "instructblip":  # whose word table has rows that nobody reads
            assert result.trained_weights == weights + count(model.language)
        assert result.samples == (2 if result.design == "blind" else 5) * 8  # pictures of each step
        assert {task: len(kept) for task, kept in result.margins.items()} == dict.fromkeys(result.accuracy, ANY)
        assert result.weights > result.trained_weights and min(result.train_flops, result.flops, result.seconds) > 0
    assert [path.name for path in folder.iterdir()] == ["runs.jsonl"]
    found = collect(folder / "runs.jsonl", "smoke", folder.parent / "all.json")
    assert sorted(found, key=repr) == sorted(results, key=repr)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


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
    assert all(run.asked == [(QUESTIONS, None), (QUESTIONS, TOLD)] for run in runs.values())


def test_pictures_are_read_by_all_but_the_blind_one_and_not_where_the_scene_is_told(compared):
    for (name, _), run in compared[2].items():
        assert run.pictured == {(0, name != "blind"), (1, name != "blind"), (2, False)}


def test_a_frozen_decoder_reads_as_before_and_has_no_blind_one_beside_it(made, tmp_path):
    before, deep = len(made), VARIANTS["flamingo_resampler_deep"]().build()
    results = compare(["flamingo_resampler_deep", "flamingo"], seeds=(3,), folder=tmp_path, language="frozen", **SMOKE)
    read = evaluate(warm_start(build("llava15", device="cpu")), mini_tokenizer(), QUESTIONS, None, told=TOLD)
    assert [result.design for result in results] == ["flamingo_resampler_deep", "flamingo"]
    for result, model, run in zip(results, (deep, build("flamingo", device="cpu")), made[before:], strict=True):
        assert result.told == {task: pytest.approx(score.accuracy, abs=1e-5) for task, score in read.items()}
        assert result.trained_weights == count(model.connector) + count(model.fusion)
        assert result.language == "frozen" and run.stages[-1].trains == run.stages[0].trains


def test_a_decoder_may_learn_beside_itself(made, tmp_path):
    [result] = compare(["deco"], seeds=(3,), folder=tmp_path, language="lora", **SMOKE)
    language = configure("deco").language
    maps = 4 * (language.width + language.width) + 3 * (language.width + language.mlp_width)  # into and out of each
    assert result.trained_weights == result.connector_weights + language.depth * LORA_RANK * maps
    assert result.language == "lora" and made[-1].stages[-1].trains == ("connector", "adapter")


def test_all_designs_share_the_encoder_whose_features_are_made_once():
    """And those that read pages share one that has read pages, for a whole or for its tiles, or its like for any
    size, or it and a second one."""
    configs = {name: design.mini() for name, design in DESIGNS.items() if design.answers}
    reading = {"llava_next": lambda vision: vision.tower, "idefics2": lambda vision: vision,
               "deepseek_vl": lambda vision: vision, "deepseek_vl_hybrid": lambda vision: vision.low}  # fmt: skip
    shared = [configs[name] for name in configs.keys() - reading.keys()]
    assert len({getattr(config.language, "decoder", config.language) for config in configs.values()}) == 1
    encoders = [config for config in shared if not isinstance(config.vision, PatchesConfig)]  # raw patches have none
    assert len({(config.vision, config.layer, config.class_token) for config in encoders}) == 1 and len(encoders) > 15
    for name, tower_of in reading.items():
        tower = tower_of(configs[name].vision)
        assert configs[name].layer is None and not configs[name].class_token
        sizes = ("patch_size", "width", "depth", "heads", "mlp_width", "mean", "std")
        assert all(getattr(tower, size) == getattr(encoders[0].vision, size) for size in sizes)
        assert type(tower) is VariableViTConfig if name == "idefics2" else tower == reader()


def timeless(results: list[Compared]) -> list[Compared]:
    return [replace(result, seconds=0, milliseconds=0) for result in results]


def without(path: Path, *numbers: int) -> None:
    """Take lines out of a ledger."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for n, line in enumerate(lines) if n not in numbers))


def test_what_is_there_is_not_run_again_and_what_is_missing_comes_out_the_same(compared, made):
    folder, results, first = compared
    ledger, before = folder / "runs.jsonl", len(made)
    content = ledger.read_bytes()
    assert compare(["deco", "instructblip"], seeds=(3, 5, 3), folder=folder, **SMOKE) == results
    assert ledger.read_bytes() == content and len(made) == before
    without(ledger, 3)  # deco, seed 5
    kept = ledger.read_bytes()
    again = compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE)
    assert timeless(again) == timeless(results)
    assert ledger.read_bytes().startswith(kept) and len(Ledger(ledger).entries()) == 6
    assert len(made) == before + 1 and made[-1].losses == first["deco", 5].losses
    assert first["deco", 3].losses != first["deco", 5].losses != first["instructblip", 5].losses


def test_a_quiet_run_says_in_a_line_what_it_came_to_and_no_time(made, tmp_path, capsys):
    runs = compare(["deco"], seeds=(3,), folder=tmp_path, quiet=True, **SMOKE)
    means = [sum(run.accuracy.values()) / len(run.accuracy) for run in runs]
    assert capsys.readouterr().out == (
        f"deco, 16 tokens, tuned, seed 3: mean {means[0]:.1%}\nblind, 0 tokens, tuned, seed 3: mean {means[1]:.1%}\n"
    )


def test_a_run_that_fails_is_kept_as_such_and_made_again_while_the_others_go_on(compared, made, monkeypatch, capsys):
    folder, results, _ = compared
    ledger, go_on = folder / "runs.jsonl", runs.train_whole
    names = [(entry["design"], entry["seed"]) for entry in Ledger(ledger).entries()]
    without(ledger, names.index(("deco", 3)), names.index(("blind", 3)))

    def failing(model, stages, **options):
        if len(stages) == 2:
            raise FloatingPointError("the loss is nan\nand so on")
        return go_on(model, stages, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train_whole", failing)
        found = compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE)
    assert timeless(found) == timeless([r for r in results if (r.design, r.seed) != ("deco", 3)])
    assert "failed 1 of 2: deco, seed 3: FloatingPointError: the loss is nan\n" in capsys.readouterr().out
    [failed] = [entry for entry in Ledger(ledger).entries() if "failed" in entry]
    assert failed["failed"] == "FloatingPointError: the loss is nan" and failed["machine"]["torch"] == torch.__version__
    before = len(made)
    assert timeless(compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE)) == timeless(results)
    assert len(made) == before + 1
    assert len(collect(ledger, "smoke", folder.parent / "some.json")) == 6


def test_another_configuration_under_the_same_name_is_another_run(made, tmp_path):
    mine = lambda: configure("llava")  # noqa: E731
    before, how = len(made), dict(seeds=(3,), folder=tmp_path, scale="smoke", steps=2, language="frozen")
    [first] = compare({"mine": mine}, **how)
    [second] = compare({"mine": replace(mine(), layer=-1)}, **how)
    assert len(made) == before + 2 and first.parts != second.parts and first.accuracy != second.accuracy
    assert compare({"mine": mine}, **how) == [first] and len(made) == before + 2


def test_interrupting_is_no_result(made, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "train_whole", train_whole)
    monkeypatch.setattr("minivlm.train.train", lambda *_, **__: [])  # as it returns after the keyboard's interrupt
    with pytest.raises(KeyboardInterrupt):
        compare(["deco"], seeds=(3,), folder=tmp_path, **SMOKE)
    assert Ledger(tmp_path / "runs.jsonl").entries() == []


WORDS = "compare --designs deco llava --seeds 0 1 --scale smoke --steps 1 --precision no".split()


def test_a_kill_at_any_instant_loses_only_the_runs_in_flight(tmp_path):
    ledger, chance = Ledger(tmp_path / "runs.jsonl"), random.Random(0)
    for jobs, wanted in ((1, 1), (2, 3)):
        kept = ledger.path.read_bytes()
        call = tiny.command("-m", "minivlm", *WORDS, "--jobs", jobs, "--out", tmp_path)
        with subprocess.Popen(**call, stdout=subprocess.DEVNULL) as process:
            while len(ledger.entries()) < wanted:
                assert process.poll() is None
                time.sleep(chance.random() / 3)
            process.kill()
        assert ledger.path.read_bytes().startswith(kept)
    subprocess.run(**call, check=True, stdout=subprocess.DEVNULL)
    runs_of = [(entry["design"], entry["seed"]) for entry in ledger.entries()]
    assert sorted(runs_of) == sorted((name, seed) for name in ("deco", "llava", "blind") for seed in (0, 1))


def test_processes_of_their_own_come_to_the_same(compared, tmp_path):
    results = [r for r in compared[1] if r.seed == 5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", tiny.command()["env"]["PYTHONPATH"])
        found = compare(["deco", "instructblip"], seeds=(5,), folder=tmp_path, jobs=2, **SMOKE)
    for one, other in zip(found, results, strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.1) and one.train_flops == other.train_flops
        assert one.parts == other.parts


def test_a_design_of_ones_own_takes_forty_lines_and_no_edit_but_of_the_list(made, tmp_path, monkeypatch):
    lines = Path(own_design.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    how = dict(seeds=(3,), folder=tmp_path, scale="smoke", steps=2, language="frozen")
    [mine] = compare({"rows": imported("own_design:rows")}, **how)
    assert (mine.design, mine.tokens, mine.connector_weights) == ("rows", 8, 128 * 128 + 128)
    listed = replace(DESIGNS["deco"], title="Rows", mini=own_design.rows)
    monkeypatch.setitem(DESIGNS, "listed", listed)
    [theirs] = compare(["listed"], **how)
    assert theirs.accuracy == mine.accuracy and theirs.margins == mine.margins


def test_by_default_all_that_answer_are_compared(made, tmp_path, monkeypatch):
    seen = []

    def note(job: Job) -> dict[str, object]:
        seen.append(job.design)
        return {**job.about, "failed": "not tried"}

    monkeypatch.setattr("minivlm.compare.maker", lambda: note)
    assert compare(seeds=(0,), folder=tmp_path, scale="smoke") == []
    assert sorted(seen) == sorted([*(name for name, design in DESIGNS.items() if design.answers), "blind"])
    encoders = [encoder_of(configure("llava15" if name == "blind" else name)) for name in seen]
    changes = sum(one != other for one, other in zip(encoders, encoders[1:], strict=False))
    assert changes == len(set(encoders)) - 1, "those with one encoder stand together"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(designs=["deco", "llava15"]), "llava15: MLPProjection makes 64 tokens of 8x8 patches, not 16"),
        (dict(designs=["deco", "smolvlm"], tokens=7), "smolvlm: squares of patches make no 7 tokens"),
        (dict(designs=["deco", "llama_vid"]), "llama_vid: .* make no 16 of 8x8 patches; they can give 2, 5"),
        (dict(designs=["deco", "clip"]), "clip answers no questions"),
        (dict(designs=["deko"]), "did you mean deco"),
        (dict(designs=["deco"], scale="huge"), "unknown scale 'huge'; choose one of smoke, cpu, gpu"),
        (dict(designs=["deco"], steps=0), "steps and jobs must be at least 1, got 0 and 1"),
        (dict(designs=["deco"], jobs=0), "steps and jobs must be at least 1, got 2 and 0"),
        (dict(designs={"deco": own_design.rows}), "'deco' is the name of a known design: give yours another"),
        (dict(designs={"mine": lambda: 3}), "mine answers no questions.* a function that makes one, got int"),
        (dict(designs=["deco"], language="loro"), "unknown language 'loro'; choose one of tuned, lora, frozen"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(wrong, message, made, tmp_path):
    before = len(made)
    with pytest.raises(ValueError, match=message):
        compare(**{**SMOKE, "seeds": (0,), "folder": tmp_path / "results", **wrong})
    assert len(made) == before and not (tmp_path / "results").exists()


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, design in DESIGNS.items() if design.answers])
def test_a_design_makes_as_many_tokens_as_are_asked_for_or_says_that_it_cannot(name):
    config, counts = configure(name), []
    for tokens in (1, 4, 5, 7, 16, 17, 64, 66, 72, 336):
        try:
            changed = at_budget(config, tokens)
        except ValueError as error:
            assert str(tokens) in str(error)
            continue
        counts.append(tokens)
        assert changed.num_tokens == tokens
        assert replace(changed, connector=config.connector) == config  # nothing else is changed
    assert at_budget(config, config.num_tokens) == config and counts


def test_a_projection_has_no_choice():
    with pytest.raises(ValueError, match="LinearProjection makes 64 tokens of 8x8 patches, not 63: it has no choice"):
        at_budget(configure("llava"), 63)


@pytest.mark.parametrize(
    ("name", "message"),
    [("own_design", "want module:function"), ("nowhere:rows", "No module named"), ("own_design:cols", "no attribute")],
)
def test_a_design_that_is_nowhere_is_said(name, message):
    with pytest.raises(ValueError, match=message):
        imported(name)
