"""Stratified cuts of images of one class each, equal images together.

From a class of n images a cut with fraction f takes `round(n * f)`, at least one and at most n - 1, so that both sides
have the class; a class of one image is not cut. Images with equal bytes form one unit that goes to one side, so a class
may get an image or two less, never more. A hash of (seed, id) decides which units go; it depends neither on the order
of files nor on which other images there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from zoo.data.types import ranked


def units(ids: Sequence[str], contents: Sequence[bytes] | None, *, seed: int, purpose: str) -> list[list[int]]:
    """Positions of images in the random order of a cut, those with equal bytes together."""
    grouped: dict[object, list[int]] = defaultdict(list)
    for position in ranked(ids, seed=seed, purpose=purpose):
        grouped[contents[position] if contents else position].append(position)
    return list(grouped.values())


def share(count: int, fraction: float) -> int:
    """How many of `count` images of a class a cut takes (see above)."""
    return min(max(1, round(count * fraction)), count - 1) if count > 1 else 0


def both_sides(taken: Collection[int], count: int) -> tuple[list[int], list[int]]:
    """Positions 0 to `count` that are not taken, and those that are, each ascending."""
    return [position for position in range(count) if position not in taken], sorted(taken)


def cut(
    ids: Sequence[str],
    labels: Sequence[int],
    fraction: float,
    *,
    seed: int,
    purpose: str,
    contents: Sequence[bytes] | None = None,
) -> tuple[list[int], list[int]]:
    """Cut `fraction` of every class off: positions that stay and positions cut off, each ascending.

    `purpose` ("val", "test") keeps two cuts with one seed independent. `contents` are hashes of the images' bytes; None
    if they are not known, and then equal images may be separated.
    """
    # A unit with images of several classes belongs to the first of them.
    of_class: dict[int, list[list[int]]] = defaultdict(list)
    for unit in units(ids, contents, seed=seed, purpose=purpose):
        of_class[min(labels[position] for position in unit)].append(unit)
    taken: set[int] = set()
    for its_units in of_class.values():
        quota = left = share(sum(map(len, its_units)), fraction)
        for unit in its_units:
            if len(unit) <= left:
                taken.update(unit)
                left -= len(unit)
        if left == quota > 0 and len(its_units) > 1:
            smallest = min(its_units, key=len)
            taken.update(smallest)
    return both_sides(taken, len(ids))


def fold(
    ids: Sequence[str],
    labels: Sequence[int],
    number: int,
    of: int,
    *,
    seed: int,
    contents: Sequence[bytes] | None = None,
) -> tuple[list[int], list[int]]:
    """Cut off part `number` (from 1) `of` parts of about equal size, which together are everything; as for `cut`."""
    sizes: dict[tuple[int, int], int] = defaultdict(int)  # (class, part) -> images
    taken: set[int] = set()
    for unit in units(ids, contents, seed=seed, purpose="fold"):
        label = min(labels[position] for position in unit)
        part = min(range(of), key=lambda each: (sizes[label, each], (each + label) % of))
        sizes[label, part] += len(unit)
        if part == number - 1:
            taken.update(unit)
    return both_sides(taken, len(ids))


def per_class(ids: Sequence[str], labels: Sequence[int], count: int, *, seed: int, purpose: str) -> list[int]:
    """Positions of `count` images of every class (all if it has fewer), ascending."""
    return _up_to(dict.fromkeys(labels, count), ids, labels, seed=seed, purpose=purpose)


def limited(ids: Sequence[str], labels: Sequence[int], count: int, *, seed: int) -> list[int]:
    """Positions of `count` images with every class in its proportion, at least one if `count` allows it; ascending."""
    if count >= len(ids):
        return list(range(len(ids)))
    return _up_to(_proportional(Counter(labels), count), ids, labels, seed=seed, purpose="limit")


def _up_to(quota: dict[int, int], ids: Sequence[str], labels: Sequence[int], *, seed: int, purpose: str) -> list[int]:
    chosen = []
    for position in ranked(ids, seed=seed, purpose=purpose):
        if quota[labels[position]] > 0:
            quota[labels[position]] -= 1
            chosen.append(position)
    return sorted(chosen)


def _proportional(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    """Images of each class by largest remainders."""
    total = sum(sizes.values())
    floor = 1 if count >= len(sizes) else 0
    exact = {label: size * count / total for label, size in sizes.items()}
    quota = {label: max(floor, int(value)) for label, value in exact.items()}
    missing = count - sum(quota.values())
    by_remainder = sorted(sizes, key=lambda label: (-(exact[label] - quota[label]), label))
    while missing != 0:
        step = 1 if missing > 0 else -1
        for label in by_remainder[::step]:
            if missing and floor <= quota[label] + step <= sizes[label]:
                quota[label] += step
                missing -= step
    return quota
