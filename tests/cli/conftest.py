"""A stand-in for `zoo.api`, and a way to run one command line in this process."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.cli import main
from zoo.errors import ZooError
from zoo.events import EpochDone, Note, PhaseStarted, PlanReady, Progress, StepDone
from zoo.recipes.plan import GroupPlan, PhasePlan, Plan
from zoo.runs.run_folder import Run


@dataclass(frozen=True)
class Outcome:
    """What one command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def zoo_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `zoo …` in this process."""
    monkeypatch.delenv("ZOO_DEBUG", raising=False)
    monkeypatch.delenv("RANK", raising=False)

    def run(*words: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main.run([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


PLAN = Plan(
    backbone="resnet/resnet_nano",
    dataset="digits",
    phases=(
        PhasePlan("probe", 1, 3, "one-cycle", 0.25, (
            GroupPlan("stem", 1_200, 100, 0.0, 0.0, "none", "frozen"),
            GroupPlan("head", 330, 10, 3e-3, 0.05, "all", "none"))),
        PhasePlan("finetune", 2, 3, "one-cycle", 0.25, (
            GroupPlan("stem", 1_200, 100, 5e-4, 0.05, "all", "live"),
            GroupPlan("head", 330, 10, 1e-3, 0.05, "all", "none"))),
    ),
    seconds=83.0,
    memory_bytes=210_000_000,
    notes=("val is cut from train",),
)  # fmt: skip

RESULT = {
    "accuracy": 0.972, "top5": 0.999, "loss": 0.1234, "macro_f1": 0.97, "ece": 0.021, "n": 360, "split": "test",
    "selected_on": "val (cut from train)", "interval": [0.95, 0.984], "baseline": 0.1,
    "classes": [{"name": "0", "n": 36, "accuracy": 1.0}, {"name": "1", "n": 36, "accuracy": 0.5}],
    "confusion": [[36, 0], [18, 18]], "calibration": [], "mistakes": [],
}  # fmt: skip

RECORD = {
    "schema": 1, "zoo": "0.1.0", "kind": "classifier", "status": "finished", "created": "2026-01-02T03:04:05+00:00",
    "backbone": {"name": "resnet/resnet_nano"}, "dataset": {"name": "digits", "ref": "digits"},
    "recipe": {"strategy": "lp-ft"}, "result": RESULT, "best": {"phase": "finetune", "epoch": 2},
    "seconds": {"setup": 1.0, "train": 2.0, "total": 3.5},
}  # fmt: skip


@dataclass(frozen=True)
class FakePrediction:
    path: str
    error: str | None = None

    def record(self) -> dict[str, Any]:
        if self.error:
            return {"path": self.path, "error": self.error}
        top = [{"label": "seven", "probability": 0.91}, {"label": "one", "probability": 0.06}]
        return {"path": self.path, "label": "seven", "probability": 0.91, "top": top}


class FakeApi(types.ModuleType):
    """Records how it is called; raises `fault` if there is one."""

    def __init__(self, root: Path) -> None:
        super().__init__("zoo.api")
        self.root = root
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.fault: BaseException | None = None

    def _called(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.calls.append((name, args, named))
        print("a library chats on stdout")
        if self.fault is not None:
            raise self.fault

    def plan(self, *args: Any, on_event: Any, **named: Any) -> Plan:
        self._called("plan", args, named)
        on_event(PlanReady(PLAN))
        return PLAN

    def adapt(self, *, on_event: Any, **named: Any) -> Run:
        on_event(Progress("reading images", 0, 10))
        on_event(Progress("reading images", 10, 10))
        self._called("adapt", (), named)
        on_event(PlanReady(PLAN))
        on_event(Note("[bold] is no markup"))
        on_event(PhaseStarted("finetune", 2, 6, 0))
        for epoch in (1, 2):
            for step in (1, 2, 3):
                on_event(StepDone("finetune", epoch, 3 * (epoch - 1) + step, 1.0 / step, {"head": 1e-3}))
            on_event(EpochDone("finetune", epoch, 2, 0.5, 0.4, 0.9 + epoch / 100, 1.5, epoch == 2))
        run = Run(self.root / "runs" / "made")
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_record(RECORD)
        run.report.write_text("<html>")
        return run

    def evaluate(self, *args: Any, on_event: Any, **named: Any) -> dict[str, Any]:
        self._called("evaluate", args, named)
        return dict(RESULT)

    def predict(self, model: str, images: list[str], *, on_event: Any, **named: Any) -> list[FakePrediction]:
        self._called("predict", (model, images), named)
        return [FakePrediction(path, "cannot identify image" if "broken" in path else None) for path in images]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApi]:
    monkeypatch.chdir(tmp_path)
    fake = FakeApi(Path())
    monkeypatch.setitem(sys.modules, "zoo.api", fake)
    monkeypatch.setattr(zoo, "api", fake, raising=False)
    yield fake


@pytest.fixture
def plan_with() -> Callable[..., Plan]:
    return lambda **changes: replace(PLAN, **changes)


__all__ = ["FakeApi", "Outcome", "Terminal", "ZooError"]
