from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import coverage, mutants, mutate, revisions
from benchmarks.mutate import Place
from benchmarks.revisions import Tree
from tests.benchmarks import toy

LOW, HIGH, VALUE, COUNT = (f"tests/test_limits.py::test_{name}" for name in
                           ("low", "high", "value", "countdown_in_a_process"))  # fmt: skip


@pytest.mark.parametrize(
    ("line", "ways"),
    [
        ("if a < b:", {"if (a >= b):", "if (not (a < b)):"}),
        ("n = -1 + m", {"n = (-1 - m)", "n = (1) + m", "n = -2 + m"}),
        ("return found", {"return None"}),
        ("return None", set()),
        ("raise ValueError(f'{n} is no number')", {"pass", "raise ValueError(f'XX{n} is no number')"}),
        ("a.b = c", {"pass"}),
        ("a = not c and d", {"a = (c) and d", "a = (not c or d)"}),
        ("é, a = [x for x in y if x], 'é'", {"é, a = [x for x in y if (not (x))], 'é'",
                                             "é, a = [x for x in y if x], 'XXé'"}),
        ("def f(a: 'int' = 3, *, b: 'str' = True) -> 'int':", {"def f(a: 'int' = 4, *, b: 'str' = True) -> 'int':",
                                                                 "def f(a: 'int' = 3, *, b: 'str' = False) -> 'int':"}),
        ("from a import b", set()),
        ("a: 'int'", set()),
    ],
)  # fmt: skip
def test_the_ways_to_break_a_line(line, ways):
    body = "    pass\n" if line.endswith(":") else ""
    head = '    """1 < 2"""\n    x = (1 <\n      q)\n'
    found = mutate.mutations(f"def function():\n{head}    {line}\n{f'    {body}' if body else ''}")
    assert set(found.get(5, [])) == ways
    assert found.keys() <= {3, 5}, "a docstring is no code, and what goes over lines is not broken"


def test_a_broken_line_keeps_its_place_and_is_python():
    source = "def f(a):\n    if a:\n        return 1\n"
    assert mutate.broken(source, 3, "return None") == "def f(a):\n    if a:\n        return None\n"
    assert mutate.broken(source, 2, "if not a") is None
    assert mutate.broken(source, 3, "return  1") is None, "it means the same"


def test_a_line_is_found_wherever_it_has_gone():
    other = "\n".join(f"def g{n}(value):\n    return value\n" for n in range(3))
    finder = mutate.Finder({"zoo/other.py": other, "zoo/bounds.py": "import zoo\n\n" + toy.LIMITS})
    for number, line in enumerate(toy.LIMITS.splitlines(), 1):
        if line.startswith("    "):
            assert finder.find(toy.LIMITS, Place("zoo/limits.py", number)) == Place("zoo/bounds.py", number + 2)
    changed = toy.LIMITS.replace("value > high", "value >= high")
    assert mutate.Finder({"zoo/limits.py": changed}).find(toy.LIMITS, Place("zoo/limits.py", 9)) is None
    twice = mutate.Finder({"zoo/one.py": toy.LIMITS, "zoo/two.py": toy.LIMITS})
    assert twice.find(toy.LIMITS, Place("zoo/limits.py", 9)) is None, "which of the two?"
    alone = mutate.Finder({"zoo/other.py": other})
    assert alone.find(toy.LIMITS, Place("zoo/limits.py", 11)) is None, "the line is there, in another function"


def test_the_draw_is_the_same_for_a_seed_and_in_both_revisions():
    before, after = {"zoo/limits.py": toy.LIMITS}, {"zoo/base/bounds.py": toy.LIMITS.replace("import sys\n", "")}
    drawn = mutate.pick(before, after, 4, 0)
    assert len(drawn) == 4
    assert drawn == mutate.pick(before, after, 4, 0) != mutate.pick(before, after, 4, 1)
    for mutant in drawn:
        assert toy.LIMITS.splitlines()[mutant.before.number - 1].strip() == mutant.old
        assert mutant.after == Place("zoo/base/bounds.py", mutant.before.number - 1)
    everything = mutate.pick(before, after, 100, 0)
    assert {mutant.before.number for mutant in everything} == {6, 7, 8, 9, 10, 11, 15, 16, 17, 21}
    assert everything[:4] == drawn, "a line's fault does not depend on how many there are"


def known(tree: Tree, covered: Mapping[str, Sequence[int]]) -> None:
    """As `python -m benchmarks coverage` leaves it."""
    folder = tree.work / coverage.FOLDER
    folder.mkdir(parents=True)
    notes = [{"test": test.removesuffix(" (call)"), "outcome": "passed", "seconds": 0.1} for test in covered if test]
    (folder / coverage.TESTS).write_text("".join(json.dumps(note) + "\n" for note in notes))
    (folder / coverage.TOTALS).write_text('{"selection": []}')
    path = str(tree.work / coverage.CLONE / list(tree.sources())[-1])
    with closing(sqlite3.connect(folder / coverage.DATA)) as data:
        data.execute("create table file (id integer, path text)")
        data.execute("create table context (id integer, context text)")
        data.execute("create table arc (file_id integer, context_id integer, fromno integer, tono integer)")
        data.execute("insert into file values (1, ?)", [path])
        for number, (test, lines) in enumerate(covered.items()):
            data.execute("insert into context values (?, ?)", [number, test])
            data.executemany("insert into arc values (1, ?, ?, -1)", [(number, line) for line in lines])
        data.commit()


@pytest.fixture
def project(tmp_path):
    """Arguments for two revisions whose coverage is known."""
    before, _ = toy.moved(tmp_path / "project")
    arguments = toy.asked(mutants, tmp_path, "--before", before)
    for tree in revisions.trees(arguments, "tree"):
        shift = 0 if tree.side == "before" else 1
        called = range(7 + shift, 12 + shift)
        tests = {HIGH: called, VALUE: called, f"{COUNT} (call)": range(15 + shift, 18 + shift), "": (1, 3, 6, 14, 20)}
        known(tree, {LOW: called, **tests} if tree.side == "before" else tests)
    return arguments


def test_what_the_tests_catch_in_each_revision(project, capfd, monkeypatch):
    lines = {8: "return low", 10: "return high", 21: 'return "an answer"'}
    drawn = [mutate.Mutant(Place("zoo/limits.py", number), Place("zoo/base/bounds.py", number + 1), old, "return None")
             for number, old in lines.items()]  # fmt: skip
    monkeypatch.setattr(mutants, "pick", lambda *_: drawn)
    record = mutants.measure(project)
    found = [[(answer["how"], answer["test"]) for answer in line["answers"]] for line in record["lines"]]
    assert found == [
        [("failed", LOW), ("", "")],  # that test is gone
        [("failed", HIGH), ("failed", HIGH)],
        [("", ""), ("", "")],  # nothing covers it
    ]
    assert record["caught"] == {"before": 2, "after": 1}
    said = capfd.readouterr().err
    assert "not caught now: zoo/base/bounds.py:9: return None\ncaught of 3: 2 before, 1 after\n" in said
    for tree in revisions.trees(project, "mutants"):
        assert revisions.git(tree.path, "status", "--porcelain", "--untracked-files=no") == ""

    monkeypatch.setattr(mutants.Runner, "judge", lambda *_: pytest.fail("it is known already"))
    assert mutants.measure(project) == record


def test_what_a_process_covers_counts_for_its_test_and_what_runs_at_import_for_none(project):
    tree = revisions.trees(project, "tree")[0]
    tests = mutants.Tests(tree, {"zoo/limits.py"})
    assert tests.of(Place("zoo/limits.py", 16))[0] == COUNT
    assert set(tests.of(Place("zoo/limits.py", 9))[:3]) == {LOW, HIGH, VALUE}
    assert len(tests.of(Place("zoo/limits.py", 6))) == 4, "a default: what covers the file's functions"
    assert tests.of(Place("zoo/limits.py", 25)) == [], "nothing runs it"


def test_one_variant_of_each_test_comes_first_and_there_is_an_end(tmp_path, monkeypatch):
    before, _ = toy.moved(tmp_path / "project")
    tree = revisions.trees(toy.asked(mutants, tmp_path, "--before", before), "tree")[0]
    called = range(7, 12)
    known(tree, {f"t.py::test_a[{n}]": called for n in range(30)} | {"t.py::test_b": called})
    tests = mutants.Tests(tree, {"zoo/limits.py"})
    chosen = tests.of(Place("zoo/limits.py", 9))
    assert chosen[:2] == ["t.py::test_a[0]", "t.py::test_b"]
    assert len(chosen) == mutants.TESTS
    monkeypatch.setattr(mutants, "SECONDS", 0.15)
    assert len(tests.of(Place("zoo/limits.py", 9))) == 2


def test_a_fault_is_caught_by_a_test_that_passes_without_it(tmp_path, monkeypatch):
    before, _ = toy.moved(tmp_path / "project")
    tree = revisions.trees(toy.asked(mutants, tmp_path, "--before", before), "mutants")[0]
    unsound = "tests/test_unsound.py::test_it"
    (tree.path / "tests/test_unsound.py").write_text("def test_it():\n    assert False\n")
    runner, seconds = mutants.Runner(tree), dict.fromkeys((unsound, VALUE, LOW, COUNT), 0.1)

    def judge(number: int, new: str, *tests: str) -> dict[str, object]:
        return runner.judge(Place("zoo/limits.py", number), new, tests, seconds)

    assert judge(8, "return None", unsound, VALUE) == {"how": "", "test": "", "tests": 1}
    assert judge(8, "return None", unsound, VALUE, LOW) == {"how": "failed", "test": LOW, "tests": 2}
    assert judge(3, "raise ImportError", LOW) == {"how": "broken", "test": "", "tests": 1}
    monkeypatch.setattr(mutants, "PATIENCE", (3.0, 0.0))
    assert judge(16, "pass", COUNT) == {"how": "too long", "test": "", "tests": 1}
    assert (tree.path / "zoo/limits.py").read_text() == toy.LIMITS


def test_without_coverage_there_is_nothing_to_choose_tests_by(tmp_path):
    before, _ = toy.moved(tmp_path / "project")
    with pytest.raises(SystemExit, match="first: python -m benchmarks coverage"):
        mutants.measure(toy.asked(mutants, tmp_path, "--before", before))


def test_coverage_of_both_revisions(tmp_path, capfd):
    pytest.importorskip("coverage")
    before, _ = toy.moved(tmp_path / "project")
    record = coverage.measure(toy.asked(coverage, tmp_path, "--before", before, "--jobs", "1"))
    assert record["before"]["tests"] == {"passed": 4}
    assert record["after"]["tests"] == {"passed": 3}
    assert record["before"]["lines"] + 1 == record["after"]["lines"]
    assert record["before"]["covered_lines"] == record["before"]["lines"] - 1, "never_called alone is not"
    assert record["after"]["covered_lines"] == record["after"]["lines"] - 2
    assert record["before"]["covered_branches"] == record["before"]["branches"] == 6
    tree = revisions.trees(toy.asked(coverage, tmp_path, "--before", before), "tree")[0]
    assert mutants.Tests(tree, {"zoo/limits.py"}).of(Place("zoo/limits.py", 16))[0] == COUNT
    capfd.readouterr()
    again = coverage.measure(toy.asked(coverage, tmp_path, "--before", before, "--jobs", "1"))
    assert again == record
    assert "passed" not in capfd.readouterr().err, "it is not run again"
    assert Path(tree.work / coverage.FOLDER / coverage.DATA).is_file()
