"""The runner: what fails is named, the rest runs, and everything is left where it is said to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minivlm.course import RESULT_MIME, report
from minivlm.course.commit import WIDGET_VIEW, normalised
from minivlm.course.run import Result, Watch, main, page, select, table
from minivlm.course.times import MARKER

GOOD = """import os
from minivlm.course import report
print("\\rstep 1", end="")
print("\\rdone")
report(color=0.93, shape=2 / 3)
assert os.path.basename(os.getcwd()) == "notebooks"  # so that relative paths mean what they mean in JupyterLab
os.environ["MINIVLM_SCALE"]"""
BAD = "1 / 0"
DEAD = "import os\nos._exit(3)"


def write(folder: Path, **sources: str) -> None:
    (folder / "notebooks").mkdir()
    for name, source in sources.items():
        cells = [new_markdown_cell(f"# {name}\n{MARKER}"), new_code_cell(source)]
        nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name[1:]}.ipynb")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A course of four notebooks, one good, three bad, run as `make run` runs it."""
    folder = tmp_path_factory.mktemp("course")
    write(folder, _01_bad=BAD, _02_dead=DEAD, _04_good=GOOD)
    (folder / "notebooks" / "03_torn.ipynb").write_text('{"cells": [')
    command = [sys.executable, "-m", "minivlm.course.run", "--scale", "smoke"]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return folder, done


def test_the_failing_are_named_and_the_others_run(course):
    folder, done = course
    results = {r["notebook"]: r for r in json.loads((folder / "build/results.json").read_text())}
    assert done.returncode == 1
    assert "3 of 4 notebooks FAILED: 01_bad, 02_dead, 03_torn" in done.stdout and not done.stderr
    assert results["01_bad"]["error"] == "cell 2: ZeroDivisionError: division by zero"
    assert "DeadKernelError" in results["02_dead"]["error"]
    assert "NotJSONError" in results["03_torn"]["error"]
    assert results["04_good"]["error"] is None


def test_the_results_hold_figures_time_memory_scale_and_device(course):
    good = json.loads((course[0] / "build/results.json").read_text())[-1]
    assert good["figures"] == {"color": 0.93, "shape": pytest.approx(2 / 3)}
    assert 0 < good["seconds"] < 120 and good["peak_mb"] > 10 and good["scale"] == "smoke" and good["device"]


def test_the_table_has_a_row_for_each(course):
    text = (course[0] / "build/table.md").read_text()
    header, _, *rows = text.splitlines()
    assert header == "| notebook | scale | device | seconds | peak MB | accuracy |"
    assert [row.split(" | ")[0] for row in rows] == ["| 01_bad", "| 02_dead", "| 03_torn", "| 04_good"]
    assert "FAILED, cell 2: ZeroDivisionError" in rows[0] and rows[3].endswith("| color 0.93, shape 0.667 |")
    assert text in course[1].stdout


def test_copies_and_pages_are_left_for_good_and_bad(course):
    build = course[0] / "build"
    executed = nbformat.read(build / "04_good.ipynb", as_version=4)
    assert "'smoke'" in executed.cells[1].outputs[-1].data["text/plain"]
    assert "color 0.93, shape 0.667" in (build / "04_good.html").read_text()
    assert "ZeroDivisionError" in (build / "01_bad.html").read_text()
    assert not (build / "03_torn.html").exists()


def test_the_notebooks_themselves_are_untouched(course):
    assert nbformat.read(course[0] / "notebooks/04_good.ipynb", as_version=4).cells[1].outputs == []
    assert not (course[0] / "notebooks/times.json").exists()


def test_commit_writes_outputs_time_and_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, _01_good=GOOD, _02_other=GOOD)
    monkeypatch.chdir(tmp_path)
    assert main(["--nb", "01", "--scale", "cpu", "--commit"]) == 0
    notebook = nbformat.read("notebooks/01_good.ipynb", as_version=4)
    times = json.loads(Path("notebooks/times.json").read_text())
    assert [out.get("text", "") for out in notebook.cells[1].outputs] == ["done\n", "", ""]
    assert notebook.cells[1].outputs[1].data[RESULT_MIME]["color"] == 0.93
    assert notebook.cells[1].execution_count == 1 and "execution" not in notebook.cells[1].metadata
    assert set(notebook.metadata.minivlm) == {"source_hash", "scale", "versions"}
    [measured] = times.values()
    assert set(times) == {"01_good"} and measured["cpu"]["peak_mb"] > 10
    said = f"{measured['cpu']['seconds']} s and {measured['cpu']['peak_mb'] / 1000:.1f} GB of memory on CPU"
    assert said in notebook.cells[0].source
    assert "not yet measured on a GPU" in notebook.cells[0].source
    assert [path.name for path in Path("build").glob("*.ipynb")] == ["01_good.ipynb"]


def test_a_failing_notebook_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, _01_bad=BAD)
    before = (tmp_path / "notebooks/01_bad.ipynb").read_text()
    monkeypatch.chdir(tmp_path)
    assert main(["--scale", "cpu", "--commit"]) == 1
    assert (tmp_path / "notebooks/01_bad.ipynb").read_text() == before


def test_a_run_on_a_gpu_adds_its_time_and_keeps_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, _01_good=GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minivlm.course.run.device_name", lambda: "Some GPU")
    assert main(["--scale", "gpu", "--commit"]) == 0
    notebook = nbformat.read("notebooks/01_good.ipynb", as_version=4)
    assert notebook.cells[0].source.endswith(f"GB of memory on Some GPU {MARKER}") and notebook.cells[1].outputs == []


def test_normalising_takes_out_what_changes_by_itself():
    outputs = [
        new_output("display_data", data={WIDGET_VIEW: {"model_id": "1"}, "text/plain": "A slider at 3."}),
        new_output("execute_result", data={"text/plain": "1"}, execution_count=9),
        new_output("stream", text="padded   \nline\n"),
    ]
    cell = new_code_cell(
        "1", execution_count=9, outputs=outputs, metadata={"execution": {"iopub": "now"}, "tags": ["a"]}
    )
    notebook = new_notebook(
        cells=[new_code_cell(""), cell], metadata={"widgets": {}, "kernelspec": {"name": "my", "display_name": "My"}}
    )
    clean = normalised(notebook, "cpu")
    assert clean.cells[1].outputs[0].data == {"text/plain": "A slider at 3."}
    assert clean.cells[1].outputs[1].execution_count == clean.cells[1].execution_count == 1
    assert clean.cells[1].outputs[2].text == "padded\nline\n"
    assert clean.cells[1].metadata == {"tags": ["a"]}
    assert set(clean.metadata) == {"kernelspec", "language_info", "minivlm"}
    assert clean.metadata.kernelspec.name == "python3"
    nbformat.validate(clean)
    assert notebook.cells[1].execution_count == 9  # the original is left alone


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nb", "07"], "no notebook 07 in notebooks/; there are: 01_good"),
        (["--nb", "01", "08"], "no notebook 08"),
        (["--commit", "--scale", "smoke"], "--commit with --scale cpu or gpu"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(words, message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, _01_good=GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(words)
    assert not Path("build").exists()


def test_a_folder_without_notebooks_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="there are: none"):
        select(tmp_path, [])


def test_lessons_are_chosen_by_number_and_run_in_order(tmp_path: Path):
    write(tmp_path, _03_b="", _01_a="", _10_c="")
    folder = tmp_path / "notebooks"
    assert [path.stem for path in select(folder, ["10", "03"])] == ["03_b", "10_c"]
    assert [path.stem for path in select(folder, [])] == ["01_a", "03_b", "10_c"]


def test_the_page_asks_no_network_for_more_than_formulas():
    html = page(new_notebook(cells=[new_markdown_cell("$x$")]), "title")
    sources = [line for line in html.splitlines() if "<script src" in line or "<link" in line]
    assert all("mathjax" in line.lower() for line in sources)
    assert "require.min.js" not in html and "mermaid" not in html


def test_hints_stay_folded_on_the_page():
    card = new_markdown_cell("<details><summary>Hint</summary>\n\nLook.\n\n</details>")
    html = page(new_notebook(cells=[card]), "title")
    assert re.search(r"<details><summary>Hint</summary>\s*<p>Look.</p>\s*</details>", html)


def test_a_long_notebook_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("minivlm.course.run.HEARTBEAT", 0.6)
    with Watch("01_slow", cells=9) as watch:
        watch.start_cell(cell_index=3)
        time.sleep(2)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 3 and all(line.startswith("  01_slow: cell 4 of 9, ") for line in lines)


def test_an_error_of_several_lines_stays_in_its_row():
    assert table([Result("01", "cpu", "CPU", error="a|b\nc")]).splitlines()[2].endswith("| FAILED, a\\|b c |")


def test_a_figure_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="cannot report loss"):
        report(color=0.9, loss=float("nan"))
