"""The pages that are made of the package: the table of designs, a page for each with its equations beside their source,
and one for what they share."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import nbformat

from minivlm.budget import Budget, budget
from minivlm.designs import DESIGNS, PRESETS, build
from minivlm.site.equations import EQUATIONS, SHARED, Equation

INDEX = """# Designs

Every design that the package builds, in the sizes of its published system: counted, not typed. Each has a page, with
its equations beside the source that computes them, its costs, and the lessons that use it.

{table}

Attention, MLPs and blocks, and how visual tokens stand among words: [what designs share](shared.md).

```{{toctree}}
:hidden:

shared
{names}
```
"""
SYMBOLS = """**Symbols.** Rows are vectors. N patches become K visual tokens; X (N rows) are the encoder's features, Z
(K rows) the visual tokens. A text has T ids, the whole sequence L places. D is the decoder's width, D_v that of the
features, d that of a head; H counts heads. [Attn, MLP, GatedMLP and blocks](shared.md) are what all designs share."""
TABLE = ("design", "year", "vision", "connector", "fusion", "visual tokens", "picture", "weights", "paper")
COSTS = ("", "picture", "visual tokens", "vision", "connector", "fusion", "language", "KV cache")
COUNTED = """Weights by part, and what is kept of one picture and 64 words in 16 bits. "mini" is the controlled setting,
in which only the design differs."""


def design_pages(lessons: Sequence[Path]) -> dict[str, str]:
    """The text of each page (Markdown, as MyST reads it), by its name. `lessons` are the notebooks that pages of
    designs lead to."""
    used = {path.stem: nbformat.read(path, as_version=4) for path in lessons}
    titles = {name: notebook.cells[0].source.splitlines()[0].removeprefix("# ") for name, notebook in used.items()}
    codes = {name: _code(notebook) for name, notebook in used.items()}
    costs = {name: [budget(name, preset) for preset in PRESETS] for name in DESIGNS if DESIGNS[name].answers}
    table = _table(TABLE, (_row(name, costs.get(name)) for name in DESIGNS), numbers=(1, 5, 6, 7))
    pages = {"index": INDEX.format(table=table, names="\n".join(DESIGNS))}
    pages["shared"] = _page("What designs share", "", SHARED)
    for name, design in DESIGNS.items():
        where = [f"[{titles[page]}](../lessons/{page}.ipynb)" for page in used if _uses(codes[page], name)]
        pages[name] = _page(design.title, _about(name, costs.get(name), where), EQUATIONS[name])
    return pages


def _code(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def _uses(code: str, name: str) -> bool:
    return re.search(rf"[\"']{name}[\"']", code) is not None


def _row(name: str, costs: Sequence[Budget] | None) -> tuple[str, ...]:
    design = DESIGNS[name]
    if costs:
        cost = costs[PRESETS.index("published")]
        tokens, picture, weights = f"{cost.visual_tokens:,}", _pixels(cost.image_size), sum(cost.weights.values())
    else:
        tokens, picture = "one vector", "-"
        weights = sum(weight.numel() for weight in build(name, "published", "meta").parameters())
    said = (str(design.year), design.vision, design.connector, design.fusion)
    return (f"[{design.title}]({name}.md)", *said, tokens, picture, _count(weights), _paper(name))


def _about(name: str, costs: Sequence[Budget] | None, lessons: Sequence[str]) -> str:
    design = DESIGNS[name]
    answers = f"**vision** {design.vision} · **connector** {design.connector} · **fusion** {design.fusion}"
    parts = [f"`{name}` · {design.year} · {_paper(name)}", answers]
    if costs:
        parts += [_table(COSTS, map(_costs, costs), numbers=range(1, len(COSTS))), COUNTED]
    if lessons:
        parts.append(f"Lessons: {'; '.join(lessons)}")
    return "\n\n".join(parts)


def _costs(cost: Budget) -> tuple[str, ...]:
    weights = [_count(cost.weights.get(part, 0)) for part in COSTS[3:7]]
    kept = f"{cost.cache_bytes / 2**20:,.3g}\N{NO-BREAK SPACE}MiB"
    return (cost.preset, _pixels(cost.image_size), f"{cost.visual_tokens:,}", *weights, kept)


def _paper(name: str) -> str:
    paper = DESIGNS[name].paper
    return f"[{paper}](https://{paper.replace('arXiv:', 'arxiv.org/abs/')})"


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _count(weights: int) -> str:
    """As "7.06 B", "21.0 M" or "33 k"; "-" for none."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if weights >= size:
            return f"{weights / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return str(weights or "-")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int]) -> str:
    """`numbers`: which columns have numbers, written to the right."""
    right = set(numbers)
    lines = [head, ["---:" if column in right else "---" for column in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _page(title: str, about: str, equations: Sequence[Equation]) -> str:
    """A page without a table of contents at its side: equations and source need the room."""
    steps = "\n\n".join(map(_beside, equations))
    return f"---\nhide-toc: true\n---\n\n# {title}\n\n{about}\n\n{steps}\n\n{SYMBOLS}\n"


def _beside(equation: Equation) -> str:
    told = f"{equation.says}\n\n```{{math}}\n{equation.math}\n```"
    shown = "\n\n".join(map(_source, equation.code))
    halves = (f"::::{{container}} {name}\n{text}\n::::" for name, text in (("told", told), ("shown", shown)))
    return "\n".join([":::::{container} beside", *halves, ":::::"])


def _source(thing: type | Callable) -> str:
    lines, first = inspect.getsourcelines(thing)
    file = inspect.getmodule(thing).__name__.replace(".", "/")
    caption = f"{thing.__qualname__} in {file}.py, line {first}"
    return f"```{{code-block}} python\n:caption: {caption}\n\n{textwrap.dedent(''.join(lines)).rstrip()}\n```"
