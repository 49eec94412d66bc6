"""From a reference to three parts: what training fits, what chooses, what the result is reported on.

How roles are given out. train, val and test: each does its work. train and val: val reports, and what chooses is cut
from train. train and test: what chooses is cut from train. One split: a share `val_fraction` of it becomes the test
part, and the same share of the rest is what chooses. `zoo.data.splits` says how a cut counts.

Few-shot, `train_per_class` N: fit and choose together have N images of every class. When what chooses is cut from
train it takes `val_fraction` of the N; when val is given, that many come from val and the others from train.
`fold` K/N: of what is left to train on then, one of N equal parts reports instead of the test part.
`limit` N: train has N images in all, before what chooses is cut from it; a given val or test part is never limited.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from zoo.data import stratify
from zoo.data.part import Part
from zoo.data.records import BIG, BadImage, DataOptions, Item, Listing, Progress, Target
from zoo.data.resolve import open_listing
from zoo.data.scan import Scanner
from zoo.data.splits import cut, fold, limited, per_class, share
from zoo.data.targets import answers, classes_of, counts, indicators, targets_of, widened
from zoo.errors import DataError, printable
from zoo.tasks import Task, spans

SHOWN = 20  # unreadable images that a message lists


@dataclass(frozen=True, slots=True)
class Origin:
    """One of several data sets whose images were put together."""

    ref: str  # as it was asked for
    name: str
    tasks: tuple[str, ...]  # names of those that its images answer
    fingerprint: str
    license: str | None
    selected_on: str
    reported_on: str


@dataclass(frozen=True)
class Dataset:
    """Images in their three roles."""

    name: str
    classes: tuple[str, ...]  # in the pinned order: position = label; with tasks: what the outputs are called
    fit: Part  # trained on
    choose: Part  # chooses the epoch and the rate
    report: Part  # the result is measured on these
    selected_on: str  # "val", "val (cut from train)", …
    reported_on: str  # "test", "val", "test (cut from all images)", …
    fingerprint: str  # changes when an image, a label, the classes or the cut changes
    bad: tuple[BadImage, ...]  # unreadable images that were left out
    license: str | None
    notes: tuple[str, ...]
    hflip: bool  # whether a mirrored image still shows its class
    tasks: tuple[Task, ...] = ()  # what images answer; none: each is of one class
    choose_cut: bool = False  # whether what chooses was cut from what would be trained on, and not given apart
    sets: tuple[Origin, ...] = ()  # where images of several data sets come from
    contents: Mapping[str, frozenset[bytes]] = field(default_factory=dict, repr=False)  # of each part, where known

    def require_classes(self, what: str) -> None:
        """Refuse images that are not each of one class.

        Raises:
            DataError: They have several labels, or answer several questions; `what` cannot deal with these.
        """
        if self.tasks:
            raise DataError(
                f"{what} takes images of one class each, and those of {self.name} answer otherwise",
                fix="use zoo adapt, one backbone at a time",
            )

    def counts(self) -> dict[str, dict[str, object]]:
        """Images of each part, in all, per class and of several tasks per task, in the form that run.json has."""
        parts = {"fit": self.fit, "choose": self.choose, "report": self.report}
        found: dict[str, dict[str, object]] = {}
        for name, part in parts.items():
            found[name] = {"n": len(part), "per_class": part.class_counts()}
            if len(self.tasks) > 1:
                found[name]["answers"] = answers(self.tasks, part.targets)
        return found


@dataclass(frozen=True)
class EvaluationSet:
    """Images to score a finished model on, labelled in the model's own class order."""

    name: str
    part: Part
    split: str  # "test", "val", "train", or "all"
    fingerprint: str
    bad: tuple[BadImage, ...]
    license: str | None
    notes: tuple[str, ...]


def open_dataset(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Dataset:
    """Open a data set for training.

    Args:
        ref: A registry name, `hf:ORG/NAME[@revision]`, a folder, a table, or an archive.
        options: What to take and how to cut.
        on_progress: Called with (stage, done, total) while images are fetched and read.

    Raises:
        DataError: It cannot be reached or read, has fewer than two classes, or has unreadable images.
    """
    if options.specs:
        from zoo.data.joint import open_tasks  # which opens each data set by this function

        return open_tasks(options.specs, options, on_progress)
    listing = open_listing(ref, options, on_progress)
    splits = _with_labels(listing, listing.classes)
    given = [name for name in ("train", "val", "test", "all") if splits.get(name)]
    if len(given) > 1 and "train" not in given:
        raise DataError(f"{ref} has {' and '.join(given)} but no training split", fix="add a `train` split")
    if len(listing.classes) < 2 and not listing.tasks:
        raise DataError(
            f"{ref} has one class only: {', '.join(listing.classes)}",
            why="a classifier needs at least two to tell apart",
            fix="add images of another class",
        )
    return _Assembly(ref, listing, options, on_progress).build(splits, given)


def open_evaluation(
    ref: str,
    classes: Sequence[str],
    options: DataOptions,
    on_progress: Progress | None = None,
    *,
    split: str | None = None,
) -> EvaluationSet:
    """Open a data set to score a model that has its classes already. Nothing is cut or limited.

    Args:
        ref: As for `open_dataset`.
        classes: The model's classes in order; labels are matched by name.
        options: Columns, configuration and what to do about unreadable images.
        on_progress: Called with (stage, done, total).
        split: "train", "val" or "test"; None takes test, else val, else whatever there is.

    Raises:
        DataError: As for `open_dataset`, or there is no such split, or it has a class that the model does not know.
    """
    listing = _answering(open_listing(ref, options, on_progress), options.tasks)
    if bool(listing.tasks) != bool(options.tasks):
        mine, theirs = ("one class", "several answers") if listing.tasks else ("several answers", "one class")
        raise DataError(
            f"the images of {ref} have {theirs} each, and the model gives {mine}",
            why="" if listing.tasks else "there is not just one of its tasks that has all of their classes",
            fix="name a table with the right columns: see --label-column, --label-separator and --problem",
        )
    available = [name for name in ("test", "val", "train", "all") if listing.splits.get(name)]
    if split is not None and split not in available:
        raise DataError(f"{ref} has no split {split}", fix=f"choose one of: {', '.join(available)}")
    chosen = split or available[0]
    labelled = _with_labels(listing, tuple(classes), only=chosen)[chosen]
    assembly = _Assembly(ref, listing, options, on_progress)
    return assembly.evaluation(labelled, chosen, tuple(classes))


def _answering(listing: Listing, tasks: tuple[Task, ...]) -> Listing:
    """The listing with room for the answers to all of a model's tasks, in their order."""
    if tasks and not listing.tasks:
        named = set(listing.classes)
        fitting = [
            task for task in tasks if task.kind == "single-label" and (len(tasks) == 1 or named <= {*task.classes})
        ]
        listing = _as_task(listing, fitting[0]) if len(fitting) == 1 else listing
    own = listing.tasks
    if not own or not tasks or own == tasks:
        return listing
    items = {}
    for split, found in listing.splits.items():
        rows = widened(targets_of([item.label for item in found]), own, tasks)
        items[split] = [item._replace(label=row) for item, row in zip(found, rows, strict=True)]
    return replace(listing, splits=items, tasks=tasks)


def _as_task(listing: Listing, task: Task) -> Listing:
    """Images of one class each, as answers to a task of classes."""
    unknown = sorted(set(listing.classes) - set(task.classes))
    if unknown:
        raise DataError(
            f"{listing.name} has {len(unknown)} class(es) that training does not know: {_some(unknown)}",
            why=f"known classes: {_some(task.classes)}",
            fix="rename or remove these images, or add the class to the training images",
        )
    place = {name: (float(label),) for label, name in enumerate(task.classes)}
    items = {split: [item._replace(label=place[str(item.label)]) for item in found]
             for split, found in listing.splits.items()}  # fmt: skip
    return replace(listing, splits=items, tasks=(task,))


_Labelled = list[tuple[Item, int | Target]]


class _Assembly:
    """The steps from a listing to parts; one object per opening."""

    def __init__(self, ref: str, listing: Listing, options: DataOptions, on_progress: Progress | None) -> None:
        self._ref = ref
        self._listing = listing
        self._options = options
        self._scanner = Scanner(listing, options, on_progress)
        self._scanned = False
        self._bad: list[BadImage] = []
        self._notes: list[str] = list(listing.notes)

    def build(self, splits: Mapping[str, _Labelled], given: list[str]) -> Dataset:
        options = self._options
        train = splits[given[0]]
        val = splits["val"] if "val" in given and len(given) > 1 else None
        test = splits["test"] if "test" in given and len(given) > 1 else None
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
            keep = self._limited(train, options.limit)
            train = [train[position] for position in keep]
        if reduced or len(given) > 1:
            train, chosen, test = self._checked(train, val or [], test)
            val = chosen if val is not None else None
        if options.fold is not None:
            train, test = self._fold(train, *options.fold)
            reported_on = f"fold {options.fold[0]} of {options.fold[1]} of {source}"
        choose_cut = val is None
        if val is not None:
            selected_on = "val"
        else:
            train, val = self._cut(train, "val")
            selected_on = f"val (cut from {source})"
        if not val:
            val, choose_cut = train, False
            selected_on = "train (too few images to set any aside)"
        if not train or not test:
            raise DataError(
                f"{self._ref} has too few images: {len(train)} to train on, {len(test)} to report on",
                fix="add images, or give a smaller --val-fraction",
            )
        for where, rows in ((selected_on, val), (reported_on, test)):
            self._require_labels(where, rows)
        self._remark(train, val, test, reported_on, len(given) > 1)
        parts = {"fit": train, "choose": val, "report": test}
        contents = {role: frozenset(self._content(item) for item, _ in rows) for role, rows in parts.items()} \
            if self._scanned else {}  # fmt: skip
        return Dataset(
            name=self._listing.name,
            classes=self._listing.classes,
            fit=self._part("fit", train, self._listing.classes),
            choose=self._part("choose", val, self._listing.classes),
            report=self._part("report", test, self._listing.classes),
            selected_on=selected_on,
            reported_on=reported_on,
            fingerprint=self._fingerprint(parts, self._listing.classes),
            bad=tuple(self._bad),
            license=self._listing.license,
            notes=tuple(dict.fromkeys([*self._notes, *self._scanner.notes, *self._scanner.remarks()])),
            hflip=self._listing.hflip,
            tasks=self._listing.tasks,
            choose_cut=choose_cut,
            contents=contents,
        )

    def evaluation(self, rows: _Labelled, split: str, classes: tuple[str, ...]) -> EvaluationSet:
        (rows,) = self._checked(rows)
        if not rows:
            raise DataError(f"{self._ref} has no readable images")
        return EvaluationSet(
            name=self._listing.name,
            part=self._part("report", rows, classes),
            split=split,
            fingerprint=self._fingerprint({"report": rows}, classes),
            bad=tuple(self._bad),
            license=self._listing.license,
            notes=tuple(dict.fromkeys([*self._notes, *self._scanner.notes, *self._scanner.remarks()])),
        )

    def _checked(self, *groups: _Labelled) -> list[_Labelled]:
        """Decode every image once and leave the unreadable ones out, or say which they are."""
        total = sum(len(rows) for rows in groups)
        if total > BIG:
            self._notes.append(f"{total} images: verified as they are read, identical ones not looked for")
            return list(groups)
        for rows in groups:
            if rows:
                self._scanner.check([item for item, _ in rows])
        self._scanned = True
        found = [BadImage(item.id, self._scanner.finding(item).error) for rows in groups for item, _ in rows]
        bad = [image for image in found if image.error]
        if bad and self._options.on_bad_image == "error":
            raise unreadable(self._ref, bad, total)
        self._bad += bad
        return [[row for row in rows if not self._scanner.finding(row[0]).error] for rows in groups]

    def _cut(self, rows: _Labelled, purpose: Literal["val", "test"]) -> tuple[_Labelled, _Labelled]:
        fraction, seed, contents = self._options.val_fraction, self._options.seed, self._contents(rows)
        if self._listing.tasks:
            flags = indicators(self._listing.tasks, _targets(rows))
            stay, off = stratify.cut_answers(_ids(rows), flags, fraction, seed=seed, purpose=purpose, contents=contents)
        else:
            stay, off = cut(_ids(rows), _labels(rows), fraction, seed=seed, purpose=purpose, contents=contents)
        return [rows[position] for position in stay], [rows[position] for position in off]

    def _fold(self, rows: _Labelled, number: int, of: int) -> tuple[_Labelled, _Labelled]:
        tasks, seed = self._listing.tasks, self._options.seed
        labels = stratify.rarest(indicators(tasks, _targets(rows))) if tasks else _labels(rows)
        stay, off = fold(_ids(rows), labels, number, of, seed=seed, contents=self._contents(rows))
        return [rows[position] for position in stay], [rows[position] for position in off]

    def _contents(self, rows: _Labelled) -> list[bytes] | None:
        """A hash of each image's bytes; None where there are too many images to look into each."""
        if not self._scanned and len(rows) > BIG:
            return None
        self._scanner.hash([item for item, _ in rows])
        # An image whose bytes cannot be read is identical to nothing.
        return [self._content(item) or item.id.encode("utf-8", "surrogatepass") for item, _ in rows]

    def _limited(self, rows: _Labelled, count: int) -> list[int]:
        if self._listing.tasks:
            flags = indicators(self._listing.tasks, _targets(rows))
            return stratify.limited_answers(_ids(rows), flags, count, seed=self._options.seed)
        return limited(_ids(rows), _labels(rows), count, seed=self._options.seed)

    def _few(self, train: _Labelled, val: _Labelled | None, count: int) -> tuple[_Labelled, _Labelled | None]:
        seed = self._options.seed
        if self._listing.tasks:
            raise DataError(
                f"no number per class can be taken of {self._ref}",
                why="its images give several answers each",
                fix="use --limit, which keeps every answer in its proportion, instead of --train-per-class",
            )
        aside = share(count, self._options.val_fraction) if val is not None else 0
        if val is not None:
            chosen = per_class(_ids(val), _labels(val), aside, seed=seed, purpose="few-val")
            val = [val[position] for position in chosen] or None if aside else []
        sizes = Counter(_labels(train))
        short = [self._listing.classes[label] for label in sorted(sizes) if sizes[label] < count - aside]
        if short:
            self._notes.append(f"{len(short)} class(es) have fewer than the images asked for: {_some(short)}")
        chosen = per_class(_ids(train), _labels(train), count - aside, seed=seed, purpose="few")
        return [train[position] for position in chosen], val

    def _part(self, role: str, rows: _Labelled, classes: tuple[str, ...]) -> Part:
        store, stored = self._scanner.stored([item for item, _ in rows]) if self._scanned else (None, [])
        return Part(
            role=role,
            items=[item for item, _ in rows],
            labels=[label for _, label in rows],
            classes=classes,
            tasks=self._listing.tasks,
            reader=self._listing.reader,
            store=store,
            rows=stored,
            hflip=self._listing.hflip,
            on_bad_image=self._options.on_bad_image,
        )

    def _require_labels(self, where: str, rows: _Labelled) -> None:
        """Refuse to choose or report by labels that no image there has: nothing could be said of them.

        Of several tasks, one that nothing there answers is left out of the result instead.
        """
        targets = _targets(rows) if self._listing.tasks else []
        for span in spans(self._listing.tasks):
            mine = [number for target in targets for number in target[span.columns]]
            answered = len(self._listing.tasks) == 1 or any(number == number for number in mine)
            if span.task.kind == "multi-label" and answered and 1.0 not in mine:
                raise DataError(
                    f"no image of {where} has any of the labels of {self._ref}",
                    why="there is nothing to rank before anything else, so it cannot be told how good a model is",
                    fix="move images with labels there, or give no such split, and one is cut",
                )

    def _remark(self, train: _Labelled, val: _Labelled, test: _Labelled, reported_on: str, given: bool) -> None:
        """Add what a person should know about the parts."""
        listing = self._listing
        if listing.tasks:
            missing = [place for place, n in enumerate(counts(listing.tasks, _targets(test))) if not n]
            unfitted = [place for place, n in enumerate(counts(listing.tasks, _targets(train))) if not n]
            if unfitted:
                names = _some([listing.classes[place] for place in unfitted])
                self._notes.append(f"no image that is trained on shows: {names}")
        else:
            missing = sorted(set(range(len(listing.classes))) - set(_labels(test)))
        if missing:
            names = _some([self._listing.classes[label] for label in missing])
            self._notes.append(f"{reported_on} has no image of {len(missing)} class(es): {names}")
        if not self._scanned:
            return
        contents = {id(rows): {self._content(item) for item, _ in rows} for rows in (train, val, test)}
        if given:
            training = contents[id(train)] | (contents[id(val)] if val is not train else set())
            same = sum(self._content(item) in training for item, _ in test)
            if same:
                self._notes.append(f"{same} image(s) of {reported_on} are exact copies of images used in training")
        labels: dict[bytes, set[int | Target]] = {}
        for item, label in train:
            labels.setdefault(self._content(item), set()).add(label)
        torn = 0 if listing.tasks else sum(len(found) > 1 for found in labels.values())
        if torn:
            self._notes.append(f"{torn} image(s) appear in training under more than one class")

    def _content(self, item: Item) -> bytes:
        return self._scanner.finding(item).content

    def _fingerprint(self, parts: Mapping[str, _Labelled], classes: Sequence[str]) -> str:
        digest = hashlib.sha256()
        digest.update("\0".join(classes).encode("utf-8", "surrogatepass"))
        for role, rows in parts.items():
            digest.update(f"\n{role}\n".encode())
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


def _with_labels(listing: Listing, classes: tuple[str, ...], only: str | None = None) -> dict[str, _Labelled]:
    position = {name: label for label, name in enumerate(classes)}
    result: dict[str, _Labelled] = {}
    for split, items in listing.splits.items():
        if only is not None and split != only:
            continue
        if listing.tasks:  # these know their classes
            result[split] = list(zip(items, targets_of([item.label for item in items]), strict=True))
            continue
        unknown = sorted({str(item.label) for item in items} - position.keys())
        if unknown:
            raise DataError(
                f"{split} of {listing.name} has {len(unknown)} class(es) that training does not know: {_some(unknown)}",
                why=f"known classes: {_some(classes)}",
                fix="rename or remove these images, or add the class to the training images",
            )
        result[split] = [(item, position[str(item.label)]) for item in items]
    return result


def _ids(rows: _Labelled) -> list[str]:
    return [item.id for item, _ in rows]


def _labels(rows: _Labelled) -> list[int]:
    return classes_of([label for _, label in rows])


def _targets(rows: _Labelled) -> list[Target]:
    return targets_of([label for _, label in rows])


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" … and {len(names) - most} more" if len(names) > most else "")
