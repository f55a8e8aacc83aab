"""Lessons in the hands of a class: cells run twice, lessons run again, and the words stay the same."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from test_explore import SWEEP

from minivlm.course.run import execute

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def said(notebook: nbformat.NotebookNode) -> list[str]:
    """What each code cell printed, and the words of what it displayed."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return ["".join(o.get("text", o.get("data", {}).get("text/plain", "")) for o in cell.outputs) for cell in cells]


def run(path: Path) -> nbformat.NotebookNode:
    notebook, result = execute(path, "smoke", "cpu")
    assert result.error is None, result.error
    return notebook


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_the_same_when_it_is_run_again_and_its_explorers_never_fail(path, tmp_path):
    swept = nbformat.read(path, as_version=4)
    swept.cells.append(new_code_cell(SWEEP))
    nbformat.write(swept, tmp_path / path.name)
    first, second = said(run(path)), said(run(tmp_path / path.name))[:-1]
    assert any(first)
    for number, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        assert one == other, f"code cell {number}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_cell_can_be_run_twice(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    doubled = []
    for cell in notebook.cells:
        doubled.append(cell)
        if cell.cell_type == "code":
            doubled.append(deepcopy(cell))
            doubled[-1].id += "-again"
    notebook.cells = doubled
    nbformat.write(notebook, tmp_path / path.name)
    assert len(said(run(tmp_path / path.name))) == 2 * len(said(nbformat.read(path, as_version=4)))
