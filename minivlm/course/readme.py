"""The parts of the README that are made, not typed: `python -m minivlm.course.readme` writes them again.

The table of designs is counted by `budget`; those of results hold the runs that come with the package; the table of
lessons is read from the notebooks' committed outputs and `times.json`; the picture is drawn from the bundled model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat

from minivlm.bench.report import bench_table, bundled_bench
from minivlm.budget import budget
from minivlm.comparison import bundled_comparison
from minivlm.course import RESULT_MIME
from minivlm.course.times import cost, read
from minivlm.depth import bundled_depths, depths_table
from minivlm.designs import DESIGNS
from minivlm.ground import bundled_grounding, grounding_table
from minivlm.hear import bundled_hear, hear_table
from minivlm.raw import bundled_raw
from minivlm.raw import table as raw_table
from minivlm.reading import bundled_readings, readings_table
from minivlm.shots import COUNTS, bundled_shots
from minivlm.smol import bundled_smol, smol_table
from minivlm.tables import BLIND, Kind, Result, bundled_results, setting, table
from minivlm.watch import bundled_watching, watching_table

README = Path("README.md")
PICTURE = Path("notebooks/token_strip.png")


def designs_table() -> str:
    """Every design with what its published system hands to the decoder, as Markdown."""
    head = ("name", "system", "connector", "fusion", "visual tokens", "connector weights", "fusion weights")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, design in DESIGNS.items():
        counted = "one vector a picture | - | -"
        if design.answers:
            cost = budget(name)
            height, width = cost.image_size
            parts = [cost.weights.get(part, 0) for part in ("connector", "fusion")]
            weights = " | ".join(f"{count / 1e6:,.1f} M" if count else "-" for count in parts)
            counted = f"{cost.visual_tokens:,} ({height}x{width}) | {weights}"
        place = design.paper.replace("arXiv:", "arxiv.org/abs/")
        system = f"[{design.title}](https://{place}) ({design.year})"
        lines.append(f"| `{name}` | {system} | {design.connector} | {design.fusion} | {counted} |")
    return "\n".join(lines)


def connectors_table() -> str:
    """What the bundled runs of connectors found, all interleaved and their decoders tuned, as Markdown."""
    return with_setting(table, [run for run in bundled_results() if run.design == BLIND or _of_connectors(run)])


def fusions_table() -> str:
    """What the other bundled runs found, of fusions, and of decoders frozen, adapted and tuned, as Markdown."""
    return with_setting(table, [run for run in bundled_results() if not _of_connectors(run)])


def _of_connectors(run: Result) -> bool:
    return run.language == "tuned" and run.design in DESIGNS and DESIGNS[run.design].fusion == "interleaved"


def with_setting(shown: Callable[[Sequence[Kind]], str], results: Sequence[Kind]) -> str:
    """Results as the table `shown` of them, and the setting they were made in."""
    return f"{shown(results)}\n\n{setting(results)}." if results else "Not yet measured."


def shots_table() -> str:
    """What the bundled runs of few shots found, as Markdown."""
    head = f"| design | tokens | seed | asked for | shown in | {' | '.join(f'{count} shots' for count in COUNTS)} |"
    lines = [head, f"| --- | ---: | ---: | --- | --- | {' | '.join('---:' for _ in COUNTS)} |"]
    for run in bundled_shots():
        for means, by_rule in (("pictures", run.seen), ("words", run.told)):
            for rule, shares in by_rule.items():
                cells = " | ".join(f"{100 * share:.0f}" for share in shares)
                lines.append(f"| {run.design} | {run.tokens} | {run.seed} | {rule} | {means} | {cells} |")
    return "\n".join(lines)


def speed_table() -> str:
    """What the bundled run of the benchmark measured, as Markdown."""
    done = bundled_bench()
    return bench_table(done) if done else "Not yet measured."


def lessons_table(folder: Path = Path("notebooks")) -> str:
    """Every lesson with the time and the figures of its committed run, as Markdown."""
    lines = ["| lesson | measured | figures of the committed run |", "|---|---|---|"]
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        measured = "; ".join(cost(run) for run in read(folder).get(path.stem, {}).values()) or "-"
        lines.append(f"| [{title}]({path.as_posix()}) | {measured} | {'; '.join(_figures(notebook))} |")
    return "\n".join(lines)


def _figures(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    reported = (output.data[RESULT_MIME] for output in outputs if RESULT_MIME in output.get("data", {}))
    every = [pair for figures in reported for pair in figures.items()]
    return [f"{name} {value:.0%}" if abs(value) <= 1 else f"{name} {value:.1f}" for name, value in every]


def filled(text: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- end -->` made anew."""
    makers = {"designs": designs_table, "connectors": connectors_table, "fusions": fusions_table}
    makers |= {"shots": shots_table, "raw": lambda: raw_table(bundled_raw()), "lessons": lessons_table}
    makers |= {
        "grounding": lambda: with_setting(grounding_table, bundled_grounding()),
        "reading": lambda: with_setting(readings_table, bundled_readings()),
        "hear": lambda: with_setting(hear_table, bundled_hear()),
        "watching": lambda: with_setting(watching_table, bundled_watching()),
        "depths": lambda: with_setting(depths_table, bundled_depths()),
        "smol": lambda: with_setting(smol_table, bundled_smol()),
        "speed": speed_table,
        "compared": lambda: with_setting(table, bundled_comparison()),
    }
    for name, make in makers.items():
        made = f"<!-- {name} -->\n{make()}\n<!-- end -->"
        text = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, made=made: made, text, flags=re.DOTALL)
    return text


def draw(path: Path) -> None:
    """The token strip of one scene with two questions, as the bundled model reads it."""
    import torch

    from minivlm.batch import Batch
    from minivlm.data.scenes import render, sample_scenes
    from minivlm.data.tasks import ask
    from minivlm.figures import token_strip
    from minivlm.language.tokenizer import mini_tokenizer
    from minivlm.storage import bundled

    chance, tokenizer = torch.Generator().manual_seed(3), mini_tokenizer()
    scene = sample_scenes(1, chance, min_objects=5, max_objects=5)
    dialog = [(q.text, q.answer) for q in ask(scene, chance, tasks=("COLOR", "EXIST"), per_scene=4)[0][:2]]
    batch = Batch.pack(tokenizer, [dialog], images=render(scene)[:, None])
    figure, _ = token_strip(batch, bundled("llava15", "cpu")(batch), tokenizer.decode)
    figure.savefig(path, dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    draw(PICTURE)
