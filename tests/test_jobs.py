"""Jobs in processes of their own: each is done once, and a process that dies takes only its own with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import tiny
import torch

from minivlm.jobs import Died, several


def worker():
    """What does jobs, and remembers how many it has done."""
    done = []

    def do(job: tuple[str, object]):
        done.append(job)
        kind, value = job
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "sleep":
            Path(value).write_text(str(os.getpid()))
            time.sleep(60)
        return value, os.getpid(), len(done), torch.get_num_threads()

    return do


def test_every_job_is_done_once_by_processes_that_go_on():
    jobs = [("do", n) for n in range(6)]
    found = dict(several(worker, jobs, 2))
    assert [found[job][0] for job in jobs] == list(range(6))
    by_process = {pid: max(count for _, p, count, _ in found.values() if p == pid) for _, pid, _, _ in found.values()}
    assert sum(by_process.values()) == 6 and 1 <= len(by_process) <= 2 and os.getpid() not in by_process
    assert {threads for *_, threads in found.values()} == {max(1, os.cpu_count() // 2)}


def test_a_process_that_dies_takes_only_its_own_job_with_it():
    jobs = [("do", 0), ("die", 1), ("do", 2), ("do", 3)]
    found = dict(several(worker, jobs, 1))
    assert isinstance(found["die", 1], Died) and "code -9" in str(found["die", 1])
    assert [found["do", n][0] for n in (0, 2, 3)] == [0, 2, 3]
    assert found["do", 0][1] != found["do", 2][1] == found["do", 3][1]


def test_what_cannot_be_handed_over_is_refused_before_anything_is_done():
    with pytest.raises(ValueError, match="stays in its process: use one job, or put it into a module"):
        next(several(lambda: None, [lambda: None], 1))


def test_processes_end_with_the_one_that_asked(tmp_path):
    call = f"import test_jobs\nif __name__ == '__main__': list(test_jobs.several(test_jobs.worker, [('sleep', '{tmp_path}/pid')], 1))"  # noqa: E501
    (tmp_path / "asking.py").write_text(call)
    with subprocess.Popen(**tiny.command(tmp_path / "asking.py")) as asking:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        asking.kill()
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} goes on")
