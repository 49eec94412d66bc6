"""Published files of a run: model, configuration, card, and the record without private parts."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base import references
from zoo.base.files import replacing, write_atomic
from zoo.errors import HubError, RunError
from zoo.models import lookup
from zoo.models.tensor_files import file_sha256
from zoo.runs.publish.card import model_card, without_place
from zoo.runs.run_folder import COMBINER, MEMBERS, Run, seal

_MODEL = ("config.json", "model.safetensors")
RECORD = "zoo.json"  # the published part of run.json


@dataclass(frozen=True, slots=True)
class Published:
    """A file to publish."""

    name: str
    content: Path | bytes  # a file of the run, or content made for publishing
    size: int  # bytes
    sha256: str

    def record(self) -> dict[str, Any]:
        """Name, size and hash, in the form of `zoo push --json`."""
        return {"path": self.name, "bytes": self.size, "sha256": self.sha256}


def checked_record(run: Run) -> dict[str, Any]:
    """The record of a run that may be published; raises RunError if it is unfinished or a file has changed."""
    record = run.finished_record()
    if record.get("kind") not in ("classifier", "multitask", "stack"):
        why = f"it is a {record.get('kind')}, and the Hub takes one timm model"
        raise RunError(f"{run.path} cannot be pushed", why=why)
    stack = is_stack(record)
    for needing in record["stack"]["members"] if stack else [record["backbone"]]:
        if needing.get("module"):  # checking the copy imports it, from an installed plugin
            lookup.required(needing, f"the run {run.path}")
    again = "stack them again: zoo stack … --out …" if stack else f"adapt again: zoo adapt --recipe {run.path} --out …"
    needed = {f"{place}{name}" for place in places(record) for name in (*_MODEL, "verify.safetensors")}
    needed |= {"run.json", COMBINER} if stack else {"run.json"}
    hashes = record.get("files")
    if not isinstance(hashes, dict) or not set(hashes) >= needed or not record.get("id"):
        raise RunError(
            f"{run.path} cannot be pushed",
            why="its run.json lacks the hashes of its files, so they cannot be checked",
            fix=again,
        )
    if hashes["run.json"] != seal(record):
        raise RunError(
            f"{run.record_path} was changed after the run was finished",
            why="its content does not match its own hash; the card would claim what was not measured",
            fix=f"restore the file, or {again}",
        )
    for name in sorted(hashes.keys() - {"run.json"}):
        if not (run.path / name).is_file():
            raise RunError(f"{name} of {run.path} is missing", fix=f"restore it, or {again}")
        if file_sha256(run.path / name) != hashes[name]:
            raise RunError(
                f"{run.path / name} was changed after the run was finished",
                why="its sha256 is not the one in run.json, so the result there is not about it",
                fix=f"restore the file, or {again}",
            )
    return record


def is_stack(record: Mapping[str, Any]) -> bool:
    """Whether a run is a stack, with its members' models in its folder."""
    return record.get("kind") == "stack"


def places(record: Mapping[str, Any]) -> list[str]:
    """The folders of the timm models in a run and its repository: "", or "members/0/" and so on."""
    return [f"{MEMBERS}/{number}/" for number in range(len(record["stack"]["members"]))] if is_stack(record) else [""]


def published_files(run: Run, record: Mapping[str, Any], repo: str, license_: str | None) -> tuple[Published, ...]:
    """The files of the repository; `repo` ("ORG/NAME") is for the card, and a `license_` of None is unknown."""
    stack = is_stack(record)
    generated: dict[str, bytes] = {"config.json": _config(run, license_)} if license_ and not stack else {}
    generated["README.md"] = model_card(record, repo=repo, license_=license_).encode("utf-8", "replace")
    own = {f"{place}{name}" for place in places(record) for name in _MODEL} | ({COMBINER} if stack else set())
    names = sorted({*generated, RECORD, *own})
    text = json.dumps({**public_record(record), "published": names}, indent=2, ensure_ascii=False)
    generated[RECORD] = (text + "\n").encode("utf-8", "backslashreplace")
    files = []
    for name in names:
        if name in generated:
            content = generated[name]
            files.append(Published(name, content, len(content), hashlib.sha256(content).hexdigest()))
        else:
            path = run.path / name
            files.append(Published(name, path, path.stat().st_size, record["files"][name]))
    return tuple(files)


def _config(run: Run, license_: str) -> bytes:
    """config.json, with timm's field for the licence set to the chosen one."""
    content = (run.path / "config.json").read_bytes()
    config = json.loads(content)
    described = config.get("pretrained_cfg", {})
    if str(described.get("license") or "").lower() == license_:
        return content
    described["license"] = license_
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without local paths and file names: unreadable images, mistakes.

    It keeps what is needed to reproduce the run: choices, plan, versions, fingerprint and place of the data on the Hub.
    `ref` is None for data that is only on this machine, labelled or not.
    """
    public: dict[str, Any] = copy.deepcopy({key: value for key, value in record.items() if key != "status"})
    data = [public[kind] for kind in ("dataset", "target", "unlabelled") if public.get(kind)]
    for images in data:
        for one in (images, *(images.get("sets") or ())):
            if references.is_local(str(one["ref"])) and not one.get("hub"):
                one["ref"] = None
        images.pop("bad", None)
    for measured in (public, *data):
        result = measured.get("result") or {}
        for each in (result, *(result.get("tasks") or {}).values()):
            each.pop("mistakes", None)
    if public["recipe"].get("tasks"):
        public["recipe"]["tasks"] = [without_place(task) for task in public["recipe"]["tasks"]]
    stack = public.get("stack") or {}
    for place in (*data, public.get("plan") or {}, stack):
        if "notes" in place:
            place["notes"] = [_without_paths(note) for note in place["notes"]]
    for place in (public["recipe"], public["resolved"]):
        for name in ("weights", "target", "unlabelled"):
            chosen = place.get(name)
            if isinstance(chosen, str):
                place[name] = references.public(chosen)
    soups = [soup for soup in (public.get("soup"), stack.get("soup")) if soup]
    for row in (*(row for soup in soups for row in soup["candidates"]), *(stack.get("members") or ())):
        if "run" in row:
            row["run"] = references.last_part(row["run"])
    weights = [f"{place}model.safetensors" for place in places(record)] + ([COMBINER] if stack else [])
    public["files"] = {name: record["files"][name] for name in weights}
    return public


def write_folder(files: tuple[Published, ...], folder: Path) -> None:
    """Write the files into a new folder, for a dry run; raises HubError if it is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HubError(f"{folder} is not empty", fix="name a new folder: --dry-run FOLDER")
    for file in files:
        if isinstance(file.content, bytes):
            write_atomic(folder / file.name, file.content)
        else:
            with replacing(folder / file.name) as temporary:
                shutil.copyfile(file.content, temporary)


def _without_paths(text: str) -> str:
    """Text with absolute paths cut to their last part."""
    return re.sub(r"(?:(?<=[\s'\"(])|^)(?:~|[A-Za-z]:)?[/\\][^\s'\")]*[/\\]([^\s'\")/\\]+)", r"\1", text)
