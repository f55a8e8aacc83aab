"""Run the course: `python -m minivlm.course.run`. Each notebook in a kernel of its own; a failing one stops no other.

Leaves in `build/` an executed copy and an HTML page of every notebook, `results.json` and `table.md`. The page needs
no network, except that formulas are typeset by MathJax where there is one. With `--commit` the outputs also go back
into the notebooks, in the form that the repository keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
import psutil
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from minivlm.course import RESULT_MIME, describe
from minivlm.course.commit import commit
from minivlm.runtime import SCALES, pick_device, pick_scale

HEARTBEAT = 5.0  # seconds between lines about a notebook that runs
CELL_TIMEOUT = 1800  # seconds after which a cell counts as hung
NEEDS_NO_NETWORK = """{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}"""


@dataclass
class Result:
    """What became of one notebook. `peak_mb` is the memory of the kernel and its children, sampled twice a second."""

    notebook: str
    scale: str
    device: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class Watch:
    """While a notebook runs: the cell it is in, the time, its peak memory, and a line about them now and then."""

    def __init__(self, name: str, cells: int):
        self.name, self.cells, self.cell, self.peak_mb = name, cells, 0, 0.0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def start_cell(self, cell_index: int, **_) -> None:
        self.cell = cell_index + 1

    def _watch(self) -> None:
        spoken = 0.0
        while not self._stop.wait(0.5):
            self.peak_mb = max(self.peak_mb, _memory_of_children())
            if self.seconds - spoken >= HEARTBEAT:
                spoken = self.seconds
                print(f"  {self.name}: cell {self.cell} of {self.cells}, {spoken:.0f} s", flush=True)


def _memory_of_children() -> float:
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it ended in between
            continue
    return total / 2**20


def execute(path: Path, scale: str, device: str) -> tuple[NotebookNode | None, Result]:
    """Run one notebook in its own kernel. What goes wrong in it is in the result, never raised."""
    result = Result(path.stem, scale, device)
    notebook = None
    try:
        notebook = nbformat.read(path, as_version=4)
        with Watch(path.stem, len(notebook.cells)) as watch:
            _execute(notebook, path.parent, scale, watch)
    except CellExecutionError as error:
        result.error = f"cell {watch.cell}: {error.ename}: {error.evalue}"
    except Exception as error:  # a dead kernel, a cell that hangs, a damaged file: name it, and go on to the next
        result.error = f"{type(error).__name__}: {error}"
    if notebook is not None:
        result.seconds, result.peak_mb = round(watch.seconds, 1), round(watch.peak_mb)
        result.figures = figures_of(notebook)
    return notebook, result


def _execute(notebook: NotebookNode, folder: Path, scale: str, watch: Watch) -> None:
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # else each kernel warns that it listens on this machine's own ports
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=watch.start_cell,
    )
    client.execute(env=os.environ | {"MINIVLM_SCALE": scale})


def figures_of(notebook: NotebookNode) -> dict[str, float]:
    """What the notebook reported with `minivlm.course.report`, the last word on each name."""
    figures: dict[str, float] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figures |= output.get("data", {}).get(RESULT_MIME, {})
    return figures


def page(notebook: NotebookNode, title: str) -> str:
    """The notebook as one HTML file with the pictures of its outputs inside."""
    exporter = HTMLExporter(raw_template=NEEDS_NO_NETWORK)  # embed_images=True would take hints out of their <details>
    return exporter.from_notebook_node(notebook, {"metadata": {"name": title}})[0]


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    lines = ["| notebook | scale | device | seconds | peak MB | accuracy |", "|---|---|---|---:|---:|---|"]
    for r in results:
        outcome = f"FAILED, {r.error}" if r.error else describe(r.figures)
        outcome = " ".join(outcome.replace("|", "\\|").split())
        lines.append(f"| {r.notebook} | {r.scale} | {r.device} | {r.seconds:.1f} | {r.peak_mb:.0f} | {outcome} |")
    return "\n".join(lines) + "\n"


def select(folder: Path, wanted: Sequence[str]) -> list[Path]:
    """The notebooks whose names begin with one of `wanted`, or all; ValueError where there is none."""
    every = sorted(folder.glob("[0-9]*.ipynb"))
    chosen = [path for path in every if not wanted or path.name.startswith(tuple(wanted))]
    unknown = [prefix for prefix in wanted if not any(path.name.startswith(prefix) for path in every)]
    if unknown or not chosen:
        there = ", ".join(path.stem for path in every) or "none"
        raise ValueError(f"no notebook {' or '.join(unknown)} in {folder}/; there are: {there}")
    return chosen


def run(paths: Sequence[Path], scale: str, out: Path, commit_too: bool = False) -> list[Result]:
    """Execute notebooks one after the other and write everything into `out`, afresh after each."""
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.stem} at scale {scale}", flush=True)
        notebook, result = execute(path, scale, device_name())
        results.append(result)
        if notebook is not None:
            nbformat.write(notebook, out / path.name)
            (out / f"{path.stem}.html").write_text(page(notebook, path.stem), encoding="utf-8")
        if commit_too and not result.error:
            commit(path, notebook, scale, result.seconds, result.peak_mb, result.device)
        print(f"  {'FAILED, ' + result.error if result.error else 'done'} ({result.seconds:.0f} s)", flush=True)
        (out / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=2), encoding="utf-8")
        (out / "table.md").write_text(table(results), encoding="utf-8")
    return results


def device_name() -> str:
    device = pick_device()
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type.upper()}, {os.cpu_count()} cores"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("python -m minivlm.course.run", description="Execute the notebooks of the course.")
    top.add_argument("--scale", choices=SCALES, help="default: MINIVLM_SCALE, else what the machine can bear")
    top.add_argument("--nb", nargs="+", default=[], metavar="NN", help="only the notebooks whose names begin so")
    top.add_argument("--out", type=Path, default=Path("build"), help="folder for the results (default: %(default)s)")
    top.add_argument("--commit", action="store_true", help="also write outputs and measured times into notebooks/")
    return top


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    try:
        scale = arguments.scale or pick_scale(pick_device())
        if arguments.commit and scale == "smoke":
            raise ValueError("outputs of the smoke scale show nothing: use --commit with --scale cpu or gpu")
        paths = select(Path("notebooks"), arguments.nb)
    except ValueError as error:
        sys.exit(f"minivlm.course.run: {error}")
    results = run(paths, scale, arguments.out, arguments.commit)
    failed = [r.notebook for r in results if r.error]
    print(f"\n{table(results)}\nexecuted copies, pages and this table are in {arguments.out}/")
    if failed:
        print(f"{len(failed)} of {len(results)} notebooks FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
