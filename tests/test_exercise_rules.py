"""The contract's part on exercises: a lesson that keeps it passes, and every rule catches its breach."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from minivlm.course.exercise_rules import EXERCISE_RULES
from minivlm.course.lesson import Lesson
from minivlm.course.student import duty

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
CLIP = next(path for path in NOTEBOOKS if path.name.startswith("01"))
CARD, SOLUTION, CHECK = range(3)  # the cells of the first exercise


def messages(path: Path, notebook: NotebookNode) -> list[str]:
    return [message for rule in EXERCISE_RULES for message in rule(Lesson(path, notebook))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_exercises_of_a_notebook_keep_the_contract(path: Path):
    assert messages(path, nbformat.read(path, as_version=4)) == []


def edit(number: int, old: str, new: str) -> Callable:
    def change(notebook: NotebookNode) -> None:
        cell = [cell for cell in notebook.cells if duty(cell)][number]
        assert old in cell.source
        cell.source = cell.source.replace(old, new, 1)

    return change


def mark(number: int, **fields: object) -> Callable:
    def change(notebook: NotebookNode) -> None:
        [cell for cell in notebook.cells if duty(cell)][number].metadata.nbgrader |= fields

    return change


def keep(count: int) -> Callable:
    """Only the cells of the first `count` exercises."""

    def change(notebook: NotebookNode) -> None:
        for cell in [cell for cell in notebook.cells if duty(cell)][3 * count :]:
            notebook.cells.remove(cell)

    return change


def apart(notebook: NotebookNode) -> None:
    place = next(i for i, cell in enumerate(notebook.cells) if duty(cell) == "solution")
    notebook.cells.insert(place, new_code_cell("0"))


def unchecked(notebook: NotebookNode) -> None:
    notebook.cells.remove(next(cell for cell in notebook.cells if duty(cell) == "grade"))


def half_extra(notebook: NotebookNode) -> None:
    next(cell for cell in notebook.cells if duty(cell) == "grade").metadata.tags = []


def twice(notebook: NotebookNode) -> None:
    notebook.cells.append(new_code_cell("progress()"))


def early(notebook: NotebookNode) -> None:
    call = next(cell for cell in notebook.cells if cell.source == "progress()")
    notebook.cells.remove(call)
    notebook.cells.insert(2, call)


def five(notebook: NotebookNode) -> None:
    """Two more exercises, each whole."""
    some = [deepcopy(cell) for cell in notebook.cells if duty(cell)][:6]
    for cell in some:
        cell.metadata.nbgrader.grade_id = cell.metadata.nbgrader.grade_id.replace("01-", "01-again-")
    notebook.cells[5:5] = some


BREACHES = {
    "one exercise": (keep(1), "exercise_count", "1 exercises; a lesson has 2 to 4"),
    "five exercises": (five, "exercise_count", "5 exercises"),
    "a cell between": (apart, "exercise_cells", "needs its card '01-attention-card' just before"),
    "no check": (unchecked, "exercise_cells", "its check '01-attention-check' just after"),
    "no title": (edit(CARD, "### Exercise: ", "### "), "exercise_card", "begin the card with `### Exercise: title`"),
    "no difficulty": (edit(CARD, "Difficulty 3 of 5", "Hard"), "exercise_card", "the card says `Difficulty"),
    "difficulty 6": (edit(CARD, "Difficulty 3", "Difficulty 6"), "exercise_card", "the card says `Difficulty"),
    "no minutes": (edit(CARD, "about 12 minutes", "a while"), "exercise_card", "the card says `Difficulty"),
    "no reason": (edit(CARD, "why it matters:", "so"), "exercise_card", "why it matters"),
    "two hints": (edit(CARD, "<summary>Hint 3", "<summary>More"), "exercise_card", "3 hints"),
    "no end": (edit(SOLUTION, "### END SOLUTION", "# done"), "exercise_solution", "one `### END SOLUTION`"),
    "outside a function": (edit(SOLUTION, "def ", "async def "), "exercise_solution", "write a function"),
    "old metadata": (mark(SOLUTION, schema_version=2), "exercise_metadata", "the nbgrader metadata of '01-attention'"),
    "an open card": (mark(CHECK, locked=False), "exercise_metadata", "the nbgrader metadata of '01-attention-check'"),
    "points off": (mark(CHECK, points=9), "exercise_check", "01.attention is worth 3 points"),
    "another exercise": (edit(CHECK, "01.attention", "01.loss"), "exercise_check", "that its grade_id names"),
    "an unknown exercise": (edit(CHECK, "01.attention", "01.no"), "exercise_check", "one of 01.attention, 01.loss"),
    "not used": (edit(CHECK, ".use()", ".fn"), "exercise_check", "with `.use()`"),
    "no verdict": (edit(CHECK, "answer.check()", "answer.check();"), "exercise_check", "last line is `.check()`"),
    "half extra": (half_extra, "exercise_extra", "all three cells of '01-attention' `extra`"),
    "progress twice": (twice, "exercise_progress", "call `progress()` once"),
    "progress too early": (early, "exercise_progress", "after the last check"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_named_and_only_its_rule_speaks(name: str):
    change, rule, message = BREACHES[name]
    notebook = nbformat.read(CLIP, as_version=4)
    change(notebook)
    lesson = Lesson(CLIP, notebook)
    spoke = {rule.__name__: told for rule in EXERCISE_RULES if (told := list(rule(lesson)))}
    assert message in "\n".join(spoke.get(rule, [])), spoke
    assert set(spoke) - {rule} <= ALSO.get(name, set()), spoke


ALSO = {"five exercises": {"exercise_check"}, "no check": {"exercise_extra"}}  # what cannot be broken alone


def test_a_grade_id_that_two_cells_have_is_named():
    notebook = nbformat.read(CLIP, as_version=4)
    mark(3, grade_id="01-attention-card")(notebook)
    assert any("another cell has it" in message for message in messages(CLIP, notebook))


def test_every_rule_has_its_breach():
    assert {rule.__name__ for rule in EXERCISE_RULES} == {rule for _, rule, _ in BREACHES.values()}
