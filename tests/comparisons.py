"""Results of comparisons that nobody made, whose numbers are known."""

from __future__ import annotations

import random
from dataclasses import asdict, replace

from minivlm.data.tasks import TASKS
from minivlm.tables import Compared, Result

MACHINE = {"device": "x86_64 CPU", "torch": "2.9", "python": "3.11", "date": "2026-01-02", "precision": "default"}


def made(design: str = "deco", seed: int = 0, tokens: int = 16, right: float = 0.5, **changes) -> Result:
    """A result that nobody measured."""
    accuracy = dict.fromkeys(TASKS, right)
    result = Result(design, tokens, seed, "cpu", 600, "tuned", 12345, 67890, accuracy, {}, MACHINE)
    return replace(result, **changes)


def compared(design: str = "deco", seed: int = 0, tokens: int = 16, right: float = 0.5, **changes) -> Compared:
    """One; as right on every task. Its costs grow with its tokens."""
    costs = dict(flops=10**6 * (tokens + 3), cache_bytes=2048 * (tokens + 6), milliseconds=2.0 + tokens / 10)
    run = dict(data="scenes", parts="0", weights=900_000 + 10 * tokens, samples=9600, train_flops=10**13 * (tokens + 1))
    kept = dict(seconds=100.0, margins={task: [0.5, -1.25] for task in TASKS})
    return Compared(**{**asdict(made(design, seed, tokens, right)), **run, **costs, **kept, **changes})


def several() -> list[Compared]:
    """Of five designs and the blind one, with three seeds, each task and each cost another."""
    chance, tokens = random.Random(0), {"deco": 16, "blip2": 17, "llava15": 64, "fuyu": 72, "cogvlm": 66, "blind": 0}
    found = []
    for design, count in tokens.items():
        costs = {
            "flops": chance.randint(10**7, 10**8), "cache_bytes": chance.randint(10**4, 10**5),
            "milliseconds": 5 + 10 * chance.random(),
        }  # fmt: skip
        level = {task: 0.2 if design == "blind" else 0.3 + 0.6 * chance.random() for task in TASKS}
        for seed in range(3):
            accuracy = {task: share + 0.05 * chance.random() for task, share in level.items()}
            found.append(compared(design, seed, count, accuracy=accuracy, **costs))
    return found
