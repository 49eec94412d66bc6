"""A model on the Hub as a folder here: the two files that make a model, of one commit, from the Hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from zoo.engine.events import Listener, Note, ignore
from zoo.errors import HubError
from zoo.hub.connection import retrying, session

PREFIX = "hf-hub:"


def looks_like_repo(text: str) -> bool:
    """Whether a reference without `hf-hub:` may mean a model on the Hub: ORG/NAME[@revision], and no folder ORG."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[^@]+)?", text)) and not Path(text.partition("/")[0]).is_dir()


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
    repo, _, revision = reference.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise HubError(
            f"{PREFIX}{reference} does not name a model", fix=f"write {PREFIX}ORG/NAME or {PREFIX}ORG/NAME@revision"
        )
    with session(emit) as hub:
        config = _file(repo, "config.json", revision or None, emit)
        # The folder is named after the commit: both files are of that one, whatever happens in between.
        folder = _file(repo, "model.safetensors", config.parent.name, emit).parent
        if hub.trouble:
            emit(Note(f"{repo} is used as it was when it was fetched last, commit {folder.name[:12]}"))
    return folder


def _file(repo: str, name: str, revision: str | None, emit: Listener) -> Path:
    def get() -> Path:
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise
            raise HubError(
                f"{repo} holds no timm model",
                why=f"it has no {name}" + (", and zoo loads no pickles" if name.endswith("safetensors") else ""),
                fix="name a repository with config.json and model.safetensors",
            ) from error

    return retrying(get, f"the model {repo} cannot be had", repo=repo, emit=emit)
