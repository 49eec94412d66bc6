"""Ctrl-C and SIGTERM, remembered until the current step is done."""

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
        self.signal: int | None = None  # the first that came, or that another process told of

    @contextlib.contextmanager
    def remembering(self, then: Callable[[], None]) -> Iterator[None]:
        """Within it the first signal is remembered, and a second one stops at once.

        Only Python's main thread gets signals; in another one nothing is changed.

        Args:
            then: Called when the first one comes.
        """

        def remember(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = number
            then()

        with catching(remember):
            yield

    def told(self, accelerator: Accelerator) -> bool:
        """Whether any process of the run was told to stop; all processes get the same answer."""
        if accelerator.num_processes == 1:
            return self.signal is not None
        mine = torch.tensor([float(self.signal or 0)], device=accelerator.device)
        told = int(accelerator.gather(mine).max())
        if told:  # otherwise one that has come meanwhile must stay, for the next time that all ask
            self.signal = told
        return bool(told)
