"""The Hub's endpoints that downloads use, over folders. A route is a method, a pattern and a function.

Over plain http the client maps errors by `X-Error-Code` alone, so every refusal carries one.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub import repos


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Request:
    """What a route gets: the matched parts of the path, the query and the body."""

    def __init__(self, handler: Handler, parts: dict[str, str], query: dict[str, list[str]]) -> None:
        self.handler = handler
        self.parts = parts
        self.query = query

    @property
    def root(self) -> Path:
        return self.handler.server.root

    def body(self) -> bytes:
        return self.handler.rfile.read(int(self.handler.headers.get("Content-Length") or 0))

    def fields(self) -> dict[str, list[str]]:
        """The body's fields, sent as JSON or as a form."""
        body = self.body()
        if "json" in self.handler.headers.get("Content-Type", ""):
            return {key: value if isinstance(value, list) else [value] for key, value in json.loads(body).items()}
        return parse_qs(body.decode())

    def repo(self) -> repos.Repo:
        """The repository that the path names, at a revision that exists and without a gate."""
        identity = self.parts["identity"]
        repo = repos.find(self.root, self.parts.get("kind") or "models", identity)
        if repo is None:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        if repo.gated and self.handler.headers.get("Authorization") != "Bearer accepted":
            raise Refusal(403, "GatedRepo", f"Access to {identity} is restricted. Accept its terms first.")
        if not repo.has_revision(self.parts.get("revision") or "main"):
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {self.parts['revision']}")
        return repo


class Answer:
    """A body with its headers."""

    def __init__(self, body: bytes | Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        raw = isinstance(body, bytes)
        self.body: bytes = body if raw else json.dumps(body).encode()
        self.headers = {"Content-Type": "application/octet-stream" if raw else "application/json", **(headers or {})}
        self.status = status


Route = tuple[str, re.Pattern[str], Callable[[Request], Answer]]
_KIND = "(?P<kind>models|datasets)"
_IDENTITY = r"(?P<identity>[\w.\-]+/[\w.\-]+)"
_REVISION = r"(?P<revision>[^/]+)"


def info(request: Request) -> Answer:
    if not repos.find(request.root, request.parts["kind"], request.parts["identity"]):
        raise Refusal(404, "RepoNotFound", "Repository not found")
    return Answer(request.repo().info())


def tree(request: Request) -> Answer:
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    rows = request.repo().entries(request.parts.get("path") or "", recursive=recursive)
    if not rows and request.parts.get("path"):
        raise Refusal(404, "EntryNotFound", f"{request.parts['path']} does not exist")
    return Answer(rows)


def paths_info(request: Request) -> Answer:
    repo = request.repo()
    wanted = request.fields().get("paths", [])
    return Answer([row for row in repo.entries() if row["path"] in wanted])


def resolve(request: Request) -> Answer:
    repo = request.repo()
    content = repo.files.get(request.parts["path"])
    if content is None:
        raise Refusal(404, "EntryNotFound", f"{request.parts['path']} does not exist")
    etag = hashlib.sha256(content).hexdigest()
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.handler.headers.get("Range", ""))
    if not span:
        return Answer(content, headers)
    start = int(span[1])
    part = content[start : int(span[2]) + 1 if span[2] else None]
    headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    return Answer(part, headers, 206)


def whoami(request: Request) -> Answer:
    if not request.handler.headers.get("Authorization"):
        raise Refusal(401, "Unauthorized", "Invalid credentials")
    return Answer({"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}})


ROUTES: list[Route] = [
    ("GET", re.compile(rf"/api/{_KIND}/{_IDENTITY}(?:/revision/{_REVISION})?"), info),
    ("GET", re.compile(rf"/api/{_KIND}/{_IDENTITY}/tree/{_REVISION}(?:/(?P<path>.*))?"), tree),
    ("POST", re.compile(rf"/api/{_KIND}/{_IDENTITY}/paths-info/{_REVISION}"), paths_info),
    ("GET", re.compile(rf"(?:/(?P<kind>datasets))?/{_IDENTITY}/resolve/{_REVISION}/(?P<path>.+)"), resolve),
    ("GET", re.compile(r"/api/whoami-v2"), whoami),
]


class Handler(BaseHTTPRequestHandler):
    """Finds the route of a request and sends its answer."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("GET", send_body=False)

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self, method: str, *, send_body: bool = True) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.server.requests.append(f"{self.command} {path}")
        try:
            answer = self._answer(method, path, parse_qs(address.query))
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
            answer = Answer({"error": str(refusal)}, headers, refusal.status)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if send_body:
            self.wfile.write(answer.body)

    def _answer(self, method: str, path: str, query: dict[str, list[str]]) -> Answer:
        for route_method, pattern, function in ROUTES:
            match = pattern.fullmatch(path) if route_method == method else None
            if match:
                return function(Request(self, match.groupdict(), query))
        raise Refusal(404, "EntryNotFound", f"no such endpoint: {method} {path}")


class Server(ThreadingHTTPServer):
    """The Hub over the folders below `root`, on a port of its own. A context manager."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root = root
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self) -> dict[str, str]:
        """What a subprocess needs in its environment to use this Hub and no other."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
