"""Exercises judged as a class would try them: right, not yet, wrong in the classic ways, and wild."""

from __future__ import annotations

import ast
import linecache
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import tiny
import torch
import torch.nn.functional as F

from minivlm.attention import attend
from minivlm.batch import IGNORE, Batch
from minivlm.connectors.projection import MLPProjection
from minivlm.course import exercise, progress
from minivlm.course.checks import exercises_of, known_ids
from minivlm.course.instructor import messages_of
from minivlm.course.student import duty, without_solution
from minivlm.language.tokenizer import mini_tokenizer

TESTS = Path(__file__).parent
PLANTED = {
    id: wrong for path in sorted(TESTS.glob("planted_*.py")) for id, wrong in import_module(path.stem).MISTAKES.items()
}
CASES = [(id, *case) for id, cases in PLANTED.items() for case in cases]


@pytest.fixture(autouse=True)
def fresh_kernel(monkeypatch):
    """As in a kernel just started: no exercise was met."""
    monkeypatch.setattr(sys.modules["minivlm.course.exercise"], "_verdicts", {})


def answer(source: str, names: dict | None = None) -> Callable:
    """The last function of a cell, as the kernel would define it: with its source at hand for tracebacks."""
    name, file = ast.parse(source).body[-1].name, f"<cell {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space = {"torch": torch} | (names or {})
    exec(compile(source, file, "exec"), space)
    return space[name]


@cache
def written(id: str) -> tuple[str, str, dict]:
    """The answer's cell of an exercise: the student's stub, the notebook's solution, and the names imported before."""
    (path,) = (TESTS.parent / "notebooks").glob(f"{id[:2]}_*.ipynb")
    names: dict = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == id.replace(".", "-"):
            return without_solution(cell), cell.source, names
        if cell.cell_type == "code":
            imports = [node for node in ast.parse(cell.source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
            exec(compile(ast.Module(imports, []), str(path), "exec"), names)
    raise AssertionError(f"{path.name} has no exercise {id}")


@pytest.mark.parametrize("id", known_ids())
def test_the_solution_of_the_notebook_passes_and_is_used(id, capsys):
    _, source, names = written(id)
    solution, spec = answer(source, names), exercises_of(id[:2])[id]
    asked = exercise(id, solution)
    assert asked.use() is solution and capsys.readouterr().out == ""
    assert asked.check() == spec.points
    assert capsys.readouterr().out == f"{id}: solved, {spec.points} of {spec.points} points.\n"


@pytest.mark.parametrize("id", known_ids())
def test_the_stub_is_not_solved_yet_and_the_lesson_goes_on(id, capsys):
    stub, _, names = written(id)
    asked, spec = exercise(id, answer(stub, names)), exercises_of(id[:2])[id]
    assert asked.use() is spec.reference
    assert capsys.readouterr().out == f"{id}: not solved yet, so the lesson goes on with the package's own function.\n"
    assert asked.check() == 0
    assert f"{id}: not solved yet, 0 of {spec.points} points. Write" in capsys.readouterr().out


@pytest.mark.parametrize("id, source, message", CASES, ids=[f"{id}-{message}" for id, _, message in CASES])
def test_a_planted_mistake_is_named(id, source, message, capsys):
    asked, spec = exercise(id, answer(source)), exercises_of(id[:2])[id]
    assert asked.check() == 0
    told = capsys.readouterr().out
    assert re.search(message, told) and told.startswith(f"{id}: not right yet, 0 of {spec.points} points. "), told
    assert asked.use() is spec.reference


def test_every_exercise_has_planted_mistakes():
    assert set(PLANTED) == set(known_ids())
    assert all(len(cases) >= 2 for cases in PLANTED.values())


@pytest.mark.parametrize("id", known_ids())
def test_the_teacher_is_told_what_a_check_can_say(id, capsys):
    """Every message that a planted mistake brings up, if it is a fixed sentence, is in the teacher's list."""
    listed = messages_of(exercises_of(id[:2])[id].check)
    found = [any(re.search(message, sentence) for sentence in listed) for _, message in PLANTED[id]]
    assert len(listed) >= 2 and sum(found) >= 2


def wild(does: Callable) -> Callable:
    return lambda image, text, scale: does(image, text, scale)


def noisy(image, text, scale):
    for i in range(50):
        print("looking at", i)
    print("a warning", file=sys.stderr)
    raise KeyError("lost")


def endless(image, text, scale):
    return endless(image, text, scale)


def stops(image, text, scale):
    sys.exit("bye")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def unspeakable(image, text, scale):
    raise Unspeakable


WILD = {
    "no function": (7, r"must be a function, got int\."),
    "nothing": (wild(lambda *_: None), r"returned nothing \(None\): is there a `return`"),
    "a wrong type": (wild(lambda *_: "0.5"), "must return a tensor, got str"),
    "a wrong shape": (wild(lambda i, t, s: i @ t.T), r"must have shape \(\), got \(5, 5\)"),
    "whole numbers": (wild(lambda i, t, s: torch.tensor(2)), "must be of type torch.float32, got torch.int64"),
    "NaN": (wild(lambda i, t, s: s * torch.nan), "1 of 1 numbers are wrong"),
    "in place": (wild(lambda i, t, s: i.mul_(0).sum()), "changes its inputs in place"),
    "another number of inputs": (lambda image: image, "It failed with TypeError: .* takes 1 positional argument"),
    "an exception": (noisy, r"It failed with KeyError: 'lost'\. In line \d+ of its cell: `raise KeyError\(.lost.\)`"),
    "an exception without words": (unspeakable, "It failed with .*Unspeakable"),
    "an exception of torch": (wild(lambda i, t, s: i @ t), "It failed with RuntimeError: .* `.*i @ t"),
    "no end": (endless, "calls itself without end"),
    "an exit": (stops, "It failed with SystemExit: bye"),
    "something unfinished of torch": (wild(lambda i, t, s: i.new_empty(2, device="meta").sum()), "It failed with"),
}


@pytest.mark.parametrize("name", WILD)
def test_a_wild_answer_never_stops_the_lesson(name, capfd):
    fn, message = WILD[name]
    asked = exercise("01.loss", fn)
    assert asked.check() == 0
    told = capfd.readouterr()
    assert told.err == "" and re.search(message, told.out), told
    assert asked.use() is exercises_of("01")["01.loss"].reference


def test_what_an_answer_prints_is_shown_shortened_and_before_the_verdict(capsys):
    exercise("01.loss", noisy).check()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "looking at 0" and lines[9] == "looking at 9"
    assert lines[10].startswith("... and ") and lines[11].startswith("01.loss: not right yet") and len(lines) == 12


def test_an_interrupt_gets_through():
    def interrupted(image, text, scale):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercise("01.loss", interrupted).check()


def test_a_check_leaves_the_chance_and_the_gradients_of_the_lesson_alone():
    def random(image, text, scale):
        torch.manual_seed(1)
        return torch.randn(())

    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.no_grad():
        exercise("01.loss", random).check()
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def half(image, text, scale):
    return F.cross_entropy(scale * image @ text.T, torch.arange(len(image)))


def run_check_cell(fn: object, capsys) -> tuple[object, str]:
    """The check cell of the notebooks; what is in the name afterwards, and what was printed."""
    loss = exercise("01.loss", fn)
    fn = loss.use()
    print(loss.check())
    return fn, capsys.readouterr().out


def test_a_check_cell_run_again_says_the_same_and_earns_no_points(capsys):
    """After the first run the name holds the package's own function: that must not count as the learner's."""
    name, first = run_check_cell(half, capsys)
    name, second = run_check_cell(name, capsys)
    assert first == second and "One direction only" in first and first.endswith("\n0\n")


def test_the_packages_own_function_is_no_answer(capsys):
    assert exercise("01.loss", exercises_of("01")["01.loss"].reference).check() == 0
    assert "This is the package's own function" in capsys.readouterr().out


def test_an_answer_can_be_mended(capsys):
    run_check_cell(half, capsys)
    _, source, names = written("01.loss")
    assert exercise("01.loss", answer(source, names)).check() == 3
    capsys.readouterr()
    progress()
    assert re.search(r"01\.loss +The loss of CLIP +solved +3 of 3\n", capsys.readouterr().out)


def test_progress_is_a_table_of_the_lessons_met(capsys):
    exercise("01.loss", half).check()
    _, source, names = written("01.zero_shot")
    exercise("01.zero_shot", answer(source, names)).use()
    capsys.readouterr()
    progress()
    assert capsys.readouterr().out == (
        "exercise      title                      state          points\n"
        "01.attention  Attention, in five lines   not checked    0 of 3\n"
        "01.loss       The loss of CLIP           not right yet  0 of 3\n"
        "01.zero_shot  Naming with many captions  solved         2 of 2\n"
        "total                                                   2 of 8\n"
    )


def test_progress_before_any_check_says_so(capsys):
    progress()
    assert "No exercise was checked yet" in capsys.readouterr().out


@pytest.mark.parametrize("id, near", [("01.los", "01.loss"), ("1.loss", "01.loss"), ("99.merge", "03.merge")])
def test_an_unknown_id_is_refused_with_the_near_ones(id, near):
    with pytest.raises(ValueError, match=rf"no exercise {id!r}; did you mean {re.escape(near)}") as refused:
        exercise(id, half)
    assert str(refused.value).count(" or ") <= 2


@pytest.mark.parametrize("id", ["", "../../x"])
def test_an_id_near_to_none_is_refused_with_all(id):
    with pytest.raises(ValueError, match=re.escape(" or ".join(known_ids()))):
        exercise(id, half)


def test_importing_the_course_is_cheap():
    """Only what a lesson imports anyway: no checks, no notebook machinery."""
    code = "import sys, minivlm.course; print(sorted(sys.modules))"
    done = subprocess.run(**tiny.command("-c", code), capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert "minivlm.course.exercise" in loaded
    assert not [
        name for name in loaded if name.startswith(("minivlm.course.checks", "nbformat", "nbclient", "IPython"))
    ]


def test_the_reference_of_attention_is_the_packages():
    q, k, v = torch.randn(3, 2, 2, 5, 8).unbind()
    for causal in (False, True):
        explicit, _ = attend(q, k, v, is_causal=causal, explicit=True)
        torch.testing.assert_close(exercises_of("01")["01.attention"].reference(q, k, v, causal), explicit)


def test_the_reference_of_the_projection_is_the_packages():
    torch.manual_seed(0)
    connector, features = MLPProjection().build(8, 6, (1, 5)), torch.randn(2, 5, 8)
    given = exercises_of("03")["03.projection"].reference(features, *connector.parameters())
    torch.testing.assert_close(given, connector(features))


def test_the_reference_of_zero_shot_is_near_the_truth():
    """Four classes far apart, their captions close together: every picture of a class gets it."""
    centres = torch.eye(4)
    prompts = [F.normalize(centre + 0.1 * torch.randn(count, 4), dim=-1) for count, centre in enumerate(centres, 2)]
    given = exercises_of("01")["01.zero_shot"].reference(centres, prompts)
    assert given.tolist() == [0, 1, 2, 3]


def test_the_reference_of_merge_puts_the_picture_in_place():
    words, visual = torch.randn(4, 3), torch.randn(2, 3)
    row = exercises_of("03")["03.merge"].reference(words, torch.tensor([5, 3, 6, 7]), visual, 3)
    assert torch.equal(row, torch.cat([words[:1], visual, words[2:]]))


def test_the_reference_of_labels_learns_answers_and_their_ends():
    tokenizer = mini_tokenizer()
    red, top = tokenizer.encode("red"), tokenizer.encode("top left")
    dialog = [("where ?", "top left"), ("what color ?", "red")]
    given = exercises_of("03")["03.labels"].reference(tokenizer, dialog)
    asked = [[IGNORE] * len(tokenizer.encode(question)) for question, _ in dialog]
    end = [tokenizer.eos_id]
    assert given == [IGNORE, IGNORE, *asked[0], *top, *end, *asked[1], *red, *end]
    batch = Batch.pack(tokenizer, [dialog], images=torch.zeros(1, 1, 3, 8, 8))
    assert given == batch.labels[0].tolist() and len(given) == batch.input_ids.shape[1]


def test_every_exercise_of_a_notebook_is_known():
    for path in (TESTS.parent / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        held = {cell.metadata.nbgrader.grade_id for cell in cells if duty(cell) == "solution"}
        assert held == {id.replace(".", "-") for id in exercises_of(path.name[:2])}, path.name
