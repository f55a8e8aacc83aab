"""The README: what is generated in it is what would be generated now."""

import re
from pathlib import Path

import pytest

from minivlm.course.readme import filled
from minivlm.data.tasks import TASKS
from minivlm.designs import DESIGNS
from minivlm.pretraining import weights_note

ROOT = Path(__file__).parents[1]


def test_generated_tables_are_those_of_today(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = Path("README.md").read_text(encoding="utf-8")
    assert filled(text) == text, "run `python -m minivlm.course.readme`"


def test_every_design_links_to_where_it_is_published():
    links = re.findall(r"\]\(https://([^)]+)\) \(\d{4}\) \|", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) == len(DESIGNS)
    papers, code = r"arxiv\.org/abs/\d{4}\.\d{5}", r"github\.com/[\w-]+/[\w-]+"
    blogs = r"adept\.ai/blog/fuyu-8b|llava-vl\.github\.io/blog/2024-01-30-llava-next"  # of these two there is no paper
    assert all(re.fullmatch(f"{papers}|{code}|{blogs}", link) for link in links)


def test_every_python_block_compiles():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in text.split("```python\n")[1:]:
        compile(block.split("```")[0], "README.md", "exec")


def test_bundled_weights_answer_what_is_said_beside_them():
    """Every accuracy in the note is that of the bundled model, within a point: machines round differently."""
    weights = ROOT / "minivlm" / "weights"
    note, now = (weights / "README.md").read_text(encoding="utf-8"), weights_note(weights)
    said, found = (dict(re.findall(r"^([A-Z]+) +([\d.]+)%", text, re.MULTILINE)) for text in (note, now))
    assert set(said) == set(found) == set(TASKS)
    for task in TASKS:
        assert float(said[task]) == pytest.approx(float(found[task]), abs=1), task
    assert sum(path.stat().st_size for path in weights.glob("*.safetensors")) <= 22e6
