"""Whether the links of built pages lead somewhere, and whether a page would fetch anything from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
_WEB = re.compile(r"https?://[a-z0-9-]+(\.[a-z0-9-]+)+(/[^\s<>\"]*)?", re.IGNORECASE)


class Page(HTMLParser):
    """What a page can be reached at (`anchors`), what it leads to (`links`), and what it shows with it (`loads`)."""

    def __init__(self, html: str):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value)
            elif (tag, name) in _LOADS:
                self.loads.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(value or "")


def broken(site: Path) -> list[str]:
    """Every link or file of a page that leads nowhere, is no address, or would have to be fetched, as a sentence."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        found += [f"{name}: would fetch {link}" for link in page.loads if _is_remote(link)]
        inner = [link for link in page.links + page.loads if not _is_remote(link)]
        found += [f"{name}: {link!r} leads nowhere" for link in inner if not _leads(link, path, site, pages)]
        outer = [link for link in page.links if _is_remote(link)]
        found += [f"{name}: {link!r} is no address" for link in outer if not _WEB.fullmatch(link)]
    return found


def _is_remote(link: str) -> bool:
    return bool(urlsplit(link).scheme or urlsplit(link).netloc) and not link.startswith("data:")


def _leads(link: str, page: Path, site: Path, pages: dict[Path, Page]) -> bool:
    if link.startswith("data:"):
        return True
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file() or not target.is_relative_to(site.resolve()):
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target.suffix != ".html" or anchor in pages[target].anchors
