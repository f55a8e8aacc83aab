"""Wrong calls: each gets one clear error that says what came, what was wanted, or what to do; none goes through."""

from __future__ import annotations

import json
import subprocess

import pytest
import tiny
import wrong_calls


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[list[str], str]]:
    """What each wrong call raised, in one process of its own."""
    done = subprocess.run(**tiny.command(wrong_calls.__file__), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (kinds, message) for name, kinds, message in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", wrong_calls.CALLS)
def test_a_wrong_call_gets_its_one_clear_error(outcomes, name):
    _, wanted, words = wrong_calls.CALLS[name]
    kinds, message = outcomes[name]
    told = f"{kinds[0]}: {message}"
    assert wanted.__name__ in kinds, told
    assert words in message, told


def test_no_wrong_call_spoils_a_file(outcomes):
    assert outcomes["the good file"][0] == ["whole"]


def test_there_are_many_different_ones():
    assert len(wrong_calls.CALLS) >= 45
    assert len({(kind, words) for _, kind, words in wrong_calls.CALLS.values()}) >= 45
