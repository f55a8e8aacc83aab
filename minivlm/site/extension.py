"""What the pages need of Sphinx beyond what it brings: equations as MathML, which browsers typeset by themselves, and
links from the lessons to the glossary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator

LESSONS = "lessons/"
# Words that are no running text: headings, code, links, notes; those explained where they stand, and titles of papers.
_OTHERWISE = (nodes.title, nodes.literal, nodes.literal_block, nodes.reference, addnodes.pending_xref)
_OTHERWISE += (nodes.Admonition, nodes.strong, nodes.emphasis)


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="equation">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


class GlossaryLinks(SphinxPostTransform):
    """Where the running text of a lesson first uses a term of the glossary, or its plural, the word leads there."""

    default_priority = 5  # references, these among them, are resolved at 10

    def run(self, **_) -> None:
        if not self.env.docname.startswith(LESSONS):
            return
        terms = [name.lower() for kind, name in self.env.domains.standard_domain.objects if kind == "term"]
        words, unused = _either(terms), set(terms)
        for text in list(self.document.findall(nodes.Text)):
            if not any(isinstance(parent, _OTHERWISE) for parent in _parents(text)):
                text.parent.replace(text, list(_linked(text, words, unused, self.env.docname)))


def _parents(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def _either(terms: Iterable[str]) -> re.Pattern[str]:
    """Any of these, or its plural, as words of their own; of those that begin alike, the longest."""
    longest = sorted(terms, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest))})s?(?![\w-])", re.IGNORECASE)


def _linked(text: str, words: re.Pattern[str], unused: set[str], page: str) -> Iterator[nodes.Node]:
    """The pieces of a text: as it was, or a link. What is linked is taken out of `unused`."""
    end = 0
    for found in words.finditer(text):
        if (term := found[1].lower()) in unused:
            unused.remove(term)
            yield nodes.Text(text[end : found.start()])
            yield _link(found[0], term, page)
            end = found.end()
    yield nodes.Text(text[end:])


def _link(word: str, term: str, page: str) -> addnodes.pending_xref:
    target = dict(refdomain="std", reftype="term", reftarget=term, refdoc=page, refexplicit=True, refwarn=True)
    return addnodes.pending_xref("", nodes.inline(word, word), **target)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.add_post_transform(GlossaryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
