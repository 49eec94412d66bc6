"""Selection of the best epoch, and early stopping, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.tasks.schema import headlines

FEW = 1000  # images below which an accuracy is too coarse to tell epochs, or networks, apart


def select_by_for(images: int) -> str:
    """The default score for selection with this number of validation images."""
    return "refinement" if images < FEW else "accuracy"


def is_better(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether an epoch replaces the best one; with equal accuracy it does.

    With few validation images ties are common, and by the later epoch the rate has come down further.
    """
    return best is None or _key(scores, select_by) >= _key(best, select_by)


def has_improved(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether patience starts again: a tie in accuracy counts if the loss fell."""
    if best is None:
        return True
    if select_by in headlines():
        return (scores[select_by], -scores["loss"]) > (best[select_by], -best["loss"])
    return _merit(scores, select_by) > _merit(best, select_by)


def ranked(entries: Sequence[Mapping[str, Any]], select_by: str) -> list[int]:
    """The positions of entries with scores, best first; of equal ones the later is better, as in `is_better`."""
    return sorted(range(len(entries)), key=lambda place: (*_key(entries[place], select_by), place), reverse=True)


def _key(scores: Mapping[str, Any], select_by: str) -> tuple[float, float]:
    """The score, then accuracy (if there is one) to break ties."""
    return _merit(scores, select_by), scores.get("accuracy", 0.0)


def rises(score: str) -> bool:
    """Whether larger is better."""
    return score in ("information", "density") or score in headlines()


def _merit(scores: Mapping[str, Any], select_by: str) -> float:
    merit: float = scores[select_by] if rises(select_by) else -scores[select_by]
    return merit
