"""Choice of source for a reference: the first in `SOURCES` that claims it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from zoo.base import registry
from zoo.base.references import HUB_DATA, did_you_mean, looks_like_path, near_path
from zoo.data.sources import archive, digits, hub, image_folder, table
from zoo.data.types import DataOptions, Listing, Progress
from zoo.errors import DataError


class ImageSource(Protocol):
    """A module that lists the images of one kind of data set."""

    FORM: str  # how to write one, for users; empty if another source says it

    def claims(self, ref: str) -> bool:
        """Whether a reference is this source's to list."""

    def listing(self, ref: str, options: DataOptions, on_progress: Progress | None) -> Listing:
        """List the images. Raises DataError if they cannot be used."""


# The order matters: a bare name of the catalogue is that data set, even if a file or folder has the same name (`./name`
# means that), and a folder named like an archive is a folder.
SOURCES: Sequence[ImageSource] = (hub, digits, image_folder, archive, table)

_FORMS = [source.FORM for source in SOURCES if source.FORM]
FORMS = f"give {', '.join(_FORMS[:-1])}, or {_FORMS[-1]}"


def open_listing(ref: str, options: DataOptions, on_progress: Progress | None) -> Listing:
    """List the images that a reference means; raises DataError if it names nothing or cannot be used."""
    source = next((source for source in SOURCES if source.claims(ref)), None)
    if source is None:
        raise _unclaimed(ref)
    return source.listing(ref, options, on_progress)


def _unclaimed(ref: str) -> DataError:
    path = Path(ref).expanduser()
    if path.exists():
        return DataError(f"{ref} is neither a table nor an archive", why=f"its name ends in {path.suffix!r}", fix=FORMS)
    near, names = near_path(ref), registry.load().datasets
    is_path = looks_like_path(ref) or table.is_table(path) or archive.is_archive(path)
    similar = [near] if is_path else difflib.get_close_matches(ref.lower(), [*names, near or ""], n=3, cutoff=0.5)
    hint = did_you_mean(*similar, f"./{near}" if near in names else None)
    if not is_path:
        return DataError(f"there is no data set named {ref!r}, and no such file or folder", fix=hint + FORMS)
    if not ref.startswith((".", "~", "/")) and ref.count("/") == 1 and not path.suffix:
        hint += f"for a data set on the Hub write {HUB_DATA}{ref}; or "
    why = f"there is no such file or folder, seen from {Path.cwd()}"
    return DataError(f"{ref} is not there", why=why, fix=hint + FORMS)
