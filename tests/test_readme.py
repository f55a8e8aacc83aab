"""The README: what is generated in it is what would be generated now."""

from pathlib import Path

from minivlm.course.readme import filled

ROOT = Path(__file__).parents[1]


def test_generated_tables_are_those_of_today(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = Path("README.md").read_text(encoding="utf-8")
    assert filled(text) == text, "run `python -m minivlm.course.readme`"


def test_every_python_block_compiles():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in text.split("```python\n")[1:]:
        compile(block.split("```")[0], "README.md", "exec")
