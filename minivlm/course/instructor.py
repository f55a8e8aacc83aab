"""The teacher's copy of a lesson: its plan on top, a note under every check, and the answers of the quiz open."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from minivlm.course.checks import exercises_of
from minivlm.course.exercise import ExerciseSpec
from minivlm.course.student import duty, of_length

CARD = re.compile(r"Difficulty ([1-5]) of 5 · about (\d+) minutes?")
ASKED = re.compile(r'exercise\(\s*"([\w.]+)"')


def instructor_copy(notebook: NotebookNode, minutes: int = 90) -> NotebookNode:
    """A copy with the solutions, in which only cells for the teacher are added."""
    copy = of_length(notebook, minutes)
    cells, card, plan = [], None, []
    for cell in copy.cells:
        cells.append(cell)
        cell.source = _open_quiz(cell.source) if cell.cell_type == "markdown" else cell.source
        if duty(cell) == "locked":
            card = CARD.search(cell.source)
        if duty(cell) == "grade":
            id = ASKED.search(cell.source)[1]
            spec = exercises_of(id.partition(".")[0])[id]
            plan.append(f"| `{id}` | {spec.title} | {spec.points} | {card[1]} | {card[2]} |")
            cells.append(new_markdown_cell(_note(id, spec), id=f"teacher-{cell.id}"))
    if plan:
        table = ["| exercise | title | points | difficulty | minutes |", "|---|---|---|---|---|", *plan]
        text = f"**For the teacher**: {minutes} minutes\n\n" + "\n".join(table)
        cells.insert(1, new_markdown_cell(text, id="teacher-plan"))
    copy.cells = cells
    return copy


def _note(id: str, spec: ExerciseSpec) -> str:
    messages = "\n".join(f"- {message}" for message in messages_of(spec.check)).replace("<", "&lt;")
    return f"**For the teacher**: what the check of `{id}` can say ({spec.points} points or none)\n\n{messages}"


def _open_quiz(source: str) -> str:
    before, heading, after = source.partition("## Quiz")
    return before + heading + after.replace("<details>", "<details open>")


def messages_of(check: Callable) -> list[str]:
    """The mistakes that a check knows by name: the sentences in its tables and its `Mistake`s, and in those of the
    functions of its file that it calls, in the order of the source."""
    return list(dict.fromkeys(_messages(check, set())))


def _messages(function: Callable, seen: set[Callable]) -> Iterator[str]:
    seen.add(function)
    called = []
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        told = [*node.keys, *node.values] if isinstance(node, ast.Dict) else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.append(inspect.unwrap(function).__globals__.get(node.func.id))
            told = node.args[:1] if node.func.id == "Mistake" else []
        words = [part.value for part in told if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        yield from (sentence for sentence in words if " " in sentence)
    for other in called:
        if inspect.isfunction(other) and other.__module__ == function.__module__ and other not in seen:
            yield from _messages(other, seen)
