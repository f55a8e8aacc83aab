"""Copies for a class: the student's is nbgrader's own, gives nothing away and runs; repair brings back what is lost."""

from __future__ import annotations

import importlib
import os
import re
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from minivlm.__main__ import main
from minivlm.course.checks import exercises_of
from minivlm.course.repair import repair
from minivlm.course.run import execute
from minivlm.course.student import build, duty, student_copy

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if exercises_of(path.name[:2])]
CLIP = next(path for path in LESSONS if path.name.startswith("01"))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def nbgrader(module: str):
    """A module of nbgrader, an optional extra: without it the test is skipped, but never in continuous integration."""
    return importlib.import_module(module) if os.environ.get("CI") else pytest.importorskip(module)


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("course")
    build(LESSONS, out)
    build(LESSONS, out / "short", minutes=45)
    return out


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """What `nbgrader generate_assignment` makes of the lessons."""
    apps, config = nbgrader("nbgrader.apps"), nbgrader("traitlets.config").Config()
    root = tmp_path_factory.mktemp("nbgrader")
    (root / "source" / "lessons").mkdir(parents=True)
    for path in LESSONS:
        (root / "source" / "lessons" / path.name).write_bytes(path.read_bytes())
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.course_id = "minivlm"
    with pytest.MonkeyPatch.context() as patch:  # nbgrader calls a command that lies beside this Python
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        done = apps.NbGraderAPI(config=config).generate_assignment("lessons")
    assert done["success"], done["log"]
    return root / "release" / "lessons"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_student_copy_is_nbgraders_cell_by_cell(lesson, copies, released):
    ours, theirs = read(copies / "student" / lesson.name), read(released / lesson.name)
    assert len(ours.cells) == len(theirs.cells)
    for number, (one, other) in enumerate(zip(ours.cells, theirs.cells, strict=True), start=1):
        assert one == other, f"cell {number}"
    assert ours.metadata.kernelspec == theirs.metadata.kernelspec
    assert sum("checksum" in cell.metadata.get("nbgrader", {}) for cell in ours.cells) >= 6


def solution_lines(notebook: NotebookNode) -> set[str]:
    """Every line of every solution, with and without its comment, that is more than a word or two."""
    regions = [re.findall(r"BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", c.source, re.DOTALL) for c in notebook.cells]
    lines = [line.strip() for found in regions for region in found for line in region.split("\n")]
    return {line for text in lines for line in (text, text.partition("  #")[0]) if len(line) > 12}


def text_of(notebook: NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [str(output.get("data", {})) + str(output.get("text", "")) for output in outputs]
    return "\n".join([cell.source for cell in notebook.cells] + shown).replace("\\n", "\n")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_student_copy_untouched_gives_nothing_away_solutions_earn_all_points_and_both_say_the_same(lesson, copies):
    """The one at full length, the other in the 45-minute version: what is left out changes no word of what stays."""
    untouched, solved = run(copies / "student" / lesson.name), run(copies / "short" / "solution" / lesson.name)
    lines = solution_lines(read(lesson))
    assert len(lines) >= 4
    told = text_of(untouched)
    assert [line for line in lines if line in told] == []
    assert "not solved yet, so the lesson goes on" in told and "raise NotImplementedError()" in told
    assert points(untouched) == dict.fromkeys(maximum(lesson, 90), 0)
    progress = next(cell for cell in untouched.cells if "progress()" in cell.source.split("\n"))
    assert re.search(r"^total +0 of \d+$", text_of(NotebookNode(cells=[progress])), re.MULTILINE)
    assert len(solved.cells) < len(untouched.cells) and points(solved) == maximum(lesson, 45)
    full, short = said(untouched), said(solved)
    assert len(short) > 5 and {id: full[id] for id in short} == short


def run(path: Path) -> NotebookNode:
    notebook, result = execute(path, "smoke", "cpu")
    assert result.error is None, result.error
    return notebook


def said(notebook: NotebookNode) -> dict[str, str]:
    """What each code cell printed, and the words of what it displayed, but for those that speak of exercises."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    of_lesson = (cell for cell in cells if not re.search(r"exercise\(|progress\(|\.check\(", cell.source))
    return {c.id: "".join(o.get("text", o.get("data", {}).get("text/plain", "")) for o in c.outputs) for c in of_lesson}


def points(notebook: NotebookNode) -> dict[str, float]:
    """What nbgrader gives for each check of an executed notebook."""
    grade = nbgrader("nbgrader.utils").determine_grade
    return {c.metadata.nbgrader.grade_id: grade(c)[0] for c in notebook.cells if duty(c) == "grade"}


def maximum(lesson: Path, minutes: int) -> dict[str, float]:
    cells = student_copy(read(lesson), lesson.stem, minutes).cells
    return {c.metadata.nbgrader.grade_id: float(c.metadata.nbgrader.points) for c in cells if duty(c) == "grade"}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_student_copy_holds_no_outputs_and_knows_what_it_is(lesson, copies):
    for folder, minutes in ((copies, 90), (copies / "short", 45)):
        notebook = read(folder / "student" / lesson.name)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
        assert notebook.metadata.minivlm == {"lesson": lesson.stem, "minutes": minutes}
        assert not [line for line in solution_lines(read(lesson)) if line in text_of(notebook)]
        tagged = [cell for cell in notebook.cells if "extra" in cell.metadata.get("tags", [])]
        assert bool(tagged) == (minutes == 90)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_teachers_copy_is_the_lesson_with_notes_and_open_answers(lesson, copies):
    notebook, original = read(copies / "instructor" / lesson.name), read(lesson)
    notes = [cell for cell in notebook.cells if cell.id.startswith("teacher-")]
    kept = [cell for cell in notebook.cells if not cell.id.startswith("teacher-")]
    assert [c.source.replace("<details open>", "<details>") for c in kept] == [c.source for c in original.cells]
    assert sum(cell.source.count("<details open>") for cell in kept) == 3
    specs = exercises_of(lesson.name[:2])
    assert len(notes) == len(specs) + 1
    for id, spec in specs.items():
        assert f"| `{id}` | {spec.title} | {spec.points} |" in notes[0].source
    assert all(note.source.count("\n- ") >= 2 for note in notes[1:])


def test_outputs_of_a_lesson_do_not_reach_its_students():
    run = new_code_cell("1", execution_count=3, outputs=[nbformat.v4.new_output("stream", text="secret")])
    (made,) = student_copy(nbformat.v4.new_notebook(cells=[run]), "01_clip").cells
    assert made.outputs == [] and made.execution_count is None and run.outputs


def test_building_is_the_same_every_time(copies, tmp_path):
    for path in build([CLIP], tmp_path):
        assert path.read_bytes() == (copies / path.relative_to(tmp_path)).read_bytes()


BAD_SOLUTIONS = {
    "nested": ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", True, "inside a solution"),
    "no end": ("### BEGIN SOLUTION\n1", True, "no END SOLUTION"),
    "not marked": ("### BEGIN SOLUTION\n1\n### END SOLUTION", False, "do not say so"),
}


@pytest.mark.parametrize("name", BAD_SOLUTIONS)
def test_a_solution_that_could_leak_is_refused(name):
    source, marked, message = BAD_SOLUTIONS[name]
    cell = new_code_cell(source, metadata={"nbgrader": {"solution": True, "grade_id": "a"}} if marked else {})
    with pytest.raises(ValueError, match=message):
        student_copy(nbformat.v4.new_notebook(cells=[cell]), "01_clip")


def test_a_solution_cell_without_marks_is_emptied_whole():
    cell = new_code_cell("secret = 1", metadata={"nbgrader": {"solution": True, "grade_id": "a"}})
    (made,) = student_copy(nbformat.v4.new_notebook(cells=[cell]), "01_clip").cells
    assert made.source == "# YOUR CODE HERE\nraise NotImplementedError()"


@cache
def untouched(minutes: int = 90) -> NotebookNode:
    return student_copy(read(CLIP), CLIP.stem, minutes)


def find(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def mended(notebook: NotebookNode, folder: Path) -> tuple[NotebookNode, list[str]]:
    path = folder / "mine.ipynb"
    nbformat.write(notebook, path)
    done = repair(path, NOTEBOOKS)
    return read(path), done


def worked_on() -> NotebookNode:
    """A copy in which a student solved one exercise and took notes."""
    notebook = deepcopy(untouched())
    find(notebook, "01-loss").source = "def contrastive_loss(image, text, scale):\n    return 7"
    notebook.cells.insert(9, new_markdown_cell("my notes", id="notes"))
    notebook.cells[3].source += "\n# tried another size"
    return notebook


def test_a_copy_in_which_nothing_is_missing_is_left_alone(tmp_path):
    notebook = worked_on()
    again, done = mended(notebook, tmp_path)
    assert done == [] and again == notebook and [path.name for path in tmp_path.iterdir()] == ["mine.ipynb"]


def test_missing_cells_come_back_where_they_were_and_the_rest_stays(tmp_path):
    notebook, before = worked_on(), worked_on()
    lost = ["01-attention-card", "01-loss-check", "01-zero_shot"]
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") not in lost]
    nbformat.write(notebook, tmp_path / "lost.ipynb")
    again, done = mended(notebook, tmp_path)
    assert again.cells == before.cells
    assert done[:3] == [f"restored {grade_id}, which was missing" for grade_id in lost]
    assert (tmp_path / "mine.before-repair-1.ipynb").read_bytes() == (tmp_path / "lost.ipynb").read_bytes()
    assert done[3:] == [f"the file as it was: {tmp_path / 'mine.before-repair-1.ipynb'}"]


def test_all_cells_gone_come_back_in_order(tmp_path):
    notebook = worked_on()
    notebook.cells = []
    again, _ = mended(notebook, tmp_path)
    assert again.cells == [cell for cell in untouched().cells if duty(cell)]


def test_an_edited_check_comes_back_and_what_was_written_stays_as_text(tmp_path):
    notebook = worked_on()
    check = find(notebook, "01-loss-check")
    check.source, check.metadata.editable = "3", True
    again, done = mended(notebook, tmp_path)
    assert done[0] == "restored 01-loss-check, which had been changed" and len(done) == 2
    place = again.cells.index(find(untouched(), "01-loss-check"))
    assert again.cells[place + 1].cell_type == "markdown" and "````\n3\n````" in again.cells[place + 1].source
    assert find(again, "01-loss").source.endswith("return 7")
    again.cells.pop(place + 1)
    assert again.cells == worked_on().cells
    assert repair(tmp_path / "mine.ipynb", NOTEBOOKS) == []


def test_an_answer_keeps_its_source_when_its_metadata_are_mended(tmp_path):
    notebook = worked_on()
    cell = find(notebook, "01-loss")
    cell.metadata = {"collapsed": True}  # an editor that drops what it does not know
    again, done = mended(notebook, tmp_path)
    assert done[0] == "restored 01-loss, which had been changed"
    assert find(again, "01-loss").source.endswith("return 7") and find(again, "01-loss").metadata.collapsed
    assert find(again, "01-loss").metadata.nbgrader == find(untouched(), "01-loss").metadata.nbgrader


def test_points_raised_by_hand_are_set_back(tmp_path):
    notebook = worked_on()
    find(notebook, "01-loss-check").metadata.nbgrader.points = 100
    again, _ = mended(notebook, tmp_path)
    assert again.cells == worked_on().cells


def test_an_answer_turned_into_text_comes_back_as_code_and_stays_as_text(tmp_path):
    notebook = worked_on()
    place = notebook.cells.index(find(notebook, "01-loss"))
    notebook.cells[place] = new_markdown_cell("my idea", metadata=notebook.cells[place].metadata, id="changed")
    again, _ = mended(notebook, tmp_path)
    assert again.cells[place] == find(untouched(), "01-loss") and "my idea" in again.cells[place + 1].source


def test_of_two_cells_with_one_id_the_later_counts(tmp_path):
    notebook = worked_on()
    place = notebook.cells.index(find(notebook, "01-loss"))
    copied = deepcopy(notebook.cells[place]) | {"id": "copied", "source": "def contrastive_loss(): ..."}
    notebook.cells.insert(place, nbformat.from_dict(copied))
    again, done = mended(notebook, tmp_path)
    assert done[0] == "01-loss was there twice: the earlier one is an ordinary cell now"
    assert again.cells[place].source == "def contrastive_loss(): ..." and not duty(again.cells[place])
    assert find(again, "01-loss").source.endswith("return 7")


def test_a_short_copy_is_repaired_to_a_short_copy(tmp_path):
    notebook = deepcopy(untouched(45))
    notebook.cells.remove(find(notebook, "01-loss-card"))
    again, done = mended(notebook, tmp_path)
    assert again.cells == untouched(45).cells and len(done) == 2


def test_each_repair_has_a_backup_of_its_own(tmp_path):
    for _ in range(2):
        notebook = worked_on()
        notebook.cells.remove(find(notebook, "01-loss-card"))
        mended(notebook, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "mine.ipynb",
        "mine.before-repair-1.ipynb",
        "mine.before-repair-2.ipynb",
    }


def test_an_older_notebook_format_without_cell_ids_is_repaired(tmp_path):
    notebook = worked_on()
    notebook.nbformat_minor = 4
    notebook.cells.remove(find(notebook, "01-loss-card"))
    for cell in notebook.cells:
        cell.pop("id")
    again, _ = mended(notebook, tmp_path)
    assert [c.source for c in again.cells] == [c.source for c in worked_on().cells]


FOREIGN = {
    "no notebook": "hello",
    "cut off": nbformat.writes(untouched())[:-300],
    "another file": '{"cells": 1}',
    "a list": "[]",
    "another notebook": nbformat.writes(nbformat.v4.new_notebook()),
    "the lesson itself": CLIP.read_text(encoding="utf-8"),
    "an unknown lesson": nbformat.writes(nbformat.v4.new_notebook(metadata={"minivlm": {"lesson": "77_none"}})),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_student_copy_is_refused_and_left_alone(name, tmp_path, capsys):
    path = tmp_path / "mine.ipynb"
    path.write_text(FOREIGN[name], encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["course", "repair", str(path), "--notebooks", str(NOTEBOOKS)])
    assert str(stopped.value).startswith(f"minivlm course: {path} is no ")
    assert str(stopped.value).endswith("nothing was changed") and "\n" not in str(stopped.value)
    assert path.read_text(encoding="utf-8") == FOREIGN[name] and len(list(tmp_path.iterdir())) == 1


def test_the_commands_build_and_repair(tmp_path, capsys):
    words = ("--notebooks", str(NOTEBOOKS))
    main(["course", "build", "--out", str(tmp_path), "--minutes", "45", "--nb", "01", *words])
    made = capsys.readouterr().out.split()
    assert made == [str(tmp_path / kind / CLIP.name) for kind in ("student", "solution", "instructor")]
    main(["course", "repair", made[0], *words])
    assert capsys.readouterr().out == f"{made[0]}: nothing was missing or changed\n"
    notebook = read(Path(made[0]))
    notebook.cells.remove(find(notebook, "01-loss-card"))
    nbformat.write(notebook, made[0])
    main(["course", "repair", made[0], *words])
    assert capsys.readouterr().out.startswith("restored 01-loss-card, which was missing\nthe file as it was: ")
