"""The form in which the repository keeps an executed notebook: its outputs, and nothing that changes by itself."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from minivlm.course.provenance import fingerprint
from minivlm.course.times import record, time_line, with_time

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def commit(path: Path, executed: NotebookNode, scale: str, seconds: float, peak_mb: float, device: str) -> None:
    """Put an executed notebook back where it came from, with the time and the memory that it took.

    The outputs kept are those of the cpu scale, which every reader can reproduce; a run on a GPU adds only its costs.
    """
    record(path, scale, seconds, peak_mb, device)
    notebook = normalised(executed, scale) if scale == "cpu" else nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = with_time(cell.source, time_line(path))
    nbformat.write(notebook, path)


def normalised(executed: NotebookNode, scale: str) -> NotebookNode:
    """A copy without widget state and timings, counted 1..N, with the fingerprint of the code that it came from."""
    notebook = nbformat.from_dict(executed)
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code" and c.source.strip()), 1):
        cell.execution_count = count
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            _normalise(output, count)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "minivlm": {"source_hash": fingerprint(notebook), "scale": scale, "versions": versions()},
        }
    )
    return notebook


def _normalise(output: NotebookNode, count: int) -> None:
    output.get("data", {}).pop(WIDGET_VIEW, None)
    if output.output_type == "execute_result":
        output.execution_count = count
    if output.output_type == "stream":
        output.text = "".join(line.rstrip() + "\n" for line in output.text.splitlines())


def versions() -> dict[str, str]:
    """What ran: Python and the two libraries that a result may depend on."""
    return {"python": platform.python_version(), "torch": version("torch"), "transformers": version("transformers")}
