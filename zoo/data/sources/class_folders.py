"""Which folders are splits and which are classes: one rule for folders on disk and inside archives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zoo.data.types import Item
from zoo.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_FORMATS = "apng avif avifs bmp dib gif j2c j2k jfif jp2 jpe jpeg jpf jpg jpx pbm pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
_IGNORED = ("/__macosx/", "/thumbs.db/", "/desktop.ini/")


def is_image_name(name: str) -> bool:
    """Whether a file's extension is one that images have."""
    dot = name.rfind(".")
    return dot > name.rfind("/") + 1 and name[dot:].lower() in IMAGE_SUFFIXES


def is_hidden(path: str) -> bool:
    """Whether a part of the path is hidden, or litter that operating systems leave behind."""
    whole = f"/{path.lower()}/"
    return "/." in whole or any(name in whole for name in _IGNORED)


def arrange(
    files: Mapping[str, tuple[object, int, int]], folders: Iterable[str], where: str, *, labels: bool = True
) -> tuple[dict[str, list[Item]], tuple[str, ...], tuple[str, ...]]:
    """Sort files into splits and classes by the folders that they lie in.

    Args:
        files: Relative path with `/` -> (locator, size, stamp). Hidden ones are left out by the caller.
        folders: Relative paths of all folders, so that empty ones are seen.
        where: The place, for messages.
        labels: Whether images must lie in class folders; else those that do not have the empty text for a label.

    Returns:
        Items per split ("train", "val", "test", or only "all"), class names in order, and notes.

    Raises:
        DataError: There are no images or no class folders, or a class of the training split is empty.
    """
    images = {path: entry for path, entry in files.items() if is_image_name(path)}
    others = sorted(path for path in files if path not in images)
    notes = []
    if others:
        notes.append(f"{len(others)} file(s) without an image's extension left out, such as {others[0]}")
    if not images:
        kinds = "such as .jpg, .png or .webp"
        raise DataError(
            f"there are no images in {where}",
            why=f"none of its {len(others)} file(s) has an image's extension" if others else "it holds no files",
            fix=f"put images ({kinds}) into one folder per class",
        )
    tree = {folder for folder in folders if folder} | {parent for path in images for parent in _parents(path)}
    prefix = _wrapper(images, tree)
    if prefix:
        images = {path.removeprefix(prefix): entry for path, entry in images.items()}
        tree = {folder.removeprefix(prefix) for folder in tree if folder.startswith(prefix)}
    top = sorted(folder for folder in tree if folder and "/" not in folder)
    if not labels and (flat := _without_classes(images, top)):
        return flat, (), tuple(notes)
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
        beside = [folder for folder in top if folder not in splits]
        if beside:
            notes.append(f"folders beside the splits left out: {', '.join(beside)}")
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
    return result, classes, tuple(notes)


def _without_classes(images: Mapping[str, tuple[object, int, int]], top: list[str]) -> dict[str, list[Item]]:
    """The images per split where none lies in a class folder; empty where some do."""
    splits = {folder: SPLIT_NAMES[folder.lower()] for folder in top if folder.lower() in SPLIT_NAMES}
    depth = 1 if splits and len(splits) == len(top) else 0
    if any(path.count("/") > depth for path in images):
        return {}
    found: dict[str, list[Item]] = {}
    for path, (locator, size, stamp) in sorted(images.items()):
        split = splits[path.partition("/")[0]] if depth else "all"
        found.setdefault(split, []).append(Item(path, "", locator, size, stamp))
    return found


def _classes(
    images: Mapping[str, tuple[object, int, int]], tree: set[str], base: str, where: str, notes: list[str]
) -> tuple[list[Item], list[str]]:
    """The items below one split's folder, sorted by path, and the names of its empty class folders."""
    names = sorted(
        folder.removeprefix(base) for folder in tree if folder.startswith(base) and folder.count("/") == base.count("/")
    )
    items = []
    loose = 0
    for path in sorted(images):
        if not path.startswith(base):
            continue
        label, slash, _ = path.removeprefix(base).partition("/")
        if slash:
            locator, size, stamp = images[path]
            items.append(Item(path, label, locator, size, stamp))
        elif base:
            loose += 1
    if base and loose and not items:
        raise DataError(
            f"{where}: {base} holds images but no class folders",
            fix=f"make one folder per class: {base}<class>/<image>",
        )
    if base and loose:
        notes.append(f"{loose} image(s) of {base} outside of every class folder left out")
    found = {item.label for item in items}
    return items, [name for name in names if name and name not in found]


def _splits(top: list[str], images: Mapping[str, object], where: str) -> dict[str, str]:
    """Folder -> split, when the top folders are splits; empty when they are classes."""
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
    """The single top-level folders that wrap everything else, as in most archives: "hymenoptera_data/"."""
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
