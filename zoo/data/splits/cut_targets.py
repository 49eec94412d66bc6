"""Stratified cuts of images with several labels or tasks.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) in two parts: the images of the rarest stratum left are
assigned first, each to the part that lacks it most. Of a stratum of n images, `cut.share(n)` should be cut off, so at
least one is, and at least one stays. Images with equal bytes stay together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.data.splits.cut import both_sides, share, units
from zoo.data.types import ranked
from zoo.tasks.kind import Flags


def cut_strata(
    ids: Sequence[str],
    flags: Flags,
    fraction: float,
    *,
    seed: int,
    purpose: str,
    contents: Sequence[bytes] | None = None,
) -> tuple[list[int], list[int]]:
    """Cut `fraction` of the images off, as `cut.cut` does; `flags` (N, strata) are from `targets.indicators`."""
    groups = units(ids, contents, seed=seed, purpose=purpose)
    sizes = np.array([len(unit) for unit in groups])
    has = np.stack([flags[unit].any(0) for unit in groups])  # (units, strata)
    totals = has.sum(0)
    off = np.array([share(int(total), fraction) for total in totals])
    lacking = np.stack([totals - off, off])  # images of each stratum that each part lacks
    room = np.array([len(ids) - round(len(ids) * fraction), round(len(ids) * fraction)])
    left = np.ones(len(groups), dtype=np.bool_)
    taken: set[int] = set()

    def assign(unit: int, part: int) -> None:
        left[unit] = False
        taken.update(groups[unit] if part else ())
        room[part] -= sizes[unit]
        lacking[part] -= has[unit]

    while (counts := has[left].sum(0)).any():
        rarest = int(np.where(counts > 0, counts, len(groups) + 1).argmin())
        for unit in np.flatnonzero(left & has[:, rarest]):
            stay, go = lacking[:, rarest]
            assign(int(unit), int(go > stay) if go != stay else int(room.argmax()))
    for unit in np.flatnonzero(left):  # images without targets
        assign(int(unit), int(room[1] > 0))
    return both_sides(taken, len(ids))


def limited_strata(ids: Sequence[str], flags: Flags, count: int, *, seed: int) -> list[int]:
    """Positions of `count` images with every stratum about in its proportion, ascending."""
    if count >= len(ids):
        return list(range(len(ids)))
    _, chosen = cut_strata(ids, flags, count / len(ids), seed=seed, purpose="limit")
    inside = set(chosen)
    # A cut may take some images more or less than `count`: the random order says which.
    order = sorted(ranked(ids, seed=seed, purpose="limit"), key=lambda position: position not in inside)
    return sorted(order[:count])


def rarest(flags: Flags) -> list[int]:
    """Each image's rarest stratum, as a class to stratify by; 0 if it has none."""
    totals = np.where(flags.any(0), flags.sum(0), len(flags) + 1)
    strata: list[int] = np.where(flags, totals, len(flags) + 1).argmin(1).tolist()
    return strata
