"""What the Hub's endpoints show of a repository and its files."""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from tests.hub.repos import Blob, Commit, Repo, is_large
from tests.hub.tokens import TIME


def info(repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """What `model_info` and `dataset_info` get; with `blobs` the files' sizes and ids too."""
    card = card_data(repo.read(commit.files["README.md"]).decode()) if "README.md" in commit.files else None
    shown = {
        "_id": hashlib.md5(repo.identity.encode()).hexdigest()[:24],
        "id": repo.identity,
        "author": repo.identity.split("/")[0],
        "sha": commit.sha,
        "lastModified": TIME,
        "createdAt": TIME,
        "private": repo.private,
        "gated": False if repo.gate is None else "auto",
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [_sibling(path, blob, blobs=blobs) for path, blob in commit.files.items()],
    }
    if isinstance(card, dict):
        shown["cardData"] = card
        if repo.kind == "models":
            shown["tags"] = card.get("tags") or []
            shown.update({key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card})
    return shown


def card_data(text: str) -> Any:
    """What stands between the dashes at a README's top; None where there is nothing.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return None
    return yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))


def tree(commit: Commit, below: str = "", *, recursive: bool = True) -> list[dict[str, Any]]:
    """Files, and the folders on the way to them."""
    prefix = f"{below}/" if below else ""
    rows: dict[str, dict[str, Any]] = {}
    for path, blob in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            if depth == 1 or recursive:
                oid = hashlib.sha1(folder.encode()).hexdigest()
                rows[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        if len(parts) == 1 or recursive:
            rows[path] = _entry(path, blob)
    return list(rows.values())


def pointer(blob: Blob) -> bytes:
    """What git holds in place of a large file."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (blob.sha256.encode(), blob.size)


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if is_large(path, blob.size):
        held = pointer(blob)
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(held)}
    return entry


def _sibling(path: str, blob: Blob, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    entry = _entry(path, blob)
    sibling: dict[str, Any] = {"rfilename": path, "size": blob.size, "blobId": entry["oid"]}
    if "lfs" in entry:
        sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": entry["lfs"]["pointerSize"]}
    return sibling
