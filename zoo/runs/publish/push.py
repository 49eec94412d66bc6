"""Push a run to the Hub: check access, commit all files at once, verify that the copy loads."""

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

_HUBS_OWN = {".gitattributes"}  # the Hub adds it to a new repository


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of a push."""

    repo: str  # "ORG/NAME"
    url: str  # its page
    commit: str | None  # None: a dry run
    files: tuple[Published, ...]
    license: str | None
    private: bool | None  # None: unknown, in a dry run
    replaced: str | None  # the commit before; None if the repository was new or empty
    folder: str | None  # the folder of a dry run
    proof: Proof | None  # of the copy on the Hub

    @property
    def verified(self) -> bool:
        """Whether the commit was loaded back and equals the run."""
        return self.proof is not None

    def record(self) -> dict[str, Any]:
        """The push as `zoo push --json` prints it."""
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
class Repository:
    """The current state of a repository."""

    head: str | None  # commit of main; None: there is none yet
    private: bool
    files: tuple[str, ...]
    run: dict[str, Any]  # `zoo` in its config.json; empty if it holds no run of zoo
    ours: tuple[str, ...]  # files from an earlier push

    @property
    def empty(self) -> bool:
        """Whether it holds nothing but the Hub's own files."""
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
                emit(Note(f"{repo} holds {_describe(before)}; this push replaces it"))
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
    """Whether a new repository is private, which its organisation may decide; None if unknown."""
    try:
        info = _info(hub, repo)
    except HubError:  # the push is verified, and must not fail now
        return None
    return bool(info.private) if info else None


def _info(hub: HfApi, repo: str) -> Any:
    """The Hub's information on a repository; None if it does not exist."""

    def ask() -> Any:
        try:
            return hub.model_info(repo)
        except RepositoryNotFoundError:
            return None

    return retrying(ask, f"{repo} cannot be read", repo=repo)


def _look(hub: HfApi, repo: str) -> Repository | None:
    """The state of a repository; None if it does not exist."""
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
            get = partial(hub.hf_hub_download, repo, name, revision=info.sha, cache_dir=folder)
            path = retrying(get, f"{name} of {repo} cannot be read", repo=repo)
            try:
                content = parse_json(read_bytes(path, JSON_LIMIT))
            except (OSError, ValueError):  # somebody else's file may be anything
                return {}
        return content if isinstance(content, dict) else {}

    mark, published = read("config.json").get("zoo"), read(RECORD)
    if mark is None and is_stack(published):  # only the members of a stack have a config.json
        mark = {"run": published.get("id"), **{key: published.get(key) for key in ("name", "created")}}
    listed = published.get("published")
    ours = [name for name in listed if isinstance(name, str) and name in files] if isinstance(listed, list) else []
    return Repository(info.sha, bool(info.private), files, mark if isinstance(mark, dict) else {}, tuple(ours))


def _refuse_foreign(current: Repository, record: dict[str, Any], repo: str, *, overwrite: bool, private: bool) -> None:
    """Raises HubError if a repository holds another run, a later one or something else, or is public by mistake."""
    if private and not current.private:
        raise HubError(
            f"{repo} exists already, and is public",
            why="--private is for a repository that the push makes",
            fix=f"make it private first: hf repos settings {repo} --private",
        )
    if overwrite or current.empty or current.run.get("run") == record["id"]:
        return
    if not current.run.get("run"):
        files = ", ".join(name for name in current.files if name not in _HUBS_OWN)
        what, why = (
            "exists already, and holds no run that zoo published",
            f"it has: {files[:200]}{'…' if len(files) > 200 else ''}",
        )
    elif current.run.get("name") != record["name"]:
        what, why = "holds another run", f"it holds {_describe(current)}; this is {record['name']}"
    elif str(current.run.get("created") or "") > record["created"]:
        what, why = (
            "holds a later run of that name",
            f"it holds {_describe(current)}; this one is of {record['created']}",
        )
    else:
        return
    fix = f"choose another name, or replace what is there: add --overwrite (its history stays on {repo})"
    raise HubError(f"{repo} {what}", why=why, fix=fix)


def _describe(current: Repository) -> str:
    name = current.run.get("name")
    return f"the run {name} of {current.run.get('created')}" if name else "something else"


def _commit(
    hub: HfApi, repo: str, files: Sequence[Published], record: dict[str, Any], *, overwrite: bool, private: bool
) -> str:
    """Replace the files of a repository in one commit; returns its id.

    Each try looks at the repository again, and names its head as the parent. So a commit whose answer was lost is
    noticed, and one that somebody else made meanwhile is not overwritten.
    """
    unanswered = False

    def once() -> str:
        current = _look(hub, repo)
        if current is None:
            raise HubError(f"{repo} is gone", why="it existed a moment ago", fix="run the same command again")
        _refuse_foreign(current, record, repo, overwrite=overwrite, private=private)
        same_run = bool(current.run.get("run")) and current.run.get("name") == record["name"]
        stale = set(current.ours if same_run else current.files) - {file.name for file in files} - _HUBS_OWN
        operations: list[Any] = [CommitOperationAdd(file.name, file.content) for file in files]
        operations += [CommitOperationDelete(name, is_folder=False) for name in sorted(stale)]
        nonlocal unanswered
        earlier, unanswered = unanswered, False  # a commit of an earlier try is in the state just read
        message = f"Push the run {record['name']} with zoo {__version__}"
        try:
            return hub.create_commit(repo, operations, commit_message=message, parent_commit=current.head).oid
        except Exception as error:
            conflict = isinstance(error, HfHubHTTPError) and error.response.status_code == 412
            if earlier and conflict:  # the earlier commit was made after the state was read
                return once()
            unanswered = maybe_made(error)
            raise

    what = f"the files cannot be put into {repo}"
    try:
        return retrying(once, what, repo=repo)
    except HubError as error:
        state = "; it is unchanged" if error.what == what else ""
        if unanswered:  # the answer that was lost would have told
            state = "; whether all of them are there or none is not known"
        raise HubError(error.what + state, why=error.why, fix=error.fix) from error
