"""What a notebook's outputs came from: a fingerprint of its code and of everything in the package that it reaches.

The files are found without running anything: those the cells import, those these import, and so on. A name taken from
an `__init__.py`, such as `minivlm.setup`, counts as the file that defines it; the `__init__.py` itself, a list of
names, does not count. To that come the checks of its exercises, found by their ids, and of the package's data (trained
weights, results, word lists) the files that any of this code names. Comments and docstrings count as well, because
lessons show source code. The text between the cells does not: it can be mended without a run.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

PACKAGE = Path(__file__).parents[1]
DATA = (".safetensors", ".json", ".txt")
_EXERCISE = re.compile(r"\bexercise\(\"(\d\d)\.")


def fingerprint(notebook: NotebookNode, package: Path = PACKAGE) -> str:
    """SHA-256 of the code cells, and of the package's files that they reach."""
    digest = hashlib.sha256()
    cells = [plain(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        digest.update(f"{cell}\n".encode())
    code = reached(cells, package)
    for lesson in sorted({number for cell in cells for number in _EXERCISE.findall(cell)}):
        code |= reached([f"import {package.name}.course.checks.l{lesson}"], package)
    sources = [path.read_text(encoding="utf-8") for path in sorted(code)]
    for source in sources:
        digest.update(source.encode())
    for path in data_named([*cells, *sources], package):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def data_named(sources: Iterable[str], package: Path = PACKAGE) -> list[Path]:
    """The package's data files that a string in these sources names: whole ("words.txt"), without its ending
    ("clip"), or, as results are by their kind, up to its last hyphen ("raw-" of raw-cpu.json)."""
    nodes = (node for source in sources for node in ast.walk(ast.parse(source)))
    told = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    files = sorted(path for path in package.rglob("*") if path.suffix in DATA)
    return [path for path in files if {path.name, path.stem, re.sub(r"[^-]+$", "", path.stem) or path.stem} & told]


def plain(source: str) -> str:
    """A code cell as plain Python: IPython's %magic and !shell lines become comments."""
    return "\n".join(f"# {line}" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n"))


def reached(sources: Iterable[str], package: Path = PACKAGE) -> set[Path]:
    """The package's modules that these sources import, directly or through one another."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        modules = {defining(name, package) for name in names_used(waiting.pop(), package.name)} - found - {None}
        found |= modules
        waiting += [path.read_text(encoding="utf-8") for path in modules]
    return found


def names_used(source: str, package: str) -> set[str]:
    """Every dotted name below `package` that a source imports or writes out: "minivlm.layers.MLP", "minivlm.setup"."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return {name for name in names if name.startswith(f"{package}.")}


def defining(name: str, package: Path) -> Path | None:
    """The file of the longest module that a dotted name begins with, looked up through an `__init__.py`'s imports."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        stem = package.parent.joinpath(*parts[:end])
        if stem.with_suffix(".py").is_file():
            return stem.with_suffix(".py")
        if (stem / "__init__.py").is_file():
            return _reexported(stem / "__init__.py", parts[end:], package)
    return None


def _reexported(init: Path, names: list[str], package: Path) -> Path | None:
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and names[:1] and names[0] in {a.asname or a.name for a in node.names}:
            return defining(f"{node.module}.{names[0]}", package)
    return None
