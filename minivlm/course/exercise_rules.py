"""The contract of a lesson, the part on its exercises. An exercise reads, in three cells that follow one another:

### Exercise: title                 the card, locked, grade_id "01-loss-card":
Difficulty 2 of 5 · about 10 minutes · why it matters: ...
the task, and three hints in <details><summary>Hint 1</summary>
def answer(...):                    the solution, grade_id "01-loss": one function, its body between
    ### BEGIN SOLUTION              `### BEGIN SOLUTION` and `### END SOLUTION`
exercise("01.loss", answer)         the check, locked, grade_id "01-loss-check": `.use()`, and `.check()` at its end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from nbformat import NotebookNode

from minivlm.course.checks import exercises_of
from minivlm.course.instructor import ASKED, CARD
from minivlm.course.lesson import Lesson
from minivlm.course.student import EXTRA, duty

FEWEST, MOST, HINTS = 2, 4, 3
KINDS = {"locked": "-card", "solution": "", "grade": "-check"}  # in the order of the three cells: the end of a grade_id


def marked(lesson: Lesson) -> list[tuple[int, NotebookNode]]:
    """The cells that are something to nbgrader."""
    return [(n, cell) for n, cell in lesson.cells if duty(cell)]


def of_kind(lesson: Lesson, kind: str) -> list[tuple[int, NotebookNode]]:
    return [(n, cell) for n, cell in marked(lesson) if duty(cell) == kind]


def grade_id(cell: NotebookNode) -> str:
    return cell.metadata.nbgrader.get("grade_id", "")


def exercise_count(lesson: Lesson) -> Iterator[str]:
    count = len(of_kind(lesson, "solution"))
    if not FEWEST <= count <= MOST:
        yield f"{count} exercises; a lesson has {FEWEST} to {MOST}"


def exercise_cells(lesson: Lesson) -> Iterator[str]:
    cells = dict(marked(lesson))
    for n, cell in of_kind(lesson, "solution"):
        around = [grade_id(cells[m]) if m in cells else None for m in (n - 1, n, n + 1)]
        if around != [grade_id(cell) + end for end in KINDS.values()]:
            yield (
                f"cell {n}: the exercise '{grade_id(cell)}' needs its card '{grade_id(cell)}-card' just before this "
                f"cell, and its check '{grade_id(cell)}-check' just after it"
            )


def exercise_card(lesson: Lesson) -> Iterator[str]:
    for n, cell in of_kind(lesson, "locked"):
        if not cell.source.startswith("### Exercise: "):
            yield f"cell {n}: begin the card with `### Exercise: title`"
        if not re.search(CARD.pattern + r" · why it matters: \S", cell.source):
            yield f"cell {n}: the card says `Difficulty 2 of 5 · about 10 minutes · why it matters: ...` in one line"
        hints = re.findall(r"<details><summary>Hint (\d)</summary>", cell.source)
        if hints != [str(i + 1) for i in range(HINTS)]:
            yield f"cell {n}: the card has {HINTS} hints, each in `<details><summary>Hint 1</summary>`; found {hints}"


def exercise_solution(lesson: Lesson) -> Iterator[str]:
    for n, cell in of_kind(lesson, "solution"):
        marks = re.findall(r"^( +)### (BEGIN|END) SOLUTION$", cell.source, re.MULTILINE)
        if [word for _, word in marks] != ["BEGIN", "END"] or not re.search(r"^def ", cell.source, re.MULTILINE):
            yield f"cell {n}: write a function with one `### BEGIN SOLUTION` and one `### END SOLUTION` inside it"


def exercise_metadata(lesson: Lesson) -> Iterator[str]:
    seen: set[str] = set()
    for n, cell in marked(lesson):
        kind, name = duty(cell), grade_id(cell)
        wanted = {
            "grade": kind == "grade", "grade_id": name, "locked": kind != "solution", "schema_version": 3,
            "solution": kind == "solution", "task": False,
        }  # fmt: skip
        if {key: value for key, value in cell.metadata.nbgrader.items() if key != "points"} != wanted:
            yield f"cell {n}: the nbgrader metadata of '{name}' must be {wanted}"
        if not re.fullmatch(r"[\w-]+", name) or name in seen:
            yield f"cell {n}: the grade_id '{name}' is not a name, or another cell has it"
        seen.add(name)


def exercise_check(lesson: Lesson) -> Iterator[str]:
    for n, cell in of_kind(lesson, "grade"):
        asked = ASKED.findall(cell.source)
        id = asked[0] if len(asked) == 1 else None
        known = exercises_of(lesson.path.name[:2])
        if id not in known or grade_id(cell) != id.replace(".", "-") + "-check":
            yield f"cell {n}: a check asks for the exercise that its grade_id names, one of {', '.join(known)}"
        elif cell.metadata.nbgrader.get("points") != known[id].points:
            yield f"cell {n}: the check of {id} is worth {known[id].points} points; the metadata say otherwise"
        if ".use()" not in cell.source or not re.search(r"^\w+\.check\(\)$", cell.source.split("\n")[-1]):
            yield f"cell {n}: a check takes the answer on with `.use()`, and its last line is `.check()`"


def exercise_extra(lesson: Lesson) -> Iterator[str]:
    """The 45-minute version keeps an exercise whole or leaves it out whole."""
    extra = {grade_id(cell): EXTRA in cell.metadata.get("tags", []) for _, cell in marked(lesson)}
    for n, cell in of_kind(lesson, "solution"):
        if len({extra.get(grade_id(cell) + end) for end in KINDS.values()}) > 1:
            yield f"cell {n}: tag all three cells of '{grade_id(cell)}' `{EXTRA}`, or none"


def exercise_progress(lesson: Lesson) -> Iterator[str]:
    calls = [n for n, cell in lesson.code if re.search(r"^progress\(\)$", cell.source, re.MULTILINE)]
    last = max((n for n, _ in of_kind(lesson, "grade")), default=0)
    if len(calls) != 1 or calls[0] < last:
        yield f"call `progress()` once, after the last check (cell {last}); called in cells {calls}"


EXERCISE_RULES: tuple[Callable[[Lesson], Iterator[str]], ...] = (
    exercise_count, exercise_cells, exercise_card, exercise_solution, exercise_metadata, exercise_check,
    exercise_extra, exercise_progress,
)  # fmt: skip
