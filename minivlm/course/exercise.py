"""Exercises: a learner's function is checked, the classic mistake is named, and the lesson goes on either way.

    loss = exercise("01.loss", contrastive_loss)
    contrastive_loss = loss.use()  # the learner's, if right, else the package's own
    loss.check()                   # prints a verdict; the cell's value is its points, nbgrader's partial credit

What the exercises of lesson NN ask for stands in `minivlm.course.checks.lNN`, imported when first needed.
"""

from __future__ import annotations

import contextlib
import io
import re
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

SOLVED, UNSOLVED, WRONG, UNSEEN = "solved", "not solved yet", "not right yet", "not checked"
PRINTED_LINES = 10  # of what the learner's function prints, so that a print in a loop hides no verdict
MESSAGE_LENGTH = 300


class Mistake(Exception):
    """What is wrong with an answer, in a sentence for the learner that names the classic mistake."""


@dataclass(frozen=True)
class ExerciseSpec:
    """What an exercise asks for. `check` is given the learner's function and raises `Mistake` if it is not right;
    `reference` answers correctly, and stands in for an answer that is not there yet."""

    title: str
    points: int
    reference: Callable
    check: Callable[[Callable], None]


@dataclass(frozen=True)
class Verdict:
    """What became of an answer: its state, what there is to say about it, and what it printed."""

    state: str
    message: str = ""
    printed: str = ""


_verdicts: dict[str, Verdict] = {}  # of this kernel: the last one of every exercise met


def exercise(id: str, fn: object) -> Exercise:
    """The exercise `id` ("01.loss") with a learner's function for it. ValueError for an id that no lesson has."""
    from minivlm.course.checks import exercises_of, known_ids

    specs = exercises_of(id.partition(".")[0])
    if id not in specs:
        near = get_close_matches(id, known_ids(), n=3, cutoff=0.4) or known_ids()
        raise ValueError(f"no exercise {id!r}; did you mean {' or '.join(near)}?")
    return Exercise(id, specs[id], fn)


class Exercise:
    """A learner's function beside what is asked for; judged once, when first looked at."""

    def __init__(self, id: str, spec: ExerciseSpec, fn: object):
        self.id, self.spec, self.fn = id, spec, fn

    def check(self) -> int:
        """Print the verdict; returns the points earned. Raises nothing, whatever the learner's function does."""
        verdict, points = self._verdict, self.spec.points
        earned = points if verdict.state == SOLVED else 0
        if verdict.printed:
            print(verdict.printed)
        print(f"{self.id}: {verdict.state}, {earned} of {points} points. {verdict.message}".rstrip())
        return earned

    def use(self) -> Callable:
        """The learner's function if it passes, else the package's own, with a notice."""
        if self._verdict.state == SOLVED:
            return self.fn
        print(f"{self.id}: {self._verdict.state}, so the lesson goes on with the package's own function.")
        return self.spec.reference

    @cached_property
    def _verdict(self) -> Verdict:
        if self.fn is self.spec.reference:  # what `use` gave: the cell runs again, or its learner took a short cut
            own = Verdict(UNSOLVED, "This is the package's own function; run the cell with yours again.")
            return _verdicts.setdefault(self.id, own)
        _verdicts[self.id] = judge(self.spec, self.fn)
        return _verdicts[self.id]


def judge(spec: ExerciseSpec, fn: object) -> Verdict:
    """Try a learner's function, whatever it does. Only an interrupt (Ctrl-C) gets through."""
    if not callable(fn):
        return Verdict(WRONG, f"The answer must be a function, got {type(fn).__name__}.")
    said = io.StringIO()
    try:
        with _undisturbed(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            spec.check(_guarded(fn))
        state, message = SOLVED, ""
    except Mistake as mistake:
        state, message = WRONG, str(mistake)
    except (Exception, SystemExit) as error:
        state, message = _described(error, fn)
    return Verdict(state, message, _shortened(said.getvalue()))


@contextlib.contextmanager
def _undisturbed():
    """Whatever happens in here leaves the lesson's chance and its gradient mode as they were."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        yield


def _guarded(fn: Callable) -> Callable:
    """`fn` on copies of its inputs; raises Mistake if it changes them, or gives nothing back."""

    def call(*inputs: object) -> object:
        copies = [_copied(value) for value in inputs]
        given = fn(*copies)
        if not all(_same(value, copied) for value, copied in zip(inputs, copies, strict=True)):
            raise Mistake("It changes its inputs in place: whoever called it still needs them. Make new tensors.")
        if given is None:
            raise Mistake("It returned nothing (None): is there a `return`?")
        return given

    return call


def _copied(value: object) -> object:
    """A copy of what can be changed in place. Other objects, such as tokenizers, are handed on."""
    import torch

    return deepcopy(value) if isinstance(value, (torch.Tensor, list, dict)) else value


def _same(value: object, other: object) -> bool:
    import torch

    if isinstance(value, torch.Tensor):
        return value.shape == other.shape and torch.equal(value, other)
    if isinstance(value, (list, tuple)):
        return len(value) == len(other) and all(map(_same, value, other))
    return value is other or value == other


def _described(error: BaseException, fn: Callable) -> tuple[str, str]:
    """State and message for an exception: its type, its words, and the learner's line that it came from."""
    told = traceback.TracebackException.from_exception(error)
    file = getattr(getattr(fn, "__code__", None), "co_filename", None)
    theirs = [frame for frame in told.stack if frame.filename == file]
    if isinstance(error, NotImplementedError) and theirs and theirs[-1] is told.stack[-1]:
        return UNSOLVED, "Write your answer in the cell above; the card has three hints."
    if isinstance(error, RecursionError):
        return WRONG, "It calls itself without end (RecursionError)."
    words = re.sub(r"0x[0-9a-fA-F]+", "0x...", " ".join("".join(told.format_exception_only()).split()))
    where = f" In line {theirs[-1].lineno} of its cell: `{theirs[-1].line}`" if theirs else ""
    return WRONG, f"It failed with {words[:MESSAGE_LENGTH]}.{where}"


def _shortened(printed: str) -> str:
    lines = printed.rstrip().split("\n")
    if len(lines) > PRINTED_LINES:
        lines[PRINTED_LINES:] = [f"... and {len(lines) - PRINTED_LINES} more lines"]
    return "\n".join(line[:MESSAGE_LENGTH] for line in lines)


def progress() -> None:
    """Print what became of every exercise of the lessons that this kernel has met."""
    from minivlm.course.checks import exercises_of

    lessons = sorted({id.partition(".")[0] for id in _verdicts})
    specs = {id: spec for lesson in lessons for id, spec in exercises_of(lesson).items()}
    if not specs:
        print("No exercise was checked yet: run the check cells of this lesson first.")
        return
    states = {id: _verdicts[id].state if id in _verdicts else UNSEEN for id in specs}
    earned = {id: spec.points if states[id] == SOLVED else 0 for id, spec in specs.items()}
    total = f"{sum(earned.values())} of {sum(spec.points for spec in specs.values())}"
    rows = [("exercise", "title", "state", "points")]
    rows += [(id, spec.title, states[id], f"{earned[id]} of {spec.points}") for id, spec in specs.items()]
    rows += [("total", "", "", total)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
