"""References: `hf:ORG/NAME@revision`, `hf-hub:ORG/NAME`, a name or a path, typed or recorded."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from zoo.base import registry

HUB_DATA = "hf:"  # prefix of a data set on the Hub
HUB_MODEL = "hf-hub:"  # prefix of a model or weights there
_LOOKED_AT = 10_000  # entries of a folder that are compared with a misspelled name


def revised(text: str) -> tuple[str, str | None]:
    """Repository and revision of "ORG/NAME[@revision]"."""
    repo, _, revision = text.partition("@")
    return repo, revision or None


def is_repo(text: str) -> bool:
    """Whether it has the form ORG/NAME."""
    return text.count("/") == 1 and all(text.split("/"))


def may_be_repo(text: str) -> bool:
    """Whether a reference without `hf-hub:` may mean a model on the Hub: ORG/NAME[@revision], and no folder ORG."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[^@]+)?", text)) and not Path(text.partition("/")[0]).is_dir()


def place_on_hub(ref: str) -> tuple[str | None, str | None]:
    """Repository and revision of a data set on the Hub, by `hf:` or a registry name; None for what is not known."""
    if ref.startswith(HUB_DATA):
        return revised(ref.removeprefix(HUB_DATA))
    entry = registry.load().datasets.get(ref)
    return (entry.hub, entry.revision) if entry else (None, None)


def looks_like_path(ref: str) -> bool:
    """Whether a reference is written as a path."""
    return "/" in ref or os.sep in ref or ref.startswith((".", "~"))


def near_path(ref: str) -> str | None:
    """The existing path with the most similar spelling; None if there is none."""
    found = Path()
    for part in Path(ref).expanduser().parts:
        if not os.path.exists(found / part):
            try:
                names = [entry.name for entry in islice(os.scandir(found), _LOOKED_AT) if entry.name != part]
            except OSError:  # not a folder, or not readable
                return None
            part = next(iter(get_close_matches(part, names, n=1)), "")
            if not part:
                return None
        found /= part
    return str(found)


def did_you_mean(*names: str | None) -> str:
    """The beginning of a fix that suggests names; empty without any."""
    known = dict.fromkeys(filter(None, names))
    return f"did you mean {' or '.join(known)}? Otherwise " if known else ""


def absolute(ref: str) -> str:
    """An existing path made absolute; anything else unchanged."""
    return str(Path(ref).resolve()) if Path(ref).exists() else ref


def recorded(ref: str) -> str:
    """A data set as recorded: its registry name unchanged, an existing path made absolute."""
    return ref if ref in registry.load().datasets else absolute(ref)


def last_part(path: str) -> str:
    """The name of a file or folder, whichever system's separators its path has."""
    return re.split(r"[/\\]", path)[-1]


def is_local(ref: str) -> bool:
    """Whether a recorded reference is a path on the machine that recorded it."""
    return not ref.startswith((HUB_DATA, HUB_MODEL)) and last_part(ref) != ref


def public(ref: str) -> str:
    """A recorded reference without the folders of the machine that recorded it."""
    return last_part(ref) if is_local(ref) else ref
