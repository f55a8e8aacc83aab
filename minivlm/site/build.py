"""From the package and the notebooks to pages: what Sphinx reads is gathered in a folder of its own, which is gone
afterwards; what it writes stays."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from minivlm.site.design_pages import design_pages
from minivlm.site.lessons import lesson
from minivlm.site.links import broken

MADE = "searchindex.js"  # what tells a site from any other folder


def gather(notebooks: Path, into: Path) -> None:
    """Everything that Sphinx reads, in the folder `into`. ValueError where there are no lessons."""
    with as_file(files("minivlm.site").joinpath("pages")) as pages:
        shutil.copytree(pages, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pictures, lessons = into / "extra" / "pictures", into / "lessons"
    pictures.mkdir(parents=True)
    lessons.mkdir()
    found = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not found:
        raise ValueError(f"no lessons in {notebooks}/: call from the root of the repository")
    shutil.copy(notebooks / "token_strip.png", into)
    for path in found:
        nbformat.write(lesson(path, pictures), lessons / path.name)
    (into / "designs").mkdir()
    for name, text in design_pages(found).items():
        (into / "designs" / f"{name}.md").write_text(text, encoding="utf-8")


def build(notebooks: Path, out: Path) -> Path:
    """Make the pages anew in `out`, which is emptied, and say where to begin reading. ValueError for a folder that
    holds something else; RuntimeError where Sphinx warns of anything, or a link leads nowhere."""
    from sphinx.cmd.build import build_main  # only here: of what the pages are made can be tested without it

    if out.exists() and any(out.iterdir()) and not (out / MADE).is_file():
        raise ValueError(f"{out}/ holds something else than an earlier site: empty it, or name another folder")
    with TemporaryDirectory() as folder:
        source, made, trees = (Path(folder) / name for name in ("source", "made", "trees"))
        source.mkdir()
        gather(notebooks, source)
        if build_main(["-q", "-W", "--keep-going", "-d", str(trees), str(source), str(made)]):
            raise RuntimeError("the pages were not made: see the warnings above")
        if lost := broken(made):
            raise RuntimeError("links that lead nowhere:\n" + "\n".join(lost))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    return out / "index.html"
