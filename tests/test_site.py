"""What the pages of the course are made of, each part by itself; `test_site_pages.py` makes them all."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minivlm.course import RESULT_MIME
from minivlm.designs import DESIGNS, build, configure
from minivlm.site import build as building
from minivlm.site.design_pages import design_pages
from minivlm.site.equations import EQUATIONS, SHARED
from minivlm.site.lessons import lesson
from minivlm.site.links import broken

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
HELPERS = {f"minivlm.{name}" for name in "attention fusion.interleave language.routed language.grounding".split()}
STEPS = {step.math: step for steps in (*EQUATIONS.values(), SHARED) for step in steps}

quietly = pytest.mark.filterwarnings("ignore:.*Sphinx API")  # MyST uses what a later Sphinx will not have


def absent(what: str) -> None:
    """Skip where something is not installed that few need; in continuous integration it must be."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


def needs(module: str, extra: str = "site") -> None:
    try:
        __import__(module)
    except ImportError:
        absent(f"{module}: pip install -e '.[{extra}]'")


def shown(tmp_path: Path, *cells: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells of a lesson of these as its page has them, less what tells where the notebook is."""
    path = tmp_path / "99_trial.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 99 · A trial"), *cells]), path)
    title, told, *rest = lesson(path, tmp_path).cells
    assert title.source == "# 99 · A trial" and "`notebooks/99_trial.ipynb`" in told.source
    return rest


def test_a_picture_is_a_file_that_opens_in_full_size_and_keeps_its_description(tmp_path: Path):
    data = {"image/png": base64.b64encode(b"pixels").decode(), "text/plain": "<Figure>"}
    output = new_output("display_data", data, metadata={"image/png": {"alt": 'half of "it" < all'}})
    (cell,) = shown(tmp_path, new_code_cell("draw()", outputs=[new_output("stream", text="told"), output]))
    words, picture = cell.outputs
    (file,) = tmp_path.glob("*.png")
    assert file.read_bytes() == b"pixels" and words.text == "told"
    address = f"../{tmp_path.name}/{file.name}"
    assert list(picture.data) == ["text/html"]
    assert f'<a class="picture" href="{address}"><img' in picture.data["text/html"]
    assert f'alt="half of &quot;it&quot; &lt; all" src="{address}"' in picture.data["text/html"]


def test_pictures_of_one_cell_and_of_several_are_all_kept(tmp_path: Path):
    def drawing(*pixels: bytes):
        data = [{"image/png": base64.b64encode(each).decode()} for each in pixels]
        return new_code_cell("draw()", outputs=[new_output("display_data", each) for each in data])

    shown(tmp_path, drawing(b"1", b"2"), drawing(b"3"))
    assert {path.read_bytes() for path in tmp_path.glob("*.png")} == {b"1", b"2", b"3"}


def test_an_explorer_says_what_it_is_and_how_it_stands(tmp_path: Path):
    told = "Gates explorer, to be moved where a kernel\nruns: Gates (x 1), Picture (1). It shows: 71% < all."
    (cell,) = shown(tmp_path, new_code_cell("explore()", outputs=[new_output("display_data", {"text/plain": told})]))
    text = cell.outputs[0].data["text/html"]
    assert '<p class="admonition-title">Gates explorer</p>' in text
    assert "these controls move the picture: Gates (x 1), Picture (1).</p>" in text
    assert "As it stands: 71% &lt; all.</p>" in text


def test_every_explorer_of_the_lessons_is_told_so(tmp_path: Path):
    """None is left as the plain text that a notebook keeps."""
    count = 0
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in lesson(path, tmp_path).cells:
            outputs = [dict(output.get("data", {})) for output in cell.get("outputs", [])]
            plain = [data["text/plain"] for data in outputs if "text/plain" in data]
            assert not [text for text in plain if re.search("explorer, to be|Explorer\\(|VBox\\(|<Figure", text)]
            count += sum("note explorer" in data.get("text/html", "") for data in outputs)
    texts = [path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob("*.ipynb")]
    assert count == sum(text.count("to be moved where a") for text in texts)


def test_a_solution_is_folded_and_free_of_marks(tmp_path: Path):
    source = "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION"
    cell = new_code_cell(source, metadata={"tags": ["extra"], "nbgrader": {"solution": True, "grade": False}})
    plain = new_code_cell("f(1)")
    folded, other = shown(tmp_path, cell, plain)
    assert folded.source == "def f(x):\n    return x\n"
    assert folded.metadata.tags == ["extra", "hide-input"] and "hide-input" not in other.metadata.get("tags", [])


def test_of_a_check_its_words_stay_and_its_points_go(tmp_path: Path):
    words = new_output("stream", text="solved, 2 of 2 points.\n")
    points = new_output("execute_result", {"text/plain": "2"}, execution_count=1)
    check = new_code_cell("check()", metadata={"nbgrader": {"grade": True}}, outputs=[words, points])
    other = new_code_cell("1 + 1", outputs=[points])
    checked, added = shown(tmp_path, check, other)
    assert checked.outputs == [words] and added.outputs == [points]


def test_headline_figures_are_told_in_words(tmp_path: Path):
    output = new_output("display_data", {RESULT_MIME: {"color": 0.9}, "text/plain": "color 0.9"})
    (cell,) = shown(tmp_path, new_code_cell("report(color=0.9)", outputs=[output]))
    assert dict(cell.outputs[0].data) == {"text/plain": "color 0.9"}


def test_papers_become_links_once(tmp_path: Path):
    text = "- Li, arXiv:2301.12597\n- [arXiv:2301.12597](https://arxiv.org/abs/2301.12597)"
    (cell,) = shown(tmp_path, new_markdown_cell(text))
    link = "[arXiv:2301.12597](https://arxiv.org/abs/2301.12597)"
    assert cell.source == f"- Li, {link}\n- {link}"


def test_every_design_has_equations():
    assert list(EQUATIONS) == list(DESIGNS)
    for name, design in DESIGNS.items():
        told = " ".join(step.says for step in EQUATIONS[name])
        assert ("Fusion: interleaved" in told) == design.fusion.startswith("interleaved"), name
        assert ("Newlines" in told) == ("newline" in design.fusion), name
        assert ("Depths" in told and "Without looking ahead" in told) == name.endswith("mod"), name
        assert ("Fusion: gated cross" in told) == (design.fusion == "gated cross attention"), name


@pytest.mark.parametrize("math", STEPS)
def test_an_equation_is_typeset_whole(math: str):
    """What the converter does not know, or cannot align, it prints as it stands."""
    needs("latex2mathml")
    from latex2mathml.converter import convert

    text = unescape(re.sub(r"<[^>]+>", "", convert(math, display="block")))
    assert "\\" not in text and "&" not in text


@pytest.mark.parametrize("name", DESIGNS)
def test_the_code_beside_an_equation_is_what_the_design_is_made_of(name: str):
    preset = "published" if name == "beit3" else "mini"  # which in small has a connector, as all others do
    config = configure(name, preset)
    made_of = [*(type(part) for part in build(name, preset, "meta").modules()), *map(type, nested(config))]
    classes = {cls for kind in made_of for cls in kind.__mro__}
    modules = {cls.__module__ for cls in classes} | HELPERS
    for thing in (thing for step in EQUATIONS[name] for thing in step.code):
        if isinstance(thing, type):
            assert thing in classes, thing
        elif "." in thing.__qualname__:
            owner = thing.__qualname__.split(".")[0]
            assert any((cls.__module__, cls.__name__) == (thing.__module__, owner) for cls in classes), thing
        else:
            assert thing.__module__ in modules, thing


def nested(config: object) -> Iterator[object]:
    """A configuration and all that are in it."""
    yield config
    for field in fields(config):
        if is_dataclass(value := getattr(config, field.name)):
            yield from nested(value)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return design_pages(sorted(NOTEBOOKS.glob("[0-9]*.ipynb")))


def test_the_table_has_every_design_with_its_parts_and_its_costs(pages: dict[str, str]):
    rows = [line.strip("| ").split(" | ") for line in pages["index"].splitlines() if re.match(r"\| \[", line)]
    assert [re.search(r"\((\w+)\.md\)", row[0])[1] for row in rows] == list(DESIGNS)
    for row, design in zip(rows, DESIGNS.values(), strict=True):
        assert row[1:5] == [str(design.year), design.vision, design.connector, design.fusion]
        assert design.paper in row[8] and design.paper.split(":")[-1] in re.search(r"\(https://(.+)\)", row[8])[1]
    assert "\n| --- | ---: | --- | --- | --- | ---: | ---: | ---: | --- |\n" in pages["index"]
    by_name = dict(zip(DESIGNS, rows, strict=True))
    assert by_name["llava_next"][5] == "2,928"
    assert by_name["llava15"][5:8] == ["576", "336x336", "7.06\N{NO-BREAK SPACE}B"]
    assert by_name["clip"][5:8] == ["one vector", "-", "428\N{NO-BREAK SPACE}M"]


def test_a_page_of_a_design_has_its_costs_its_lessons_and_each_equation_beside_its_source(pages: dict[str, str]):
    page = pages["qwen_vl"]
    assert "| mini | 64x64 | 16 | 1.02\N{NO-BREAK SPACE}M |" in page
    assert "| published | 448x448 | 256 | 1.84\N{NO-BREAK SPACE}B |" in page
    assert "(../lessons/04_resampling.ipynb)" in page and "(../lessons/06_cross_attention.ipynb)" not in page
    places = [page.index(text) for step in EQUATIONS["qwen_vl"] for text in (step.says, step.math)]
    assert places == sorted(places)
    source = (Path(building.__file__).parents[1] / "connectors" / "cross_resampler.py").read_text(encoding="utf-8")
    number = source.splitlines().index("class PlacedQueries(Resampler, nn.Module):") + 1
    assert f":caption: PlacedQueries in minivlm/connectors/cross_resampler.py, line {number}\n" in page
    assert "\n\nclass PlacedQueries(Resampler, nn.Module):\n" in page
    assert "        return self.out(self.norm(seen))\n```" in page
    assert "\n\ndef _mask(self, layout: Layout, seen: Seen)" in pages["flamingo"]  # a method, from the margin on


def test_only_a_folder_that_is_empty_or_an_earlier_site_is_written_into(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(ValueError, match="holds something else"):
        building.build(NOTEBOOKS, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "all my work"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Builds a site of one page of that text, always in the same folder."""
    needs("sphinx")

    def make(text: str) -> Path:
        def gather(notebooks: Path, into: Path) -> None:
            (into / "conf.py").write_text("extensions = ['myst_parser']\nhtml_theme = 'basic'")
            (into / "index.md").write_text(f"# A page\n\n{text}")

        monkeypatch.setattr(building, "gather", gather)
        return building.build(NOTEBOOKS, tmp_path / "out")

    return make


@quietly
def test_an_earlier_site_is_replaced_whole(make: Callable[..., Path], tmp_path: Path):
    make("first")
    (tmp_path / "out" / "old.html").touch()
    index = make("second")
    assert index == tmp_path / "out" / "index.html" and "second" in index.read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "old.html").exists()


@quietly
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("[of Sphinx](gone.md)", "were not made"),
        ('<a href="gone.html">of ours</a>', "index.html: 'gone.html' leads nowhere"),
    ],
)
def test_a_fault_stops_the_build_and_leaves_the_earlier_site(fault: str, told: str, make: Callable[..., Path]):
    before = make("all is well")
    with pytest.raises(RuntimeError, match=told):
        make(fault)
    assert "all is well" in before.read_text(encoding="utf-8")


def test_a_folder_without_lessons_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no lessons in"):
        building.gather(tmp_path / "empty", tmp_path / "source")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A site of two pages whose links all lead somewhere."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a picture.png").touch()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="in/page.html#there"></a><a href="#top"></a><a href="https://arxiv.org/abs/1"></a>'
        '<img src="a%20picture.png"><img src="data:image/png;base64,aa">'
    )
    (tmp_path / "in" / "page.html").write_text('<p id="there"><a href="../index.html">up</a>')
    return tmp_path


def test_links_that_lead_somewhere_are_no_fault(small: Path):
    assert broken(small) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ('<a href="in/gone.html">', "'in/gone.html' leads nowhere"),
        ('<a href="in/page.html#elsewhere">', "'in/page.html#elsewhere' leads nowhere"),
        ('<a href="#elsewhere">', "'#elsewhere' leads nowhere"),
        ('<a href="in">', "'in' leads nowhere"),
        ('<a href="../outside.html">', "'../outside.html' leads nowhere"),
        ('<img src="gone.png">', "'gone.png' leads nowhere"),
        ('<script src="https://cdn.org/a.js"></script>', "would fetch https://cdn.org/a.js"),
        ('<link href="//cdn.org/a.css" rel="stylesheet">', "would fetch //cdn.org/a.css"),
        ('<a href="https://arxiv">', "'https://arxiv' is no address"),
        ('<a href="https://arxiv.org/abs/ 1">', "'https://arxiv.org/abs/ 1' is no address"),
        ('<a href="file:///home/me">', "'file:///home/me' is no address"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(fault: str, told: str, small: Path):
    (small.parent / "outside.html").touch()
    with (small / "index.html").open("a") as page:
        page.write(fault)
    assert broken(small) == [f"index.html: {told}"]


def test_the_first_use_of_a_term_leads_to_the_glossary():
    needs("sphinx")
    from docutils.nodes import Text

    from minivlm.site.extension import _either, _linked

    terms = ["token", "visual token", "attention", "attention map", "map", "query"]
    text = "A non-map, mapping: Visual tokens' attention maps; attention, a visual token, one map, two maps."
    unused = set(terms)
    pieces = list(_linked(Text(text), _either(terms), unused, "lessons/x"))
    links = [(piece["reftarget"], piece.astext()) for piece in pieces if not isinstance(piece, Text)]
    firsts = [("visual token", "Visual tokens"), ("attention map", "attention maps"), ("attention",) * 2, ("map",) * 2]
    assert links == firsts and unused == {"token", "query"}
    assert "".join(piece.astext() for piece in pieces) == text
