"""The keyboard's interrupt: whoever goes on with a trained model is told of it, so half a run is never kept as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

import minivlm.pretraining as pretraining
import minivlm.train
from minivlm.__main__ import main
from minivlm.recipes import VLM_SIZES
from minivlm.train import train_whole

MOST = "--seeds 0 --scale smoke --precision no --out"
COMMANDS = {  # and the steps that the whole run takes
    "shots deco": 6,
    "read deepseek_vl": 4,
    "ground deco": 2,
    "raw": 10,
    "watch deco --tokens-a-frame 1": 4,
    "watch film_resampler": 4,
    "hear --graphs fac": 5,
    "depth mod": 6,
    "compare --designs deco": 9,
}
PRETRAININGS = ("clip", "readers", "decoder", "page_decoder", "video_decoder", "llava")


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let the keyboard interrupt training when so many steps are done, whatever they were of."""
    take, taken = minivlm.train._take_step, []

    def taking(*given):
        if len(taken) == step:
            raise KeyboardInterrupt
        taken.append(None)
        return take(*given)

    patch.setattr(minivlm.train, "_take_step", taking)


def test_half_a_run_is_no_run(monkeypatch):
    model = tiny.vlm()
    stages = tiny.vlm_stages(model)
    steps = sum(stage.steps for stage in stages)
    assert len(train_whole(tiny.vlm(), stages, quiet=True)) == steps
    interrupt_at(steps - 1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_whole(model, stages, quiet=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_interrupted_says_so_and_keeps_nothing(command, tmp_path, monkeypatch, capsys):
    words = [*command.split(), *MOST.split(), str(tmp_path)]
    interrupt_at(COMMANDS[command] - 1, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"minivlm {words[0]}: interrupted\n"
    assert results_in(tmp_path) == []


def results_in(folder: Path) -> list[str]:
    """What a run wrote that can be taken for a result: all but checkpoints, and ledgers without an entry."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.parent.name.startswith("step-"))
    return [path.name for path in files if path.read_text()]


@pytest.mark.parametrize("made", PRETRAININGS)
def test_weights_that_are_half_trained_are_not_saved(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "VLM_SIZES", {"cpu": VLM_SIZES["smoke"]})
    interrupt_at(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        getattr(pretraining, f"pretrain_{made}")(tmp_path / "weights", tmp_path / "runs", 0)
    assert not (tmp_path / "weights").exists()


def test_pretraining_ends_at_the_interrupt(tmp_path, monkeypatch, capsys):
    interrupt_at(1, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "--out", str(tmp_path / "weights"), "--runs", str(tmp_path / "runs")])
    assert ended.value.code == 130 and capsys.readouterr().err == "minivlm pretrain: interrupted\n"
    assert not (tmp_path / "weights").exists()
