"""The same images for everybody: a folder drawn from an archive by a seed, and a hash of what is in it."""

from __future__ import annotations

import hashlib
import random
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Samples:
    """A folder with train/ and test/, and val/ if asked for, each with a folder per class."""

    folder: Path
    classes: tuple[str, ...]
    counts: dict[str, int]  # images of each part
    sha256: str  # of the list of its images


def draw(
    archive: Path, into: Path, seed: int, *, train: int | None = None, test: int | None = None, val: int = 0
) -> Samples:
    """Copy images of an archive with train/ and test/ (or val/) into a folder.

    Args:
        archive: A zip of `PART/CLASS/IMAGE`.
        into: A new folder.
        seed: Draws the training images. The reported ones are the same for all seeds.
        train: Images per class; None takes all.
        test: The same for the reported ones.
        val: Images per class that are taken from the reported ones as a part of their own.
    """
    with zipfile.ZipFile(archive) as file:
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in sorted(file.namelist()):
            if name.count("/") == 2 and not name.endswith("/"):
                part, label, _ = name.split("/")
                found[part][label].append(name)
        reported = found.get("test") or found["val"]
        chosen: list[tuple[str, str]] = []
        for label in sorted(found["train"]):
            ours = _some(found["train"][label], train, f"{seed} train {label}")
            held = _some(reported[label], None if test is None else test + val, f"test {label}")
            chosen += [("train", name) for name in ours]
            chosen += [("val" if number < val else "test", name) for number, name in enumerate(held)]
        for part, name in chosen:
            target = into / part / Path(name).relative_to(Path(name).parts[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read(name))
    counts = {part: sum(1 for own, _ in chosen if own == part) for part in ("train", "val", "test")}
    text = "\n".join(f"{part} {name}" for part, name in chosen)
    return Samples(into, tuple(sorted(found["train"])), counts, hashlib.sha256(text.encode()).hexdigest())


def fold(archive: Path, into: Path, seed: int, *, train: int, judge: int) -> None:
    """Copy images of an archive's training part into train/ and test/ of a folder, so that test may judge.

    Args:
        archive: A zip of `train/CLASS/IMAGE`, or of `CLASS/IMAGE` where there are no parts.
        into: A new folder.
        seed: Draws all of them.
        train: Images per class.
        judge: Other images per class, as test/; fewer where there are not so many.
    """
    with zipfile.ZipFile(archive) as file:
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(file.namelist()):
            *parts, label, last = ("", *name.split("/"))[-3:]
            if last and parts in (["train"], [""]):
                found[label].append(name)
        for label, names in found.items():
            random.Random(f"{seed} fold {label}").shuffle(names)
            for number, name in enumerate(names[: train + judge]):
                target = into / ("train" if number < train else "test") / label / Path(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read(name))


def _some(names: list[str], count: int | None, seed: str) -> list[str]:
    if count is None or count >= len(names):
        return names
    return sorted(random.Random(seed).sample(names, count))
