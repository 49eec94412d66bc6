"""The page in a real browser: its script runs under its own policy, and names stay text."""

from __future__ import annotations

import ast
import html
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runs.report.fixture import make_run, pictures
from tests.runs.report.html_reader import Page
from zoo.runs.report.page import write_report

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--enable-logging=stderr", "--dump-dom"),
]


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")


def dom(chromium: str, page: Path, profile: Path) -> tuple[Page, list[str]]:
    """The document after scripts ran, and what the console said."""
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return Page(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_page_works_in_a_browser(chromium: str, tmp_path: Path) -> None:
    names = ["<script>document.title = 'owned'</script>", *(f"class {i:02d}" for i in range(29))]
    run = make_run(tmp_path, classes=names, per_class=20)
    path = write_report(run, pictures(run.record))

    page, console = dom(chromium, path, tmp_path / "profile")
    assert console == []
    assert names[0] in page.text["classes"]
    assert "owned" not in page.text[""], "the title is unchanged"
    assert ("html", "class", "js") in page.attributes, "the page's policy lets its own script run"

    # A copy that clicks on the first column's head twice: by name, falling.
    source = path.read_text()
    policy = next(line for line in source.splitlines() if "Content-Security-Policy" in line)
    click = "document.querySelector('#per-class th button').click();"
    clicked = tmp_path / "clicked.html"
    clicked.write_text(source.replace(policy, "").replace("</body>", f"<script>{click}{click}</script></body>"))
    page, console = dom(chromium, clicked, tmp_path / "profile")
    assert console == []
    listed = [row[0] for row in page.cells("classes") if len(row) == 7][1:]
    assert listed == ["class 28", *(f"class {i:02d}" for i in range(27, -1, -1)), names[0]]


def copied(chromium: str, page: Path, profile: Path) -> list[str]:
    """What a person gets who marks and copies each box of "Use it"."""
    mark = """
    const texts = [...document.querySelectorAll('#use pre')].map(box => {
      getSelection().selectAllChildren(box);
      return getSelection().toString();
    });
    const box = document.createElement('textarea');
    box.textContent = JSON.stringify(texts);
    document.body.replaceChildren(box);
    """
    source = page.read_text()
    policy = next(line for line in source.splitlines() if "Content-Security-Policy" in line)
    marked = page.with_name("marked.html")
    marked.write_text(source.replace(policy, "").replace("</body>", f"<script>{mark}</script></body>"))
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", marked.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    text = done.stdout.partition("<textarea>")[2].partition("</textarea>")[0]
    found: list[str] = json.loads(html.unescape(text))
    return found


@pytest.mark.parametrize("kind", ["classifier", "stack"])
def test_what_is_copied_from_use_it_can_be_run(chromium: str, tmp_path: Path, kind: str) -> None:
    stacked = {"kind": "stack", "stack": {"members": [{"run": "runs/a"}]}} if kind == "stack" else {}
    run = make_run(tmp_path, **stacked)
    shell, python = copied(chromium, write_report(run, pictures(run.record), run.record), tmp_path / "profile")
    words = [shlex.split(line) for line in shell.splitlines() if line and not line.startswith("# ")]
    commands = [["zoo", "predict", str(run.path), "image.jpg"], ["zoo", "eval", str(run.path)]]
    if kind == "classifier":
        commands.append(["zoo", "adapt", "--recipe", str(run.path / "run.json")])
    assert words == commands
    body = ast.parse(python).body
    assert [ast.unparse(line) for line in body][:2] == ["import zoo", f"zoo.predict({str(run.path)!r}, ['image.jpg'])"]
    assert ast.unparse(body[2]) == "import timm" and ast.unparse(body[-1]).startswith("model = timm.create_model(")
