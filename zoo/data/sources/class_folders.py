"""Class folders: which are splits and which classes, in folders and archives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zoo.data.types import Item, Listing, Reader
from zoo.errors import DataError

_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
SPLIT_NAMES = {name: split for split, names in _NAMES.items() for name in names}
Files = dict[str, tuple[object, int, int]]
"""Relative path with `/` -> (locator, size, stamp), as in an `Item`."""
_FORMATS = "apng avif avifs bmp dib gif j2c j2k jfif jp2 jpe jpeg jpf jpg jpx pbm pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
_IGNORED = ("/__macosx/", "/thumbs.db/", "/desktop.ini/")


def is_image_name(name: str) -> bool:
    """Whether a file has an image's extension."""
    dot = name.rfind(".")
    return dot > name.rfind("/") + 1 and name[dot:].lower() in IMAGE_SUFFIXES


def is_hidden(path: str) -> bool:
    """Whether a part of the path is hidden, or litter of an operating system."""
    whole = f"/{path.lower()}/"
    return "/." in whole or any(name in whole for name in _IGNORED)


def arrange(
    files: Files,
    folders: Iterable[str],
    where: str,
    *,
    name: str,
    key: str,
    reader: Reader,
    labels: bool,
    notes: Sequence[str] = (),
) -> Listing:
    """Sort files by their folders into a listing of this name, key and reader.

    `folders` are all folders, so that empty ones are seen; without `labels`, images have ""
    if none is in a class folder.
    Raises DataError if there are no images or class folders, or if a class of the training split is empty.
    """
    images = {path: entry for path, entry in files.items() if is_image_name(path)}
    others = sorted(path for path in files if path not in images)
    notes = list(notes)
    if others:
        notes.append(f"{len(others)} file(s) without an image's extension left out, such as {others[0]}")
    if not images:
        raise DataError(
            f"there are no images in {where}",
            why=f"none of its {len(others)} file(s) has an image's extension" if others else "it holds no files",
            fix="put images (such as .jpg, .png or .webp) into one folder per class",
        )
    tree = {folder for folder in folders if folder} | {parent for path in images for parent in _parents(path)}
    prefix = _wrapper(images, tree)
    if prefix:
        images = {path.removeprefix(prefix): entry for path, entry in images.items()}
        tree = {folder.removeprefix(prefix) for folder in tree if folder.startswith(prefix)}
    top = sorted(folder for folder in tree if folder and "/" not in folder)
    if not labels and (flat := _without_classes(images, top)):
        return Listing(name, key, flat, (), reader, notes=tuple(notes))
    splits = _splits(top, images, where)
    loose = sorted(path for path in images if "/" not in path)
    if not top:
        raise DataError(
            f"{where} holds images but no class folders",
            why=f"for example {loose[0]} lies at the top",
            fix="make one folder per class, or give a table with `path` and `label` columns",
        )
    if loose:
        notes.append(f"{len(loose)} image(s) outside of every class folder left out, such as {loose[0]}")
    if splits:
        unsplit = [folder for folder in top if folder not in splits]
        if unsplit:
            notes.append(f"folders alongside the splits left out: {', '.join(unsplit)}")
    result: dict[str, list[Item]] = {}
    empty: dict[str, list[str]] = {}
    for folder, split in (splits or {"": "all"}).items():
        base = f"{folder}/" if folder else ""
        result[split], empty[split] = _classes(images, tree, base, where, notes)
    training = next(split for split in ("train", "all", "val", "test") if split in result)
    if empty[training]:
        names = ", ".join(empty[training])
        raise DataError(
            f"{len(empty[training])} class folder(s) of {where} hold no images: {names}",
            fix="put images into them, or remove them",
        )
    classes = tuple(sorted({str(item.label) for item in result[training]}))
    return Listing(name, key, result, classes, reader, notes=tuple(notes))


def _without_classes(images: Files, top: list[str]) -> dict[str, list[Item]]:
    """The images per split if none is in a class folder; empty if some are."""
    splits = {folder: SPLIT_NAMES[folder.lower()] for folder in top if folder.lower() in SPLIT_NAMES}
    depth = 1 if splits and len(splits) == len(top) else 0
    if any(path.count("/") > depth for path in images):
        return {}
    items: dict[str, list[Item]] = {}
    for path, entry in sorted(images.items()):
        split = splits[path.partition("/")[0]] if depth else "all"
        items.setdefault(split, []).append(Item(path, "", *entry))
    return items


def _classes(images: Files, tree: set[str], base: str, where: str, notes: list[str]) -> tuple[list[Item], list[str]]:
    """The items below one split's folder, sorted by path, and the names of its empty class folders."""
    items, loose = [], 0
    for path in sorted(path for path in images if path.startswith(base)):
        label, slash, _ = path.removeprefix(base).partition("/")
        if slash:
            items.append(Item(path, label, *images[path]))
        else:
            loose += 1
    if base and loose and not items:
        raise DataError(
            f"{where}: {base} holds images but no class folders",
            fix=f"make one folder per class: {base}<class>/<image>",
        )
    if base and loose:
        notes.append(f"{loose} image(s) of {base} outside of every class folder left out")
    names = (folder.removeprefix(base) for folder in tree if folder.startswith(base))
    return items, sorted({name for name in names if name and "/" not in name} - {str(item.label) for item in items})


def _splits(top: list[str], images: Mapping[str, object], where: str) -> dict[str, str]:
    """Folder -> split if the top folders are splits; empty if they are classes."""
    named = {folder: SPLIT_NAMES[folder.lower()] for folder in top if folder.lower() in SPLIT_NAMES}
    nested = {folder for folder in named if any(p.startswith(f"{folder}/") and p.count("/") > 1 for p in images)}
    if not nested:
        if named and len(named) == len(top):
            raise DataError(
                f"{where}: {', '.join(f'{folder}/' for folder in named)} hold no class folders",
                fix="make one folder per class inside each split: train/<class>/<image>",
            )
        return {}
    for split in ("train", "val", "test"):
        same = [folder for folder, meaning in named.items() if meaning == split]
        if len(same) > 1:
            raise DataError(f"{where} has two folders for the split {split}: {', '.join(same)}", fix="keep one of them")
    return named


def _wrapper(images: Mapping[str, object], tree: set[str]) -> str:
    """The single folders at the top that contain everything else, as in most archives: "hymenoptera_data/"."""
    prefix = ""
    while True:
        if any(path.startswith(prefix) and path.count("/") == prefix.count("/") for path in images):
            return prefix
        level = {folder.removeprefix(prefix).split("/")[0] for folder in tree if folder.startswith(prefix)} - {""}
        if len(level) != 1:
            return prefix
        (only,) = level
        inner = f"{prefix}{only}/"
        if only.lower() in SPLIT_NAMES or any(path.count("/") == inner.count("/") for path in images):
            return prefix
        prefix = inner


def _parents(path: str) -> Iterable[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: count + 1]) for count in range(len(parts)))
