"""The position of a training: everything a saved state needs besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Position:
    """Where training stands, and which files of weights belong to it."""

    phase: int = 0  # index of the phase
    epoch: int = 1  # within the phase
    epoch_step: int = 0  # optimizer steps done in the epoch
    phase_step: int = 0  # in the phase
    step: int = 0  # in the run
    began: int = 0  # steps of the run before this training
    epochs_seen: int = 0  # epochs finished in the run; order and augmentation depend on it
    loss_sum: float = 0.0  # of the epoch's steps
    stale: int = 0  # epochs of the phase since the phase's best one
    kept: str | None = None  # how the phase uses cached features: "folded", "plain", "not"; None: undecided
    phase_best: dict[str, float] | None = None  # accuracy, loss; for patience
    best: dict[str, Any] | None = None  # phase, epoch, step, accuracy, loss
    best_sha256: str | None = None  # of the file with the best weights
    start: dict[str, Any] | None = None  # before the body trained: `after` (the phase before, or None), `sha256`
    epochs_kept: list[dict[str, Any]] = field(default_factory=list)  # of a soup; as `best`, with `sha256`
    log_lines: int = 0
    seconds: float = 0.0  # of training before the last resume
    waited: float = 0.0  # seconds of training spent waiting for the next batch
    images: int = 0  # that this process has trained on, every epoch counted
    done: dict[str, int] = field(default_factory=dict)  # phase -> epochs finished in it

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.epoch_step, self.loss_sum = self.epoch + 1, 0, 0.0
        self.epochs_seen += 1

    def once_more(self) -> Position:
        """The start of a training that follows this one in the same log."""
        kept = ("step", "epochs_seen", "log_lines", "seconds", "waited", "images")
        return Position(began=self.step, **{name: getattr(self, name) for name in kept})

    def next_phase(self) -> None:
        """Move to the start of the next phase."""
        self.phase, self.epoch, self.epoch_step, self.phase_step = self.phase + 1, 1, 0, 0
        self.loss_sum, self.stale, self.kept, self.phase_best = 0.0, 0, None, None

    def weights(self) -> dict[str, str | None]:
        """The files of weights that belong here, and their sha256, known only to the process that wrote them."""
        files = {epoch_file(entry["step"]): entry["sha256"] for entry in self.epochs_kept}
        if self.best is not None:
            files[best_file(self.best["step"])] = self.best_sha256
        if self.start is not None:
            files[START_FILE] = self.start["sha256"]
        return files


START_FILE = "start.safetensors"


def best_file(step: int) -> str:
    """The file of the weights that became the best at this step."""
    return f"best-{step:09d}.safetensors"


def epoch_file(step: int) -> str:
    """The file of the weights at the end of the epoch that ended at this step."""
    return f"epoch-{step:09d}.safetensors"
