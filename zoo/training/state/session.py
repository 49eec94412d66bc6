"""Training session: position, log, saved states, and stop signals."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from zoo.base.durations import Interval
from zoo.base.files import friendly_os_errors, replacing, write_atomic
from zoo.errors import RunError, TrainingError, TrainingInterrupted
from zoo.events import CheckpointSaved, EpochDone, Listener, Note, StepDone, ignore
from zoo.models.tensor_files import file_sha256, write_tensors
from zoo.training.selection import ranked
from zoo.training.state.checkpoint import KEEP, load_checkpoint, needed_files, save_checkpoint
from zoo.training.state.metrics_log import append_line, cut_to
from zoo.training.state.position import START_FILE, Position, best_file, epoch_file
from zoo.training.state.signals import Stopping

EVERY_MINUTE = Interval(seconds=60.0)


class Session:
    """One training run in one process: its position, log, saved states and stop signals.

    Args:
        folder: The run folder; only the main process writes there.
        metrics: The log.
        states: The folder of saved states.
        accelerator: Device and processes.
        emit: Receives the events.
        every: How often a state is saved; an interruption always saves one.
        keep: How many states stay.
        start: The position if there is no saved state.
    """

    def __init__(
        self,
        folder: Path,
        metrics: Path,
        states: Path,
        accelerator: Accelerator,
        emit: Listener,
        *,
        every: Interval = EVERY_MINUTE,
        keep: int = KEEP,
        start: Position | None = None,
    ) -> None:
        self.folder = folder
        self.metrics, self.states = metrics, states
        self.accelerator = accelerator
        self.emit = emit if accelerator.is_main_process else ignore
        self.every, self.keep = every, keep
        self.position = start or Position()
        self._restored: dict[str, Any] | None = None
        self._started = time.monotonic()
        self._last_saved = time.monotonic(), self.position.step  # when, and at which step
        self._weights: tuple[nn.Module, nn.Module | None, nn.Module | None] | None = None
        self._save: Callable[[], None] | None = None  # writes a state of the current phase
        self._read: Callable[[], Iterable[StepDone]] = tuple  # returns the steps that are not in the log yet
        self._stopping = Stopping()
        self._trained = False  # all phases are done, and a saved state says so

    # --- resuming ---

    def restore(self, model: nn.Module, average: nn.Module | None, objective: nn.Module | None = None) -> None:
        """Go back to the newest undamaged state, if there is one, and cut the log to it.

        If that state is within this training, the states of a later training, in a folder of their own, are removed:
        they depend on lines of the log that will be written again.
        """
        self._weights = model, average, objective
        state, damaged = load_checkpoint(self.states)
        for line in damaged:
            self.emit(Note(line))
        if state is not None:
            self.position = Position(**state["position"])
            self._last_saved = time.monotonic(), self.position.step
            if state["model"] is not None:
                model.load_state_dict(state["model"])
            if average is not None and state["average"] is not None:
                average.load_state_dict(state["average"])
            if objective is not None and state.get("objective"):
                objective.load_state_dict(state["objective"])
            self._restored = state
        done = state is not None and state["model"] is None  # further lines are from a later training
        if self.accelerator.is_main_process and not done:
            for later in filter(Path.is_dir, self.states.glob("*")):
                with friendly_os_errors(later):
                    shutil.rmtree(later)
            cut_to(self.metrics, self.position.log_lines)

    def restore_optimizer(
        self, optimizer: torch.optim.Optimizer, read: Callable[[], Iterable[StepDone]] = tuple
    ) -> None:
        """Give the first optimizer after a resume its saved state; later phases start new ones."""
        if self._restored is not None and self._restored["position"]["phase"] == self.position.phase:
            optimizer.load_state_dict(self._restored["optimizer"])
        self._restored = None
        assert self._weights is not None, "restore comes first"
        self._save, self._read = partial(self.save, *self._weights, optimizer), read

    # --- saving ---

    def save(
        self, model: nn.Module, average: nn.Module | None, objective: nn.Module | None, optimizer: torch.optim.Optimizer
    ) -> None:
        """Write a state to resume from; raises TrainingError, and writes none, if the weights are not finite."""
        if self.accelerator.is_main_process:
            tensors, others = _on_cpu(model.state_dict()), {} if objective is None else _on_cpu(objective.state_dict())
            _require_finite(tensors | others, self.position.step)
            path = self._write_state(
                model=tensors,
                average=None if average is None else _on_cpu(average.state_dict()),
                objective=others,
                optimizer=optimizer.state_dict(),
            )
            self.emit(CheckpointSaved(str(path), self.position.step))
        self._last_saved = time.monotonic(), self.position.step

    def save_between_steps(self) -> bool:
        """Save before an error from between two steps ends the run; returns False if there is nothing to save yet."""
        if self._save is not None and not self._trained:
            self.log_steps(self._read())
            self._save()
        return self._save is not None

    def save_end(self) -> None:
        """Record that all phases are done: only the best weights are needed from here on.

        From here on a signal stops at once, because there is nothing more to save. Raises TrainingInterrupted if one
        came since the last step.
        """
        if self.accelerator.is_main_process:
            self._write_state(model=None, average=None, objective=None, optimizer=None)
        self._trained = True
        if self._stopping.signal is not None:
            raise self.interruption()

    # --- weights that a later step of the run needs ---

    def save_best(self, model: nn.Module, scores: dict[str, Any]) -> None:
        """Save these weights as the best so far."""
        self.position.best = scores
        self.position.best_sha256 = self._write_weights(best_file(scores["step"]), model)

    def save_epoch(self, model: nn.Module, scores: dict[str, Any], *, most: int, select_by: str) -> None:
        """Save these weights if their epoch is among the `most` best."""
        entry: dict[str, Any] = {**scores, "sha256": None}
        entries = [*self.position.epochs_kept, entry]
        self.position.epochs_kept = [entries[place] for place in sorted(ranked(entries, select_by)[:most])]
        if entry in self.position.epochs_kept:
            entry["sha256"] = self._write_weights(epoch_file(scores["step"]), model)

    def save_start(self, model: nn.Module, after: str | None) -> None:
        """Save these weights as those before the body trains. The best is then chosen among later epochs."""
        self.position.start = {"after": after, "sha256": None}
        self.position.best, self.position.best_sha256, self.position.epochs_kept = None, None, []
        self.position.start["sha256"] = self._write_weights(START_FILE, model)

    def save_predictions(self, logits: torch.Tensor) -> None:
        """Save an epoch's predicted classes of target images; the report tells later how many were correct."""
        if self.accelerator.is_main_process:
            content = io.BytesIO()  # numpy's own files hide why they could not be written
            np.save(content, logits.argmax(1).numpy().astype(np.int32), allow_pickle=False)
            path = self.states / f"guesses-{self.position.phase:02d}-{self.position.epoch:06d}.npy"
            write_atomic(path, content.getvalue())

    def load_best(self, model: nn.Module) -> None:
        """Load the best weights into the model; raises RunError if they are missing or damaged."""
        self.accelerator.wait_for_everyone()
        if self.position.best is not None:
            model.load_state_dict(self.read_weights(best_file(self.position.best["step"])))

    def read_weights(self, name: str) -> dict[str, torch.Tensor]:
        """The weights in a file of the position, on the CPU; raises RunError if it is missing or damaged."""
        path, digest = self.states / name, self.position.weights()[name]
        if not path.is_file() or digest not in (None, file_sha256(path)):
            kind = "best weights" if name.startswith("best") else "saved weights"
            raise RunError(
                f"the {kind} of the run are {'damaged' if path.is_file() else 'missing'}: {path}",
                fix=f"train again from a state before them: {self._resume_command()}",
            )
        return load_file(path)

    def checkpoint(self) -> None:
        """Read all losses and save a state if one is due; raises TrainingInterrupted if the run was told to stop."""
        stop = self._stopping.is_set(self.accelerator)
        when, step = self._last_saved
        due = stop or self.every.is_over(time.monotonic() - when, self.position.step - step)
        if due or self.accelerator.num_processes > 1:  # each has its own clock, and all must read together
            self.log_steps(self._read())
        if due:
            assert self._save is not None, "restore_optimizer comes first"
            self._save()
        if stop:
            raise self.interruption()

    # --- the log ---

    def log_steps(self, events: Iterable[StepDone]) -> None:
        """Log and emit steps, and add up their losses."""
        for event in events:
            self.position.loss_sum += event.loss
            fields = _fields(event)
            fields["lr"] = dict(fields.pop("rates"))
            fields |= {"parts": dict(parts)} if (parts := fields.pop("parts")) else {}
            self._log({"event": "step", **fields, "seconds": round(self.seconds, 3)})
            self.emit(event)

    def log_epoch(self, event: EpochDone) -> None:
        """Log and emit one epoch."""
        fields = _fields(event)
        for name in ("validators", "values"):
            fields |= {name: dict(scores)} if (scores := fields.pop(name)) else {}
        self._log({"event": "epoch", **fields, "step": self.position.step})
        self.emit(event)

    @property
    def seconds(self) -> float:
        """Seconds of training, including those before a resume."""
        return self.position.seconds + time.monotonic() - self._started

    # --- stopping ---

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Within it, Ctrl-C and SIGTERM let the current step finish (main thread only); a second stops at once."""
        self._started = time.monotonic()
        with self._stopping.remembering(self._stop_if_trained):
            yield

    def interruption(self) -> TrainingInterrupted:
        """The error that ends an interrupted run."""
        return TrainingInterrupted(
            f"stopped at step {self.position.step}; the state is saved",
            fix=f"go on with it: {self._resume_command()}",
            signal_number=self._stopping.signal or signal.SIGINT,
        )

    # --- inside ---

    def _stop_if_trained(self) -> None:
        if self._trained:
            raise self.interruption()

    def _write_state(self, **state: Any) -> Path:
        position = asdict(self.position) | {"seconds": self.seconds}
        needs = {name: digest for name, digest in self.position.weights().items() if digest is not None}
        state = {"position": position, **state}
        path = save_checkpoint(self.states, self.position.step, state, needs=needs, keep=self.keep)
        self._remove_superseded()
        return path

    def _write_weights(self, name: str, model: nn.Module) -> str | None:
        """Write weights and return their sha256, in the main process; the others return None."""
        if not self.accelerator.is_main_process:
            return None
        with replacing(self.states / name) as temporary:
            write_tensors(_on_cpu(model.state_dict()), temporary)
            digest = file_sha256(temporary)
        self._remove_superseded()
        return digest

    def _resume_command(self) -> str:
        return f"zoo adapt --resume {shlex.quote(str(self.folder))}"

    def _log(self, line: dict[str, Any]) -> None:
        self.position.log_lines += 1
        if self.accelerator.is_main_process:
            append_line(self.metrics, line)

    def _remove_superseded(self) -> None:
        """Remove weights that neither the position nor a saved state refers to."""
        needed = needed_files(self.states) | self.position.weights().keys()
        for path in self.states.glob("*.safetensors"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__slots__}


def _on_cpu(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Contiguous copies that share no memory, as safetensors requires."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _require_finite(tensors: dict[str, torch.Tensor], step: int) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(
            f"the weights are not finite after step {step}, so they were not saved",
            why=f"the rate may be too high; first: {broken[0]}",
            fix="try a tenth of the rate with --lr, or --precision fp32",
        )
