"""Unlabelled images: of another domain, or more of the same one.

Training and validation get an `UnlabelledSet`, made from items without their labels; no image is selected by its label.
The labels are only in `TrueLabels`, which only the report of a finished run reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from zoo.data.part import Part
from zoo.data.sources.dispatch import open_listing
from zoo.data.splits.roles import named, unreadable
from zoo.data.store.scan import Scanner
from zoo.data.types import BadImage, DataOptions, Item, Listing, Progress, ranked
from zoo.errors import DataError

VAL_LIMIT = 2000  # most validation images


@dataclass(frozen=True)
class UnlabelledSet:
    """Unlabelled images."""

    name: str
    train: Part
    val: Part  # some of the training images, on which epochs are compared
    fingerprint: str  # changes when a training image changes; labels do not count
    bad: tuple[BadImage, ...]
    license: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TrueLabels:
    """Labels of the unlabelled images, for the report alone."""

    test: Part  # with labels, in the classes of the labelled images
    split: str  # of this part: "test", "val", "all images"
    val: tuple[int, ...] | None  # labels of the validation images, in their order; None: not all known


def open_unlabelled(
    ref: str,
    classes: Sequence[str],
    options: DataOptions,
    on_progress: Progress | None = None,
    *,
    labelled: bool = True,
    without: Collection[str] = (),
    contents: Collection[bytes] = (),
) -> tuple[UnlabelledSet, TrueLabels | None]:
    """Open images to train on unlabelled; and their labels, if `labelled` and all are known and among `classes`.

    Training takes the train split (or val, or all images), without the ids `without` and copies of the sha256 hashes
    `contents`; the report takes test, else val, else all. Raises DataError if no image can be read.
    """
    listing = open_listing(ref, replace(options, labels=False), on_progress)
    training = next(name for name in ("train", "all", "val", "test") if listing.splits.get(name))
    reported = next(name for name in ("test", "val", training) if listing.splits.get(name))
    without, contents = frozenset(without), frozenset(contents)
    candidates = [item for item in listing.splits[training] if item.id not in without]
    limited = _limited(candidates, options)
    scanner = Scanner(listing, options, on_progress)
    readable, bad = _readable(ref, limited, scanner, options)
    train = [item for item in readable if scanner.finding(item).content not in contents]
    left_out = len(listing.splits[training]) - len(candidates) + len(readable) - len(train)
    if not train:
        which = "all others" if bad else "all of them"
        why = f"{which} are among those that the result is for" if left_out else "none of them can be read"
        raise DataError(f"{ref} has no images to train on", why=why)
    order = ranked([item.id for item in train], seed=options.seed, purpose="choosing without labels")
    val = [train[position] for position in sorted(order[:VAL_LIMIT])]

    def part(role: str, items: Sequence[Item], labels: Sequence[int], names: tuple[str, ...]) -> Part:
        store = scanner.store
        rows = [store.row(scanner.finding(item).content) for item in items] if store else []
        return Part(
            role=role, items=items, labels=labels, classes=names, reader=listing.reader, store=store, rows=rows,
            hflip=listing.hflip, on_bad_image=options.on_bad_image,
        )  # fmt: skip

    def unlabelled(role: str, items: Sequence[Item]) -> Part:
        return part(role, [item._replace(label="") for item in items], [-1] * len(items), ())

    label_of = {name: label for label, name in enumerate(classes)}
    notes, truth = [_unusable(listing, reported, label_of)] if labelled else [], None
    if notes == [""]:
        report, more = _readable(ref, list(listing.splits[reported]), scanner, options)
        bad += [image for image in more if image not in bad]
        true = [label_of.get(str(item.label)) for item in val]
        truth = TrueLabels(
            part("report", report, [label_of[str(item.label)] for item in report], tuple(classes)),
            "all images" if reported == training else reported,
            tuple(label for label in true if label is not None) if None not in true else None,
        )
    if len(limited) < len(candidates):
        notes.append(f"{len(limited):,} of {len(candidates):,} images of {listing.name} are used, as limited")
    if left_out:
        notes.append(f"{left_out:,} image(s) of {listing.name} are not trained on: the result is measured on them")
    images = UnlabelledSet(
        name=listing.name,
        train=unlabelled("unlabelled", train),
        val=unlabelled("choosing without labels", val),
        fingerprint=_fingerprint(train, scanner),
        bad=tuple(bad),
        license=listing.license,
        notes=(*listing.notes, *filter(None, notes), *scanner.notes, *scanner.remarks()),
    )
    return images, truth


def _readable(ref: str, items: list[Item], scanner: Scanner, options: DataOptions) -> tuple[list[Item], list[BadImage]]:
    scanner.check(items)
    bad = [BadImage(item.id, error) for item in items if (error := scanner.finding(item).error)]
    if bad and options.on_bad_image == "error":
        raise unreadable(ref, bad, len(items))
    return [item for item in items if not scanner.finding(item).error], bad


def _limited(items: list[Item], options: DataOptions) -> list[Item]:
    """At most `limit` of the images, whatever their labels."""
    if options.limit is None or len(items) <= options.limit:
        return items
    order = ranked([item.id for item in items], seed=options.seed, purpose="limit without labels")
    return [items[position] for position in sorted(order[: options.limit])]


def _unusable(listing: Listing, split: str, classes: Collection[str]) -> str:
    """Why the labels of a split cannot be reported on; "" if they can."""
    names = {str(item.label) for item in listing.splits[split]}
    if "" in names:
        return f"{listing.name} has no labels, so no accuracy on it is reported"
    unknown = sorted(names - set(classes))
    if unknown:
        few = named(unknown, 5)
        return f"{listing.name} has classes that training does not know ({few}), so no accuracy on it is reported"
    return ""


def _fingerprint(items: Sequence[Item], scanner: Scanner) -> str:
    digest = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.id):
        digest.update(f"{item.id}\0{scanner.finding(item).content.hex()}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
