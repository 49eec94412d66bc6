"""Which epoch is the best one, and when patience starts anew, as pure functions."""

from __future__ import annotations

RISING = ("accuracy", "map")  # what is better when it is higher; everything else is better when it is lower


def is_better(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether an epoch takes the place of the best one.

    Of epochs with equal accuracy the later one does: few images choose, so ties are common, and by then the rate has
    come down further.
    """
    if best is None:
        return True
    if select_by in RISING:
        return scores[select_by] >= best[select_by]
    return (-scores[select_by], scores.get("accuracy", 0.0)) >= (-best[select_by], best.get("accuracy", 0.0))


def has_improved(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether patience starts anew: a tie in accuracy counts if the loss fell."""
    if best is None:
        return True
    if select_by in RISING:
        return (scores[select_by], -scores["loss"]) > (best[select_by], -best["loss"])
    return scores[select_by] < best[select_by]
