"""Names from strangers in the report, on the card and on a terminal: they are seen as they are, and do nothing."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.cli.conftest import Terminal
from tests.faults.hostile import zoo
from tests.faults.record import AS_WITHOUT, Try
from tests.pictures import four
from tests.runs.report.fixture import make_run
from tests.runs.report.html_reader import Page
from tests.runs.report.test_browser import chromium, dom  # noqa: F401  # the first is a fixture
from zoo.cli import output, render
from zoo.errors import DataError, ZooError, printable
from zoo.events import EpochDone, Note, PhaseStarted
from zoo.runs.publish.card import model_card
from zoo.runs.report.page import write_report

MARKUP = {
    "a script": "<script>document.title='owned'</script>",
    "an image that fails": "<img src=x onerror=\"document.title='owned'\">",
    "the end of a quote": "\" autofocus onfocus=\"document.title='owned'",
    "the end of an attribute": "' onmouseover='document.title=1",
    "an entity": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "the end of a style": "</style><script>document.title='owned'</script>",
    "the end of a title": "</title><script>document.title='owned'</script>",
    "a template": "{{ 7*7 }}{% raw %}",
    "a comment": "<!-- x",
    "CDATA": "]]><script>document.title='owned'</script>",
    "an address": "javascript:document.title='owned'",
}
MARKDOWN = {
    "pipes": "a|b|c",
    "brackets": "[click](http://192.0.2.1/) ![x](http://192.0.2.1/x.png)",
    "a reference": "[a]: http://192.0.2.1/",
    "backticks": "`code` ```",
    "a fence": "```\ncode",
    "emphasis": "**bold** _it_ ~~gone~~",
    "a heading": "# head",
    "a heading by its underline": "x\n===",
    "a rule": "---",
    "a list": "- item",
    "a list, indented": "  - item",
    "a numbered list": "1. item",
    "a quote": "> said",
    "an autolink": "<http://192.0.2.1/> www.example.com a@b.example",
    "front matter": "\n---\nlicense: mit\n---\n",
    "a details block": "</details>",
    "a backslash": "\\",
    "maths": "$x$ @you",
    "a table": "|---|---|",
}
NAMES = {**MARKUP, **MARKDOWN, "escapes": "\x1b]0;owned\x07\x1b[31m", "a name that is turned around": "\u202egnp.exe"}


def named(root: Path) -> Any:
    """A run whose classes, files, data set and notes have all of these names."""
    names = list(NAMES.values())
    run = make_run(root, classes=names, per_class=2, skill=0.5, curves=False)
    record = run.record
    record["dataset"] |= {"name": NAMES["a script"], "license": NAMES["front matter"], "notes": names,
                          "bad": [{"path": name, "error": name} for name in names],
                          "selected_on": NAMES["pipes"]}  # fmt: skip
    record["backbone"] |= {"name": f"x/{NAMES['a script']}", "arch": NAMES["backticks"]}
    record["backbone"]["weights"] |= {"name": NAMES["a quote"], "license": NAMES["a heading"]}
    for number, mistake in enumerate(record["result"]["mistakes"]):
        mistake["id"] = names[number % len(names)]
    record["recipe"]["weights"] = NAMES["an image that fails"]
    record["target"] = {"name": NAMES["a script"], "n": 3, "align": NAMES["an image that fails"], "semi": "none",
                        "select_by": NAMES["the end of a quote"], "validators": {NAMES["a template"]: 1.0},
                        "result": {"accuracy": 0.5, "n": 3, "split": NAMES["CDATA"]}}  # fmt: skip
    run.write_record(record)
    return run


def flat(text: str) -> str:
    return " ".join(printable(text, lines=True).split())


def test_the_report_shows_names_as_text(faults: Try, tmp_path: Path) -> None:
    page = write_report(named(tmp_path), {}).read_text(encoding="utf-8")
    read = Page(page)
    assert read.tags.count("script") == 1, "its own"
    assert not {"img", "iframe", "object", "embed", "form", "base"} & set(read.tags)
    assert not [found for found in read.attributes if found[1].startswith("on")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    for detail, name in NAMES.items():
        with faults("name", "report.html", detail) as fault:
            assert flat(name) in read.words("classes")
            fault.survived(AS_WITHOUT)


def test_the_card_shows_names_as_text(faults: Try, tmp_path: Path) -> None:
    record = named(tmp_path).record
    for detail, name in NAMES.items():
        with faults("name", "model card", detail) as fault:
            # First, last and between others: what stands at the start of a line can begin a block.
            classes = [name, "plain", name]
            card = model_card({**record, "dataset": {**record["dataset"], "classes": classes, "name": name}})
            _, head, body = card.split("---\n", 2)
            facts = yaml.safe_load(head)
            assert facts["library_name"] == "timm" and facts.get("license") != "mit"
            assert facts["model-index"][0]["results"][0]["dataset"]["name"] == flat(name)
            shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(body)
            read = Page(shown)
            assert f"{flat(name)}, plain, {flat(name)}" in read.words("").replace(" ,", ",")
            assert not {"script", "img", "style", "iframe", "s"} & set(read.tags)
            assert all(value.startswith("https://github.com/huggingface/") for _, key, value in read.attributes
                       if key in ("href", "src"))  # fmt: skip
            plain = (
                MarkdownIt("commonmark")
                .enable("table")
                .render(
                    model_card({**record, "dataset": {**record["dataset"], "classes": ["x"] * 3, "name": "x"}}).split(
                        "---\n", 2
                    )[2]
                )
            )
            assert read.tags == Page(plain).tags, "the name made no block of its own"
            fault.survived(AS_WITHOUT)


def test_names_do_nothing_in_a_browser(faults: Try, chromium: str, tmp_path: Path) -> None:  # noqa: F811
    run = named(tmp_path)
    shown = MarkdownIt("commonmark").enable("table").render(model_card(run.record).split("---\n", 2)[2])
    card = tmp_path / "card.html"
    card.write_text(f"<!doctype html><meta charset=utf-8><title>card</title><section id=classes>{shown}</section>")
    for operation, path in (("report.html", write_report(run, {})), ("model card", card)):
        with faults("name", f"{operation} in Chromium", "all of them") as fault:
            page, console = dom(chromium, path, tmp_path / "profile")
            assert console == [], "nothing was refused, because nothing was tried"
            assert "owned" not in page.text[""].partition("transfer report")[0], "the title is unchanged"
            assert page.tags.count("script") == (1 if operation == "report.html" else 0)
            for name in NAMES.values():
                assert flat(name) in page.words("classes")
            fault.survived(AS_WITHOUT)


# --- terminals

ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
EVIL = "e\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\x08x"


def test_what_is_printed_does_not_act(faults: Try, capsys: pytest.CaptureFixture[str]) -> None:
    with faults("name", "terminal", "results, warnings, errors, tables, JSON") as fault:
        output.say(EVIL)
        output.warn(EVIL)
        assert not ACTS.search(str(ZooError(EVIL, why=f"{EVIL}\n{EVIL}", fix=EVIL)))
        assert not ACTS.search(str(DataError(EVIL).record()))
        stream = Terminal()
        render.table([render.Column("name", wrap=True)], [[EVIL]], stream)
        render.predictions(
            [{"path": EVIL, "label": EVIL, "probability": 0.5, "top": [{"label": EVIL, "probability": 1}] * 2}]
        )
        captured = capsys.readouterr()
        assert not ACTS.search(captured.out + captured.err)
        assert "\x1b[2J" not in stream.getvalue() and "\x1b]0" not in stream.getvalue()
        document = io.StringIO()
        output.write_json({EVIL: [EVIL]}, document)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", document.getvalue())
        fault.survived(AS_WITHOUT)


def test_progress_does_not_act(faults: Try) -> None:
    from zoo.cli.bars import Bars
    from zoo.runs.progress_lines import Lines

    with faults("name", "terminal", "progress") as fault:
        for view in (Bars(Terminal()), Lines(Terminal())):
            view.hear(Note(EVIL))
            view.stage(EVIL, 0, 3)
            view.hear(PhaseStarted(EVIL, 2, 6, 0))
            view.hear(EpochDone(EVIL, 1, 2, 0.5, 0.4, 0.9, 1.5, True))
            view.close()
            text = view.stream.getvalue()  # type: ignore[attr-defined]
            assert "owned" in text and not re.search(r"\x1b\]|\x1b\[2J|\x9b|\u202e|\x08", text)
        fault.survived(AS_WITHOUT)


@pytest.mark.heavy
def test_the_command_line_with_such_names(faults: Try, tmp_path: Path) -> None:
    """The whole way: class folders and files of such names, adapted, scored, predicted, by the real command."""
    four(tmp_path / "set", 4)
    root = os.fsencode(tmp_path / "set")
    names = {b"amber": b"<script>x\xff", b"blue": EVIL.encode(), b"green": b"new\nline", b"red": b"- #|`"}
    for old, new in names.items():
        os.rename(os.path.join(root, old), os.path.join(root, new))
        os.rename(os.path.join(root, new, b"000.png"), os.path.join(root, new, b"\x1b[31m<b>\xff\n.png"))
    with faults("name", "command line", "class folders and files, from adapt to predict") as fault:
        said = [
            zoo("adapt", "resnet_nano", "--dataset", "set", "--strategy", "probe", "--epochs", "1", "--out", "run",
                folder=tmp_path),
            zoo("eval", "run", folder=tmp_path),
            zoo("predict", "run", "set", folder=tmp_path),
            zoo("runs", ".", folder=tmp_path),
        ]  # fmt: skip
        for done in said:
            assert done.returncode == 0, done.stderr
            assert not ACTS.search(done.stdout + done.stderr)
        for name in ("report.html", "README.md", "run.json", "config.json"):
            assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", (tmp_path / "run" / name).read_bytes()), name
        fault.survived(AS_WITHOUT)
