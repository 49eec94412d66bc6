"""What a training run carries along: where it is, its log, its saved states, and whether it was told to stop."""

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
from zoo.data import Batch
from zoo.errors import RunError, TrainingError, TrainingInterrupted
from zoo.events import CheckpointSaved, EpochDone, Listener, Note, StepDone
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
        metrics: Its log.
        states: The folder of saved states.
        accelerator: Tells which process this is.
        emit: Whoever listens.
        every: How often a state is saved; an interruption always saves one.
        keep: How many states stay.
        start: Where it begins if there is no saved state.
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
        self.emit = emit if accelerator.is_main_process else _silent
        self.every, self.keep = every, keep
        self.position = start or Position()
        self._restored: dict[str, Any] | None = None
        self._started = time.monotonic()
        self._last_saved = time.monotonic(), self.position.step  # when, and at which step
        self._weights: tuple[nn.Module, nn.Module | None, nn.Module | None] | None = None
        self._save: Callable[[], None] | None = None  # writes a state of where the phase stands
        self._read: Callable[[], Iterable[StepDone]] = tuple  # gives the steps that are not in the log yet
        self._stopping = Stopping()
        self._trained = False  # all phases are done, and a saved state says so

    # --- resuming ---

    def restore(self, model: nn.Module, average: nn.Module | None, objective: nn.Module | None = None) -> None:
        """Go back to the newest undamaged state, if there is one, and cut the log to it.

        Where that is a state within this training, those of one that came after it, in a folder of their own, go too:
        they count on lines of the log that are done again.
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
        done = state is not None and state["model"] is None  # further lines are of a training that came after this one
        if self.accelerator.is_main_process and not done:
            for later in filter(Path.is_dir, self.states.glob("*")):
                with friendly_os_errors(later):
                    shutil.rmtree(later)
            cut_to(self.metrics, self.position.log_lines)

    def restore_optimizer(
        self, optimizer: torch.optim.Optimizer, read: Callable[[], Iterable[StepDone]] = tuple
    ) -> None:
        """Give the first optimizer after a resume the state it had; later phases start new ones."""
        if self._restored is not None and self._restored["position"]["phase"] == self.position.phase:
            optimizer.load_state_dict(self._restored["optimizer"])
        self._restored = None
        assert self._weights is not None, "restore comes first"
        self._save, self._read = partial(self.save, *self._weights, optimizer), read

    # --- saving ---

    def save(
        self, model: nn.Module, average: nn.Module | None, objective: nn.Module | None, optimizer: torch.optim.Optimizer
    ) -> None:
        """Write a state from which training goes on exactly here.

        Raises:
            TrainingError: The weights are not finite: the state before them stays the newest.
        """
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
        """Save once more before an error ends the run that came between two steps, where nothing is half done.

        Returns:
            Whether there is a state to go on from: before the first phase there is nothing to save.
        """
        if self._save is not None and not self._trained:
            self.log_steps(self._read())
            self._save()
        return self._save is not None

    def save_end(self) -> None:
        """Write down that all phases are done: what is left to do needs the best weights alone.

        From here on a signal stops at once, for there is nothing more to save.

        Raises:
            TrainingInterrupted: A signal came since the last step.
        """
        if self.accelerator.is_main_process:
            self._write_state(model=None, average=None, objective=None, optimizer=None)
        self._trained = True
        if self._stopping.signal is not None:
            raise self.interruption()

    # --- weights that a later step of the run needs ---

    def keep_best(self, model: nn.Module, scores: dict[str, Any]) -> None:
        """Remember these weights as the best so far."""
        self.position.best = scores
        self.position.best_sha256 = self._keep(best_file(scores["step"]), model)

    def keep_epoch(self, model: nn.Module, scores: dict[str, Any], *, most: int, select_by: str) -> None:
        """Remember these weights if their epoch is one of the best so many."""
        entry: dict[str, Any] = {**scores, "sha256": None}
        entries = [*self.position.epochs_kept, entry]
        self.position.epochs_kept = [entries[place] for place in sorted(ranked(entries, select_by)[:most])]
        if entry in self.position.epochs_kept:
            entry["sha256"] = self._keep(epoch_file(scores["step"]), model)

    def keep_start(self, model: nn.Module, after: str | None) -> None:
        """Remember these weights as those before the body trains. What is best is found anew: an epoch after them."""
        self.position.start = {"after": after, "sha256": None}
        self.position.best, self.position.best_sha256, self.position.epochs_kept = None, None, []
        self.position.start["sha256"] = self._keep(START_FILE, model)

    def keep_guesses(self, logits: torch.Tensor) -> None:
        """Keep what an epoch's network takes target images for; the report tells later how many were right."""
        if self.accelerator.is_main_process:
            content = io.BytesIO()  # of a file that numpy writes itself nobody learns why it could not be written
            np.save(content, logits.argmax(1).numpy().astype(np.int32), allow_pickle=False)
            place = self.states / f"guesses-{self.position.phase:02d}-{self.position.epoch:06d}.npy"
            write_atomic(place, content.getvalue())

    def load_best(self, model: nn.Module) -> None:
        """Put the best weights back into the model.

        Raises:
            RunError: They are gone, or not what was written.
        """
        self.accelerator.wait_for_everyone()
        if self.position.best is not None:
            model.load_state_dict(self.read_kept(best_file(self.position.best["step"])))

    def read_kept(self, name: str) -> dict[str, torch.Tensor]:
        """The weights in a file that the position names, on the CPU.

        Raises:
            RunError: They are gone, or not what was written.
        """
        path, digest = self.states / name, self.position.weights()[name]
        if not path.is_file() or digest not in (None, file_sha256(path)):
            kind = "best weights" if name.startswith("best") else "kept weights"
            raise RunError(
                f"the {kind} of the run are {'damaged' if path.is_file() else 'gone'}: {path}",
                fix=f"train again from a state before them: {self._way_on()}",
            )
        return load_file(path)

    def checkpoint(self) -> None:
        """Save a state if it is time for another one, or if the run was told to stop, which ends it here.

        The steps that are not in the log yet are read first, which raises if the weights are not worth saving.

        Raises:
            TrainingInterrupted: It was told to stop.
        """
        stop = self._stopping.told(self.accelerator)
        when, step = self._last_saved
        due = stop or self.every.is_over(time.monotonic() - when, self.position.step - step)
        if due or self.accelerator.num_processes > 1:  # each has a clock of its own, and all must come here together
            self.log_steps(self._read())
        if due:
            assert self._save is not None, "restore_optimizer comes first"
            self._save()
        if stop:
            raise self.interruption()

    # --- the log ---

    def log_steps(self, events: Iterable[StepDone]) -> None:
        """Write and tell steps, and add up their losses."""
        for event in events:
            self.position.loss_sum += event.loss
            fields = _fields(event)
            fields["lr"] = dict(fields.pop("rates"))
            fields |= {"parts": dict(parts)} if (parts := fields.pop("parts")) else {}
            self._log({"event": "step", **fields, "seconds": round(self.seconds, 3)})
            self.emit(event)

    def log_epoch(self, event: EpochDone) -> None:
        """Write and tell one epoch."""
        fields = _fields(event)
        for name in ("validators", "values"):
            fields |= {name: dict(said)} if (said := fields.pop(name)) else {}
        self._log({"event": "epoch", **fields, "step": self.position.step})
        self.emit(event)

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time until each is there counts as waited."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.position.waited += time.perf_counter() - asked
            if batch is None:
                return
            self.position.images += len(batch)
            yield batch

    @property
    def seconds(self) -> float:
        """Seconds spent training, those before a resume included."""
        return self.position.seconds + time.monotonic() - self._started

    # --- stopping ---

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Within it, Ctrl-C and SIGTERM let the current step finish; a second one stops at once.

        Only Python's main thread gets signals; in another one nothing is changed.
        """
        self._started = time.monotonic()
        with self._stopping.remembering(self._stop_if_trained):
            yield

    def interruption(self) -> TrainingInterrupted:
        """The error that ends an interrupted run."""
        return TrainingInterrupted(
            f"stopped at step {self.position.step}; the state is saved",
            fix=f"go on with it: {self._way_on()}",
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

    def _keep(self, name: str, model: nn.Module) -> str | None:
        """Write weights beside the states, and give their sha256; other processes write nothing, and know none."""
        if not self.accelerator.is_main_process:
            return None
        with replacing(self.states / name) as temporary:
            write_tensors(_on_cpu(model.state_dict()), temporary)
            digest = file_sha256(temporary)
        self._remove_superseded()
        return digest

    def _way_on(self) -> str:
        return f"zoo adapt --resume {shlex.quote(str(self.folder))}"

    def _log(self, line: dict[str, Any]) -> None:
        self.position.log_lines += 1
        if self.accelerator.is_main_process:
            append_line(self.metrics, line)

    def _remove_superseded(self) -> None:
        """Weights that nothing refers to any more go, unless a kept state would need them after a resume."""
        needed = needed_files(self.states) | self.position.weights().keys()
        for path in self.states.glob("*.safetensors"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


def _silent(event: object) -> None:
    """Only the main process tells."""


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__slots__}


def _on_cpu(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Copies that share no memory, which safetensors asks for, in plain layout."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _require_finite(tensors: dict[str, torch.Tensor], step: int) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(
            f"the weights are not finite after step {step}, so they were not saved",
            why=f"the rate may be too high; first: {broken[0]}",
            fix="try a tenth of the rate with --lr, or --precision fp32",
        )
