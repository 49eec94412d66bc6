"""Roles: labelled images to train, val and test parts.

Given train, val and test: each is used as such. Train and val: val becomes the test part, and validation images are cut
from train. Train and test: validation images are cut from train. One split: a share `val_fraction` of it becomes the
test part, and the same share of the rest the validation images. `zoo.data.splits.cut` says how a cut counts.

Few-shot, `train_per_class` N: train and val together have N images of every class. Validation images cut from train are
`val_fraction` of the N; if val is given, that many come from val and the others from train.
`fold` K/N: the K-th of N equal parts of what is then left to train on becomes the test part.
`limit` N: train has N images in all before validation images are cut from it; given val and test are never limited.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from zoo.data.dataset import Dataset, EvaluationSet
from zoo.data.part import Part
from zoo.data.splits import cut_targets
from zoo.data.splits.cut import cut, fold, limited, per_class, share
from zoo.data.store.scan import Scanner
from zoo.data.targets import classes_of, counts, each_task, indicators, targets_of
from zoo.data.types import BIG, RECORDED, BadImage, DataOptions, Item, Listing, Progress
from zoo.errors import DataError, printable
from zoo.tasks import kinds
from zoo.tasks.schema import Target, is_plain, one_class

SHOWN = 20  # most unreadable images that a message lists

Labelled = list[tuple[Item, int | Target]]


class Assembly:
    """The steps from a listing to parts; one object per data set."""

    def __init__(self, ref: str, listing: Listing, options: DataOptions, on_progress: Progress | None) -> None:
        self._ref = ref
        self._listing = listing
        self._tasks = listing.tasks or one_class(listing.classes)
        self._plain = is_plain(self._tasks)  # whether labels are positions of classes, and not targets
        self._options = options
        self._scanner = Scanner(listing, options, on_progress)
        self._scanned = False
        self._bad: list[BadImage] = []
        self._notes: list[str] = list(listing.notes)

    def build(self, splits: Mapping[str, Labelled], given: list[str]) -> Dataset:
        """Assign the roles; `given` are the splits that exist, the first is trained on.

        Raises DataError if images cannot be read or are too few.
        """
        options = self._options
        train = splits[given[0]]
        val = splits["val"] if "val" in given[1:] else None
        test = splits["test"] if "test" in given[1:] else None
        source = "train" if given[0] == "train" else "all images"
        reduced = options.train_per_class is not None or options.limit is not None
        reported_on = "test"
        if len(given) == 1:
            reported_on = f"test (cut from {source})"
            if not reduced:
                (train,) = self._checked(train)
            train, test = self._cut(train, "test")
        elif test is None:
            reported_on, test, val = "val", val, None
        assert test is not None
        if options.train_per_class is not None:
            train, val = self._few(train, val, options.train_per_class)
        if options.limit is not None:
            train = self._limited(train, options.limit)
        if reduced or len(given) > 1:
            train, checked, test = self._checked(train, val or [], test)
            val = checked if val is not None else None
        if options.fold is not None:
            train, test = self._fold(train, *options.fold)
            reported_on = f"fold {options.fold[0]} of {options.fold[1]} of {source}"
        selected_on, val_cut = "val", val is None
        if val is None:
            train, val = self._cut(train, "val")
            selected_on = f"val (cut from {source})"
        if not val:
            val, val_cut = train, False
            selected_on = "train (too few images to set any aside)"
        if not train or not test:
            raise DataError(
                f"{self._ref} has too few images: {len(train)} to train on, {len(test)} to report on",
                fix="add images, or give a smaller --val-fraction",
            )
        self._require_labels(selected_on, val)
        self._require_labels(reported_on, test)
        self._remark(train, val, test, reported_on, len(given) > 1)
        parts = {"train": train, "val": val, "test": test}
        scanned = parts if self._scanned else {}
        return Dataset(
            name=self._listing.name,
            classes=self._listing.classes,
            train=self._part("train", train, self._listing.classes),
            val=self._part("val", val, self._listing.classes),
            test=self._part("test", test, self._listing.classes),
            selected_on=selected_on,
            reported_on=reported_on,
            fingerprint=self._fingerprint(parts, self._listing.classes),
            bad=tuple(self._bad),
            license=self._listing.license,
            notes=self._all_notes(),
            hflip=self._listing.hflip,
            tasks=self._tasks,
            val_cut=val_cut,
            contents={role: frozenset(map(self._content, _items(rows))) for role, rows in scanned.items()},
        )

    def evaluation(self, rows: Labelled, split: str, classes: tuple[str, ...]) -> EvaluationSet:
        """The readable images of one split, to evaluate on. Raises DataError if there are none, or as for `build`."""
        (rows,) = self._checked(rows)
        if not rows:
            raise DataError(f"{self._ref} has no readable images")
        return EvaluationSet(
            name=self._listing.name,
            part=self._part("test", rows, classes),
            split=split,
            fingerprint=self._fingerprint({"test": rows}, classes),
            bad=tuple(self._bad),
            license=self._listing.license,
            notes=self._all_notes(),
        )

    def _checked(self, *groups: Labelled) -> list[Labelled]:
        """Decode every image once and leave the unreadable ones out, or raise DataError with them."""
        total = sum(map(len, groups))
        if total > BIG:
            self._notes.append(f"{total} images: verified as they are read, identical ones not looked for")
            return list(groups)
        for rows in groups:
            if rows:
                self._scanner.check(_items(rows))
        self._scanned = True
        errors = [BadImage(item.id, self._scanner.finding(item).error) for rows in groups for item in _items(rows)]
        bad = [image for image in errors if image.error]
        if bad and self._options.on_bad_image == "error":
            raise unreadable(self._ref, bad, total)
        self._bad += bad
        return [[row for row in rows if not self._scanner.finding(row[0]).error] for rows in groups]

    def _cut(self, rows: Labelled, purpose: Literal["val", "test"]) -> tuple[Labelled, Labelled]:
        how: dict[str, Any] = {"seed": self._options.seed, "purpose": purpose, "contents": self._contents(rows)}
        fraction = self._options.val_fraction
        if self._plain:
            stay, off = cut(_ids(rows), _labels(rows), fraction, **how)
        else:
            stay, off = cut_targets.cut_strata(_ids(rows), indicators(self._tasks, _targets(rows)), fraction, **how)
        return _pick(rows, stay), _pick(rows, off)

    def _fold(self, rows: Labelled, number: int, of: int) -> tuple[Labelled, Labelled]:
        labels = _labels(rows) if self._plain else cut_targets.rarest(indicators(self._tasks, _targets(rows)))
        stay, off = fold(_ids(rows), labels, number, of, seed=self._options.seed, contents=self._contents(rows))
        return _pick(rows, stay), _pick(rows, off)

    def _contents(self, rows: Labelled) -> list[bytes] | None:
        """A hash of each image's bytes; None if there are too many images to read each."""
        if not self._scanned and len(rows) > BIG:
            return None
        self._scanner.hash(_items(rows))
        # An image whose bytes cannot be read equals no other.
        return [self._content(item) or item.id.encode("utf-8", "surrogatepass") for item in _items(rows)]

    def _limited(self, rows: Labelled, count: int) -> Labelled:
        seed = self._options.seed
        if self._plain:
            return _pick(rows, limited(_ids(rows), _labels(rows), count, seed=seed))
        flags = indicators(self._tasks, _targets(rows))
        return _pick(rows, cut_targets.limited_strata(_ids(rows), flags, count, seed=seed))

    def _few(self, train: Labelled, val: Labelled | None, count: int) -> tuple[Labelled, Labelled | None]:
        seed = self._options.seed
        if not self._plain:
            raise DataError(
                f"no number per class can be taken of {self._ref}",
                why="its images have several labels or tasks",
                fix="use --limit, which keeps every label in its proportion, instead of --train-per-class",
            )
        aside = share(count, self._options.val_fraction) if val is not None else 0
        if val is not None:
            chosen = per_class(_ids(val), _labels(val), aside, seed=seed, purpose="few-val")
            val = _pick(val, chosen) or None if aside else []
        sizes = Counter(_labels(train))
        short = [self._listing.classes[label] for label in sorted(sizes) if sizes[label] < count - aside]
        if short:
            self._notes.append(f"{len(short)} class(es) have fewer than the images asked for: {named(short)}")
        chosen = per_class(_ids(train), _labels(train), count - aside, seed=seed, purpose="few")
        return _pick(train, chosen), val

    def _part(self, role: str, rows: Labelled, classes: tuple[str, ...]) -> Part:
        store = self._scanner.store if self._scanned else None
        return Part(
            role=role,
            items=_items(rows),
            labels=[label for _, label in rows],
            classes=classes,
            tasks=self._tasks,
            reader=self._listing.reader,
            store=store,
            rows=[store.row(self._content(item)) for item in _items(rows)] if store else [],
            hflip=self._listing.hflip,
            on_bad_image=self._options.on_bad_image,
        )

    def _require_labels(self, where: str, rows: Labelled) -> None:
        """Refuse to select or report by labels that no image there has.

        Of several tasks, one without a target there is left out of the result instead.
        """
        for span, values in () if self._plain else each_task(self._tasks, _targets(rows)):
            lacking = kinds.of(span.task).lacks(span.task, values)
            if lacking and (len(self._tasks) == 1 or np.isfinite(values).any()):
                raise DataError(
                    f"no image of {where} has {lacking[0]} of {self._ref}",
                    why=lacking[1],
                    fix="move images with labels there, or give no such split, and one is cut",
                )

    def _remark(self, train: Labelled, val: Labelled, test: Labelled, reported_on: str, given: bool) -> None:
        """Add notes on what a user should know about the parts."""
        classes = self._listing.classes
        if self._plain:
            present = set(_labels(test))
            missing = [name for label, name in enumerate(classes) if label not in present]
        else:
            missing = [name for name, n in zip(classes, counts(self._tasks, _targets(test)), strict=True) if not n]
            untrained = [name for name, n in zip(classes, counts(self._tasks, _targets(train)), strict=True) if not n]
            if untrained:
                self._notes.append(f"no image that is trained on shows: {named(untrained)}")
        if missing:
            self._notes.append(f"{reported_on} has no image of {len(missing)} class(es): {named(missing)}")
        if not self._scanned:
            return
        if given:
            trained = set(map(self._content, _items([*train, *val])))
            same = sum(self._content(item) in trained for item in _items(test))
            if same:
                self._notes.append(f"{same} image(s) of {reported_on} are exact copies of images used in training")
        equal: dict[bytes, dict[int | Target, str]] = {}  # by content, an image of each label that it has
        images = {item.id: (item, label) for item, label in [*train, *val, *test]}
        for item, label in images.values():
            equal.setdefault(self._content(item), {}).setdefault(label, item.id)
        if len(equal) < len(images):
            self._notes.append(f"{len(images) - len(equal)} image(s) are exact copies of others")
        torn = [" and ".join(labels.values()) for labels in equal.values() if self._plain and len(labels) > 1]
        if torn:
            self._notes.append(f"{len(torn)} image(s) appear under more than one class: {named(torn, 3)}")

    def _all_notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self._notes, *self._scanner.notes, *self._scanner.remarks()]))

    def _content(self, item: Item) -> bytes:
        return self._scanner.finding(item).content

    def _fingerprint(self, parts: Mapping[str, Labelled], classes: Sequence[str]) -> str:
        digest = hashlib.sha256()
        digest.update("\0".join(classes).encode("utf-8", "surrogatepass"))
        for role, rows in parts.items():
            digest.update(f"\n{RECORDED[role]}\n".encode())
            for item, label in sorted(rows, key=lambda row: row[0].id):
                content = self._content(item).hex() if self._scanned else f"{item.size}:{item.stamp}"
                digest.update(f"{item.id}\0{label}\0{content}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def unreadable(ref: str, bad: Sequence[BadImage], total: int) -> DataError:
    """The error that lists unreadable images."""
    lines = [printable(f"{image.path}: {image.error}") for image in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"… and {len(bad) - SHOWN} more")
    return DataError(
        f"{len(bad)} of {total} image(s) in {ref} cannot be read",
        why="\n       ".join(lines),
        fix="repair or remove them, or leave them out with --on-bad-image skip",
    )


def named(names: Sequence[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" … and {len(names) - most} more" if len(names) > most else "")


def _pick(rows: Labelled, positions: Sequence[int]) -> Labelled:
    return [rows[position] for position in positions]


def _items(rows: Labelled) -> list[Item]:
    return [item for item, _ in rows]


def _ids(rows: Labelled) -> list[str]:
    return [item.id for item, _ in rows]


def _labels(rows: Labelled) -> list[int]:
    return classes_of([label for _, label in rows])


def _targets(rows: Labelled) -> list[Target]:
    return targets_of([label for _, label in rows])
