"""Folder of a stack or soup: its first record, and its status if it does not finish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zoo.data.types import RECORDED
from zoo.errors import TrainingInterrupted, ZooError
from zoo.runs import lock
from zoo.runs.run_folder import Run
from zoo.runs.stacked.held_out import HeldOut


@contextmanager
def created(out: Path | None, name: str, kind: str, facts: dict[str, Any]) -> Iterator[Run]:
    """Make the folder with its first record, lock it within the block, and record a failure."""
    with lock.made(out, name, lambda this: {**lock.begun(this, kind), **facts}) as this, failure_recorded(this):
        yield this


@contextmanager
def failure_recorded(this: Run) -> Iterator[None]:
    """If the block fails or is interrupted, record that and remove the model from the folder."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        stopped = isinstance(error, TrainingInterrupted | KeyboardInterrupt)
        with suppress(OSError):
            for name in ("config.json", "model.safetensors"):
                (this.path / name).unlink(missing_ok=True)
        with suppress(ZooError, MemoryError):
            this.write_record(this.record | {"status": "interrupted" if stopped else "failed"})
        raise


def dataset_record(first: dict[str, Any], found: HeldOut) -> dict[str, Any]:
    """A record's `dataset`: the first member's, with the val and test images of this folder."""
    counts = found.dataset.counts()
    for role, part in (("val", found.val), ("test", found.test)):
        counts[RECORDED[role]] = {"n": len(part), "per_class": part.class_counts()}
    return first | {"counts": counts, "selected_on": found.fit_on, "reported_on": found.reported_on}
