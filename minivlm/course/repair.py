"""Repair of a student copy: cards, checks and cells for answers that are missing or changed come back, and everything
that the student wrote stays."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, upgrade

from minivlm.course.student import duty, student_copy

LOCKS = ("nbgrader", "deletable", "editable")  # the metadata that make a cell what it is


def repair(path: Path, folder: Path) -> list[str]:
    """Mend a student copy in place, from the lessons in `folder`; returns what was done. If that is anything, the file
    as it was stays beside it. ValueError if `path` is no student copy of a lesson there."""
    notebook = _read(path)
    made_of = notebook.metadata.get("minivlm", {})
    source = folder / f"{made_of.get('lesson')}.ipynb"
    if "lesson" not in made_of or not source.is_file():
        raise ValueError(f"{path} is no student copy of a lesson in {folder}/: nothing was changed")
    fresh = student_copy(nbformat.read(source, as_version=4), source.stem, made_of.get("minutes", 90))
    done = restore(notebook, fresh)
    if done:
        backup = _free(path)
        shutil.copy2(path, backup)
        nbformat.write(notebook, path)
        done.append(f"the file as it was: {backup}")
    return done


def _read(path: Path) -> NotebookNode:
    try:
        notebook = upgrade(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4))
        nbformat.validate(notebook)
    except (nbformat.ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no notebook that can be read: nothing was changed") from error
    return notebook


def _free(path: Path) -> Path:
    """A name for the backup that no file has yet."""
    names = (path.with_name(f"{path.stem}.before-repair-{n}.ipynb") for n in range(1, 1000))
    return next(name for name in names if not name.exists())


def restore(notebook: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Bring the nbgrader cells of `notebook` back to those of the untouched copy `fresh`; returns what was done."""
    done = _release_twins(notebook)
    for number, wanted in enumerate(fresh.cells):
        if not duty(wanted):
            continue
        grade_id, place = _grade_id(wanted), _find(notebook, wanted)
        if place is None:
            notebook.cells.insert(_place(notebook, fresh, number), deepcopy(wanted))
            done.append(f"restored {grade_id}, which was missing")
        elif _mend(notebook, place, wanted):
            done.append(f"restored {grade_id}, which had been changed")
    return done


def _release_twins(notebook: NotebookNode) -> list[str]:
    """Copying a cell copies its grade_id. The last one counts, as in nbgrader; the others become ordinary cells."""
    seen, done = set(), []
    for cell in reversed(notebook.cells):
        grade_id = _grade_id(cell)
        if grade_id in seen:
            for key in LOCKS:
                cell.metadata.pop(key, None)
            done.append(f"{grade_id} was there twice: the earlier one is an ordinary cell now")
        seen |= {grade_id} - {None}
    return done


def _grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def _find(notebook: NotebookNode, wanted: NotebookNode) -> int | None:
    """Where a cell of the untouched copy is now: by its grade_id, else by its cell id, else by its text."""
    cells, name = list(enumerate(notebook.cells)), _grade_id(wanted)
    same = [place for place, cell in cells if name and _grade_id(cell) == name]
    same += [place for place, cell in cells if cell.get("id") == wanted.id]
    same += [place for place, cell in cells if cell.source == wanted.source]
    return next(iter(same), None)


def _place(notebook: NotebookNode, fresh: NotebookNode, number: int) -> int:
    """Where cell `number` of the untouched copy belongs: after the nearest of its predecessors that is still there."""
    for before in reversed(fresh.cells[:number]):
        place = _find(notebook, before)
        if place is not None:
            return place + 1
    return 0


def _mend(notebook: NotebookNode, place: int, wanted: NotebookNode) -> bool:
    """Set right the cell at `place`; an answer keeps its source. What was written into a locked cell stays as text."""
    cell = notebook.cells[place]
    is_answer = duty(wanted) == "solution" and cell.cell_type == "code"
    changed = not is_answer and (cell.source, cell.cell_type) != (wanted.source, wanted.cell_type)
    relocked = any(cell.metadata.get(key) != wanted.metadata.get(key) for key in LOCKS)
    if changed:
        notebook.cells[place] = deepcopy(wanted)
        kept = f"Before the repair this stood in the cell above:\n\n````\n{cell.source}\n````"
        notebook.cells.insert(place + 1, new_markdown_cell(kept))
    elif relocked:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key not in LOCKS}
        cell.metadata |= {key: deepcopy(wanted.metadata[key]) for key in LOCKS if key in wanted.metadata}
    return changed or relocked
