"""How many of a hundred lines that are broken at random the tests catch, in two revisions; the same lines, by one seed.

The lines are drawn from the older revision, from those that the newer one has too, wherever it has them, and each is
broken in the same way in both. The tests that cover the line run in one process until the first fails: at most 25,
those first that cover little else, in both revisions by the same rule. `python -m benchmarks coverage` has to say first
which test covers what. A test that fails without the fault too is left out, and a line that no test covers is not
caught. What is finished is kept, mutant by mutant.
"""

from __future__ import annotations

import argparse
import ast
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks import coverage, revisions
from benchmarks.mutate import Mutant, Place, broken, pick
from benchmarks.revisions import Tree

TESTS, SECONDS = 25, 120.0  # at most as many tests for a mutant, and no more of them once they take as long
PATIENCE = (90.0, 10.0)  # seconds until a run hangs: so many, and so many times what its tests took for coverage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    revisions.add_arguments(parser)
    parser.add_argument("--n", type=int, default=100, help="lines (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    before, after = revisions.trees(arguments, "mutants")  # clones of their own: files change in them
    mutants = pick(before.sources(), after.sources(), arguments.n, arguments.seed)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda tree: _side(tree, mutants), (before, after)))
    for mutant, old, new in zip(mutants, *answers, strict=True):
        if bool(old["how"]) != bool(new["how"]):
            title = "only caught now" if new["how"] else "not caught now"
            sys.stderr.write(f"{title}: {mutant.after.path}:{mutant.after.number}: {mutant.new}\n")
    caught = {side: sum(bool(answer["how"]) for answer in found)
              for side, found in zip(revisions.SIDES, answers, strict=True)}  # fmt: skip
    sys.stderr.write(f"caught of {len(mutants)}: {caught['before']} before, {caught['after']} after\n")
    lines = [asdict(mutant) | {"answers": pair} for mutant, *pair in zip(mutants, *answers, strict=True)]
    return {"seed": arguments.seed, "mutants": len(mutants), "caught": caught,
            "commits": [before.commit, after.commit], "lines": lines}  # fmt: skip


class Tests:
    """Which tests to run for a line, from what coverage noted.

    What runs when a module is imported counts for no test, since whichever came first imported it. For such a line, and
    after the tests that cover a line, come those that cover the functions of its file.
    """

    def __init__(self, tree: Tree, files: Collection[str]) -> None:
        folder = tree.work / coverage.FOLDER
        if not (folder / coverage.TOTALS).is_file():
            raise SystemExit(f"nothing is known of the tests {tree.side}; first: python -m benchmarks coverage")
        if only := json.loads((folder / coverage.TOTALS).read_text(encoding="utf-8"))["selection"]:
            sys.stderr.write(f"{tree.side}: only of these tests it is known what they cover: {', '.join(only)}\n")
        notes = coverage.outcomes(folder)
        self.seconds = {note["test"]: note["seconds"] for note in notes if note["outcome"] == "passed"}
        self.sources = {path: ast.parse(text) for path, text in tree.sources().items()}
        self.inside = {path: _inside(source) for path, source in self.sources.items()}
        self.lines: dict[tuple[str, int], set[str]] = defaultdict(set)  # of these files; "" is no test
        self.own: dict[str, Counter[str]] = defaultdict(Counter)  # of a file: how many lines of functions a test covers
        self.all: Counter[str] = Counter()  # the same of all files
        with closing(sqlite3.connect(folder / coverage.DATA)) as data:
            rows = data.execute("select distinct path, fromno, context from arc join file on file.id = file_id "
                                "join context on context.id = context_id where fromno > 0")  # fmt: skip
            for where, number, context in rows:
                path = Path(where).relative_to(tree.work / coverage.CLONE).as_posix()
                test = sys.intern(context.removesuffix(" (setup)").removesuffix(" (call)").removesuffix(" (teardown)"))
                if number in self.inside[path] and test in self.seconds:
                    self.own[path][test] += 1
                    self.all[test] += 1
                if path in files:
                    self.lines[path, number].add(test)

    def of(self, place: Place) -> list[str]:
        """The names of the tests to run, in order."""
        own = self.own[place.path]
        numbers = {place.number, *self._statement(place)}
        covering = {test for number in numbers for test in self.lines.get((place.path, number), ())}
        if not covering:
            return []
        if own and place.number not in self.inside[place.path]:
            covering = set()
        known = {test for test in covering | own.keys() if test in self.seconds}
        focused = sorted(known, key=lambda test: (-own[test] / max(1, self.all[test]), self.seconds[test], test))
        variants: Counter[str] = Counter()
        ranked = []
        for place_of_test, test in enumerate(focused):
            name = test.partition("[")[0]
            variants[name] += 1  # of a test with parameters, one variant of each comes before the second of any
            ranked.append((test not in covering, variants[name], place_of_test, test))
        chosen, taken = list[str](), 0.0
        for *_, test in sorted(ranked)[:TESTS]:
            if taken <= SECONDS:
                chosen.append(test)
                taken += self.seconds[test]
        return chosen

    def _statement(self, place: Place) -> range:
        """The lines of the innermost statement; of one with a body, those of its head."""
        spans = [(node.lineno, node.body[0].lineno if hasattr(node, "body") else (node.end_lineno or 0) + 1)
                 for node in ast.walk(self.sources[place.path]) if isinstance(node, ast.stmt)]  # fmt: skip
        return range(*max((span for span in spans if span[0] <= place.number < span[1]), default=(0, 0)))


class Runner:
    """Runs chosen tests in a tree that may have a fault."""

    def __init__(self, tree: Tree) -> None:
        self.tree, self.sound = tree, set[str]()
        self.plugin = coverage.with_plugin(tree.work / "mutants-plugin")
        # Compiled once, and checked by content: a file that is changed and changed back within a second is noticed.
        words = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "zoo", "tests"]
        subprocess.run([sys.executable, *words], cwd=tree.path, stdout=subprocess.DEVNULL)

    def judge(self, place: Place, new: str, tests: Sequence[str], seconds: Mapping[str, float]) -> dict[str, Any]:
        """Break a line and run the tests: how it was caught ("" if it was not), and by which test."""
        file, left = self.tree.path / place.path, list(tests)
        source = file.read_text(encoding="utf-8")
        while left:
            limit = PATIENCE[0] + PATIENCE[1] * sum(seconds[test] for test in left)
            file.write_text(broken(source, place.number, new) or source, encoding="utf-8")
            try:
                how, test = self._run(left, limit)
            finally:
                file.write_text(source, encoding="utf-8")
            suspects = {test or left[0]}
            if how in ("", "too long") or suspects <= self.sound or not self._run(suspects, limit)[0]:
                self.sound |= suspects if how in ("failed", "broken") else set()
                return {"how": how, "test": test, "tests": len(left)}
            left = [name for name in left if name not in suspects]
        return {"how": "", "test": "", "tests": 0}

    def _run(self, tests: Iterable[str], limit: float) -> tuple[str, str]:
        """How the tests ended ("failed", "too long", "broken" where none could run, or "") and which one failed."""
        with tempfile.TemporaryDirectory(prefix="mutants-") as name:
            folder = Path(name)
            (folder / "chosen").write_text("\n".join(tests), encoding="utf-8")
            variables = {"RECORD_TESTS": str(folder / coverage.TESTS), "CHOSEN_TESTS": str(folder / "chosen"),
                         "TMPDIR": name, "HYPOTHESIS_STORAGE_DIRECTORY": name, "PYTHONDONTWRITEBYTECODE": "1",
                         "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # fmt: skip
            files = dict.fromkeys(test.partition("::")[0] for test in tests)
            process = subprocess.Popen(coverage.command("-x", *files), cwd=self.tree.path,
                                       env=self.tree.environment(self.plugin, **variables),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return "too long", ""
            finally:
                _end(process)
            failed = [note["test"] for note in coverage.outcomes(folder) if note["outcome"] == "failed"]
        return ("", "") if code == 0 else ("failed", failed[0]) if failed else ("broken", "")


def _side(tree: Tree, mutants: Sequence[Mutant]) -> list[dict[str, Any]]:
    """What became of each mutant in a tree."""
    file = tree.work / "mutants.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known = {tuple(line["key"]): line["answer"] for line in map(json.loads, lines)}
    places: list[Place] = [getattr(mutant, tree.side) for mutant in mutants]
    tests, runner, answers = Tests(tree, {place.path for place in places}), Runner(tree), []
    for number, (mutant, place) in enumerate(zip(mutants, places, strict=True), 1):
        key = (place.path, place.number, mutant.new)
        if key not in known:
            known[key] = runner.judge(place, mutant.new, tests.of(place), tests.seconds)
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"key": key, "answer": known[key]}) + "\n")
        answers.append(known[key])
        sys.stderr.write(f"{tree.side} {number} of {len(mutants)}: {known[key]['how'] or 'missed'}\n")
    return answers


def _inside(source: ast.Module) -> set[int]:
    """The numbers of the lines within functions."""
    functions = (node for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {number for node in functions for number in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it has started, if it still runs."""
    with suppress(psutil.Error):
        root = psutil.Process(process.pid)
        for child in [*root.children(recursive=True), root]:
            with suppress(psutil.Error):
                child.kill()
    process.wait()
