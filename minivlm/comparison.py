"""What a comparison of designs came to: gathered from its ledger, kept with the package, read question by question."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from minivlm.ledger import Ledger
from minivlm.tables import Compared, bundled_results, finished


def collect(ledger: str | Path, scale: str, out: Path) -> list[Compared]:
    """All results of that scale in a ledger that `compare` wrote, the newest of each run, written as one file to `out`
    for `bundled_results` to read. Runs that failed are left out."""
    found = [run for run in finished(Ledger(ledger).entries()).values() if run.scale == scale]
    lines = ",\n".join(json.dumps(asdict(run), separators=(",", ":")) for run in found)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return found


def bundled_comparison(scale: str = "cpu") -> list[Compared]:
    """The runs of all designs side by side that come with the package; an empty list where none were made."""
    return bundled_results(scale, Compared, "compare-")


def margins_by_design(results: Iterable[Compared]) -> tuple[list[str], dict[str, list[list[float]]]]:
    """The task of each test question, and by design its margins, a row a seed, of the seeds that all designs have.
    ValueError where there are none, or where not all were asked the same."""
    runs: dict[str, dict[int, Compared]] = {}
    for run in results:
        runs.setdefault(run.design, {})[run.seed] = run
    seeds = sorted(set.intersection(*map(set, runs.values()))) if runs else []
    if not seeds:
        raise ValueError(f"no results of a seed that all have: {', '.join(runs) or 'no designs'}")
    asked = {
        tuple((task, len(kept)) for task, kept in run.margins.items())
        for some in runs.values()
        for run in some.values()
    }
    if len(asked) > 1:
        raise ValueError("these runs were not asked the same: take those of one scale and one set of data")
    tasks = [task for task, count in asked.pop() for _ in range(count)]
    rows = {name: [sum(some[seed].margins.values(), []) for seed in seeds] for name, some in runs.items()}
    return tasks, rows
