"""Copies of a lesson for those who learn and those who teach, made and never edited by hand.

student      solutions taken out, outputs cleared, cards and checks locked: what `nbgrader generate_assignment` makes
solution     as in the repository
instructor   with the solutions, notes for the teacher and open quiz answers (`minivlm.course.instructor`)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

EXTRA = "extra"  # the tag of cells that the 45-minute version leaves out
LENGTHS = (45, 90)  # minutes
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")


def duty(cell: NotebookNode) -> str:
    """What a cell is to nbgrader: "solution", "grade" (a check), "locked" (a card), or "" for any other."""
    marked = cell.metadata.get("nbgrader", {})
    return next((name for name in ("solution", "grade", "locked") if marked.get(name)), "")


def student_copy(notebook: NotebookNode, name: str, minutes: int = 90) -> NotebookNode:
    """The copy of lesson `name` that learners get. ValueError for a solution that is not marked as nbgrader asks."""
    copy = of_length(notebook, minutes)
    copy.metadata["minivlm"] = {"lesson": name, "minutes": minutes}  # so that `repair` knows what it was
    for cell in copy.cells:
        lock(cell)
        cell.source = without_solution(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if duty(cell):
            cell.metadata.nbgrader |= {"checksum": checksum(cell), "cell_type": cell.cell_type}
    return copy


def of_length(notebook: NotebookNode, minutes: int) -> NotebookNode:
    """A copy, without the cells tagged `extra` if there are only 45 minutes."""
    copy = deepcopy(notebook)
    if minutes not in LENGTHS:
        raise ValueError(f"a lesson takes {' or '.join(map(str, LENGTHS))} minutes, not {minutes}")
    copy.cells = [cell for cell in copy.cells if minutes > 45 or EXTRA not in cell.metadata.get("tags", [])]
    return copy


def lock(cell: NotebookNode) -> None:
    """Cards and checks can be neither changed nor deleted, a solution cannot be deleted (nbgrader's LockCells)."""
    if duty(cell):
        cell.metadata["deletable"] = False
    if duty(cell) in ("grade", "locked"):
        cell.metadata["editable"] = False


def without_solution(cell: NotebookNode) -> str:
    """The source with what stands between the marks replaced by a stub that raises (nbgrader's ClearSolutions)."""
    lines, inside, found = [], False, False
    for line in cell.source.split("\n"):
        if "BEGIN SOLUTION" in line:
            if inside:
                raise ValueError(f"cell {cell.id}: a solution begins inside a solution")
            inside = found = True
            indent = re.match(r"\s*", line)[0]
            lines += [indent + stub for stub in STUB]
        elif "END SOLUTION" in line:
            inside = False
        elif not inside:
            lines.append(line)
    if inside:
        raise ValueError(f"cell {cell.id}: the solution has no END SOLUTION")
    if found and duty(cell) != "solution":
        raise ValueError(f"cell {cell.id}: it holds a solution and its nbgrader metadata do not say so")
    return "\n".join(STUB) if duty(cell) == "solution" and not found else "\n".join(lines)


def checksum(cell: NotebookNode) -> str:
    """nbgrader's checksum: of the source, of what the cell is to nbgrader, and of its points."""
    marked, is_ = cell.metadata.nbgrader, duty(cell)
    parts = [cell.source, cell.cell_type, is_ == "grade", is_ == "solution", is_ in ("grade", "locked")]
    parts += [marked.grade_id, *([float(marked.points)] if is_ == "grade" else [])]
    return hashlib.md5("".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def build(paths: Sequence[Path], out: Path, minutes: int = 90) -> list[Path]:
    """Write the three copies of every lesson into `out/student`, `out/solution` and `out/instructor`."""
    from minivlm.course.instructor import instructor_copy

    written = []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        copies = {
            "student": student_copy(notebook, path.stem, minutes),
            "solution": of_length(notebook, minutes),
            "instructor": instructor_copy(notebook, minutes),
        }
        for kind, copy in copies.items():
            (out / kind).mkdir(parents=True, exist_ok=True)
            nbformat.write(copy, out / kind / path.name)
            written.append(out / kind / path.name)
    return written
