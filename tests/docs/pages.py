"""Markdown pages as tests see them: fenced blocks with what the comment before each says, code spans, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Their examples run. The other pages are read: docs/cli.md is made from the commands, and tested there.
RUN = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "cli.md")]
READ = [*RUN, ROOT / "docs" / "cli.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]

_COMMENT = re.compile(r"<!-- (not run|exit code|file|setup): (.+?) -->")
_ENVIRONMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int  # of the fence, from 1
    language: str
    text: str
    not_run: str = ""  # why
    exit_code: int = 0  # that its last command ends with
    file: str = ""  # it is the content of this file

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each shell command as it is typed, with the lines that the page shows below it."""
        if self.language == "bash":
            return [(line, []) for line in _joined(self.text) if line.strip() and not line.lstrip().startswith("#")]
        found: list[tuple[str, list[str]]] = []
        for line in _joined(self.text):
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    """A page's fenced blocks in order."""
    found: list[Block] = []
    facts: dict[str, str] = {}
    start, language, lines = 0, "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if start:
            if line != "```":
                lines.append(line)
                continue
            block = Block(page, start, language, "\n".join(lines), facts.get("not run", ""),
                          int(facts.get("exit code", 0)), facts.get("file", ""))  # fmt: skip
            found.append(block)
            start, facts, lines = 0, {}, []
        elif line.startswith("```"):
            start, language = number, line[3:].strip()
        elif comment := _COMMENT.fullmatch(line.strip()):
            facts[comment[1]] = comment[2]
        elif line.strip() and not line.startswith("<!--"):
            facts = {}  # a comment speaks of the block right after it
    assert not start, f"{page}: the block in line {start} has no end"
    return found


def setups(page: Path) -> list[str]:
    """What has to be there before the page's blocks run: `<!-- setup: photos -->`."""
    return [found[2] for found in _COMMENT.finditer(page.read_text(encoding="utf-8")) if found[1] == "setup"]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def spans(page: Path) -> Iterator[str]:
    """The code spans of a page's text."""
    yield from (found[1] for found in re.finditer(r"`([^`\n]+)`", prose(page)))


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures."""
    yield from (found[1] for found in re.finditer(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))))


def anchors(page: Path) -> set[str]:
    """What `#…` may follow the page's name: its headings, as GitHub spells them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def zoo_arguments(command: str) -> list[tuple[dict[str, str], list[str]]]:
    """The `zoo` commands of a shell line: environment and words after `zoo`."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            parts.append([])
        else:
            parts[-1].append(word)
    found = []
    for part in parts:
        environment = {}
        while part and _ENVIRONMENT.match(part[0]):
            name, _, value = part.pop(0).partition("=")
            environment[name] = value
        if "-m" in part and part[part.index("-m") + 1] == "zoo":  # python -m zoo, accelerate launch … -m zoo
            part = part[part.index("-m") + 1 :]
        if part[:1] == ["zoo"]:
            found.append((environment, part[1:]))
    return found


def _joined(text: str) -> list[str]:
    """Lines, those that a backslash continues joined."""
    return text.replace("\\\n", " ").splitlines()
