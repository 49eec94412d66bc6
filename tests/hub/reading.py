"""The endpoints that look: who am I, what is there, give me this file."""

from __future__ import annotations

import re

from tests.hub import views
from tests.hub.messages import Answer, Refusal, Request
from tests.hub.repos import is_large
from tests.hub.tokens import TIME


def whoami(request: Request) -> Answer:
    if request.token is None:
        raise Refusal(401, "", "Invalid username or password.")
    return Answer(request.server.people.whoami(request.token))


def info(request: Request) -> Answer:
    repo, commit = request.commit()
    return Answer(views.info(repo, commit, blobs=request.asks("blobs")))


def auth_check(request: Request) -> Answer:
    request.open_repo()
    return Answer("OK")


def refs(request: Request) -> Answer:
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": request.open_repo().head().sha}
    return Answer({"branches": [main], "converts": [], "tags": []})


def commits(request: Request) -> Answer:
    repo, last = request.commit()
    listed = repo.commits()
    return Answer(
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.message,
                "authors": [{"user": commit.author}],
                "date": TIME,
            }
            for commit in reversed(listed[: listed.index(last) + 1])
        ]
    )


def tree(request: Request) -> Answer:
    _, commit = request.commit()
    path = request.parts.get("path") or ""
    rows = views.tree(commit, path, recursive=request.asks("recursive"))
    if not rows and path:
        raise _no_entry(path, commit.sha)
    return Answer(rows)


def paths_info(request: Request) -> Answer:
    _, commit = request.commit()
    wanted = request.fields().get("paths", [])
    return Answer([row for row in views.tree(commit) if row["path"] in wanted])


def resolve(request: Request) -> Answer:
    repo, commit = request.commit()
    path = request.parts["path"] or ""
    blob = commit.files.get(path)
    if blob is None:
        raise _no_entry(path, commit.sha)
    content = repo.read(blob)
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "ETag": f'"{blob.oid}"'}
    if is_large(path, blob.size):
        headers["ETag"] = headers["X-Linked-Etag"] = f'"{blob.sha256}"'
        headers["X-Linked-Size"] = str(blob.size)
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not span:
        return Answer(content, headers)
    start = int(span[1])
    if start >= len(content):
        raise Refusal(416, "", "Range Not Satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
    part = content[start : int(span[2]) + 1 if span[2] else None]
    headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    return Answer(part, headers, 206)


def _no_entry(path: str, sha: str) -> Refusal:
    return Refusal(404, "EntryNotFound", f"{path} does not exist", headers={"X-Repo-Commit": sha})
