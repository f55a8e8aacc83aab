"""The contract of a lesson, rule by rule: `python -m minivlm.course.lint [NOTEBOOK ...]`.

A rule is a function from a lesson to messages, each of which names the cell and the remedy. A lesson reads:

    # Title                       with objectives (3-5 bullets), prerequisites and the line of measured times
    import minivlm                the set-up cell, among the first four
    minivlm.setup()
    ## Sections                   of at most 12 cells
    ## What you should see, ## Break it, ## Recap, ## Quiz, ## References, ## Next
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from nbformat import v4

from minivlm.course.exercise_rules import EXERCISE_RULES
from minivlm.course.lesson import Lesson, texts
from minivlm.course.picture_rules import PICTURE_RULES
from minivlm.course.provenance import fingerprint
from minivlm.course.times import MARKER, time_line

MAX_BYTES, MAX_CELLS, MAX_WORDS, MAX_SECTION, MAX_LINES = 1_000_000, 60, 3500, 12, 30
ENDING = ("What you should see", "Break it", "Recap", "Quiz", "References", "Next")
COMMIT = "run `python -m minivlm.course.run --commit --scale cpu --nb {}`"

_ABSOLUTE = re.compile(r"(?<![\w.:/<>~+-])/[A-Za-z][\w.-]*/[\w.-]+|\b[A-Z]:\\\w+\\\w+")
_WALL_TIME = re.compile(r"\b\d+(?:\.\d+)? ?(?:s|ms|sec|secs|seconds|min|minutes|it/s|samples/s|images/s)\b")
_SET_UP = (r"^\s*import minivlm$", r"^\s*(?:\w+ = )?minivlm\.setup\(")
_INSTALL = re.compile(r"^\s*(?:[!%]|(?:subprocess|os\.system)\b.*\binstall\b)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_REMOTE = ("http://", "https://", "mailto:", "#", "attachment:", "data:")


def title(lesson: Lesson) -> Iterator[str]:
    if not lesson.opening.lstrip().startswith("# "):
        yield "cell 1: begin with `# Title`"


def objectives(lesson: Lesson) -> Iterator[str]:
    found = re.search(r"^(?:#+ |\*\*)Objectives.*\n((?:\s*\n|[-*] .*\n?|\s+\S.*\n?)*)", lesson.opening, re.MULTILINE)
    count = len(re.findall(r"^[-*] ", found[1], re.MULTILINE)) if found else 0
    if not 3 <= count <= 5:
        yield f"cell 1: list 3 to 5 bullets under **Objectives**, each beginning with a verb; there are {count}"


def prerequisites(lesson: Lesson) -> Iterator[str]:
    if not re.search(r"^(?:#+ |\*\*)Prerequisites", lesson.opening, re.MULTILINE):
        yield "cell 1: add **Prerequisites** with links to earlier lessons, or the word none"


def measured_time(lesson: Lesson) -> Iterator[str]:
    marked = [line for line in lesson.opening.split("\n") if MARKER in line]
    if marked != [time_line(lesson.path)]:
        remedy = COMMIT.format(lesson.path.stem[:2])
        yield f"cell 1: one line with `{MARKER}` must agree with times.json; write the marker, then {remedy}"


def set_up(lesson: Lesson) -> Iterator[str]:
    number, cell = lesson.code[0] if lesson.code else (0, None)
    statements = cell.source.replace(";", "\n") if cell else ""
    if number > 4 or not all(re.search(pattern, statements, re.MULTILINE) for pattern in _SET_UP):
        yield "cell 2: the first code cell, among the first four cells, must be `import minivlm` and `minivlm.setup()`"


def no_installs(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.code:
        if found := _INSTALL.search(cell.source):
            yield f"cell {n}: `{found[0].strip()}` runs a shell or a magic; remove it, a lesson installs nothing"


def section_length(lesson: Lesson) -> Iterator[str]:
    section, count = "the opening", 0
    sections = []
    for _, cell in lesson.cells:
        heading = re.search(r"^## +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            sections.append((section, count))
            section, count = heading[1], 0
        count += 1
    for name, cells in [*sections, (section, count)]:
        if cells > MAX_SECTION:
            yield f"section '{name}' has {cells} cells; split it, {MAX_SECTION} is the most"


def size(lesson: Lesson) -> Iterator[str]:
    cells, bytes_ = len(lesson.notebook.cells), lesson.path.stat().st_size
    words = sum(len(cell.source.split()) for _, cell in lesson.prose)
    if cells > MAX_CELLS:
        yield f"{cells} cells; shorten it, {MAX_CELLS} is the most"
    if bytes_ > MAX_BYTES:
        yield f"{bytes_ / 1e6:.2f} MB; draw fewer or smaller pictures, {MAX_BYTES / 1e6:.0f} MB is the most"
    if words > MAX_WORDS:
        yield f"{words} words of text; shorten it, {MAX_WORDS} is the most"


def cell_length(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.code:
        lines = len(cell.source.strip().split("\n"))
        if lines > MAX_LINES:
            yield f"cell {n}: {lines} lines of code; split it or move code to the package, {MAX_LINES} is the most"


def cell_ids(lesson: Lesson) -> Iterator[str]:
    seen: set[str] = set()
    for n, cell in lesson.cells:
        if not cell.get("id") or cell.id in seen:
            yield f"cell {n}: no id, or one that another cell has; give it a short unique id"
        seen.add(cell.get("id", ""))


def no_absolute_paths(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.cells:
        for text in [cell.source, *texts(cell)]:
            if found := _ABSOLUTE.search(text):
                yield f"cell {n}: {found[0]} is the path of one machine; make it relative, or do not print it"


def no_wall_times(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.code:
        for text in texts(cell):
            if found := _WALL_TIME.search(text):
                yield f"cell {n}: the output says '{found[0]}', which changes with every run; do not print times"


def no_widget_state(lesson: Lesson) -> Iterator[str]:
    if "widgets" in lesson.notebook.metadata:
        yield f"metadata.widgets keeps GitHub from showing the notebook; {COMMIT.format(lesson.path.stem[:2])}"


def execution_counts(lesson: Lesson) -> Iterator[str]:
    counts = [cell.execution_count for _, cell in lesson.code if cell.source.strip()]
    if any(counts) and counts != list(range(1, len(counts) + 1)):
        yield f"execution counts {counts} are not 1..{len(counts)}; {COMMIT.format(lesson.path.stem[:2])}"


def no_errors(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {n}: failed with {output.ename}: {output.evalue}; mend it and run the notebook again"


def ending(lesson: Lesson) -> Iterator[str]:
    found = [h for h, _ in groupby(name for h in lesson.headings for name in ENDING if h.startswith(name))]
    if found != list(ENDING):
        yield f"end with the sections {', '.join(ENDING)}, in this order; found: {', '.join(found) or 'none'}"


def quiz(lesson: Lesson) -> Iterator[str]:
    text = "\n".join(cell.source for _, cell in lesson.prose)
    part = re.search(r"^## +Quiz.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    count = part[0].count("<details>") if part else 0
    if count != 3:
        yield f"section 'Quiz': 3 questions with the explanation of each in <details>; there are {count}"


def links(lesson: Lesson) -> Iterator[str]:
    for n, cell in lesson.prose:
        for target in relative_links(cell.source):
            if not (lesson.path.parent / target).exists():
                yield f"cell {n}: the link to {target} leads nowhere; correct it"


def relative_links(markdown: str) -> list[str]:
    """The files that Markdown or HTML text links to, without the anchors in them."""
    targets = [a or b for a, b in _LINK.findall(markdown)]
    return [unquote(target.partition("#")[0]) for target in targets if not target.startswith(_REMOTE)]


def fresh(lesson: Lesson) -> Iterator[str]:
    stored = lesson.notebook.metadata.get("minivlm", {}).get("source_hash")
    if stored != fingerprint(lesson.notebook):
        why = "come from other code than the notebook and the package hold now" if stored else "were never committed"
        yield f"stale: the outputs {why}; {COMMIT.format(lesson.path.stem[:2])}"


RULES: tuple[Callable[[Lesson], Iterator[str]], ...] = (
    title, objectives, prerequisites, measured_time, set_up, no_installs, section_length, size, cell_length, cell_ids,
    no_absolute_paths, no_wall_times, no_widget_state, execution_counts, no_errors, ending, quiz, links, fresh,
    *PICTURE_RULES,
)  # fmt: skip


def lint(path: Path) -> list[str]:
    """Every breach of the contract in one notebook; empty if it keeps it."""
    try:
        notebook = v4.reads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        return [f"{path.name}: not a notebook of format 4: {error}"]
    lesson = Lesson(path, notebook)
    return [f"{path.name}: {message}" for rule in (*RULES, *EXERCISE_RULES) for message in rule(lesson)]


def main(words: Sequence[str]) -> int:
    paths = [Path(word) for word in words] or sorted(Path("notebooks").glob("*.ipynb"))
    messages = [message for path in paths for message in lint(path)]
    print("\n".join(messages) or f"{len(paths)} notebooks keep the contract")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
