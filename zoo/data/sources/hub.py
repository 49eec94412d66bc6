"""Hub source: data sets on the Hugging Face Hub, through the `datasets` library.

Images are read as the bytes that were uploaded (`Image(decode=False)`), so that all sources share one decoder. The rows
stay in the memory-mapped files of `datasets`; only labels are in memory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base import registry
from zoo.base.references import HUB_DATA, is_repo, place_on_hub
from zoo.base.registry import DatasetEntry
from zoo.base.untrusted import read_bytes
from zoo.data.sources.class_folders import SPLIT_NAMES
from zoo.data.types import IMAGE_LIMIT, DataOptions, Item, Listing, Progress
from zoo.errors import DataError
from zoo.events import Event, Note
from zoo.models import hub_client
from zoo.tasks.schema import in_order


@dataclass(frozen=True)
class HubReader:
    """Reads images from memory-mapped tables; a locator is (split, row)."""

    tables: Mapping[str, Any]  # split -> datasets.Dataset with the one column
    column: str

    def read(self, locator: tuple[str, int]) -> bytes:
        """The bytes of one image as uploaded. Raises ValueError if it has none, or a file outside the data set."""
        split, row = locator
        cell = self.tables[split][row][self.column]
        if isinstance(cell, bytes):
            return cell
        if cell is None:
            raise ValueError("the row has no image")
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        return read_bytes(_fetched(str(cell["path"])), IMAGE_LIMIT)


FORM = "a name (see `zoo datasets`), hf:ORG/NAME"


def claims(ref: str) -> bool:
    """Whether it is `hf:ORG/NAME[@revision]`, or the catalogue's name for a data set on the Hub."""
    return place_on_hub(ref)[0] is not None


def listing(ref: str, options: DataOptions, on_progress: Progress | None = None) -> Listing:
    """List the images of a data set on the Hub, and download it if it is not in the cache.

    Columns and configuration that the options do not give are the catalogue's, else found by type and name. Raises
    DataError if it cannot be reached, is gated, or lacks the configuration, column, split or labels.
    """
    identity, revision = place_on_hub(ref)
    assert identity is not None, "it is claimed"
    entry = None if ref.startswith(HUB_DATA) else registry.load().datasets[ref]
    name = entry.name if entry else identity.rpartition("/")[2]
    if not is_repo(identity):
        fix = f"write {HUB_DATA}ORG/NAME or {HUB_DATA}ORG/NAME@revision"
        raise DataError(f"{HUB_DATA}{identity} does not name a data set on the Hub", fix=fix)
    if on_progress is not None:
        on_progress(f"fetching {identity}", 0, 0)
    config = options.config or (entry.config if entry else None)

    def tell(event: Event) -> None:
        if on_progress is not None and isinstance(event, Note):
            on_progress(f"fetching {identity} ({event.text})", 0, 0)

    with hub_client.session(tell) as hub:
        tables = _fetch(identity, name, config, revision, hub, gated=bool(entry and entry.gated))
    notes: list[str] = []
    roles = _roles(tables, identity, entry, notes)
    first = tables[next(iter(roles.values()))]
    features = first.features
    image_column = _image_column(features, options.path_column or (entry.image if entry else None), identity)
    label_column = _label_column(features, options.label_column or (entry.label if entry else None), identity)
    splits: dict[str, list[Item]] = {}
    readable: dict[str, Any] = {}
    marks = []
    for role, split in roles.items():
        table = tables[split]
        mark = str(getattr(table, "_fingerprint", ""))
        items = _items(table, split, label_column, identity, mark, required=role in ("train", "all"))
        if items is None:
            notes.append(f"the split {split} has no labels and is left out")
            continue
        marks.append(mark)
        splits[role] = items
        readable[split] = _bytes_only(table, image_column)
    names = getattr(features[label_column], "names", None)
    training = splits.get("train") or splits.get("all") or next(iter(splits.values()))
    classes = tuple(names) if names else in_order(str(item.label) for item in training)
    if len(set(classes)) != len(classes):
        raise DataError(f"{identity} names one class twice", why=", ".join(sorted(classes)))
    if len(splits) == 1 and "train" not in splits:
        splits = {"all": next(iter(splits.values()))}
    return Listing(
        name=name,
        key=f"hub:{identity}:{config}:{revision}:{':'.join(marks)}",
        splits=splits,
        classes=classes,
        reader=HubReader(readable, image_column),
        license=(entry.license if entry else None) or first.info.license or None,
        hflip=entry.hflip if entry else True,
        notes=tuple(notes),
    )


def _fetched(path: str) -> str:
    """A path that a row names, if it is among the Hub's files: a data set could name any file of this machine."""
    import datasets
    from huggingface_hub import constants

    places = (
        datasets.config.HF_DATASETS_CACHE,
        datasets.config.DOWNLOADED_DATASETS_PATH,
        datasets.config.EXTRACTED_DATASETS_PATH,
        constants.HF_HUB_CACHE,
    )
    real = Path(os.path.realpath(path))
    if any(real.is_relative_to(os.path.realpath(place)) for place in places):
        return str(real)
    raise ValueError(f"the row names {path}, which is not a file of the data set")


def _fetch(
    identity: str, name: str, config: str | None, revision: str | None, hub: hub_client.HubSession, *, gated: bool
) -> Mapping[str, Any]:
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever HTTP library it is built on

    try:
        with _quiet():
            return dict(datasets.load_dataset(identity, config, revision=revision))
    except Exception as error:  # a builder's own errors are of any kind
        page = f"https://huggingface.co/datasets/{identity}"
        label = name if name == identity else f"{name} ({identity})"
        text = hub_client.one_line(error)
        if isinstance(error, GatedRepoError | datasets.exceptions.DatasetNotFoundError):
            if gated or isinstance(error, GatedRepoError) or "gated" in text.lower():
                raise DataError(
                    f"the data set {label} is gated: its terms must be accepted first",
                    fix=f"accept them on {page}, then log in with: hf auth login",
                ) from error
            if revision and "revision" in text.lower():
                what = f"{identity} has no revision {revision!r}"
                raise DataError(what, why=text, fix=f"see {page}/commits") from error
            raise DataError(
                f"there is no data set {identity} on the Hub, or it is private",
                why=text,
                fix=f"check the name on {page}; for a private one log in with: hf auth login",
            ) from error
        if isinstance(error, datasets.exceptions.DataFilesNotFoundError):
            raise DataError(f"{identity} holds no data files that can be read", why=text) from error
        # The Hub's own errors derive from OSError; the disk's have a number.
        if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.errno is not None:
            raise DataError(f"cannot store {identity}", why=error.strerror or str(error), fix="see HF_HOME") from error
        offline = constants.HF_HUB_OFFLINE
        if hub.trouble or isinstance(error, OSError | httpx.HTTPError) or (offline and "cache" in text.lower()):
            raise _unreachable(label, identity, hub.trouble or error, offline) from error
        fix = "name the configuration with --config" if "config" in text.lower() else f"see {page}"
        raise DataError(f"{identity} cannot be loaded", why=text, fix=fix) from error


def _unreachable(label: str, identity: str, reason: object, offline: bool) -> DataError:
    why = f"{hub_client.place()} (HF_ENDPOINT) does not give it: {hub_client.one_line(reason)}"
    first = "connect to the network (HF_ENDPOINT names another server) and run again"
    if offline:
        why, first = "HF_HUB_OFFLINE is set, and it is not in the cache", "unset HF_HUB_OFFLINE and run again"
    return DataError(
        f"the data set {label} is not on this machine and cannot be fetched",
        why=why,
        fix=f"{first}; or fetch it on a connected machine with `hf download --repo-type dataset {identity} --local-dir "
        "DIR` and give DIR's images as a folder or table; `--dataset digits` works offline",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and log lines of other libraries: the caller decides what is shown."""
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    ours, theirs = datasets.utils.are_progress_bars_disabled(), are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()
    datasets.utils.disable_progress_bars()
    if not theirs:
        disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not ours:
            datasets.utils.enable_progress_bars()
        if not theirs:
            enable_progress_bars()


def _roles(tables: Mapping[str, Any], identity: str, entry: DatasetEntry | None, notes: list[str]) -> dict[str, str]:
    """Role ("train", "val", "test", or "all") -> the data set's own split."""
    if entry is not None and entry.splits:
        missing = sorted(set(entry.splits.values()) - set(tables))
        if missing:
            raise DataError(
                f"{identity} has no split {', '.join(missing)}",
                why=f"it has: {', '.join(tables)}",
                fix=f"correct `splits` of {entry.name} in the registry",
            )
        return {role: entry.splits[role] for role in ("train", "val", "test") if role in entry.splits}
    if len(tables) == 1:
        (only,) = tables
        return {"train" if SPLIT_NAMES.get(only) == "train" else "all": only}
    roles: dict[str, str] = {}
    for split in tables:
        role = SPLIT_NAMES.get(split.lower())
        if role is None or role in roles:
            notes.append(f"the split {split} is left out")
        else:
            roles[role] = split
    if "train" not in roles:
        raise DataError(f"{identity} has no training split", why=f"it has: {', '.join(tables)}")
    return {role: roles[role] for role in ("train", "val", "test") if role in roles}


def _image_column(features: Mapping[str, Any], wanted: str | None, identity: str) -> str:
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if wanted is None and images:
        return images[0]
    if wanted is not None and wanted in features:
        feature = features[wanted]
        if wanted in images or getattr(feature, "dtype", None) in ("binary", "large_binary"):
            return wanted
    raise DataError(
        f"{identity} has no column of images" + (f" named {wanted!r}" if wanted else ""),
        why=f"its columns are: {', '.join(features)}",
        fix="name the right one with --path-column",
    )


def _label_column(features: Mapping[str, Any], wanted: str | None, identity: str) -> str:
    import datasets

    if wanted is None:
        labelled = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        candidates = [*labelled, *(name for name in ("label", "labels") if name in features)]
        wanted = candidates[0] if candidates else "label"
    if wanted not in features:
        raise DataError(
            f"{identity} has no column {wanted!r}",
            why=f"its columns are: {', '.join(features)}",
            fix="name the column of labels with --label-column",
        )
    feature = features[wanted]
    if not isinstance(feature, datasets.ClassLabel | datasets.Value):
        raise DataError(
            f"the column {wanted!r} of {identity} does not hold one label per image",
            why=f"it holds {feature}",
            fix="name another column with --label-column",
        )
    return wanted


def _items(table: Any, split: str, column: str, identity: str, mark: str, *, required: bool) -> list[Item] | None:
    """One item per row; None if no row has a label and none is required."""
    values = table.select_columns([column])[:][column]
    names = getattr(table.features[column], "names", None)
    empty = sum(value is None or (names is not None and value < 0) for value in values)
    if empty == len(values) and not required:
        return None
    if empty:
        raise DataError(f"{empty} row(s) of {split} in {identity} have no {column}", fix="name another --label-column")
    stamp = int(mark, 16) & 0x7FFFFFFFFFFFFFFF if mark and all(c in "0123456789abcdef" for c in mark) else 0
    width = len(str(max(1, len(values) - 1)))
    texts = [names[value] if names is not None else str(value) for value in values]
    return [Item(f"{split}/{row:0{width}d}", text, (split, row), 0, stamp) for row, text in enumerate(texts)]


def _bytes_only(table: Any, column: str) -> Any:
    import datasets

    chosen = table.select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        return chosen.cast_column(column, datasets.Image(decode=False))
    return chosen
