"""Every notebook keeps the contract of a lesson, and every rule of the contract catches its breach."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minivlm.course.commit import normalised
from minivlm.course.lint import RULES, lint, main
from minivlm.course.provenance import PACKAGE, data_named, fingerprint, reached
from minivlm.course.times import MARKER, record, time_line, with_time

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
OPENING = f"""# A lesson

**Objectives**

- explain this
- measure that
- break both

**Prerequisites**: none

{MARKER}
"""
QUIZ = "## Quiz\n" + 3 * "Why?\n<details><summary>Answer</summary>Because.</details>\n"
ENDING = ("## What you should see", "## Break it", "## Recap", QUIZ, "## References", "## Next")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_keeps_the_contract(path: Path):
    assert lint(path) == []


def exercise(name: str, points: int) -> list[NotebookNode]:
    """The three cells of an exercise of lesson 01."""
    hints = "".join(f"\n<details><summary>Hint {n}</summary>\n\nHm.\n\n</details>" for n in (1, 2, 3))
    card = f"### Exercise: {name}\n\nDifficulty 1 of 5 · about 5 minutes · why it matters: it does.\n{hints}"
    solution = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
    check = f'mine = exercise("01.{name}", f)\nf = mine.use()\nmine.check()'
    cells = [new_markdown_cell(card), new_code_cell(solution), new_code_cell(check)]
    for cell, end, kind in zip(cells, ("-card", "", "-check"), ("card", "solution", "check"), strict=True):
        cell.metadata.nbgrader = dict(
            grade=kind == "check", grade_id=f"01-{name}{end}", locked=kind != "solution",
            schema_version=3, solution=kind == "solution", task=False,
        ) | ({"points": points} if kind == "check" else {})  # fmt: skip
    return cells


def lesson(folder: Path) -> tuple[Path, NotebookNode]:
    """A notebook that keeps the contract, as `--commit` would leave it."""
    path = folder / "01_lesson.ipynb"
    run = new_code_cell("print('loss 0.50')", outputs=[new_output("stream", text="loss 0.50\n")])
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell("import minivlm\n\nminivlm.setup()"),
        new_markdown_cell("## Idea\n\n**Predict first.** What?\n\n**Predict first.** And then?"),
        run,
        new_markdown_cell("## Exercises"),
        *exercise("attention", 3),
        *exercise("loss", 3),
        new_code_cell("progress()"),
    ]
    notebook = new_notebook(cells=cells + [new_markdown_cell(text) for text in ENDING])
    record(path, "cpu", 98.4, 1234, "CPU, 2 cores")
    notebook = normalised(notebook, "cpu")
    notebook.cells[0].source = with_time(OPENING, time_line(path))
    return path, notebook


def test_a_lesson_that_keeps_the_contract_passes(tmp_path: Path):
    path, notebook = lesson(tmp_path)
    nbformat.write(notebook, path)
    assert lint(path) == []
    assert main([str(path)]) == 0


def replace(cell: int, old: str, new: str):
    def change(notebook: NotebookNode) -> None:
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return change


def add(cells: list[NotebookNode]):
    """Before the ending, so that only what is tested goes wrong."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[4:4] = cells
        for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
            cell.execution_count = count

    return change


def prints(text: str):
    return add([new_code_cell("0", outputs=[new_output("stream", text=text)])])


def shows(mime: str, text: str):
    return add([new_code_cell("0", outputs=[new_output("display_data", data={mime: text})])])


def picture(alt: str, printed: str) -> NotebookNode:
    shown = new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": alt}})
    return new_code_cell("0", outputs=[shown, new_output("stream", text=printed)])


def pictured(alt: str, printed: str | None = None):
    return add([picture(alt, alt if printed is None else printed)])


def explores(said: str, before: str = ""):
    """An explorer that leaves `said`, after a picture ("p"), a cell of words ("w") or nothing of its own."""
    said = new_output("display_data", data={"text/plain": said})
    cells = [picture("A line.", "A line.")] if before == "p" else []
    cells += [new_code_cell("0", outputs=[])] if before == "w" else []
    explorer = new_code_cell("budget_explorer()", outputs=[said])
    return add([*cells, explorer])


def fails(notebook: NotebookNode) -> None:
    notebook.cells[3].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=[])]


def drop(cell: int):
    return lambda notebook: notebook.cells.pop(cell)


def swap(notebook: NotebookNode) -> None:
    notebook.cells[-1], notebook.cells[-2] = notebook.cells[-2], notebook.cells[-1]


def hide_set_up(notebook: NotebookNode) -> None:
    notebook.cells[1:1] = [new_markdown_cell("Wait.") for _ in range(4)]


def miscount(notebook: NotebookNode) -> None:
    notebook.cells[3].execution_count = 7


def widgets(notebook: NotebookNode) -> None:
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}


def twin_ids(notebook: NotebookNode) -> None:
    notebook.cells[2]["id"] = notebook.cells[3]["id"]


def heavy(notebook: NotebookNode) -> None:
    notebook.cells[3].outputs = [new_output("display_data", data={"application/octet-stream": 1_000_000 * "A"})]


def sections(count: int) -> list[NotebookNode]:
    return [new_markdown_cell(f"## Part {i}") for i in range(count)]


BREACHES = {
    "no title": (replace(0, "# A lesson", "A lesson"), "title", "cell 1: begin with `# Title`"),
    "two objectives": (replace(0, "- break both\n", ""), "objectives", "there are 2"),
    "six objectives": (replace(0, "- break both", "- a\n- b\n- c\n- d"), "objectives", "there are 6"),
    "objectives not named": (replace(0, "**Objectives**", ""), "objectives", "there are 0"),
    "no prerequisites": (replace(0, "**Prerequisites**", "Needed"), "prerequisites", "links to earlier lessons"),
    "no measured time": (replace(0, MARKER, ""), "measured_time", "cell 1"),
    "a time typed by hand": (replace(0, "98 s", "60 s"), "measured_time", "must agree with times.json"),
    "no set-up": (replace(1, "minivlm.setup()", "pass"), "set_up", "must be `import minivlm`"),
    "a set-up in a comment": (replace(1, "minivlm.setup", "# minivlm.setup"), "set_up", "must be `import minivlm`"),
    "a late set-up": (hide_set_up, "set_up", "among the first four"),
    "a shell": (replace(1, "import", "!pip install minivlm\nimport"), "no_installs", "cell 2: `!` runs a shell"),
    "a magic": (replace(3, "print", "%pip install x\nprint"), "no_installs", "cell 4: `%` runs a shell"),
    "a long section": (add([new_markdown_cell("more") for _ in range(11)]), "section_length", "'Idea' has 13 cells"),
    "many cells": (add(sections(43)), "size", "61 cells"),
    "many bytes": (heavy, "size", "MB; draw fewer"),
    "many words": (add([new_markdown_cell(3500 * "word ")]), "size", "words of text"),
    "a long cell": (add([new_code_cell("\n".join(31 * "0"))]), "cell_length", "cell 5: 31 lines"),
    "twin ids": (twin_ids, "cell_ids", "cell 4: no id"),
    "a path in the code": (replace(3, "loss", "/home/someone/x"), "no_absolute_paths", "/home/someone is the path"),
    "a path in the text": (add([new_markdown_cell("See /data/x.")]), "no_absolute_paths", "cell 5: /data/x"),
    "a path of Windows": (add([new_markdown_cell("See `C:\\Users\\me`.")]), "no_absolute_paths", "C:\\Users\\me"),
    "a path printed": (prints("saved /srv/runs/x\n"), "no_absolute_paths", "cell 5: /srv/runs"),
    "a path shown": (shows("text/html", '<img src="/home/x/y.png">'), "no_absolute_paths", "/home/x"),
    "seconds": (prints("took 12.5 s\n"), "no_wall_times", "cell 5: the output says '12.5 s'"),
    "a rate": (shows("text/plain", "900 samples/s"), "no_wall_times", "'900 samples/s'"),
    "widget state": (widgets, "no_widget_state", "metadata.widgets"),
    "miscounted cells": (miscount, "execution_counts", "[1, 7, 3, 4, 5, 6, 7] are not 1..7"),
    "an error": (fails, "no_errors", "cell 4: failed with ValueError: no"),
    "no recap": (drop(-4), "ending", "found: What you should see, Break it, Quiz"),
    "the ending out of order": (swap, "ending", "Next, References"),
    "an empty quiz": (replace(-3, "<details>", ""), "quiz", "there are 0"),
    "a dead link": (add([new_markdown_cell("[next](gone.ipynb#part)")]), "links", "cell 5: the link to gone.ipynb"),
    "a dead picture": (add([new_markdown_cell('<img src="gone.png">')]), "links", "gone.png"),
    "no predictions": (replace(2, "**Predict first.** And", "And"), "predict_first", "1 questions"),
    "a picture without words": (pictured(""), "described", "cell 5: a picture without its description"),
    "a picture with other words": (pictured("A line.", "A bar."), "described", "cell 5: a picture without its"),
    "an explorer alone": (explores("A slider at 3."), "static_first", "cell 5: budget_explorer has no static"),
    "an explorer after words": (explores("A.", before="w"), "static_first", "cell 6: budget_explorer has no static"),
    "a mute explorer": (explores("VBox(children=())", before="p"), "static_first", "cell 6: budget_explorer leaves no"),
    "code changed after the run": (replace(3, "0.50", "0.51"), "fresh", "run `python -m minivlm.course.run --commit"),
    "never committed": (lambda notebook: notebook.metadata.pop("minivlm"), "fresh", "never committed"),
}  # fmt: skip
OUTDATING = {
    "title",
    "objectives",
    "prerequisites",
    "measured_time",
    "set_up",
    "no_installs",
    "section_length",
    "size",
    "cell_length",
}
OUTDATING |= {"no_absolute_paths", "no_wall_times", "ending", "quiz", "links"}
OUTDATING |= {"predict_first", "described", "static_first"}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_named_and_only_it(name: str, tmp_path: Path):
    change, rule, message = BREACHES[name]
    path, notebook = lesson(tmp_path)
    change(notebook)
    if rule in OUTDATING:  # the change alters what is hashed: let it count as committed
        notebook.metadata.minivlm.source_hash = fingerprint(notebook)
    path.write_text(v4.writes(notebook), encoding="utf-8")  # nbformat.writes would mend some breaches
    messages = lint(path)
    assert len(messages) == 1 and message in messages[0], messages
    assert main([str(path)]) == 1


def test_a_picture_with_its_words_and_an_explorer_after_it_pass(tmp_path: Path):
    path, notebook = lesson(tmp_path)
    explores("A slider at 3.", before="p")(notebook)
    notebook.metadata.minivlm.source_hash = fingerprint(notebook)
    nbformat.write(notebook, path)
    assert lint(path) == []


def test_every_rule_has_its_breach():
    assert {rule.__name__ for rule in RULES} == {rule for _, rule, _ in BREACHES.values()}


def test_a_missing_cell_id_is_seen_though_nbformat_would_mend_it(tmp_path: Path):
    path, notebook = lesson(tmp_path)
    raw = json.loads(nbformat.writes(notebook))
    del raw["cells"][2]["id"]
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert [m for m in lint(path) if "cell 3: no id" in m] == lint(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 1}', "{}"])
def test_a_file_that_is_no_notebook_is_refused_with_its_name(text: str, tmp_path: Path):
    path = tmp_path / "09_broken.ipynb"
    path.write_text(text)
    messages = lint(path)
    assert len(messages) == 1 and messages[0].startswith("09_broken.ipynb: not a notebook")


@pytest.mark.parametrize(
    "text",
    [
        "and/or",
        "[site](https://a.org/b/c)",
        "<br/>",
        "</details>",
        "1/2 of 3/4",
        "a ../figures/x.png",
        "data/a/b",
        "$x/y$",
    ],
)
def test_what_is_no_absolute_path_passes(text: str, tmp_path: Path):
    path, notebook = lesson(tmp_path)
    (tmp_path / "x").mkdir()
    add([new_markdown_cell(text)])(notebook)
    notebook.metadata.minivlm.source_hash = fingerprint(notebook)
    nbformat.write(notebook, path)
    assert lint(path) == []


def test_a_notebook_without_outputs_may_have_no_counts(tmp_path: Path):
    path, notebook = lesson(tmp_path)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count, cell.outputs = None, []
    nbformat.write(notebook, path)
    assert lint(path) == []


def package(folder: Path, **modules: str) -> Path:
    root = folder / "pack"
    for name, source in modules.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    (root / "__init__.py").write_text("from pack.a import f\nfrom pack.b import g\n__version__ = '1'\n")
    return root


def test_the_code_behind_a_notebook_is_followed_through_imports(tmp_path: Path):
    root = package(tmp_path, a="from pack.deep import low", b="", c="import pack.a", deep__low="", course="")

    def names(source: str) -> set[str]:
        return {path.relative_to(root).as_posix() for path in reached([source], root)}

    assert names("import pack\npack.g()") == {"b.py"}
    assert names("import pack\npack.f()") == {"a.py", "deep/low.py"}
    assert names("from pack import g") == {"b.py"}
    assert names("from pack.c import anything") == {"c.py", "a.py", "deep/low.py"}
    assert names("import pack.b as other") == {"b.py"}
    assert names("import pack\npack.__version__") == set()
    assert names("import os\nos.path.join('pack.a')") == set()


def test_the_fingerprint_changes_with_what_is_reached_and_with_nothing_else(tmp_path: Path):
    root = package(tmp_path, a="x = 1", b="y = 1")
    notebook = new_notebook(cells=[new_markdown_cell("What is x?"), new_code_cell("%matplotlib inline\nimport pack.a")])
    before = fingerprint(notebook, root)
    (root / "b.py").write_text("y = 2")
    notebook.cells[0].source = "What could x be?"
    notebook.cells[1].execution_count = 5
    assert fingerprint(notebook, root) == before
    notebook.cells[1].source += "\npack.a.x"
    assert fingerprint(notebook, root) != before
    before = fingerprint(notebook, root)
    (root / "a.py").write_text("x = 2")
    assert fingerprint(notebook, root) != before


@pytest.mark.parametrize("file, named", [("list.txt", "list.txt"), ("eye.json", "eye"), ("raw-cpu.json", "raw-")])
def test_data_is_behind_a_lesson_whose_code_names_it(file: str, named: str, tmp_path: Path):
    root = package(tmp_path, a=f'read("{named}")', b="y = '-'")
    names, other = (new_notebook(cells=[new_code_cell(f"import pack.{module}")]) for module in "ab")
    (root / file).write_text("1")
    before = fingerprint(names, root), fingerprint(other, root)
    (root / file).write_text("2")
    assert fingerprint(names, root) != before[0]
    assert fingerprint(other, root) == before[1]


def test_every_lesson_that_asks_trained_models_stands_on_their_weights():
    behind = reached(["from minivlm.recipes import train_design"])
    data = {path.name for path in data_named(path.read_text(encoding="utf-8") for path in behind)}
    assert {"clip.safetensors", "reader_two.safetensors", "decoder.safetensors", "words.txt"} <= data


def test_the_checks_of_a_lesson_s_exercises_are_behind_it(tmp_path: Path):
    root = package(tmp_path, a="", b="", course__checks__l01="import pack.a", course__checks__l02="x = 1")
    notebook = new_notebook(cells=[new_code_cell('loss = exercise("01.loss", f)')])
    before = fingerprint(notebook, root)
    (root / "course/checks/l02.py").write_text("x = 2")
    (root / "b.py").write_text("y = 2")
    assert fingerprint(notebook, root) == before
    (root / "a.py").write_text("x = 2")
    changed = fingerprint(notebook, root)
    (root / "course/checks/l01.py").write_text("import pack.a as other")
    assert len({before, changed, fingerprint(notebook, root)}) == 3


def test_what_runs_lessons_is_not_behind_them():
    behind = reached(["import minivlm\nfrom minivlm.course import report, source\nminivlm.setup()"])
    assert PACKAGE / "runtime.py" in behind
    assert not [path for path in behind if "course" in path.parts]
