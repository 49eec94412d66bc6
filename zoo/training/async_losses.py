"""The losses of the steps, read without letting the device wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from zoo.errors import TrainingError
from zoo.events import StepDone
from zoo.recipes.plan import PhasePlan

READ_EVERY = 0.5  # seconds between two readings where training waits for no other process
MOST = 16  # steps between two readings
EXPLODED = 1e4  # nats; guessing costs the logarithm of the number of classes, and no such network recovers


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of a step before its loss is."""

    phase: PhasePlan
    epoch: int  # from 1, within the phase
    number: int  # from 1, over the whole run
    rates: dict[str, float]  # learning rate of each group that trains, input to head
    images: Sequence[torch.Tensor]  # positions of this process's training images, on the CPU
    parts: Sequence[str] = ()  # names of what is logged beside the loss
    amounts: Sequence[str] = ()  # of these, the names of those that not every image has

    def done(self, loss: float, *values: float) -> StepDone:
        """The event that tells of it; a part of which there was nothing in this step is left out.

        Args:
            loss: The loss, nats.
            values: The other numbers of `Loss.values`, averaged over the step's batches.
        """
        count = len(self.parts)
        amounts = dict(zip(self.amounts, values[count:], strict=True))
        named = {name: value / amounts.get(name, 1.0) for name, value in zip(self.parts, values[:count], strict=True)
                 if amounts.get(name, 1.0)}  # fmt: skip
        return StepDone(self.phase.name, self.epoch, self.number, loss, self.rates, named)


class Losses:
    """The losses that training has yet to read.

    On the CPU a loss is there when its step asks for it. An accelerator works behind the program, and reading a loss
    would let it run dry: losses are sent in groups, and a group is read when the next one is sent. No state is saved
    before all losses up to it are read, so what is on disk is from before the first that is not finite.

    Args:
        accelerator: The device, and how many processes there are.
        names: Of the training images, by position.
    """

    def __init__(self, accelerator: Accelerator, names: Sequence[str]) -> None:
        self._names = names
        self._at_once = accelerator.device.type == "cpu"
        self._alone = accelerator.num_processes == 1
        self._new: list[tuple[Step, torch.Tensor]] = []
        self._sent: tuple[list[Step], torch.Tensor, torch.cuda.Event | None] | None = None
        self._last = time.monotonic()

    def add(self, step: Step, values: torch.Tensor) -> list[StepDone]:
        """Take a step's loss and what is logged beside it, and give back the steps whose losses can be read by now.

        Args:
            step: The step.
            values: (1 + parts + amounts,) on the device, see `Loss.values`; the same number of them in every step.

        Raises:
            TrainingError: One of them is not finite.
        """
        self._new.append((step, values))
        if self._at_once:
            return self.rest()
        # Several processes look at the same steps for signals to stop, so no clock of their own decides.
        if len(self._new) < MOST and not (self._alone and time.monotonic() - self._last >= READ_EVERY):
            return []
        before = self._read()
        self._send()
        return before

    def rest(self) -> list[StepDone]:
        """Wait for all losses that have been added.

        Raises:
            TrainingError: One of them is not finite.
        """
        before = self._read()
        self._send()
        return before + self._read()

    def _send(self) -> None:
        if not self._new:
            return
        values, done = torch.stack([each for _, each in self._new]), None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        self._sent = [step for step, _ in self._new], values, done
        self._new, self._last = [], time.monotonic()

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
        kept = "nothing was updated by it" if self._at_once else "what is saved is from before it"
        raise TrainingError(
            f"the loss is {value} at step {step.number} (phase {step.phase.name}); {kept}",
            why=f"the rate may be too high (head: {step.phase.groups[-1].lr:g}), or an image broken; in this step: "
            + ", ".join(ids[:8])
            + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
            fix="try a tenth of the rate with --lr, or --precision fp32",
        )
