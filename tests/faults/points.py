"""Where a child process may be killed, told by patching what it calls: production code knows nothing of this.

Every point has an operation and a phase, and says where in it. All that are passed go into a log; at one of them the
process may kill itself with SIGKILL. Where there is a second training (zoo/runs/refit.py), its operations have
names of their own.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

# In the order in which a run first comes to them.
OPERATIONS = (
    "recalibration",
    "loading",
    "cache build",
    "training step",
    "checkpoint write",
    "evaluation",
    "between trainings",
    "refit cache build",
    "refit loading",
    "refit training step",
    "refit checkpoint write",
    "averaging",
    "final save",
)
# Parts of a run in which whatever is done belongs to one operation.
RECALIBRATION, BETWEEN, REFIT, AVERAGING, END = (
    "recalibration", "between trainings", "refit", "averaging", "final save",
)  # fmt: skip


class Points:
    """The points that this process passes.

    Args:
        folder: What lies below it is the run's, or its cache's.
        kill: Operation and number (from 1) of the point at which to die.
    """

    def __init__(self, folder: Path, kill: tuple[str, int] | None) -> None:
        self.folder = str(folder)
        self.kill = kill
        self.counts: Counter[str] = Counter()
        self.part = ""  # of the run, where it is one of those above
        self.phase = "preparation"
        self.again = False  # whether a second training is to come
        self._log = os.open(f"{folder}.points", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._lock = threading.Lock()

    def passed(self, operation: str, where: str, last: Callable[[], object] = lambda: None) -> None:
        """Note a point, and die there if it is the one; `last` is done just before."""
        operation = f"{REFIT} {operation}" if self.part == REFIT else self.part or operation
        with self._lock:
            self.counts[operation] += 1
            mine = (operation, self.counts[operation])
        dies = self.kill is not None and mine == tuple(self.kill)
        line: dict[str, Any] = {"operation": operation, "number": mine[1], "phase": self.phase, "where": where}
        line["killed"] = dies
        os.write(self._log, (json.dumps(line) + "\n").encode())
        if dies:
            last()
            os.kill(os.getpid(), signal.SIGKILL)

    def operation_of(self, path: str) -> str | None:
        """What writing a file belongs to; None: not ours."""
        if not path.startswith(self.folder):
            return None
        if "/cache/activations/" in path:
            return "cache build"
        return "checkpoint write" if "/checkpoints/" in path else "loading"


def install(
    folder: Path,
    *,
    kill: tuple[str, int] | None = None,
    full: tuple[int, bool] | None = None,
    memory: int | None = None,
    before: str = "",
) -> None:
    """Prepare this process, which was forked for it.

    Args:
        folder: Where it runs.
        kill: See `Points`.
        full: The number of the write that finds the disk full, and whether all after it do too; 0: log them alone.
        memory: Bytes of address space that training may take beyond what the process has.
        before: Python that is run first.
    """
    points = Points(folder, kill)
    _watch_files(points)
    _watch_work(points)
    _watch_parts(points)
    _note_states(Path(f"{folder}.states"))
    if full is not None:
        library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        log = os.open(f"{folder}.writes", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        library.faults_arm(str(folder).encode(), ctypes.c_int(full[0]), ctypes.c_int(full[1]), ctypes.c_int(log))
    if memory is not None:
        _limit_memory(memory)
    if before:
        exec(before, {"points": points})


def _watch_files(points: Points) -> None:
    """Half of a file, a whole one under its temporary name, one in its place, one that goes."""
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def synced(file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        operation = points.operation_of(path)
        if operation:
            half = os.fstat(file).st_size // 2
            points.passed(operation, f"half of {Path(path).name}", lambda: os.ftruncate(file, half))
        fsync(file)

    def replaced(source: Any, target: Any, **named: Any) -> None:
        operation = points.operation_of(str(target))
        if operation:
            points.passed(operation, f"before {Path(target).name} is in its place")
        replace(source, target, **named)
        if operation:
            points.passed(operation, f"{Path(target).name} is in its place")

    def unlinked(path: Any, **named: Any) -> None:
        operation = points.operation_of(str(path))
        if operation or points.part == END:
            points.passed(operation or END, f"before {Path(path).name} goes")
        unlink(path, **named)

    os.fsync, os.replace, os.unlink = synced, replaced, unlinked  # type: ignore[assignment]


def _watch_work(points: Points) -> None:
    from zoo.base.files import write_atomic
    from zoo.data.batches.maker import Maker
    from zoo.events import Progress
    from zoo.runs import finish
    from zoo.training import collect as evaluation
    from zoo.training import loop
    from zoo.training.state.session import Session

    def before(home: Any, name: str, operation: str, where: str) -> None:
        original = getattr(home, name)

        @wraps(original)
        def watched(*values: Any, **named: Any) -> Any:
            points.passed(operation, where)
            return original(*values, **named)

        _everywhere(home, name, original, watched)

    before(Maker, "make", "loading", "before a batch is made")
    before(loop, "set_rates", "training step", "before a step")
    before(Session, "log_steps", "training step", "after a step, which nobody wrote down")
    log, collect, made = Session._log, evaluation.collect, Session.__init__

    def logged(self: Session, line: dict[str, Any]) -> None:
        operation = "training step" if line["event"] == "step" else "evaluation"

        def half() -> None:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line)[:20])

        points.passed(operation, "half of a line in metrics.jsonl", half)
        log(self, line)

    def collected(model: Any, batches: Iterable[Any], *values: Any, **named: Any) -> Any:
        def each() -> Iterator[Any]:
            for batch in batches:
                points.passed("evaluation", "before a batch")
                yield batch

        return collect(model, each(), *values, **named)

    def init(self: Session, folder: Path, metrics: Path, states: Path, machine: Any, emit: Any, **named: Any) -> None:
        def heard(event: Any) -> None:
            if isinstance(event, Progress) and event.stage.startswith("computing activations"):
                points.passed("cache build", event.stage)
            emit(event)

        made(self, folder, metrics, states, machine, heard, **named)

    Session._log, Session.__init__ = logged, init  # type: ignore[method-assign]
    _everywhere(evaluation, "collect", collect, collected)
    # Plots take longer than all the rest; that there is a file is what matters here.
    finish.write_report = lambda run, *_: write_atomic(run.report, "report") or run.report  # type: ignore[func-returns-value]


def _watch_parts(points: Points) -> None:
    """Which part of the run it is, and which phase; after a training comes another, or the final save."""
    from zoo.runs import averages, refit
    from zoo.training import loop
    from zoo.training.autotune import decide
    from zoo.training.norms import policy, reestimate
    from zoo.training.state.session import Session

    def within(home: Any, name: str, part: str, after: str = "") -> None:
        original = getattr(home, name)

        @wraps(original)
        def watched(*values: Any, **named: Any) -> Any:
            points.part = part
            try:
                return original(*values, **named)
            finally:
                points.part = after

        _everywhere(home, name, original, watched)

    plain = policy.recalibrated
    within(policy, "recalibrated", RECALIBRATION)
    decide.DECIDERS = [policy.recalibrated if one is plain else one for one in decide.DECIDERS]
    within(averages, "averaged", AVERAGING, END)
    end, start_of, run_phase, recalibrate = Session.save_end, refit.start_of, loop.run_phase, reestimate.recalibrate

    def started(*values: Any) -> Any:
        start = start_of(*values)
        points.again = start is not None
        return start

    def ran(job: Any, session: Session, phase: Any, average: Any) -> None:
        points.phase = phase.name
        if points.part == BETWEEN:
            points.part = REFIT
        run_phase(job, session, phase, average)

    def ended(self: Session) -> None:
        end(self)
        points.part, points.again = BETWEEN if points.again else END, False
        points.phase = points.part

    def replaced(model: Any, batches: Iterable[Any], *values: Any) -> Any:
        def each() -> Iterator[Any]:
            for batch in batches:
                points.passed(points.part, "before norms see a batch")
                yield batch
            points.passed(points.part, "when norms have seen all")

        return recalibrate(model, each(), *values)

    Session.save_end = ended  # type: ignore[method-assign]
    for home, name, original, other in (
        (refit, "start_of", start_of, started),
        (loop, "run_phase", run_phase, ran),
        (reestimate, "recalibrate", recalibrate, replaced),
    ):
        _everywhere(home, name, original, other)


def _note_states(path: Path) -> None:
    """Write down what weights, their average, optimizer and objective are at the end of each epoch, as hashes."""
    from zoo.training import loop

    made, finished = loop.make_optimizer, loop.finish_epoch
    latest: list[Any] = []

    def make(*values: Any, **named: Any) -> Any:
        latest[:] = [made(*values, **named)]
        return latest[0]

    def finish(job: Any, session: Any, phase: Any, source: Any, average: Any, *rest: Any) -> Any:
        at = session.position
        states = {"model": job.model.state_dict(), "optimizer": latest[0].state_dict()}
        states["average"] = {} if average is None else average.state_dict()
        states["objective"] = job.objective.state_dict()  # a discriminator's weights, for one
        line = {"at": [at.phase, at.epoch, at.step], **{name: _digest(state) for name, state in states.items()}}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return finished(job, session, phase, source, average, *rest)

    loop.make_optimizer, loop.finish_epoch = make, finish


def _digest(state: Any) -> str:
    import torch

    digest = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                digest.update(str(key).encode())
                take(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                take(item)
        elif isinstance(value, torch.Tensor):
            digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    take(state)
    return digest.hexdigest()


def _limit_memory(more: int) -> None:
    """From the first training step on, allow the process so many bytes more."""
    from zoo.training import loop

    original = loop.set_rates

    def limited(*values: Any, **named: Any) -> Any:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
        return original(*values, **named)

    loop.set_rates = limited


def _everywhere(home: Any, name: str, original: Any, other: Any) -> None:
    """Put another function in the place of one, also where it was imported by name."""
    setattr(home, name, other)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("zoo") and getattr(module, name, None) is original:
            setattr(module, name, other)
