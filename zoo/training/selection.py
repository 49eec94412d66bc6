"""Which epoch is the best one, and when patience starts anew, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.tasks.schema import headlines

FEW = 1000  # images below which an accuracy is too coarse to tell epochs, or networks, apart


def select_by_for(images: int) -> str:
    """What "better" means on so many validation images, where nobody has said it."""
    return "refinement" if images < FEW else "accuracy"


def is_better(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether an epoch takes the place of the best one.

    Of epochs with equal accuracy the later one does: few images choose, so ties are common, and by then the rate has
    come down further.
    """
    if best is None:
        return True
    return _key(scores, select_by) >= _key(best, select_by)


def has_improved(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether patience starts anew: a tie in accuracy counts if the loss fell."""
    if best is None:
        return True
    if select_by in headlines():
        return (scores[select_by], -scores["loss"]) > (best[select_by], -best["loss"])
    return _merit(scores, select_by) > _merit(best, select_by)


def ranked(entries: Sequence[Mapping[str, Any]], select_by: str) -> list[int]:
    """The positions of entries with scores, the best first; of equal ones the later is better, as in `is_better`."""

    def key(place: int) -> tuple[float, float, int]:
        return *_key(entries[place], select_by), place

    return sorted(range(len(entries)), key=key, reverse=True)


def _key(scores: Mapping[str, Any], select_by: str) -> tuple[float, float]:
    """What counts, and accuracy where that is the same, if there is one."""
    return _merit(scores, select_by), scores.get("accuracy", 0.0)


def rises(score: str) -> bool:
    """Whether a score is better where it is larger."""
    return score in ("information", "density") or score in headlines()


def _merit(scores: Mapping[str, Any], select_by: str) -> float:
    merit: float = scores[select_by] if rises(select_by) else -scores[select_by]
    return merit
