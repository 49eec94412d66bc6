"""A model on the Hub as a folder here: the two files that make a model, of one commit, from the Hub's cache."""

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
    """A repository holds no model of timm's; it may hold a stack of them."""


def fetch(reference: str, emit: Listener = ignore) -> Path:
    """Get a timm model's config.json and model.safetensors.

    Args:
        reference: "ORG/NAME" or "ORG/NAME@revision"; a branch, tag or commit.
        emit: Told about waits.

    Returns:
        The folder in the Hub's cache that holds both, of one commit. Without a network it is what the cache has.

    Raises:
        HubError: There is no such repository, it holds no such files, or it can be had neither from the Hub nor from
            the cache.
    """
    repo, revision = _named(reference)
    with session(emit) as hub:
        config = _file(repo, "config.json", revision)
        # The folder is named after the commit: both files are of that one, whatever happens in between.
        folder = _file(repo, "model.safetensors", config.parent.name).parent
        if hub.trouble:
            emit(Note(f"{repo} is used as it was when it was fetched last, commit {folder.name[:12]}"))
    return folder


def fetch_stack(reference: str, emit: Listener = ignore) -> tuple[Path, dict[str, Any]] | None:
    """Get a stack that zoo published: its members and what combines them.

    Args:
        reference: As for `fetch`.
        emit: Told about waits.

    Returns:
        The folder in the Hub's cache, and the stack's record; None: it is no stack.

    Raises:
        HubError: It is one, and cannot be had.
    """
    repo, revision = _named(reference)
    with session(emit):
        try:
            path = _file(repo, RECORD, revision)
        except HubError:  # what is wrong then, `fetch` says better
            return None
        try:
            record = parse_json(read_bytes(path, JSON_LIMIT))
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("kind") != "stack":
            return None
        faults = record_faults(record)
        if faults:
            raise HubError(f"{RECORD} of {repo} is damaged", why="; ".join(faults))
        if (record.get("schema") or 0) > SCHEMA:
            raise HubError(f"{repo} was published by a newer zoo", fix="pip install --upgrade adaptzoo")
        folder, count = path.parent, len((record.get("stack") or {}).get("members") or ())
        for name in (COMBINER, *(f"{MEMBERS}/{n}/{file}" for n in range(count) for file in MODEL)):
            _file(repo, name, folder.name)
    return folder, record


def fetch_run(reference: str, emit: Listener = ignore) -> tuple[Path, dict[str, Any]]:
    """Get a model that zoo published, and the record of the run that made it.

    Args:
        reference: As for `fetch`.
        emit: Told about waits.

    Returns:
        The folder as from `fetch`, and the published part of run.json.

    Raises:
        HubError: As for `fetch`; or nobody published it with zoo.
    """
    folder = fetch(reference, emit)
    repo, _ = references.revised(reference)
    with session(emit):
        path = _file(repo, RECORD, folder.name)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] > SCHEMA:
            raise HubError(
                f"{repo} was published by a newer zoo ({record['zoo']})", fix="pip install --upgrade adaptzoo"
            )
        missing = {"backbone", "dataset", "recipe", "resolved", "plan", "result"} - record.keys()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HubError(f"{RECORD} of {repo} cannot be read", why=str(error)) from error
    if missing:
        raise HubError(f"{RECORD} of {repo} is not a run's record", why=f"it lacks {', '.join(sorted(missing))}")
    return folder, record


def _named(reference: str) -> tuple[str, str | None]:
    """Repository and revision of a reference."""
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
            if name == RECORD:
                raise HubError(
                    f"{repo} was not published by zoo", why=f"it has no {RECORD}", fix="name one that was"
                ) from error
            raise NoModel(
                f"{repo} holds no timm model",
                why=f"it has no {name}" + (", and zoo loads no pickles" if name.endswith("safetensors") else ""),
                fix="name a repository with config.json and model.safetensors",
            ) from error

    return retrying(get, f"the model {repo} cannot be had", repo=repo)
