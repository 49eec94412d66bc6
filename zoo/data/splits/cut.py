"""Cutting images into parts: stratified, seeded, exact duplicates together, whatever order the files come in.

How the numbers are cut. From a class of n images a cut with fraction f takes `round(n * f)`, at least one and at most
n - 1, so that both sides have the class; a class of one image stays whole. Images with equal bytes form one unit that
goes to one side, so a class may miss its number by a duplicate or two, never exceed it. Which units go is decided by a
hash of (seed, id), which depends neither on the order of files nor on which other images there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from zoo.data.types import ranked


def units(ids: Sequence[str], contents: Sequence[bytes] | None, *, seed: int, purpose: str) -> list[list[int]]:
    """Positions of images in the order in which a cut meets them, those with equal bytes together."""
    grouped: dict[object, list[int]] = defaultdict(list)
    for position in ranked(ids, seed=seed, purpose=purpose):
        grouped[contents[position] if contents is not None else position].append(position)
    return list(grouped.values())


def share(count: int, fraction: float) -> int:
    """How many of `count` images of a class a cut takes (see the module's text)."""
    if count < 2:
        return 0
    return min(max(1, round(count * fraction)), count - 1)


def cut(
    ids: Sequence[str],
    labels: Sequence[int],
    fraction: float,
    *,
    seed: int,
    purpose: str,
    contents: Sequence[bytes] | None = None,
) -> tuple[list[int], list[int]]:
    """Cut a part off.

    Args:
        ids: One per image, unique.
        labels: One per image.
        fraction: Share of every class that is cut off, 0 to 1.
        seed: Another seed cuts other images off.
        purpose: Keeps two cuts with one seed independent: "val", "test".
        contents: A hash of each image's bytes; None where they are not known, and then nothing is kept together.

    Returns:
        Positions that stay and positions cut off, each ascending.
    """
    # A unit with images of several classes counts for the first of them.
    of_class: dict[int, list[list[int]]] = defaultdict(list)
    for unit in units(ids, contents, seed=seed, purpose=purpose):
        of_class[min(labels[position] for position in unit)].append(unit)
    taken: set[int] = set()
    for groups in of_class.values():
        wanted = share(sum(len(unit) for unit in groups), fraction)
        left = wanted
        for unit in groups:
            if len(unit) <= left:
                taken.update(unit)
                left -= len(unit)
        if left == wanted and wanted and len(groups) > 1:
            taken.update(sorted(groups, key=len)[0])
    return [p for p in range(len(ids)) if p not in taken], sorted(taken)


def fold(
    ids: Sequence[str],
    labels: Sequence[int],
    number: int,
    of: int,
    *,
    seed: int,
    contents: Sequence[bytes] | None = None,
) -> tuple[list[int], list[int]]:
    """Cut off one of several parts of about the same size, which together are everything.

    Args:
        ids: One per image, unique.
        labels: One per image.
        number: Which part, from 1.
        of: How many there are.
        seed: Another seed makes other parts.
        contents: As for `cut`: equal images are in one part.

    Returns:
        Positions of the other parts and of this one, each ascending.
    """
    sizes: dict[tuple[int, int], int] = defaultdict(int)  # (class, part) -> images
    taken: set[int] = set()
    for unit in units(ids, contents, seed=seed, purpose="fold"):
        label = min(labels[position] for position in unit)
        part = min(range(of), key=lambda each: (sizes[label, each], (each + label) % of))
        sizes[label, part] += len(unit)
        if part == number - 1:
            taken.update(unit)
    return [p for p in range(len(ids)) if p not in taken], sorted(taken)


def per_class(ids: Sequence[str], labels: Sequence[int], count: int, *, seed: int, purpose: str) -> list[int]:
    """Positions of `count` images of every class (all of a class that has fewer), ascending."""
    seen: dict[int, int] = defaultdict(int)
    chosen = []
    for position in ranked(ids, seed=seed, purpose=purpose):
        if seen[labels[position]] < count:
            seen[labels[position]] += 1
            chosen.append(position)
    return sorted(chosen)


def limited(ids: Sequence[str], labels: Sequence[int], count: int, *, seed: int) -> list[int]:
    """Positions of `count` images with every class in its proportion (largest remainders), ascending.

    Every class keeps one image at least while `count` allows it.
    """
    if count >= len(ids):
        return list(range(len(ids)))
    sizes: dict[int, int] = defaultdict(int)
    for label in labels:
        sizes[label] += 1
    quota = _proportional(sizes, count)
    chosen = []
    for position in ranked(ids, seed=seed, purpose="limit"):
        if quota[labels[position]] > 0:
            quota[labels[position]] -= 1
            chosen.append(position)
    return sorted(chosen)


def _proportional(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    total = sum(sizes.values())
    floor = 1 if count >= len(sizes) else 0
    exact = {label: size * count / total for label, size in sizes.items()}
    quota = {label: max(floor, int(value)) for label, value in exact.items()}
    rest = count - sum(quota.values())
    by_remainder = sorted(sizes, key=lambda label: (-(exact[label] - quota[label]), label))
    while rest != 0:
        for label in by_remainder if rest > 0 else reversed(by_remainder):
            step = 1 if rest > 0 else -1
            if rest and floor <= quota[label] + step <= sizes[label]:
                quota[label] += step
                rest -= step
    return quota
