"""The endpoints that an upload goes through, in its order: create, validate, preupload, LFS, commit."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tests.hub import cards
from tests.hub.messages import Answer, Refusal, Request
from tests.hub.repos import NAME_RULE, Blob, Commit, Repo, is_large, name_is_valid
from tests.hub.tokens import Token

_ASK_FOR_PULL_REQUEST = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"


def create(request: Request) -> Answer:
    asked = request.json()
    token = _known(request)
    what = asked.get("type") or "model"
    namespace = asked.get("organization") or token.user
    identity = f"{namespace}/{asked['name']}"
    if not name_is_valid(asked["name"]):
        raise Refusal(400, "", NAME_RULE)
    if not request.server.people.may_create(token, namespace):
        raise Refusal(403, "", f'You don\'t have the rights to create a {what} under the namespace "{namespace}"')
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    url = f"{request.server.url}/{identity}" if what == "model" else f"{request.server.url}/{what}s/{identity}"
    if request.server.repos.create(f"{what}s", identity, private=private) is None:
        raise Refusal(409, "", f"You already created this {what} repo", body={"url": url})
    return Answer({"url": url, "name": identity})


def delete(request: Request) -> Answer:
    asked = request.json()
    token = _known(request)
    identity = f"{asked.get('organization') or token.user}/{asked['name']}"
    repo = request.server.repos.find(f"{asked.get('type') or 'model'}s", identity)
    if repo is None:
        raise Refusal(404, "RepoNotFound", "Repository not found")
    if not request.server.people.may_write(token, identity):
        raise Refusal(403, "", "Authorization error.")
    request.server.repos.delete(repo)
    return Answer(b"")


def validate_yaml(request: Request) -> Answer:
    errors, warnings = cards.check(request.json()["content"])
    body = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return Answer(body, status=400 if errors else 200)


def preupload(request: Request) -> Answer:
    repo = request.writable_repo(_ASK_FOR_PULL_REQUEST)
    _, head = request.commit()
    rows = []
    for file in request.json()["files"]:
        path = file["path"]
        large = is_large(path, file["size"])
        row = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        blob = head.files.get(path)
        if blob:
            row["oid"] = blob.sha256 if large else blob.oid
        rows.append(row)
    return Answer({"files": rows, "commitOid": repo.head().sha})


def lfs_batch(request: Request) -> Answer:
    """Where to put the contents that the repository lacks; those that it has get no actions."""
    repo = request.writable_repo("Authorization error.")
    rows = []
    for item in request.json()["objects"]:
        row: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if repo.stored(item["oid"]) is None:
            base = f"{request.server.url}/lfs/{repo.kind}/{repo.identity}"
            put = f"{base}/{item['oid']}?signature={_signature(request, item['oid'])}"
            row["actions"] = {"upload": {"href": put}, "verify": {"href": f"{base}/verify"}}
        rows.append(row)
    return Answer({"transfer": "basic", "objects": rows}, {"Content-Type": "application/vnd.git-lfs+json"})


def lfs_put(request: Request) -> Answer:
    """Takes a content; the address's signature stands in for the token, which the client does not send here."""
    oid = request.parts["oid"] or ""
    repo = request.server.repos.find(request.kind, request.identity)
    if repo is None or request.query.get("signature") != [_signature(request, oid)]:
        raise Refusal(403, "", "SignatureDoesNotMatch")
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, "", "BadDigest")
    repo.add(request.body)
    return Answer(b"", {"ETag": f'"{oid}"'})


def lfs_verify(request: Request) -> Answer:
    asked = request.json()
    blob = request.writable_repo("Authorization error.").stored(asked["oid"])
    if blob is None or blob.size != asked["size"]:
        raise Refusal(404, "", "Object not found")
    return Answer({})


def commit(request: Request) -> Answer:
    repo = request.writable_repo(_ASK_FOR_PULL_REQUEST)
    if request.asks("create_pr"):
        raise Refusal(400, "", "Pull requests are not among what this server offers")
    if request.parts["revision"] != "main":
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {request.parts['revision']}")
    lines = [json.loads(line) for line in request.body.splitlines() if line]
    header = lines[0]["value"]
    with request.server.repos.lock:
        head = repo.head()
        if not head.sha.startswith(header.get("parentCommit") or ""):
            raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
        changes = [change for line in lines[1:] for change in _changes(repo, head, line["key"], line["value"])]
        author = _known(request).user
        made = repo.commit(changes, header["summary"], header.get("description") or "", author)
    place = repo.identity if repo.kind == "models" else f"{repo.kind}/{repo.identity}"
    url = f"{request.server.url}/{place}/commit/{made.sha}"
    return Answer({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})


def _changes(repo: Repo, head: Commit, key: str, value: dict[str, Any]) -> list[tuple[str, Blob | None]]:
    """What a line of a commit asks for."""
    path = value["path"].rstrip("/")
    if path.startswith("/") or not path or {".", "..", ".git", ""} & set(path.split("/")):
        raise Refusal(400, "", f"Invalid path: {value['path']}")
    if key == "file":
        content = base64.b64decode(value["content"])
        if path == "README.md" and (errors := cards.check(content.decode())[0]):
            raise Refusal(400, "", errors[0], body={"errors": [{"message": message} for message in errors]})
        return [(path, repo.add(content))]
    if key == "lfsFile":
        blob = repo.stored(value["oid"])
        if blob is None:
            why = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
            raise Refusal(400, "", f"{why} Offending file: {path}")
        return [(path, blob)]
    gone = [name for name in head.files if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
    if not gone:
        raise Refusal(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
    return [(name, None) for name in gone]


def _known(request: Request) -> Token:
    if request.token is None:
        raise Refusal(401, "", "Invalid username or password.")
    return request.token


def _signature(request: Request, oid: str) -> str:
    secret = f"{request.server.secret}/{request.kind}/{request.identity}/{oid}"
    return hashlib.sha256(secret.encode()).hexdigest()
