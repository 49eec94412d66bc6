"""Which source a reference means."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from zoo.base import registry
from zoo.data.sources.archive import is_archive, read_archive
from zoo.data.sources.image_folder import read_folder
from zoo.data.sources.table import SUFFIXES, is_table, read_table
from zoo.data.types import DataOptions, Listing, Progress
from zoo.errors import DataError

FORMS = (
    "give a name (see `zoo datasets`), hf:ORG/NAME, a folder of class folders, a table "
    f"({', '.join(SUFFIXES)}), or a zip or tar archive of a folder"
)


def open_listing(ref: str, options: DataOptions, on_progress: Progress | None) -> Listing:
    """List the images that a reference means.

    Raises:
        DataError: Nothing of that name or path is there, or it cannot be used; or more than one class of each image is
            asked of what has just that.
    """
    listing = _listing(ref, options, on_progress)
    several = options.problem == "multi-label" or options.label_separator is not None
    if (several or options.questions) and options.labels and not listing.tasks:
        raise DataError(
            f"{ref} says one class of each image, and several labels or columns were asked for",
            why="it is no table",
            fix=f"write a table ({', '.join(SUFFIXES)}) with a row per image: see docs/multi-label.md",
        )
    return listing


def _listing(ref: str, options: DataOptions, on_progress: Progress | None) -> Listing:
    """What `open_listing` looks up.

    A bare name of the registry is that data set, even where a file or folder has the same name: write `./name` then.
    """
    if ref.startswith("hf:"):
        from zoo.data.sources.hub import read_hub  # `datasets` takes a second to import

        identity, _, revision = ref.removeprefix("hf:").partition("@")
        return read_hub(identity, options, on_progress, revision=revision or None)
    catalogue = registry.load().datasets
    if ref in catalogue:
        return _named(catalogue[ref], options, on_progress)
    path = Path(ref).expanduser()
    if path.is_dir():
        return read_folder(path, labels=options.labels)
    if path.exists():
        if is_table(path):
            return read_table(path, options)
        if is_archive(path):
            return read_archive(path, on_progress, labels=options.labels)
        raise DataError(f"{ref} is neither a table nor an archive", why=f"its name ends in {path.suffix!r}", fix=FORMS)
    looks_like_path = os.sep in ref or "/" in ref or ref.startswith((".", "~")) or is_table(path) or is_archive(path)
    if looks_like_path:
        why = f"there is no such file or folder, seen from {Path.cwd()}"
        if not ref.startswith((".", "~", "/")) and ref.count("/") == 1 and not path.suffix:
            raise DataError(f"{ref} is not there", why=why, fix=f"for a data set on the Hub write hf:{ref}; or {FORMS}")
        raise DataError(f"{ref} is not there", why=why, fix=FORMS)
    near = difflib.get_close_matches(ref.lower(), catalogue, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? Otherwise " if near else ""
    raise DataError(f"there is no data set named {ref!r}, and no such file or folder", fix=hint + FORMS)


def _named(entry: registry.DatasetEntry, options: DataOptions, on_progress: Progress | None) -> Listing:
    if entry.builtin == "digits":
        from zoo.data.sources.digits import read_digits

        return read_digits()
    from zoo.data.sources.hub import read_hub

    assert entry.hub is not None  # the registry's reader makes sure of one or the other
    return read_hub(entry.hub, options, on_progress, entry=entry, revision=entry.revision)
