"""The documentation site: it builds strictly from what is here, and reads without anybody else's server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.docs.pages import ROOT
from tests.runs.report.html_reader import Page
from tests.runs.report.test_browser import FLAGS, chromium  # noqa: F401  the browser that is on this machine, as a fixture

TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
# A page says where its parts come from in these; a link to elsewhere, `<a href>`, fetches nothing.
FETCHED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    # Nothing can be fetched: every connection to elsewhere would go to a port where nobody listens.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=root, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the site is made from, to break: each page is its title alone, as its text takes long to build."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "docs", root / "docs")
    for name in (*TOP, "mkdocs.yml"):
        shutil.copy(ROOT / name, root)
    (root / "zoo").symlink_to(ROOT / "zoo")
    for page in (root / "docs").rglob("*.md"):
        page.write_text(f"# {page.stem}\n")
    for name in TOP:
        (root / name).write_text(f"# {name}\n\n## The house\n")
    return root


def test_every_page_is_there_and_in_the_navigation(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")}
    pages |= {"index.html", "contributing.html", "security.html", "changelog.html"}
    menu = Page((site / "index.html").read_text(encoding="utf-8"))
    linked = {value for tag, name, value in menu.attributes if (tag, name) == ("a", "href")}
    for page in pages:
        assert (site / page).is_file(), page
        assert page in linked, f"{page} is not in the navigation"
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {Path(name).with_suffix(".html").name for name in listed} <= pages


def test_the_reference_has_every_public_name(site):
    import zoo

    text = (site / "api.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(zoo\.[\w.]+)"', text))
    # Of events and errors the whole module is there.
    whole = ("zoo.errors", "zoo.events")
    assert {f"{home if home in whole else 'zoo'}.{name}" for name, home in zoo._HOME.items()} <= anchors
    assert "zoo.testing.check_backbone" in anchors
    assert "regular expression, matched at the start of a tensor" in text, "what a record's fields mean"
    assert "Peak learning rate of the head in the last phase" in text, "what a recipe's fields mean"


def test_nothing_of_the_sources_shows(site):
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "<!-- " not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), path.name
        assert "\\|" not in text, path.name
        assert "::: zoo" not in text, path.name
    assert not list(site.rglob("*.py"))


def test_no_page_fetches_anything_from_elsewhere(site):
    for path in site.rglob("*.html"):
        assert not FETCHED.findall(path.read_text(encoding="utf-8")), path.name
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name
    assert FETCHED.findall('<script src="https://example.org/x.js">')


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("See [this](nowhere.md).", "nowhere.md"),
        ("See [this](data.md#no-such-part).", "no-such-part"),
        ("See [this](../no-such-file.py).", "no-such-file.py"),
        ("<!-- api: zoo.api.no_such_name -->", "no_such_name"),
    ],
)
def test_a_broken_page_fails_the_build(copy, tmp_path, line, complaint):
    with (copy / "docs" / "runs.md").open("a") as page:
        page.write(f"\n{line}\n")
    done = build(copy, tmp_path / "out")
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_new_page_needs_no_entry_and_the_repository_can_be_linked(copy, tmp_path):
    (copy / "docs" / "new-page.md").write_text(
        "# A new page\n\n[errors](../zoo/errors.py), [house](../CONTRIBUTING.md#the-house), [start](../README.md)\n\n"
        "| a | b |\n|---|---|\n| `x\\|y` | z |\n\n```text\n<!-- kept -->\n```\n"
    )
    done = build(copy, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / "out" / "new-page.html").read_text(encoding="utf-8"))
    linked = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert {"contributing.html#the-house", "index.html"} <= linked
    assert not [target for target in linked if "errors.py" in str(target)]
    assert "A new page" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "new-page.html").read_text(encoding="utf-8")
    assert "<code>x|y</code>" in text
    assert "&lt;!-- kept --&gt;" in text


class OwnOnly(SimpleHTTPRequestHandler):
    """Serves pages with a policy: whatever they would fetch from elsewhere is an error on the browser's console."""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; img-src 'self' data:")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_index_opens_in_a_browser_and_asks_nobody_else(site, chromium, tmp_path):  # noqa: F811
    served = tmp_path / "served"
    served.symlink_to(site)
    chatty = tmp_path / "chatty.html"
    chatty.write_text('<img src="http://example.org/a.png"><script src="https://example.net/b.js"></script>')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(OwnOnly, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()

        def opened(page: str) -> tuple[str, str]:
            done = subprocess.run(
                [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}",
                 f"http://127.0.0.1:{server.server_port}/{page}"],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

        try:
            text, console = opened("served/index.html")
            _, complaints = opened("chatty.html")
        finally:
            server.shutdown()
    assert console == ""
    classes = next(value for tag, name, value in Page(text).attributes if (tag, name) == ("html", "class"))
    assert "js" in classes.split(), "its scripts ran"
    assert "example.org" in complaints, "the check can fail"
    assert "example.net" in complaints
