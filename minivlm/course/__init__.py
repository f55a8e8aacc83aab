"""The course's machinery: exercises, a lesson's headline figures, running the lessons, and the contract they keep."""

import inspect
import math

from minivlm.course.exercise import ExerciseSpec, Mistake, exercise, progress

__all__ = ["RESULT_MIME", "ExerciseSpec", "Mistake", "describe", "exercise", "progress", "report", "source"]

RESULT_MIME = "application/vnd.minivlm.result+json"


def report(**figures: float) -> None:
    """Display a lesson's headline figures, for its reader and for the table of `make run`: `report(color=0.93)`.

    Raises ValueError for a figure that is not finite, since JSON, and so the notebook, cannot hold it.
    """
    from IPython.display import display

    values = {name: float(value) for name, value in figures.items()}
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"cannot report {', '.join(bad)}: not a finite number")
    display({RESULT_MIME: values, "text/plain": describe(values)}, raw=True)


def source(thing: object) -> None:
    """Display the package's own source of a class or function, so that a lesson never holds a copy of it."""
    from IPython.display import Markdown, display

    where = inspect.getmodule(thing).__name__
    display(Markdown(f"From `{where}`:\n\n```python\n{inspect.getsource(thing).rstrip()}\n```"))


def describe(figures: dict[str, float]) -> str:
    """Figures on one line: "color 0.93, shape 0.9"."""
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
