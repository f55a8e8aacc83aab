"""A lesson as its page shows it: the notebook with the outputs of its committed run, made fit for a reader without a
kernel."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output

from minivlm.course import RESULT_MIME

READ_HERE = """```{{admonition}} To work in this lesson
:class: tip

These are the outputs of the committed run; nothing runs on this page. To run the lesson, and write the exercises
yourself, open `notebooks/{name}` in JupyterLab (`make lab`). Solutions are folded.
```"""
STAND_IN = ", to be moved where a kernel runs: "  # as explorers say in words what they are
_ARXIV = re.compile(r"(?<![/\w\[])arXiv:(\d{4}\.\d{5})")
_MARKS = re.compile(r"^ *### (?:BEGIN|END) SOLUTION\n?", re.MULTILINE)


def lesson(path: Path, pictures: Path) -> NotebookNode:
    """The notebook in the form of its page; its pictures are written into the folder `pictures`."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            cell.source = _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", cell.source)
        elif cell.cell_type == "code":
            _fold_solution(cell)
            name = f"{path.stem}-{number}"
            shown = [_shown(output, pictures / f"{name}-{n}.png") for n, output in enumerate(cell.outputs, 1)]
            cell.outputs = [output for output in shown if output is not None and not _points(cell, output)]
    notebook.cells.insert(1, new_markdown_cell(READ_HERE.format(name=path.name)))
    return notebook


def _fold_solution(cell: NotebookNode) -> None:
    if cell.metadata.get("nbgrader", {}).get("solution"):
        cell.source = _MARKS.sub("", cell.source)
        cell.metadata.tags = [*cell.metadata.get("tags", []), "hide-input"]
        cell.metadata.mystnb = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}


def _points(cell: NotebookNode, output: NotebookNode) -> bool:
    """Is it the bare number of points, which a check returns to a grader after saying it in words?"""
    return bool(cell.metadata.get("nbgrader", {}).get("grade")) and output.output_type == "execute_result"


def _shown(output: NotebookNode, picture: Path) -> NotebookNode:
    data = output.get("data", {})
    if "image/png" in data:
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return _html(_picture(picture, output.metadata.get("image/png", {}).get("alt", "")))
    if STAND_IN in data.get("text/plain", "").replace("\n", " "):
        return _html(_explorer(data["text/plain"]))
    data.pop(RESULT_MIME, None)  # said in words beside
    return output


def _html(text: str) -> NotebookNode:
    return new_output("display_data", {"text/html": text})


def _picture(file: Path, alt: str) -> str:
    """A picture that opens in full size."""
    address = f"../{file.parent.name}/{file.name}"
    return f'<a class="picture" href="{address}"><img alt="{html.escape(alt)}" src="{address}"></a>'


def _explorer(told: str) -> str:
    name, controls = " ".join(told.split()).split(STAND_IN, 1)
    controls, _, state = controls.partition(". It shows: ")
    return (
        f'<div class="admonition note explorer"><p class="admonition-title">{html.escape(name)}</p>'
        f"<p>With a kernel these controls move the picture: {html.escape(controls)}.</p>"
        f"<p>As it stands: {html.escape(state)}</p></div>"
    )
