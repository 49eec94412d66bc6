"""What goes in and out of a route: Request, Answer, and Refusal for any answer but success.

Over plain http the client maps errors by `X-Error-Code` alone, so a refusal that it should tell apart carries one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from tests.hub.repos import Commit, Repo
    from tests.hub.server import Server
    from tests.hub.tokens import Token


class Refusal(Exception):
    """An answer other than success.

    Args:
        status: Of HTTP.
        code: X-Error-Code; "" sends none.
        message: Goes into X-Error-Message and into the body's `error`.
        headers: Further ones.
        body: Further fields of the body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.body = dict(body or {})

    def answer(self) -> Answer:
        code = {"X-Error-Code": self.code} if self.code else {}
        headers = {**code, "X-Error-Message": str(self), **self.headers}
        return Answer({"error": str(self), **self.body}, headers, self.status)


class Answer:
    """A body, bytes as they are or anything else as JSON, with its headers."""

    def __init__(self, body: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        raw = isinstance(body, bytes)
        self.body: bytes = body if raw else json.dumps(body).encode()
        self.headers = {"Content-Type": "application/octet-stream" if raw else "application/json", **(headers or {})}
        self.status = status


@dataclass(frozen=True)
class Request:
    """What a route gets."""

    server: Server
    headers: Mapping[str, str]
    parts: Mapping[str, str | None]  # of the path, by the route's pattern
    query: Mapping[str, list[str]]
    body: bytes
    token: Token | None  # of who asks; a wrong one never gets to a route

    @property
    def kind(self) -> str:
        return self.parts.get("kind") or "models"

    @property
    def identity(self) -> str:
        return self.parts["identity"] or ""

    def asks(self, name: str) -> bool:
        """Whether the query sets a flag."""
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")

    def json(self) -> Any:
        return json.loads(self.body)

    def fields(self) -> dict[str, list[str]]:
        """The body's fields, sent as JSON or as a form."""
        if "json" in self.headers.get("Content-Type", ""):
            return {key: value if isinstance(value, list) else [value] for key, value in self.json().items()}
        return parse_qs(self.body.decode())

    def repo(self) -> Repo:
        """The repository that the path names, if whoever asks may know of it."""
        repo = self.server.repos.find(self.kind, self.identity)
        if repo is None or (repo.private and not self.server.people.may_read(self.token, self.identity)):
            if self.token is None:  # the Hub does not tell strangers whether there is one
                raise Refusal(401, "RepoNotFound", "Invalid username or password.")
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return repo

    def open_repo(self) -> Repo:
        """The same, past its gate."""
        repo = self.repo()
        user = self.token.user if self.token else None
        member = self.server.people.may_read(self.token, self.identity)
        if repo.gate is not None and not member and user not in repo.gate:
            status = 403 if user else 401
            raise Refusal(status, "GatedRepo", f"Access to {self.identity} is restricted. Accept its terms first.")
        return repo

    def commit(self) -> tuple[Repo, Commit]:
        """The repository and the commit that the path names."""
        repo = self.open_repo()
        revision = self.parts.get("revision") or "main"
        commit = repo.at(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def writable_repo(self, refusal: str) -> Repo:
        """The repository that the path names, if whoever asks may write to it; else 403 with this message."""
        repo = self.repo()
        if self.token is None:
            # Over https the client takes a bare 401 here for a missing repository; the code makes it do so over http.
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        if not self.server.people.may_write(self.token, self.identity):
            raise Refusal(403, "", refusal)
        return repo
