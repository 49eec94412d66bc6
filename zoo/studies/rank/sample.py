"""Which images backbones are ranked by: of those that train or choose, so many, and of every class enough to judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from zoo.data import Dataset, Part
from zoo.data.splits.cut import limited, per_class
from zoo.data.types import ranked
from zoo.errors import DataError

LEAST = 2  # images of a class: a probe that is fitted on one is judged by the other
_SHOWN = 5  # classes that a note lists


def sampled(dataset: Dataset, images: int, *, seed: int) -> tuple[list[Part], list[str]]:
    """Draw images: two of every class, and the rest in the classes' proportion.

    Args:
        dataset: The images.
        images: How many at most, in all parts together.
        seed: Of the draw.

    Returns:
        The parts that are looked at, and what a person should know about them: a class with one image is left out, and
        so are some where there are more classes than half of `images`.

    Raises:
        DataError: Fewer than two classes have two images.
    """
    parts = [dataset.train] if dataset.val.samples == dataset.train.samples else [dataset.train, dataset.val]
    places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
    labels: list[int] = [label for part in parts for label in part.truth().tolist()]
    sizes = Counter(labels)
    enough = sorted(label for label, size in sizes.items() if size >= LEAST)
    if len(enough) < 2:
        raise DataError(
            "there are too few images to rank by",
            why=f"{len(enough)} class(es) have {LEAST} images or more that train or choose",
            fix=f"give more images, at least {LEAST} of each class",
        )
    notes = []
    if single := [dataset.classes[label] for label in sorted(sizes) if sizes[label] < LEAST]:
        notes.append(f"ranking leaves out {len(single)} class(es) with one image: {_some(single)}")
    if len(enough) > (most := images // LEAST):
        notes.append(f"{images} images are two of each of {most} classes; the other {len(enough) - most} are left out")
        drawn = ranked([dataset.classes[label] for label in enough], seed=seed, purpose="classes")[:most]
        enough = [enough[position] for position in drawn]
    there = set(enough)
    open_to = [position for position, label in enumerate(labels) if label in there]
    ids = [f"{number}/{parts[number].id(index)}" for number, index in places]
    first = _drawn(
        open_to, lambda names, classes: per_class(names, classes, LEAST, seed=seed, purpose="rank"), ids, labels
    )
    taken = set(first)
    others = [position for position in open_to if position not in taken]
    room = images - len(first)
    more = _drawn(others, lambda names, classes: limited(names, classes, room, seed=seed), ids, labels)
    rows: list[list[int]] = [[] for _ in parts]
    for position in sorted([*first, *more]):
        number, index = places[position]
        rows[number].append(index)
    return [part.some(mine) for part, mine in zip(parts, rows, strict=True) if mine], notes


def _drawn(
    among: Sequence[int], draw: Callable[[list[str], list[int]], list[int]], ids: Sequence[str], labels: Sequence[int]
) -> list[int]:
    """The positions that a draw takes of those that are open to it."""
    chosen = draw([ids[position] for position in among], [labels[position] for position in among])
    return [among[place] for place in chosen]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
