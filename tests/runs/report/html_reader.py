"""Reads a page the way a test asks about it: texts by section, attributes, tables."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

# Tags whose texts stand apart on the page though nothing stands between them in the source.
BLOCKS = {
    *("b", "br", "dd", "div", "dt", "figcaption", "h1", "h2", "h3", "li", "p", "pre"),
    *("small", "span", "summary", "svg", "td", "text", "th"),
}


class Page(HTMLParser):
    """`text` by section id, every (tag, attribute, value), and table rows by section id."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text: dict[str, str] = {"": ""}
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self._section, self._silent, self._in_cell = "", 0, False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in BLOCKS:
            self.text[self._section] += " "
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
            self.text[self._section], self.rows[self._section] = "", []
        elif tag in ("script", "style"):
            self._silent += 1
        elif tag == "tr" and self._section:
            self.rows[self._section].append([])
        elif tag in ("td", "th") and self._section:
            self.rows[self._section][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._section = ""
        elif tag in ("script", "style"):
            self._silent -= 1
        elif tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        self.text[self._section] += data
        if self._in_cell:
            self.rows[self._section][-1][-1] += data

    def words(self, section: str) -> str:
        return " ".join(self.text[section].split())

    def cells(self, section: str) -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.rows[section]]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
