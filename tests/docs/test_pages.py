from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer.main

import zoo
from tests.docs.generated import current
from tests.docs.pages import READ, ROOT, RUN, Block, anchors, blocks, links, spans, zoo_arguments
from tests.docs.running import masked, run_page
from zoo.cli.main import app
from zoo.models.plugins import manifest


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_examples_run_and_show_what_is_printed(page, tmp_path):
    def compare(block: Block, printed: list[list[str]]) -> None:
        for (command, shown), lines in zip(block.commands(), printed, strict=True):
            assert masked(shown) == masked(lines), (
                f"{block.place}: `{command}` prints something else; write it anew: python -m tests.docs.generated"
            )

    run_page(page, tmp_path, compare)


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_commands_that_are_shown_can_be_typed(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for block in blocks(page):
        if block.language not in ("bash", "console"):
            assert not re.search(r"^(\$ )?zoo ", block.text, flags=re.MULTILINE) or page.name == "cli.md", block.place
            continue
        for command, _ in block.commands():
            for _, words in zoo_arguments(command):
                parse(words, f"{block.place}: {command}")
            if command.startswith("make "):
                assert {word for word in shlex.split(command, comments=True)[1:] if "=" not in word} <= targets
            for path in re.findall(r"(?<=\s)\./\S+", command):
                assert list(ROOT.glob(path.removeprefix("./"))), f"{block.place}: there is no {path}"


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_names_in_the_text_exist(page):
    known = {name for command in every_command(typer.main.get_command(app)) for name in command}
    for span in spans(page):
        if span.startswith("--"):
            name = re.split(r"[ =,]", span)[0]
            assert name in known, f"{name_of(page)}: zoo has no option {name}"
        if span.startswith("zoo ") and re.match(r"zoo [a-z]", span) and not span.endswith("…"):
            assert span.split()[1] in ("--help", *typer.main.get_command(app).commands), f"{name_of(page)}: `{span}`"
        if re.fullmatch(r"(zoo|tests|docs|plugins|benchmarks)/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{name_of(page)}: there is no {span}"
        found = re.match(r"zoo((?:\.[A-Za-z_]\w*)+)(?:\(|$)", span)
        if found and span not in ("zoo.yaml", "zoo.json", "zoo.plugins"):
            assert exists(found[1].removeprefix(".")), f"{name_of(page)}: there is no {span}"


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(other), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_what_is_made_from_the_code_is_current(page):
    text = page.read_text(encoding="utf-8")
    assert text == current(text), "write it anew: python -m tests.docs.generated"


def test_every_page_can_be_found_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            local = [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if ":" not in link]
            waiting += [path for path in local if path.suffix == ".md" and path.exists()]
    assert set((ROOT / "docs").rglob("*.md")) <= reached


def test_the_page_about_runs_names_every_file_and_key(tmp_path):
    recipe = zoo.Recipe(strategy="probe", epochs=1, train_per_class=2)
    run = zoo.adapt("resnet_nano", "digits", recipe, out=tmp_path / "run")
    named = set(spans(ROOT / "docs" / "runs.md"))
    assert {path.name for path in run.path.iterdir()} <= named
    record = run.record
    keys = [*record, *record["result"], *record["dataset"], *record["backbone"], *record["resolved"], *record["best"]]
    assert not {key for key in keys if key not in named and f"{key}" not in zoo.Recipe().record()}


def test_the_page_about_plugins_names_every_field_of_a_manifest():
    named = set(spans(ROOT / "docs" / "write-a-plugin.md"))
    assert not (manifest._TOP | manifest._BACKBONE | manifest._WEIGHTS) - named


def parse(words: list[str], where: str) -> None:
    """Let the command line read words without doing anything."""
    command = typer.main.get_command(app)
    context = None
    name = "zoo"
    words = [word for word in words if word != "--debug"]
    while True:
        try:
            context = command.make_context(name, list(words), parent=context)
        except SystemExit:
            return
        except Exception as error:
            if type(error).__name__ in ("Exit", "NoArgsIsHelpError"):  # --help, --version
                return
            raise AssertionError(f"{where}\n{error}") from error
        if not hasattr(command, "commands"):
            return
        name, words = words[0], words[1:]
        assert name in command.commands, f"{where}: there is no command {name}"
        command = command.commands[name]


def every_command(command):
    """The option names of a command and of those below it."""
    yield [name for entry in command.params for name in entry.opts] + ["--help", "--install-completion"]
    for below in getattr(command, "commands", {}).values():
        yield from every_command(below)


def exists(path: str) -> bool:
    """Whether `zoo.<path>` is a module, or something inside one."""
    parts = path.split(".")
    value: object = zoo
    for number, part in enumerate(parts):
        try:
            value = importlib.import_module(".".join(["zoo", *parts[: number + 1]]))
        except ModuleNotFoundError:
            value = getattr(value, part, None)
            if value is None:
                return False
    return True
