"""The pages of the course, made as `make site` makes them, and looked at in a real browser from the disk."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import tiny
from test_site import NOTEBOOKS, absent, needs

from minivlm.designs import DESIGNS
from minivlm.site.equations import EQUATIONS
from minivlm.site.links import Page, broken

WIDE, NARROW = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
LOOKED_AT = ("index", "lessons/04_resampling", "lessons/12_depths", "designs/index", "designs/honeybee_d", "glossary")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("sphinx")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        **tiny.command("-m", "minivlm.site", "--out", out), cwd=NOTEBOOKS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"the pages are made: open {out / 'index.html'}\n"
    return out


def test_all_that_was_to_be_shown_is_there_and_every_link_leads_somewhere(site: Path):
    assert broken(site) == []
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    lessons = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    wanted = {f"lessons/{path.stem}.html" for path in lessons} | {f"designs/{name}.html" for name in DESIGNS}
    reached = {link.partition("#")[0] for link in Page(pages["index.html"]).links}
    assert wanted <= pages.keys() and wanted <= reached
    for path in lessons:
        keeps_what_the_notebook_shows(path, pages[f"lessons/{path.stem}.html"])
    assert "<math" in pages["lessons/12_depths.html"] and pages["glossary.html"].count("<dt ") >= 40
    assert all(pages[f"designs/{name}.html"].count("<math") >= len(steps) for name, steps in EQUATIONS.items())
    assert 'class="beside' in pages["designs/llava.html"] and "resampl" in (site / "searchindex.js").read_text()


def keeps_what_the_notebook_shows(path: Path, page: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    assert page.count('<a class="picture"') == len(drawn) > 0
    assert len(re.findall(r'<a class="picture" href="[^"]+"><img alt="[^"]{20,}"', page)) == len(drawn)
    assert page.count("note explorer") == sum("kernel runs" in str(output.get("data")) for output in outputs)
    solutions = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert page.count("Show a solution") == len(solutions) and "BEGIN SOLUTION" not in page
    written = [output.get("data", {}).get("text/markdown", "") for output in outputs]
    written += [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert page.count("<table") == len(re.findall(r"^\|[ :|-]+\|$", "\n".join(written), re.MULTILINE))
    assert 'href="../glossary.html#term-' in page
    assert not re.search(r"&lt;(Figure|IPython|minivlm)[^&]* (object|size)", page)


@pytest.fixture
def browser():
    needs("playwright", "browser")
    from playwright.sync_api import sync_playwright

    if not (path := shutil.which("chromium")):
        absent("Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_pages_and_search_work_from_the_disk_in_wide_and_narrow_windows(site: Path, browser):
    for window in (WIDE, NARROW):
        tab, faults = browser.new_page(viewport=window), []
        tab.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
        tab.on("console", lambda said, faults=faults: faults.append(said.text) if said.type == "error" else None)
        tab.on("request", lambda asked, faults=faults: elsewhere(asked.url) and faults.append(asked.url))
        for name in LOOKED_AT:
            tab.goto(f"{site.as_uri()}/{name}.html")
            assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (name, window)
        tab.goto(f"{site.as_uri()}/search.html?q=resampler")
        tab.wait_for_selector("ul.search a")
        found = tab.eval_on_selector_all("ul.search a", "links => links.map(link => link.textContent)")
        assert {"Glossary", "Flamingo’s resampler"} <= set(found)
        assert faults == []
        tab.close()


def elsewhere(url: str) -> bool:
    return not url.startswith(("file:", "data:"))
