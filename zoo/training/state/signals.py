"""Stop signals: Ctrl-C and SIGTERM, remembered until the current step is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from accelerate import Accelerator

from zoo.base.processes import catching


class Stopping:
    """Whether a run was told to stop, here or in another of its processes."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the first one, here or from another process

    @contextlib.contextmanager
    def remembering(self, then: Callable[[], None]) -> Iterator[None]:
        """Within it, the first signal is remembered and calls `then`, and a second one stops at once."""

        def remember(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = number
            then()

        with catching(remember):
            yield

    def is_set(self, accelerator: Accelerator) -> bool:
        """Whether any process of the run was told to stop; the same in all processes."""
        if accelerator.num_processes == 1:
            return self.signal is not None
        own = torch.tensor([float(self.signal or 0)], device=accelerator.device)
        received = int(accelerator.gather(own).max())
        if received:  # otherwise one that has just come must stay, for the next time that all ask
            self.signal = received
        return bool(received)
