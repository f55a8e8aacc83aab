"""Rules for what a lesson shows: no picture without its description, no explorer without the picture it begins from."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from minivlm.course.lesson import Lesson

MIN_PREDICTIONS = 2
_EXPLORER = re.compile(r"\b(\w+_explorer)\(")


def predict_first(lesson: Lesson) -> Iterator[str]:
    count = sum(cell.source.count("**Predict first.**") for _, cell in lesson.prose)
    if count < MIN_PREDICTIONS:
        yield f"{count} questions marked **Predict first.**; ask before you show, at least {MIN_PREDICTIONS} times"


def described(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.code:
        printed = " ".join("".join(output.get("text", "") for output in cell.outputs).split())
        for output in cell.outputs:
            told = output.get("metadata", {}).get("image/png", {}).get("alt", "").split()
            if "image/png" in output.get("data", {}) and (not told or " ".join(told) not in printed):
                yield f"cell {n}: a picture without its description in words; show it with `minivlm.figures.show`"


def static_first(lesson: Lesson) -> Iterator[str]:
    shown = False
    for n, cell in lesson.code:
        found = _EXPLORER.search(cell.source)
        if found and cell.outputs and not shown:
            yield f"cell {n}: {found[1]} has no static picture in the code cell before it; show small multiples there"
        if found and cell.outputs and not any(_sentence(output) for output in cell.outputs):
            yield f"cell {n}: {found[1]} leaves no sentence for who has no kernel; make it the cell's last value"
        shown = any("image/png" in output.get("data", {}) for output in cell.outputs)


def _sentence(output: NotebookNode) -> bool:
    return output.get("data", {}).get("text/plain", "").rstrip().endswith(".")


PICTURE_RULES = (predict_first, described, static_first)
