"""Publish a run on the Hub: who and whether, then one commit with all files, then proof that it loads elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from zoo.base.untrusted import JSON_LIMIT, parse_json, read_bytes
from zoo.errors import HubError
from zoo.events import Listener, Note, Progress
from zoo.models.hub_client import maybe_made, place, retrying, session
from zoo.runs.publish import access, licenses
from zoo.runs.publish.contents import RECORD, Published, checked_record, is_stack, published_files, write_folder
from zoo.runs.publish.verify import Proof, verify
from zoo.runs.run_folder import Run
from zoo.version import __version__

_HUBS_OWN = {".gitattributes"}  # the Hub makes it with the repository


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a push."""

    repo: str  # "ORG/NAME"
    url: str  # its page
    commit: str | None  # None: a dry run
    files: tuple[Published, ...]
    license: str | None
    private: bool | None  # None: not known, in a dry run
    replaced: str | None  # the commit before; None where the repository was new or empty
    folder: str | None  # where a dry run wrote the files
    proof: Proof | None  # what the copy on the Hub was found to do

    @property
    def verified(self) -> bool:
        """Whether the commit was loaded back and does what the run does."""
        return self.proof is not None

    def record(self) -> dict[str, Any]:
        """Plain values, the form of `zoo push --json`."""
        return {
            "repo": self.repo,
            "commit": self.commit,
            "verified": self.verified,
            "files": [file.record() for file in self.files],
            "url": self.url,
            "license": self.license,
            "private": self.private,
            "replaced": self.replaced,
            "folder": self.folder,
            "proof": self.proof.record() if self.proof else None,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """A repository as it is now."""

    head: str | None  # commit of main; None: there is none yet
    private: bool
    files: tuple[str, ...]
    run: dict[str, Any]  # `zoo` in its config.json; empty: no run of ours
    ours: tuple[str, ...]  # files that an earlier push put there

    @property
    def empty(self) -> bool:
        """Whether it holds nothing but what the Hub itself puts there."""
        return not set(self.files) - _HUBS_OWN


def publish(
    run: Run, repo: str, *, private: bool, overwrite: bool, license_: str | None, dry_run: Path | None, emit: Listener
) -> Pushed:
    """Publish a finished run: see `zoo.api.push`."""
    access.check_name(repo)
    emit(Progress("checking the run", 0, 0))
    record = checked_record(run)
    if is_stack(record):
        settled = licenses.settle_all([member.get("license") for member in record["stack"]["members"]], license_)
    else:
        settled = licenses.settle(((record["backbone"].get("weights")) or {}).get("license"), license_)
    files = published_files(run, record, repo, settled)
    hub = HfApi()
    url = f"{place()}/{repo}"
    if dry_run is not None:
        write_folder(files, dry_run)
        return Pushed(repo, url, None, files, settled, None, None, str(dry_run), None)
    with session(emit):
        emit(Progress("asking the Hub who you are", 0, 0))
        who = access.account(hub)
        access.check_access(who, repo)
        before = _look(hub, repo)
        if before is not None:
            _refuse_foreign(before, record, repo, overwrite=overwrite, private=private)
            if not before.empty and before.run.get("run") != record["id"]:
                emit(Note(f"{repo} holds {_describe(before)}; this push takes its place"))
        else:
            make = partial(hub.create_repo, repo, private=private or None, exist_ok=True)
            retrying(make, f"{repo} cannot be made", repo=repo)
        emit(Progress("uploading", 0, 0))
        commit = _commit(hub, repo, files, record, overwrite=overwrite, private=private)
        replaced = before.head if before is not None and not before.empty and before.head != commit else None
        emit(Progress("loading it back in a fresh process", 0, 0))
        proof = verify(run, record, repo, commit, files, replaced=replaced)
        hidden = before.private if before is not None else _is_private(hub, repo)
    return Pushed(repo, url, commit, files, settled, hidden, replaced, None, proof)


def _is_private(hub: HfApi, repo: str) -> bool | None:
    """Whether a repository that was made just now is private, which its organisation may want; None: not known."""
    try:
        info = _info(hub, repo)
    except HubError:  # the push is done and verified: this is no reason to call it failed
        return None
    return bool(info.private) if info else None


def _info(hub: HfApi, repo: str) -> Any:
    """What the Hub says of a repository; None: it is not there."""

    def ask() -> Any:
        try:
            return hub.model_info(repo)
        except RepositoryNotFoundError:
            return None

    return retrying(ask, f"{repo} cannot be read", repo=repo)


def _look(hub: HfApi, repo: str) -> Found | None:
    """What the repository holds; None: it is not there."""
    info = _info(hub, repo)
    if info is None:
        return None
    if info.id != repo:
        raise HubError(f"{repo} is called {info.id} now", fix=f"push to {info.id}")
    files = tuple(sorted(entry.rfilename for entry in info.siblings or ()))

    def read(name: str) -> dict[str, Any]:
        if name not in files:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            path = retrying(
                lambda: hub.hf_hub_download(repo, name, revision=info.sha, cache_dir=folder),
                f"{name} of {repo} cannot be read",
                repo=repo,
            )
            try:
                content = parse_json(read_bytes(path, JSON_LIMIT))
            except (OSError, ValueError):  # somebody else's file may be anything
                return {}
        return content if isinstance(content, dict) else {}

    mark, published = read("config.json").get("zoo"), read(RECORD)
    if mark is None and is_stack(published):  # whose members have configurations, and it has none of its own
        mark = {"run": published.get("id"), **{key: published.get(key) for key in ("name", "created")}}
    listed = published.get("published")
    ours = [name for name in listed if isinstance(name, str) and name in files] if isinstance(listed, list) else []
    return Found(info.sha, bool(info.private), files, mark if isinstance(mark, dict) else {}, tuple(ours))


def _refuse_foreign(found: Found, record: dict[str, Any], repo: str, *, overwrite: bool, private: bool) -> None:
    """Refuse to put a run over something that it does not continue.

    Raises:
        HubError: The repository holds another run, a later one, or something else; or it is public and should not be.
    """
    if private and not found.private:
        raise HubError(
            f"{repo} is there already, and is public",
            why="--private is for a repository that the push makes",
            fix=f"make it private first: hf repos settings {repo} --private",
        )
    if overwrite or found.empty or found.run.get("run") == record["id"]:
        return
    fix = f"choose another name, or replace what is there: add --overwrite (its history stays on {repo})"
    if not found.run.get("run"):
        shown = ", ".join(name for name in found.files if name not in _HUBS_OWN)
        raise HubError(
            f"{repo} is there already, and holds no run of zoo's", why=f"it has: {_shortened(shown)}", fix=fix
        )
    if found.run.get("name") != record["name"]:
        raise HubError(
            f"{repo} holds another run", why=f"it holds {_describe(found)}; this is {record['name']}", fix=fix
        )
    if str(found.run.get("created") or "") > record["created"]:
        raise HubError(
            f"{repo} holds a later run of that name",
            why=f"it holds {_describe(found)}; this one is of {record['created']}",
            fix=fix,
        )


def _describe(found: Found) -> str:
    name = found.run.get("name")
    return f"the run {name} of {found.run.get('created')}" if name else "something else"


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _commit(
    hub: HfApi, repo: str, files: Sequence[Published], record: dict[str, Any], *, overwrite: bool, private: bool
) -> str:
    """Make the repository hold these files, in one commit.

    Each try looks anew. A commit that went through although its answer got lost is found that way, and one that
    somebody else made in between is not written over: the commit names the one that was looked at as its parent.

    Returns:
        The commit.
    """
    unanswered = False

    def once() -> str:
        found = _look(hub, repo)
        if found is None:
            raise HubError(f"{repo} is gone", why="it was there a moment ago", fix="run the same command again")
        _refuse_foreign(found, record, repo, overwrite=overwrite, private=private)
        same_run = bool(found.run.get("run")) and found.run.get("name") == record["name"]
        stale = set(found.ours if same_run else found.files) - {file.name for file in files} - _HUBS_OWN
        operations: list[Any] = [CommitOperationAdd(file.name, file.content) for file in files]
        operations += [CommitOperationDelete(name, is_folder=False) for name in sorted(stale)]
        nonlocal unanswered
        earlier, unanswered = unanswered, False  # what an earlier try made is in what was just looked at
        try:
            made = hub.create_commit(
                repo,
                operations,
                commit_message=f"Push the run {record['name']} with zoo {__version__}",
                parent_commit=found.head,
            )
        except Exception as error:
            conflict = isinstance(error, HfHubHTTPError) and error.response.status_code == 412
            if earlier and conflict:  # it was made after all, later than we looked
                return once()
            unanswered = maybe_made(error)
            raise
        return made.oid

    what = f"the files cannot be put into {repo}"
    try:
        return retrying(once, what, repo=repo)
    except HubError as error:
        # All of them or none are there now; which, an answer that did not come would have said.
        if unanswered:
            state = "; whether all of them are there or none is not known"
        else:
            state = "; it is as it was before" if error.what == what else ""
        raise HubError(error.what + state, why=error.why, fix=error.fix) from error
