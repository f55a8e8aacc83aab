"""A lesson as it lies on disk, for those who read it: the contract's rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode


@dataclass(frozen=True)
class Lesson:
    """A notebook as it lies on disk: nothing is repaired while reading. Cells count from 1."""

    path: Path
    notebook: NotebookNode

    @property
    def cells(self) -> list[tuple[int, NotebookNode]]:
        return list(enumerate(self.notebook.cells, 1))

    @property
    def code(self) -> list[tuple[int, NotebookNode]]:
        return [(n, cell) for n, cell in self.cells if cell.cell_type == "code"]

    @property
    def prose(self) -> list[tuple[int, NotebookNode]]:
        return [(n, cell) for n, cell in self.cells if cell.cell_type == "markdown"]

    @property
    def opening(self) -> str:
        """The markdown before the first code cell."""
        first = self.code[0][0] if self.code else len(self.notebook.cells) + 1
        return "\n".join(cell.source for n, cell in self.prose if n < first)

    @property
    def headings(self) -> list[str]:
        """Headings of the second level."""
        return [h.strip() for _, cell in self.prose for h in re.findall(r"^## +(.+)$", cell.source, re.MULTILINE)]


def texts(cell: NotebookNode) -> Iterator[str]:
    """What the outputs of a cell say in words."""
    for output in cell.get("outputs", []):
        yield from ([output.text] if output.output_type == "stream" else [])
        for mime in ("text/plain", "text/html", "text/markdown"):
            yield from ([output.data[mime]] if mime in output.get("data", {}) else [])
