"""Download a model from the Hub into its cache: config and weights of one commit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from zoo.base import references
from zoo.base.references import HUB_MODEL
from zoo.base.untrusted import JSON_LIMIT, parse_json, read_bytes
from zoo.errors import HubError
from zoo.events import Listener, Note, ignore
from zoo.models.hub_client import retrying, session
from zoo.runs.publish.contents import RECORD
from zoo.runs.record import record_faults
from zoo.runs.run_folder import COMBINER, MEMBERS, SCHEMA

MODEL = ("config.json", "model.safetensors")


class NoModel(HubError):
    """A repository holds no timm model; it may hold a stack."""


def fetch(reference: str, emit: Listener = ignore) -> Path:
    """Fetch a timm model's config.json and model.safetensors; returns their folder in the Hub's cache.

    `reference` is "ORG/NAME" or "ORG/NAME@revision" (a branch, tag or commit). Without a network, the cache is used.
    Raises HubError if there is no such repository or file, or it is in neither the Hub nor the cache.
    """
    repo, revision = _named(reference)
    with session(emit) as hub:
        config = _file(repo, "config.json", revision)
        # The folder is named after the commit, so both files are of the same one.
        folder = _file(repo, "model.safetensors", config.parent.name).parent
        if hub.trouble:
            emit(Note(f"{repo} is used as it was when last fetched, commit {folder.name[:12]}"))
    return folder


def fetch_stack(reference: str, emit: Listener = ignore) -> tuple[Path, dict[str, Any]] | None:
    """Fetch a stack that zoo published; returns its folder in the Hub's cache and its record, or None if it is none."""
    repo, revision = _named(reference)
    with session(emit):
        try:
            path = _file(repo, RECORD, revision)
            record = parse_json(read_bytes(path, JSON_LIMIT))
        except (HubError, OSError, ValueError):  # `fetch` has the better message
            return None
        if not isinstance(record, dict) or record.get("kind") != "stack":
            return None
        if faults := record_faults(record):
            raise HubError(f"{RECORD} of {repo} is damaged", why="; ".join(faults))
        if (record.get("schema") or 0) > SCHEMA:
            raise HubError(f"{repo} was published by a newer zoo", fix="pip install --upgrade adaptzoo")
        folder, count = path.parent, len((record.get("stack") or {}).get("members") or ())
        for name in (COMBINER, *(f"{MEMBERS}/{n}/{file}" for n in range(count) for file in MODEL)):
            _file(repo, name, folder.name)
    return folder, record


def fetch_run(reference: str, emit: Listener = ignore) -> tuple[Path, dict[str, Any]]:
    """Fetch a model that zoo published, as `fetch` does, with the published part of its run.json."""
    folder = fetch(reference, emit)
    repo, _ = references.revised(reference)
    with session(emit):
        path = _file(repo, RECORD, folder.name)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] > SCHEMA:
            what = f"{repo} was published by a newer zoo ({record['zoo']})"
            raise HubError(what, fix="pip install --upgrade adaptzoo")
        missing = {"backbone", "dataset", "recipe", "resolved", "plan", "result"} - record.keys()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HubError(f"{RECORD} of {repo} cannot be read", why=str(error)) from error
    if missing:
        raise HubError(f"{RECORD} of {repo} is not a run's record", why=f"it lacks {', '.join(sorted(missing))}")
    return folder, record


def _named(reference: str) -> tuple[str, str | None]:
    """Repository and revision of a reference; raises HubError if it is malformed."""
    repo, revision = references.revised(reference)
    if not references.is_repo(repo):
        form = f"{HUB_MODEL}ORG/NAME"
        raise HubError(f"{HUB_MODEL}{reference} does not name a model", fix=f"write {form} or {form}@revision")
    return repo, revision


def _file(repo: str, name: str, revision: str | None) -> Path:
    def get() -> Path:
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise
            why = f"it has no {name}"
            if name == RECORD:
                raise HubError(f"{repo} was not published by zoo", why=why, fix="name one that was") from error
            why += ", and zoo loads no pickles" if name.endswith("safetensors") else ""
            fix = "name a repository with config.json and model.safetensors"
            raise NoModel(f"{repo} holds no timm model", why=why, fix=fix) from error

    return retrying(get, f"the model {repo} cannot be had", repo=repo)
