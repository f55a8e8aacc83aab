"""The project's own files agree with one another."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import minivlm
from minivlm.__main__ import parser
from minivlm.course.lint import relative_links

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]


@pytest.mark.parametrize("requirement", PROJECT["dependencies"] + sum(EXTRAS.values(), []))
def test_a_dependency_has_a_lower_bound_and_a_cap_and_no_pin(requirement: str):
    assert re.fullmatch(r"[\w-]+>=\d+(\.\d+)*,<\d+(; .+)?", requirement)


def test_no_dependency_is_listed_twice():
    names = [
        re.split(r"[><]", r)[0].lower().replace("_", "-") for r in PROJECT["dependencies"] + sum(EXTRAS.values(), [])
    ]
    assert len(names) == len(set(names))


def test_conda_users_get_python_and_pip_from_conda_and_the_rest_from_pyproject():
    python, pip, from_pip = ENVIRONMENT["dependencies"]
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    assert from_pip == {"pip": ["-e .[notebooks,test]"]}


def test_make_asks_for_the_python_of_pyproject():
    needed = PROJECT["requires-python"].removeprefix(">=")
    assert f"sys.version_info < ({needed.replace('.', ', ')})" in MAKEFILE
    assert f"needs Python {needed} or later" in MAKEFILE


@pytest.mark.parametrize(("ci", "extras"), [("", {"notebooks", "test"}), ("1", set(EXTRAS))])
def test_make_installs_what_readers_need_and_continuous_integration_every_extra(ci, extras, tmp_path: Path):
    ready = tmp_path / "venv/.ready"
    command = ["make", "-n", "-C", str(ROOT), f"VENV={ready.parent}", str(ready)]
    command += ["CI=1"] if ci else []
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "MAKEFLAGS")}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout
    assert set(re.search(r"-e '\.\[(.+)\]'", told)[1].split(",")) == extras


def test_make_lists_its_targets():
    listed = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in listed.stdout.splitlines()} == TARGETS
    assert {"run", "test", "fuzz", "lab", "site", "lint", "format", "help"} == TARGETS


@pytest.mark.parametrize(
    ("check", "message"), [("version_info", "needs Python 3.10 or later"), ("ensurepip", "apt install python3-venv")]
)
def test_make_refuses_an_unfit_python_in_words(check: str, message: str, tmp_path: Path):
    unfit = tmp_path / "python"
    unfit.write_text(f'#!/bin/sh\ncase "$2" in *{check}*) exit 1;; esac\n')
    unfit.chmod(0o755)
    command = ["make", "-C", str(ROOT), f"PYTHON={unfit}", f"VENV={tmp_path / 'venv'}", f"{tmp_path}/venv/.ready"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and message in done.stdout
    assert "-m venv" not in done.stdout


def test_continuous_integration_is_a_script_that_bash_can_read():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    subprocess.run([shutil.which("bash"), "-n", str(script)], check=True)
    assert script.read_text(encoding="utf-8").rstrip().endswith("make test")


def test_license_and_citation_agree_with_pyproject():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == minivlm.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def commands(document: str) -> list[str]:
    """The lines of a document's bash blocks, without prompts and comments."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_that_a_document_names_exists(document: str):
    named = {
        word for line in commands(document) if line.startswith("make") for word in line.split()[1:] if "=" not in word
    }
    assert named <= TARGETS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_names_is_understood(document: str):
    named = [match[1] for line in commands(document) if (match := re.search(r"-m minivlm (.+)", line))]
    for line in named:
        parser().parse_args(shlex.split(line))  # exits with an error for words that it does not know


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_links_to_exists(document: str):
    links = relative_links((ROOT / document).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_names_the_commands_of_a_first_visit():
    assert {"make run", "make test"} <= set(commands("README.md"))
