"""The ledger: a line is there whole or not at all, whoever writes and whatever is killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time

import pytest
import tiny

from minivlm.ledger import Ledger

WRITER = "import sys; from minivlm.ledger import Ledger; ledger = Ledger(sys.argv[1])\nfor n in range({}): ledger.add({{'who': sys.argv[2], 'n': n, 'fill': 'x' * 5000}})"  # noqa: E501


def test_entries_come_back_in_order(tmp_path):
    ledger = Ledger(tmp_path / "new" / "runs.jsonl", room=1000)
    entries = [{"n": n, "text": "ä\nb"} for n in range(3)]
    assert ledger.entries() == []
    for entry in entries:
        ledger.add(entry)
    assert ledger.entries() == entries == Ledger(ledger.path).entries()
    assert [path.name for path in ledger.path.parent.iterdir()] == ["runs.jsonl"]


@pytest.mark.parametrize("left", [1, 5, 19, 20])
def test_a_torn_line_is_passed_over_and_harms_no_other(tmp_path, capsys, left):
    ledger = Ledger(tmp_path / "runs.jsonl")
    ledger.add({"n": 1})
    with ledger.path.open("ab") as file:
        file.write(b'{"n": 2, "text": "\xc3\xa4"}'[:left])
    assert ledger.entries() == [{"n": 1}]
    assert f"{ledger.path}:2: not whole" in capsys.readouterr().out
    ledger.add({"n": 3})
    assert ledger.entries() == [{"n": 1}, {"n": 3}]


def test_a_line_without_its_end_is_whole(tmp_path):
    ledger = Ledger(tmp_path / "runs.jsonl")
    ledger.path.write_bytes(b'{"n": 1}')
    ledger.add({"n": 2})
    assert ledger.entries() == [{"n": 1}, {"n": 2}]


def test_several_processes_add_at_once(tmp_path):
    path = tmp_path / "runs.jsonl"
    writers = [subprocess.Popen(**tiny.command("-c", WRITER.format(60), path, who)) for who in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = Ledger(path).entries()
    assert len(found) == 180
    for who in "abc":
        assert [entry["n"] for entry in found if entry["who"] == who] == list(range(60))


def test_a_kill_while_writing_leaves_whole_lines(tmp_path):
    path = tmp_path / "runs.jsonl"
    for _ in range(3):
        before = len(Ledger(path).entries())
        with subprocess.Popen(**tiny.command("-c", WRITER.format(10**6), path, "a")) as writer:
            while len(Ledger(path).entries()) < before + 5:
                time.sleep(0.01)
            writer.send_signal(signal.SIGKILL)
    found = [entry["n"] for entry in Ledger(path).entries()]
    assert found.count(0) == 3 and all(b in (a + 1, 0) for a, b in zip(found, found[1:], strict=False))


def test_a_folder_that_cannot_be_written_is_reported_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Ledger(tmp_path / "file" / "runs.jsonl")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # whoever is root may write everywhere
    with pytest.raises(PermissionError, match="runs.jsonl: choose another folder"):
        Ledger(tmp_path / "runs.jsonl")


def test_a_full_disk_is_reported_at_once(tmp_path):
    """A limit on the size of files stands for the disk; it is met by the trial, long before a result."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"
    call = f"{limit}\nfrom minivlm.ledger import Ledger\nLedger('{tmp_path}/runs.jsonl', room={{}})"
    done = [subprocess.run(**tiny.command("-c", call.format(n)), capture_output=True, text=True) for n in (9000, 11000)]
    assert [one.returncode for one in done] == [0, 1]
    assert "no room for 11,000 bytes of results in " in done[1].stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]


@pytest.mark.parametrize("short", [0, 5, None])
def test_a_disk_that_fills_up_is_an_error_and_costs_that_line_alone(tmp_path, monkeypatch, short):
    ledger, write = Ledger(tmp_path / "runs.jsonl"), os.write
    ledger.add({"n": 1})

    def full(file, data):
        if short is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:short])

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk is full|No space left"):
        patch.setattr(os, "write", full)
        ledger.add({"n": 2})
    ledger.add({"n": 3})
    assert ledger.entries() == [{"n": 1}, {"n": 3}]
