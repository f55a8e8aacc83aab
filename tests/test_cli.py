"""The command line, met as a newcomer meets it: help that explains, results that are right, errors of one line."""

from __future__ import annotations

import argparse
import subprocess

import own_design
import pytest
import tiny
import torch
from PIL import Image

from minivlm import DESIGNS, budget, build, load, save
from minivlm.__main__ import main, parser
from minivlm.data.scenes import Object, Scene, Scenes, render
from minivlm.ledger import Ledger
from minivlm.recipes import LANGUAGE
from minivlm.storage import bundled

COMMANDS = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices


def run(capsys, *words: str) -> str:
    main(words)
    return capsys.readouterr().out


def test_the_commands_are_those_of_the_readme():
    known = {"doctor", "designs", "train", "eval", "ask", "compare", "shots", "raw", "read", "ground", "watch", "hear"}
    known |= {"budget", "depth", "smol", "bench", "pretrain", "course"}
    assert set(COMMANDS) == known


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_word(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert COMMANDS[name].description in " ".join(capsys.readouterr().out.split())
    assert all(action.help for action in COMMANDS[name]._actions), "an option without help"


def test_doctor_says_what_is_here(capsys):
    told = run(capsys, "doctor")
    assert torch.__version__ in told and "everything needed is here" in told


def test_doctor_names_what_is_missing(capsys, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "open_clip" else real(name))
    with pytest.raises(SystemExit) as stopped:
        main(["doctor"])
    told = capsys.readouterr().out
    assert stopped.value.code == 1
    assert "missing: open_clip" in told and "pip install" in told and "1 packages are missing" in told


def test_designs_lists_each_with_its_counts(capsys):
    lines = run(capsys, "designs").splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(DESIGNS)
    for line, name in zip(lines, DESIGNS, strict=True):
        if not DESIGNS[name].answers:
            assert line.split()[-2:] == ["-", "-"]
        else:
            assert int(line.split()[-2]) == budget(name).visual_tokens


def test_a_budget_is_that_of_the_pictures_asked_for(capsys):
    words = "budget llava_next --preset mini --image 70X90 --images 2 --words 5"
    assert run(capsys, *words.split()) == f"{budget('llava_next', 'mini', 5, (70, 90), 2)}\n"
    for told in ("672", "672x", "0x9", "axb", "1x2x3"):
        with pytest.raises(SystemExit):
            main(["budget", "llava", "--image", told])
        assert f"'{told}' is no height and width in pixels, such as 672x1008" in capsys.readouterr().err


def test_training_leaves_a_model_that_can_be_judged_and_asked(tmp_path, capsys):
    folder, picture = tmp_path / "run", tmp_path / "picture.png"
    words = ("train", "llava", "--scale", "smoke", "--steps", "2", "--out", str(folder))
    assert "model.safetensors" in run(capsys, *words)
    model = folder / "model.safetensors"
    assert load(model).config == build("llava", device="cpu").config
    table = run(capsys, "eval", str(model), "--per-task", "5")
    assert "SPATIAL" in table and "blind" in table and "mean" in table
    Image.new("RGB", (80, 60), "red").save(picture)
    assert run(capsys, "ask", str(picture), "what color is the circle ?", "--model", str(model)).strip()


@pytest.mark.parametrize("name", ["siglip", "mmv_fac"])
def test_training_towers_leaves_a_model(name, tmp_path, capsys):
    run(capsys, "train", name, "--scale", "smoke", "--steps", "1", "--out", str(tmp_path))
    assert load(tmp_path / "model.safetensors").config == build(name, device="cpu").config


def test_the_seed_decides_what_is_learned(tmp_path, capsys):
    def weights(seed: int, folder: str) -> torch.Tensor:
        words = ("train", "llava", "--scale", "smoke", "--steps", "1", "--seed", str(seed))
        run(capsys, *words, "--out", str(tmp_path / folder))
        return load(tmp_path / folder / "model.safetensors", "cpu").connector[0].weight

    first = weights(1, "a")
    assert torch.equal(first, weights(1, "b"))
    assert not torch.equal(first, weights(2, "c"))


def test_designs_are_compared_and_what_was_found_is_kept(tmp_path, capsys, monkeypatch):
    words = "compare --designs deco --tokens 4 --seeds 7 --scale smoke --steps 1 --precision no --out".split()
    told = run(capsys, *words, str(tmp_path))
    assert "deco, 4 tokens, tuned, seed 7: mean " in told and "(1 of 2, " in told
    rows = [line.split(" | ")[:2] for line in told.splitlines() if line.startswith("| ")]
    assert rows[2:] == [["| deco", "4"], ["| blind", "-"]]
    last = told.splitlines()[-1]
    assert last.startswith("1 steps at scale smoke, seeds 7; ") and torch.__version__ in last
    monkeypatch.setattr("minivlm.runs.train_whole", lambda *_, **__: pytest.fail("trained again"))
    assert run(capsys, *words, str(tmp_path)).splitlines() == told.splitlines()[-len(rows) - 2 :]
    ledger = Ledger(tmp_path / "runs.jsonl")
    [tuned] = [entry for entry in ledger.entries() if entry["design"] == "deco"]
    for language in LANGUAGE:  # as if it had been run
        ledger.add(tuned | {"language": language})
        assert f"| deco | 4 | {language} | " in run(capsys, *words, str(tmp_path), "--language", language)


def test_a_design_and_data_of_ones_own_are_compared(tmp_path, capsys, monkeypatch):
    asked = {}

    def comparing(*given):
        asked["designs"], asked["data"] = given[0], given[8]
        return []

    monkeypatch.setattr("minivlm.compare.compare", comparing)
    with pytest.raises(SystemExit, match="every run failed"):
        main(["compare", "--designs", "deco", "--design", "own_design:rows", "--data", str(tmp_path)])
    assert asked == {"designs": {"deco": None, "rows": own_design.rows}, "data": str(tmp_path)}


def test_the_bundled_model_answers_about_a_picture(tmp_path, capsys):
    """The command of the README, on a picture with one object: the answer is the right one."""
    scene = Scene((Object(shape=0, color=0, size=2, x=0.5, y=0.5),), background=0)
    pixels = (render(Scenes.from_list([scene]), 64)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    color, shape = scene.objects[0].name.split()
    assert run(capsys, "ask", str(tmp_path / "scene.png"), f"what color is the {shape} ?").strip() == color
    assert run(capsys, "ask", str(tmp_path / "scene.png"), f"is there a {color} {shape} ?").strip() == "yes"


def test_an_error_is_one_line_and_a_failed_process(tmp_path):
    save(bundled("clip", "cpu"), tmp_path / "clip.safetensors")
    few = ("compare", "--designs", "llava15", "--tokens", "16", "--out", tmp_path)
    for words in (
        few,
        ("train", "lava"),
        ("eval", tmp_path / "clip.safetensors"),
        ("ask", tmp_path / "none.png", "what ?"),
    ):
        done = subprocess.run(**tiny.command("-m", "minivlm", *words), capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert done.stderr.startswith(f"minivlm {words[0]}: ") and done.stderr.count("\n") == 1
