"""Images without labels: another domain to adapt to, or more images of the same one.

Whatever labels there are in the reference, training and choosing get an `UnlabelledSet`, made from items whose label
was taken off; no image is picked or put aside by its label. The labels are in the `TrueLabels` alone, which nothing but
the report of a finished run looks at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from zoo.data.part import Part
from zoo.data.sources.dispatch import open_listing
from zoo.data.splits.roles import unreadable
from zoo.data.store.scan import Scanner
from zoo.data.types import BadImage, DataOptions, Item, Listing, Progress, ranked
from zoo.errors import DataError

CHOOSING = 2000  # images, at most, on which epochs are compared


@dataclass(frozen=True)
class UnlabelledSet:
    """Images without labels."""

    name: str
    train: Part  # trained on; without labels
    val: Part  # some of them, on which epochs are compared; without labels
    fingerprint: str  # changes when an image that is trained on changes; labels do not count
    bad: tuple[BadImage, ...]
    license: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TrueLabels:
    """Labels, for the report alone."""

    test: Part  # with labels, in the classes of the labelled images
    split: str  # what it is: "test", "val", "all images"
    val: tuple[int, ...] | None  # the labels of the images on which epochs are compared, in their order


def open_unlabelled(
    ref: str,
    classes: Sequence[str],
    options: DataOptions,
    on_progress: Progress | None = None,
    *,
    answered: bool = True,
    without: Collection[str] = (),
    contents: Collection[bytes] = (),
) -> tuple[UnlabelledSet, TrueLabels | None]:
    """Open images to train on without their labels; and their labels apart, where all are known and of these classes.

    Training takes the train split (or val, or all there is); the report takes test, else val, else all images.

    Args:
        ref: As for `open_dataset`; here images need no class folders, and tables no labels.
        classes: Of the labelled images; labels are matched by name.
        options: Columns, configuration, unreadable images, store, the limit of images to train on. Nothing is cut.
        on_progress: Called with (stage, done, total).
        answered: Whether their labels are looked at, for a report.
        without: Ids of images that must not be trained on.
        contents: Hashes of such images' bytes: copies of them are not trained on either, wherever they are.

    Raises:
        DataError: They cannot be reached or read, or there are none.
    """
    listing = open_listing(ref, replace(options, labels=False), on_progress)
    training = next(name for name in ("train", "all", "val", "test") if listing.splits.get(name))
    reported = next(name for name in ("test", "val", training) if listing.splits.get(name))
    there, without, contents = len(listing.splits[training]), frozenset(without), frozenset(contents)
    fit = [item for item in listing.splits[training] if item.id not in without]
    known = len(fit)
    fit = _limited(fit, options)
    unused = known - len(fit)
    scanner = Scanner(listing, options, on_progress)
    fit, bad = _readable(ref, fit, scanner, options)
    fit = [item for item in fit if scanner.finding(item).content not in contents]
    left_out = there - unused - len(bad) - len(fit)
    if not fit:
        rest = "all others" if bad else "all of them"
        why = f"{rest} are among those that the result is for" if left_out else "none of them can be read"
        raise DataError(f"{ref} has no images to train on", why=why)
    order = ranked([item.id for item in fit], seed=options.seed, purpose="choosing without labels")
    choose = [fit[position] for position in sorted(order[:CHOOSING])]

    def part(role: str, items: Sequence[Item], labels: Sequence[int], names: tuple[str, ...]) -> Part:
        store, rows = scanner.stored(items)
        return Part(
            role=role, items=items, labels=labels, classes=names, reader=listing.reader, store=store, rows=rows,
            hflip=listing.hflip, on_bad_image=options.on_bad_image,
        )  # fmt: skip

    def bare(role: str, items: Sequence[Item]) -> Part:
        return part(role, [item._replace(label="") for item in items], [-1] * len(items), ())

    labels = {name: label for label, name in enumerate(classes)}
    note, answers = _note(listing, reported, labels) if answered else "", None
    if answered and not note:
        report, more = _readable(ref, list(listing.splits[reported]), scanner, options)
        bad = [*bad, *(image for image in more if image not in bad)]
        true = [labels.get(str(item.label)) for item in choose]
        answers = TrueLabels(
            part("report", report, [labels[str(item.label)] for item in report], tuple(classes)),
            "all images" if reported == training else reported,
            tuple(label for label in true if label is not None) if None not in true else None,
        )
    images = UnlabelledSet(
        name=listing.name,
        train=bare("unlabelled", fit),
        val=bare("choosing without labels", choose),
        fingerprint=_fingerprint(fit, scanner),
        bad=tuple(bad),
        license=listing.license,
        notes=(
            *listing.notes,
            *filter(None, [note, _unused(listing, unused, known), _left_out(listing, left_out)]),
            *scanner.notes,
            *scanner.remarks(),
        ),
    )
    return images, answers


def _readable(ref: str, items: list[Item], scanner: Scanner, options: DataOptions) -> tuple[list[Item], list[BadImage]]:
    scanner.check(items)
    bad = [BadImage(item.id, error) for item in items if (error := scanner.finding(item).error)]
    if bad and options.on_bad_image == "error":
        raise unreadable(ref, bad, len(items))
    return [item for item in items if not scanner.finding(item).error], bad


def _limited(items: list[Item], options: DataOptions) -> list[Item]:
    """At most as many as the limit, whatever their labels."""
    if options.limit is None or len(items) <= options.limit:
        return items
    order = ranked([item.id for item in items], seed=options.seed, purpose="limit without labels")
    return [items[position] for position in sorted(order[: options.limit])]


def _unused(listing: Listing, count: int, of: int) -> str:
    """How many images a limit leaves out; empty where there are none."""
    return f"{of - count:,} of {of:,} images of {listing.name} are used, as limited" if count else ""


def _left_out(listing: Listing, count: int) -> str:
    """How many images the result is measured on, and so are not trained on; empty where there are none."""
    if not count:
        return ""
    return f"{count:,} image(s) of {listing.name} are not trained on: the result is measured on them"


def _note(listing: Listing, split: str, classes: Collection[str]) -> str:
    """Why there is nothing to report on; empty where there is."""
    found = {str(item.label) for item in listing.splits[split]}
    if "" in found:
        return f"{listing.name} has no labels, so no accuracy on it is reported"
    unknown = sorted(found - set(classes))
    if unknown:
        few = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        return f"{listing.name} has classes that training does not know ({few}), so no accuracy on it is reported"
    return ""


def _fingerprint(items: Sequence[Item], scanner: Scanner) -> str:
    digest = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.id):
        digest.update(f"{item.id}\0{scanner.finding(item).content.hex()}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
