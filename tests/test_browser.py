"""Explorers in the hands of a reader: JupyterLab and exported pages in a headless Chromium, moved by keyboard alone:
all on small data, and those of a lesson (`test_lessons` moves those of every lesson, without a browser).

Without Chromium or Playwright these tests are skipped; in continuous integration (`CI` is set) they fail instead.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import explorers
import nbformat
import pytest
import tiny
from nbformat.v4 import new_code_cell, new_notebook

from minivlm.course.commit import normalised
from minivlm.course.run import execute, page

LESSONS = Path(__file__).parents[1] / "notebooks"
LESSON = next(p.name for p in sorted(LESSONS.glob("*.ipynb")) if "minivlm.explore" in p.read_text(encoding="utf-8"))
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # they ask for the network
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight have no elements to look for
}
SMALL = [
    "import explorers\nfrom minivlm.figures import show, similarity",
    "show(*similarity(explorers.PANELS, explorers.TEXTS, explorers.TEXTS))",
    *(f"explorers.{name}()" for name in explorers.ALL),
]
EXPLORER = ".minivlm-explorer"
IDLE = "jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
STOPS = "button, .noUi-handle"  # what a control puts into the order of Tab


def absent(what: str) -> None:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A browser for all tests of this file."""
    path = shutil.which("chromium")
    if not path:
        absent("Chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("Playwright: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium) -> Iterator:
    """A page whose console must stay free of errors."""
    context = chromium.new_context(viewport={"width": 1300, "height": 1000})
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda said: errors.append(f"{said.text} {said.location}") if said.type == "error" else None)
    yield tab
    context.close()
    # an exported page asks for MathJax, to typeset formulas where there is a network
    assert [error for error in errors if "mathjax" not in error.lower()] == []


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that shows `folder` at `url`, which takes the path of a notebook."""

    folder: Path
    url: str

    def open(self, tab, name: str) -> None:
        tab.goto(self.url.format(name))
        tab.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady")


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with copies of the lessons and a notebook with all explorers, and nothing of this user's settings."""
    folder, home = tmp_path_factory.mktemp("lessons"), tmp_path_factory.mktemp("home")
    shutil.copytree(LESSONS, folder, dirs_exist_ok=True)
    nbformat.write(small(), folder / "small.ipynb")
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    words = dict(ip="127.0.0.1", port=port, port_retries=0, open_browser=False, allow_root=True, root_dir=folder)
    options = [f"--ServerApp.{name}={value}" for name, value in words.items()]
    options += [f"--IdentityProvider.token={token}", f"--LabApp.user_settings_dir={home / 'settings'}"]
    call = tiny.command("-m", "jupyterlab", *options, "--LabApp.expose_app_in_browser=True")
    call["env"] |= {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    call["env"] |= {"MINIVLM_SCALE": "smoke"}
    with open(home / "log", "w") as log, subprocess.Popen(**call, stdout=log, stderr=log) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{address}/api?token={token}", server, home / "log")
            yield Lab(folder, f"{address}/lab/tree/{{}}?reset&token={token}")
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:  # a kernel that answers no more can hold it up for ever
                server.kill()  # kernels end by themselves when their server is gone


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        try:
            return urllib.request.urlopen(url).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            sleep(0.2)
    pytest.fail(f"no JupyterLab after a minute: {log.read_text()}")


def small() -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=[new_code_cell(source) for source in SMALL], metadata={"kernelspec": kernel})


def run(tab, command: str) -> None:
    """Run all cells as the menu does, wait for the last, and find no error in any output."""
    tab.wait_for_function(IDLE)
    tab.evaluate(f"() => {{ window.ran = jupyterapp.commands.execute('notebook:{command}').then(() => 1) }}")
    if "restart" in command:
        tab.locator(".jp-Dialog .jp-mod-accept").click()
    tab.evaluate("window.ran")
    tab.wait_for_function(IDLE)
    cells = tab.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"] == []


def shown(explorer) -> tuple[str, str, str]:
    """What an explorer says, and its picture: source and alternative text."""
    picture = explorer.locator("img")
    return explorer.get_by_role("status").inner_text(), picture.get_attribute("src"), picture.get_attribute("alt")


def walk(tab, explorer, used: dict[int, set[str]]) -> None:
    """Tab through an explorer once, from its first stop, and use each stop that is not yet in `used`, which keeps the
    pictures seen there."""
    explorer.locator(STOPS).first.focus()
    where = f"(e) => [...e.querySelectorAll('{STOPS}')].indexOf(document.activeElement)"
    while explorer.evaluate("(e) => e.contains(document.activeElement)"):
        stop, kind = explorer.evaluate(where), tab.evaluate("document.activeElement.className")
        if stop >= 0 and stop not in used and "mod-active" not in kind:
            used[stop] = use(tab, explorer, "noUi-handle" in kind)
        tab.keyboard.press("Tab")


def use(tab, explorer, slider: bool) -> set[str]:
    """Press the button that has the focus, or move the slider by a step, away from its end, and back."""
    pictures = {shown(explorer)[1]}
    keys = ["Space"]
    if slider:
        now, most = (tab.evaluate(f"document.activeElement.getAttribute('aria-value{end}')") for end in ("now", "max"))
        keys = ["ArrowLeft", "ArrowRight"] if float(now) >= float(most) else ["ArrowRight", "ArrowLeft"]
    for key in keys:
        pictures.add(press(tab, explorer, key))
    return pictures


def press(tab, explorer, key: str) -> str:
    """Press a key, see the words change, and return the picture that they describe."""
    from playwright.sync_api import expect

    before = shown(explorer)[0]
    tab.keyboard.press(key)
    expect(explorer.get_by_role("status"), f"{key} changed nothing").not_to_have_text(before, timeout=30_000)
    words, picture, alt = shown(explorer)
    assert words == alt and "Error" not in words
    return picture


def controls(explorer) -> list[list[int]]:
    """The stops of each control."""
    return explorer.evaluate(
        f"""(e) => {{ const stops = [...e.querySelectorAll('{STOPS}')];
        const within = (c) => stops.flatMap((s, i) => c.contains(s) ? [i] : []);
        return [...e.children].map(within).filter((c) => c.length) }}"""
    )


@pytest.mark.parametrize("name", ["small.ipynb", LESSON])
def test_a_notebook_runs_and_each_control_of_its_explorers_is_moved_by_keyboard(lab, tab, name):
    lab.open(tab, name)
    run(tab, "run-all-cells")
    if name == "small.ipynb":
        run(tab, "restart-run-all")
    tab.locator(f"{EXPLORER} img").last.wait_for()
    for explorer in tab.locator(EXPLORER).all():
        used: dict[int, set[str]] = {}
        before = -1
        while len(used) > before:  # again, for what came into sight meanwhile
            before = len(used)
            walk(tab, explorer, used)
        for stops in controls(explorer):
            missed = set(stops) - used.keys()  # at most the button that was down from the beginning
            assert len(missed) <= 1, (missed, explorer.inner_text())
            pictures = set().union(*(used[stop] for stop in stops if stop in used))
            assert len(stops) == 1 or len(pictures) > 1, explorer.inner_text()  # the control changed the picture
    tab.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    path = tmp_path_factory.mktemp("executed") / "small.ipynb"
    nbformat.write(small(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", tiny.command()["env"]["PYTHONPATH"])
        notebook, result = execute(path, "smoke", "cpu")
    assert result.error is None, result.error
    return notebook


def sentences(notebook: nbformat.NotebookNode) -> list[str]:
    """What its explorers leave where no kernel runs."""
    outputs = [out for cell in notebook.cells for out in cell.outputs if out.output_type == "execute_result"]
    assert len(outputs) == len(explorers.ALL)
    return [out.data["text/plain"] for out in outputs]


def test_without_a_kernel_picture_and_sentence_are_there(lab, tab, executed):
    notebook = normalised(executed, "smoke")
    notebook.metadata.kernelspec.name = "on-another-machine"
    nbformat.write(notebook, lab.folder / "kept.ipynb")
    lab.open(tab, "kept.ipynb")
    tab.locator(".jp-OutputArea img").wait_for()  # behind the question which kernel to take instead
    text = " ".join(tab.locator(".jp-Notebook").inner_text().split())
    for sentence in sentences(executed):
        assert " ".join(sentence.split()) in text


def test_an_exported_page_shows_picture_and_sentence_offline(tab, executed, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page(executed, "page"), encoding="utf-8")
    tab.context.set_offline(True)
    tab.goto(path.as_uri())
    picture = tab.locator(".jp-OutputArea img")
    assert picture.count() == 1 and picture.evaluate("(img) => img.naturalWidth") > 100
    text = " ".join(tab.locator("main").inner_text().split())
    for sentence in sentences(executed):
        assert " ".join(sentence.split()) in text
