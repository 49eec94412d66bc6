"""What the site needs beyond mkdocs.yml: the pages at the top level, and Markdown that GitHub reads differently.

The pages are written for GitHub, where most people meet them; here they become the site without being changed.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_TOP = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_MORE = "More"

_FENCE = re.compile(r"^```.*?^```[ ]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^[ ]*<!-- (.*?) -->[ ]*\n?", re.MULTILINE | re.DOTALL)
_API = re.compile(r"api: ([\w.]+)\Z")
_SPAN = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that mkdocs.yml does not list at the end: a new page is on the site as soon as it is written."""
    docs = Path(config.docs_dir)
    listed = set(re.findall(r"[\w./-]+\.md", repr(config.nav)))
    added = sorted({path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - listed)
    if added:
        config.nav = [*(config.nav or []), {_MORE: added}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top level of the repository."""
    for name, page in _TOP.items():
        files.append(File.generated(config, page, abs_src_path=str(_root(config) / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """Turn GitHub's Markdown into the site's, outside of code blocks."""
    source = next((name for name, own in _TOP.items() if own == page.file.src_uri), f"docs/{page.file.src_uri}")
    known = {file.src_uri for file in files}

    def link(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if not path or ":" in target:
            return found[0]
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = _TOP.get(whole) or whole.removeprefix("docs/")
        if inside in known and (whole in _TOP or whole.startswith("docs/")):
            here = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
            return f"{picture}[{text}]({here}{hash_}{anchor})"
        # The rest of the repository is not on the site: its text stays. What is nowhere stays a link, for the strict
        # build to stumble over.
        return text if not picture and (_root(config) / whole).exists() else found[0]

    def comment(found: re.Match[str]) -> str:
        """Comments are for tests and editors; one of them stands for what a docstring says."""
        api = _API.match(found[1])
        if not api:
            return ""
        # A module has its heading on the page already.
        module = (_root(config) / api[1].replace(".", "/")).with_suffix(".py").is_file()
        return f"\n::: {api[1]}\n" + (
            "    options: {show_root_heading: false, show_root_toc_entry: false, heading_level: 2}\n" if module else ""
        )

    def prose(text: str) -> str:
        text = _COMMENT.sub(comment, text)
        pieces = re.split(f"({_SPAN.pattern})", text)
        # GitHub wants a pipe escaped inside code in a table, and hides the backslash; Python-Markdown shows it.
        pieces[1::2] = [span.replace("\\|", "|") for span in pieces[1::2]]
        return _LINK.sub(link, "".join(pieces))

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [prose(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, prose(markdown[end:])])


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent
