"""Processes killed with SIGKILL, anywhere; after `--resume` the run is what it would have been, to the bit."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.record import AS_WITHOUT, Try
from tests.faults.runs import RECIPES, Case, Cases, operations

EVERYWHERE = ("loading", "cache build", "training step", "checkpoint write", "evaluation", "final save")
STRATEGIES = ("lp-ft", "probe", "partial", "gradual", "finetune", "scratch")
# Twice in what every strategy does, once in the rest.
CASES = [
    pytest.param(name, operation, draw, marks=pytest.mark.heavy)
    for name in RECIPES
    for operation in operations(name)
    for draw in ((1, 2) if name in STRATEGIES and operation in EVERYWHERE else (1,))
]


def test_a_run_that_is_killed_in_every_operation(cases: Cases, case: Case, faults: Try) -> None:
    """One run, killed once in each operation, in the order in which they come."""
    counts = Counter(point["operation"] for point in cases.whole("lp-ft").points())
    chosen = random.Random(5)
    for number, operation in enumerate(operations("lp-ft")):
        # Early in each, for the process has to get there again after the one before.
        point = chosen.randint(1, max(1, counts[operation] // 4))
        with faults("kill", operation, f"a chain over lp-ft, {number + 1}: {operation} {point}") as fault:
            ended = case.go_on(kill=(operation, point))
            assert ended.status == -signal.SIGKILL, ended.err
            fault.survived(AS_WITHOUT)
    with faults("kill", "all of them, one after the other", "a chain over lp-ft") as fault:
        done = case.go_on()
        assert done.code in (0, 1) and (not done.code or "finished already" in done.err), done.err
        case.assert_as_without()
        fault.survived(AS_WITHOUT)


@pytest.mark.parametrize(("strategy", "operation", "draw"), CASES)
def test_a_run_that_is_killed_at_a_random_point(
    cases: Cases, tmp_path: Path, faults: Try, strategy: str, operation: str, draw: int
) -> None:
    chosen = random.Random(f"{strategy}, {operation}, {draw}")
    passed = [point for point in cases.whole(strategy).points() if point["operation"] == operation]
    point = chosen.choice(passed)
    case = cases.make(tmp_path, strategy)
    place = f"{strategy}, {point['phase']}: {operation} {point['number']}, {point['where']}"
    with faults("kill", operation, place) as fault:
        killed = case.start(kill=(operation, point["number"]))
        assert killed.status == -signal.SIGKILL, killed.err
        (where,) = [point["where"] for point in case.points() if point["killed"]]
        done = case.go_on()
        finished = "is finished already" in done.err  # it was killed after the last thing that matters
        assert done.code == 0 or (finished and operation == "final save"), (where, done.err)
        assert "Traceback" not in done.err
        case.assert_as_without()
        fault.survived(AS_WITHOUT)
