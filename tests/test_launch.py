"""What comes with the package to start many processes, read by accelerate, and by bash with stubs of SLURM."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

import minivlm
import minivlm.layers
from minivlm.__main__ import parser
from minivlm.runtime import pick_device

LAUNCH = Path(minivlm.__file__).parent / "launch"
SLURM = dict(SLURM_JOB_NODELIST="node[7-9]", SLURM_NNODES="3", SLURM_GPUS_ON_NODE="4", SLURM_NODEID="2")


def launched(words: list[str]) -> tuple:
    """What accelerate and, behind it, minivlm make of a command; errors for words that either does not know."""
    assert words[:2] == ["accelerate", "launch"]
    by_accelerate = launch_command_parser().parse_args(words[2:])
    assert by_accelerate.module and by_accelerate.training_script == "minivlm"
    return by_accelerate, parser().parse_args(by_accelerate.training_script_args)


@pytest.mark.parametrize(("name", "kind"), [("ddp.yaml", "MULTI_GPU"), ("fsdp.yaml", "FSDP")])
def test_a_configuration_is_understood_and_so_is_the_command_in_it(name, kind):
    assert load_config_from_file(str(LAUNCH / name)).distributed_type == kind
    command = re.search(r"^# +(accelerate launch .+)$", (LAUNCH / name).read_text(), re.MULTILINE)[1]
    by_accelerate, arguments = launched(shlex.split(command))
    assert by_accelerate.config_file.endswith(name) and arguments.design == "llava15"


def test_what_is_gathered_at_a_time_is_a_class_of_ours():
    config = yaml.safe_load((LAUNCH / "fsdp.yaml").read_text())["fsdp_config"]
    assert config["fsdp_version"] == 2
    assert issubclass(getattr(minivlm.layers, config["fsdp_transformer_layer_cls_to_wrap"]), torch.nn.Module)


@pytest.mark.parametrize("chosen", [None, "ddp.yaml"])
def test_a_job_starts_a_process_a_gpu_on_each_machine(chosen, tmp_path):
    for name, does in dict(
        srun='exec "$@"', scontrol="echo node7; echo node8", accelerate='printf "%s\\n" "$@"'
    ).items():
        stub = tmp_path / name
        stub.write_text(f"#!/bin/bash\n{does}\n")
        stub.chmod(0o755)
    home = Path(minivlm.__file__).parents[1]
    own = {} if chosen is None else {"MINIVLM_CONFIG": str(LAUNCH / chosen)}
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    told = subprocess.run(
        ["bash", LAUNCH / "train.slurm", "clip", "--out", "a folder"],
        env={**os.environ, **SLURM, **own, "PATH": path, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    by_accelerate, arguments = launched(["accelerate", *told.stdout.splitlines()])
    assert Path(by_accelerate.config_file) == LAUNCH / (chosen or "fsdp.yaml")
    assert (by_accelerate.num_machines, by_accelerate.num_processes, by_accelerate.machine_rank) == (3, 12, 2)
    assert (by_accelerate.main_process_ip, by_accelerate.main_process_port) == ("node7", 29500)
    assert (arguments.design, arguments.out) == ("clip", "a folder")


def test_each_process_picks_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device() == torch.device("cuda", 3)
