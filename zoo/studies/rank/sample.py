"""Sample of the train and validation images that backbones are ranked on, with enough of every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from zoo.data import Dataset, Part
from zoo.data.splits.cut import limited, per_class
from zoo.data.types import ranked
from zoo.errors import DataError

LEAST = 2  # images of a class: one to fit a probe on, one to score it by
_SHOWN = 5  # classes that a note lists


def sampled(dataset: Dataset, images: int, *, seed: int) -> tuple[list[Part], list[str]]:
    """Draw at most `images` images: two of every class, and the rest in the classes' proportion.

    Returns their parts, and notes: classes with one image are left out, and so are those beyond `images // 2`. Raises
    DataError if fewer than two classes have two images.
    """
    parts = [dataset.train] if dataset.val.samples == dataset.train.samples else [dataset.train, dataset.val]
    places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
    labels: list[int] = [label for part in parts for label in part.truth().tolist()]
    sizes = Counter(labels)
    enough = sorted(label for label, size in sizes.items() if size >= LEAST)
    if len(enough) < 2:
        raise DataError(
            "there are too few images to rank by",
            why=f"{len(enough)} class(es) have {LEAST} or more train and validation images",
            fix=f"give more images, at least {LEAST} of each class",
        )
    notes = []
    if single := [dataset.classes[label] for label in sorted(sizes) if sizes[label] < LEAST]:
        notes.append(f"ranking leaves out {len(single)} class(es) with one image: {_some(single)}")
    if len(enough) > (most := images // LEAST):
        notes.append(f"{images} images are two of each of {most} classes; the other {len(enough) - most} are left out")
        drawn = ranked([dataset.classes[label] for label in enough], seed=seed, purpose="classes")[:most]
        enough = [enough[position] for position in drawn]
    kept = set(enough)
    open_to = [position for position, label in enumerate(labels) if label in kept]
    ids = [f"{number}/{parts[number].id(index)}" for number, index in places]

    def draw(among: Sequence[int], how: Callable[..., list[int]], count: int, **named: str) -> list[int]:
        chosen = how([ids[at] for at in among], [labels[at] for at in among], count, seed=seed, **named)
        return [among[place] for place in chosen]

    first = draw(open_to, per_class, LEAST, purpose="rank")
    more = draw(sorted(set(open_to) - set(first)), limited, images - len(first))
    rows: list[list[int]] = [[] for _ in parts]
    for position in sorted([*first, *more]):
        number, index = places[position]
        rows[number].append(index)
    return [part.some(mine) for part, mine in zip(parts, rows, strict=True) if mine], notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
