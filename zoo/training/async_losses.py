"""Losses of training steps, read without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from zoo.errors import TrainingError
from zoo.events import StepDone
from zoo.recipes.plan import PhasePlan

READ_EVERY = 0.5  # seconds between two reads, with one process
MOST = 16  # steps between two reads
EXPLODED = 1e4  # nats; chance is the logarithm of the number of classes, and no such network recovers


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of a step before its loss is read."""

    phase: PhasePlan
    epoch: int  # from 1, within the phase
    number: int  # from 1, over the whole run
    rates: dict[str, float]  # learning rate of each group that trains, input to head
    images: Sequence[torch.Tensor]  # positions of this process's training images, on the CPU
    parts: Sequence[str] = ()  # names of what is logged alongside the loss
    amounts: Sequence[str] = ()  # the names of those parts that not every image has

    def done(self, loss: float, *values: float) -> StepDone:
        """The step's event; `values` are those of `Loss.values` after the total, and parts of amount 0 are left out."""
        count = len(self.parts)
        amounts = dict(zip(self.amounts, values[count:], strict=True))
        named = {name: value / amounts.get(name, 1.0) for name, value in zip(self.parts, values[:count], strict=True)
                 if amounts.get(name, 1.0)}  # fmt: skip
        return StepDone(self.phase.name, self.epoch, self.number, loss, self.rates, named)


class Losses:
    """Losses that training has yet to read; `names` are the training images', by position.

    On the CPU a loss is read in its own step. An accelerator works asynchronously, and reading a loss would let it run
    dry: losses are sent in groups, and a group is read when the next one is sent. No state is saved before all losses
    up to it are read, so what is on disk is from before the first that is not finite.
    """

    def __init__(self, accelerator: Accelerator, names: Sequence[str]) -> None:
        self._names = names
        self._at_once = accelerator.device.type == "cpu"
        self._alone = accelerator.num_processes == 1
        self._new: list[tuple[Step, torch.Tensor]] = []
        self._sent: tuple[list[Step], torch.Tensor, torch.cuda.Event | None] | None = None
        self._last = time.monotonic()

    def add(self, step: Step, values: torch.Tensor) -> list[StepDone]:
        """Add (1 + parts + amounts,) values of a step; returns the steps that can be read, or raises TrainingError."""
        self._new.append((step, values))
        if self._at_once:
            return self.flush()
        # Several processes check for stop signals at the same steps, so no clock of their own decides.
        if len(self._new) < MOST and not (self._alone and time.monotonic() - self._last >= READ_EVERY):
            return []
        return self._advance()

    def flush(self) -> list[StepDone]:
        """Wait for all losses that have been added; raises TrainingError if one is not finite."""
        return self._advance() + self._read()

    def _advance(self) -> list[StepDone]:
        """Read the losses that were sent, then send the new ones."""
        read = self._read()
        if self._new:
            values, done = torch.stack([each for _, each in self._new]), None
            if values.is_cuda:
                values = values.to("cpu", non_blocking=True)
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record()
            self._sent = [step for step, _ in self._new], values, done
            self._new, self._last = [], time.monotonic()
        return read

    def _read(self) -> list[StepDone]:
        if self._sent is None:
            return []
        (steps, values, done), self._sent = self._sent, None
        if done is not None:
            done.synchronize()
        events = []
        for step, (loss, *others) in zip(steps, values.tolist(), strict=True):
            self._check(step, loss)
            events.append(step.done(loss, *others))
        return events

    def _check(self, step: Step, value: float) -> None:
        if abs(value) < EXPLODED:  # which NaN is not
            return
        ids = [self._names[position] for positions in step.images for position in positions.tolist()]
        state = "nothing was updated by it" if self._at_once else "what is saved is from before it"
        raise TrainingError(
            f"the loss is {value} at step {step.number} (phase {step.phase.name}); {state}",
            why=f"the rate may be too high (head: {step.phase.groups[-1].lr:g}), or an image broken; in this step: "
            + ", ".join(ids[:8])
            + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
            fix="try a tenth of the rate with --lr, or --precision fp32",
        )
