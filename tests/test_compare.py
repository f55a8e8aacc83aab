"""Designs side by side: one setting for all, and each run made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minivlm import DESIGNS, VLM, build
from minivlm.compare import PER_TASK, compare
from minivlm.data.captions import caption
from minivlm.data.tasks import TASKS, evaluation_bank
from minivlm.designs import at_budget, configure
from minivlm.evaluate import evaluate
from minivlm.language.tokenizer import mini_tokenizer
from minivlm.mini import VARIANTS, reader
from minivlm.recipes import LORA_RANK
from minivlm.storage import warm_start
from minivlm.tables import Result, collect
from minivlm.train import Stage, train
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


@pytest.fixture(scope="module")
def runs() -> Iterator[list[Run]]:
    """A record of every run of `compare` while these tests last, in order."""
    import minivlm.compare as module

    runs, forward = [], VLM.forward

    def training(model, stages, **options):
        runs.append(Run(stages))
        runs[-1].losses = [record["loss"] for record in train(model, stages, **options)]

    def asking(model, tokenizer, questions, features, blind=False, told=None):
        runs[-1].asked.append((questions, told))
        return evaluate(model, tokenizer, questions, features, blind=blind, told=told)

    def reading(model, batch, *rest, **options):
        runs[-1].pictured.add((len(runs[-1].asked), batch.visual is not None))
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
    assert len(list(folder.iterdir())) == 6
    found = collect(folder, "smoke", folder.parent / "all.json")
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


def test_a_frozen_decoder_reads_as_before_and_has_no_blind_one_beside_it(runs, tmp_path):
    before, deep = len(runs), VARIANTS["flamingo_resampler_deep"]().build()
    results = compare(["flamingo_resampler_deep", "flamingo"], seeds=(3,), folder=tmp_path, language="frozen", **SMOKE)
    read = evaluate(warm_start(build("llava15", device="cpu")), mini_tokenizer(), QUESTIONS, None, told=TOLD)
    assert [result.design for result in results] == ["flamingo_resampler_deep", "flamingo"]
    for result, model, run in zip(results, (deep, build("flamingo", device="cpu")), runs[before:], strict=True):
        assert result.told == {task: score.accuracy for task, score in read.items()}
        assert result.trained_weights == count(model.connector) + count(model.fusion)
        assert result.language == "frozen" and run.stages[-1].trains == run.stages[0].trains


def test_a_decoder_may_learn_beside_itself(runs, tmp_path):
    [result] = compare(["deco"], seeds=(3,), folder=tmp_path, language="lora", **SMOKE)
    language = configure("deco").language
    maps = 4 * (language.width + language.width) + 3 * (language.width + language.mlp_width)  # into and out of each
    assert result.trained_weights == result.connector_weights + language.depth * LORA_RANK * maps
    assert result.language == "lora" and runs[-1].stages[-1].trains == ("connector", "adapter")


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


def test_what_is_there_is_not_run_again_and_what_is_missing_comes_out_the_same(compared, runs):
    folder, results, first = compared
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    before = len(runs)
    assert compare(["deco", "instructblip"], seeds=(3, 5, 3), folder=folder, **SMOKE) == results
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times and len(runs) == before
    lost = folder / "deco-16-tuned-smoke-2-seed5.json"
    lost.unlink()
    assert compare(["deco", "instructblip"], seeds=(3, 5), folder=folder, **SMOKE) == results
    assert len(runs) == before + 1 and runs[-1].losses == first["deco", 5].losses
    assert {path for path in folder.iterdir() if path.stat().st_mtime_ns != times[path]} == {lost}
    assert first["deco", 3].losses != first["deco", 5].losses != first["instructblip", 5].losses


def test_a_run_that_was_killed_while_writing_leaves_no_result(compared, monkeypatch):
    folder, results, _ = compared
    path = folder / "blind-0-tuned-smoke-2-seed3.json"
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
        (dict(designs=["deco"], language="loro"), "unknown language 'loro'; choose one of tuned, lora, frozen"),
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
