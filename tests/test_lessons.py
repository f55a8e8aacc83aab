"""Lessons in the hands of a class: cells are run twice, and every control of an explorer is moved."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from test_explore import SWEEP

from minivlm.course.run import execute

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_cell_can_be_run_twice_and_no_explorer_fails(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    doubled = []
    for cell in notebook.cells:
        doubled.append(cell)
        if cell.cell_type == "code":
            doubled.append(deepcopy(cell))
            doubled[-1].id += "-again"
    notebook.cells = [*doubled, new_code_cell(SWEEP)]
    nbformat.write(notebook, tmp_path / path.name)
    executed, result = execute(tmp_path / path.name, "smoke", "cpu")
    assert result.error is None, result.error
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
