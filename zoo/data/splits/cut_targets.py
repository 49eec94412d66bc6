"""Cutting images that answer several questions, or have several labels, into two parts that both know every answer.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) in two parts: the rarest answer that is left is shared
out first, each of its images to the part that lacks it most. Of an answer that n images give, the part cut off should
get `cut.share(n)`, so at least one, and at least one stays. Images with equal bytes go one way together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.data.splits.cut import share, units
from zoo.data.types import ranked
from zoo.tasks.kind import Flags


def cut_answers(
    ids: Sequence[str],
    flags: Flags,
    fraction: float,
    *,
    seed: int,
    purpose: str,
    contents: Sequence[bytes] | None = None,
) -> tuple[list[int], list[int]]:
    """Cut a part off, as `zoo.data.splits.cut.cut` does for images of one class each.

    Args:
        ids: One per image, unique.
        flags: From `zoo.data.targets.indicators`.
        fraction: Share of the images, and of those of every answer, that is cut off.
        seed: Another seed cuts other images off.
        purpose: Keeps two cuts with one seed independent.
        contents: A hash of each image's bytes; None where they are not known.

    Returns:
        Positions that stay and positions cut off, each ascending.
    """
    together = units(ids, contents, seed=seed, purpose=purpose)
    sizes = np.array([len(unit) for unit in together])
    has = np.stack([flags[unit].any(0) for unit in together])  # (units, answers)
    totals = has.sum(0)
    off = np.array([share(int(total), fraction) for total in totals])
    wanted = np.stack([totals - off, off])  # images of each answer that each part lacks
    room = np.array([len(ids) - round(len(ids) * fraction), round(len(ids) * fraction)])
    left = np.ones(len(together), dtype=np.bool_)
    taken = np.zeros(len(together), dtype=np.bool_)

    def give(unit: int, part: int) -> None:
        left[unit] = False
        taken[unit] = part == 1
        room[part] -= sizes[unit]
        wanted[part] -= has[unit]

    while True:
        counts = has[left].sum(0)
        if not counts.any():
            break
        rarest = int(np.where(counts > 0, counts, len(together) + 1).argmin())
        for unit in np.flatnonzero(left & has[:, rarest]):
            lacks = wanted[:, rarest]
            part = int(lacks.argmax()) if lacks[0] != lacks[1] else int(room.argmax())
            give(int(unit), part)
    for unit in np.flatnonzero(left):  # images that answer nothing
        give(int(unit), int(room[1] > 0))
    chosen = sorted(position for unit in np.flatnonzero(taken) for position in together[unit])
    cut_off = set(chosen)
    return [position for position in range(len(ids)) if position not in cut_off], chosen


def limited_answers(ids: Sequence[str], flags: Flags, count: int, *, seed: int) -> list[int]:
    """Positions of `count` images with every answer about in its proportion, ascending."""
    if count >= len(ids):
        return list(range(len(ids)))
    _, chosen = cut_answers(ids, flags, count / len(ids), seed=seed, purpose="limit")
    inside = set(chosen)
    order = ranked(ids, seed=seed, purpose="limit")
    more = [position for position in order if position not in inside]
    kept = [position for position in order if position in inside]
    return sorted((kept + more)[:count])


def rarest(flags: Flags) -> list[int]:
    """Of each image the answer it gives that the fewest images give, as a class to stratify by; 0 where it has none."""
    totals = np.where(flags.any(0), flags.sum(0), len(flags) + 1)
    found: list[int] = np.where(flags, totals, len(flags) + 1).argmin(1).tolist()
    return found
