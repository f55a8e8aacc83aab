"""How long a lesson takes and how much memory, measured and never typed: a table beside the notebooks, and one line of
each notebook.

`times.json` maps a notebook's name and a scale to what `--commit` measured: {"01_clip": {"cpu": {"seconds": 98,
"peak_mb": 1200, "device": "CPU, 2 cores"}}}. The line carries a marker, so that it can be written again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

MARKER = "<!-- measured time -->"
_LINE = re.compile(rf"^.*{re.escape(MARKER)}.*$", re.MULTILINE)


def time_line(notebook: Path) -> str:
    """The line that a notebook must carry, from the table in its folder."""
    measured = read(notebook.parent).get(notebook.stem, {})
    parts = [cost(measured[scale]) for scale in ("cpu", "gpu") if scale in measured]
    if "gpu" not in measured:
        parts.append("not yet measured on a GPU")
    return f"**Measured time**: {'; '.join(parts)} {MARKER}"


def cost(measured: dict) -> str:
    """One measurement in words: "98 s and 1.2 GB of memory on CPU, 2 cores"."""
    return f"{measured['seconds']} s and {measured['peak_mb'] / 1000:.1f} GB of memory on {measured['device']}"


def read(folder: Path) -> dict:
    """The table of a folder of notebooks; empty where nothing was measured yet."""
    path = folder / "times.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(notebook: Path, scale: str, seconds: float, peak_mb: float, device: str) -> None:
    """Enter a measurement into the table."""
    table = read(notebook.parent)
    table.setdefault(notebook.stem, {})[scale] = {
        "seconds": round(seconds),
        "peak_mb": round(peak_mb),
        "device": device,
    }
    text = json.dumps(table, indent=2, sort_keys=True) + "\n"
    (notebook.parent / "times.json").write_text(text, encoding="utf-8")


def with_time(source: str, line: str) -> str:
    """`source` with its marked line, if it has one, replaced by `line`."""
    return _LINE.sub(line, source)
