"""Jobs: calls that are made several at once, each in one of a few processes that outlive it, none of which takes others
down with it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

Job = TypeVar("Job")


def several(start: Callable[[], Callable], jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Any]]:
    """What each job comes to, as soon as it does. `start`, called once in each process, returns the function that does
    the jobs there, one after the other. A process that dies yields a `Died`, and another takes its place.

    Processes share the cores of this machine and end with this one. ValueError for a job that cannot be handed to
    another process.
    """
    waiting, busy = [(job, _packed(job)) for job in jobs][::-1], {}
    try:
        while waiting or busy:
            while waiting and len(busy) < processes:
                worker = _Worker(start, processes)
                busy[worker.connection] = (worker, worker.take(waiting))
            for connection in wait(list(busy)):
                worker, job = busy.pop(connection)
                result = worker.result()
                yield job, result
                if waiting and not isinstance(result, Died):
                    busy[connection] = (worker, worker.take(waiting))
                else:
                    worker.end()
    finally:
        for worker, _ in busy.values():
            worker.end()


class Died(RuntimeError):
    """A process that ended before its job did."""


class _Worker:
    """A process, and the line to it."""

    def __init__(self, start: Callable, processes: int):
        context = multiprocessing.get_context("spawn")  # a forked child could not use a GPU
        self.connection, theirs = context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // processes)
        self.process = context.Process(target=_serve, args=(start, theirs, threads), daemon=True)
        self.process.start()
        theirs.close()

    def take(self, waiting: list[tuple[Job, bytes]]) -> Job:
        """Hand it the next job."""
        job, packed = waiting.pop()
        self.connection.send_bytes(packed)
        return job

    def result(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return Died(f"its process ended with code {self.process.exitcode}, as one does that is killed for memory")

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _packed(job: Any) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        told = "what is defined in a notebook cell stays in its process: use one job, or put it into a module"
        raise ValueError(f"{told} ({error})") from error


def _serve(start: Callable, connection: Connection, threads: int) -> None:
    """The life of a process: job after job, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    do = start()
    while True:
        try:
            packed = connection.recv_bytes()
        except EOFError:
            return
        connection.send(do(pickle.loads(packed)))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
