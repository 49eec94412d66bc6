"""Every request of a push and of a pull, struck by every fault: verified, or one clear error and nothing half there.

Nothing here sleeps: zoo's waits and the library's are counted instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from PIL import Image

from tests.faults.record import AS_WITHOUT, ONE_ERROR, Try
from tests.runs.publish.conftest import Client, Outcome, adapted_again, rewrite
from zoo.models import hub_client
from zoo.models.weights import file_sha256
from zoo.runs.publish import push as publish
from zoo.runs.publish import verify
from zoo.runs.run_folder import Run

REPO = "tester/tints"
FILES = ("README.md", "config.json", "model.safetensors", "zoo.json")
MODEL, RESOLVE = f"/api/models/{REPO}", f"/{REPO}/resolve/SHA"

# What a push asks of the Hub, in order. The test of that name keeps the lists true.
UPLOAD = [
    ("POST /api/validate-yaml", 0),
    (f"POST {MODEL}/preupload/main", 0),
    (f"POST /{REPO}.git/info/lfs/objects/batch", 0),
    (f"PUT /lfs/models/{REPO}/OID", 0),
    (f"POST /lfs/models/{REPO}/verify", 0),
    (f"POST {MODEL}/commit/main", 0),
]
FIRST = [
    ("GET /api/whoami-v2", 0),
    (f"GET {MODEL}", 0),
    ("POST /api/repos/create", 0),
    (f"GET {MODEL}", 1),
    *UPLOAD,
    *((f"{method} {RESOLVE}/{name}", 0) for name in FILES for method in ("HEAD", "GET")),
    (f"GET {MODEL}", 2),
]
MARKS = [("config.json", 0), ("zoo.json", 0), ("config.json", 1), ("zoo.json", 1)]
UPDATE = [
    ("GET /api/whoami-v2", 0),
    (f"GET {MODEL}", 0),
    *((f"{method} {RESOLVE}/{name}", number) for name, number in MARKS[:2] for method in ("HEAD", "GET")),
    (f"GET {MODEL}", 1),
    *((f"{method} {RESOLVE}/{name}", number) for name, number in MARKS[2:] for method in ("HEAD", "GET")),
    *UPLOAD,
    *(
        (f"{method} {RESOLVE}/{name}", 2 if name in ("config.json", "zoo.json") else 0)
        for name in FILES
        for method in ("HEAD", "GET")
    ),
]
PULL = [
    (f"{method} /{REPO}/resolve/{place}", 0)
    for place in ("main/config.json", "SHA/model.safetensors")
    for method in ("HEAD", "GET")
]

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429, "retry_after": 7},
    "drop": {"drop": True},
    "cut": {"cut": True},
    "lose": {"lose": True},
    "slow": {"slow": 3},
}
QUICK = ("500", "429", "lose")


def words(line: str) -> str:
    """A request's name in the table."""
    return re.sub(r"/api/models/tester/tints|/tester/tints|/models/tester/tints|/resolve/(SHA|main)|/main\b", "", line)


def pattern(line: str) -> str:
    return re.escape(line).replace("SHA", "[0-9a-f]{40}").replace("OID", "[0-9a-f]{64}").replace("main", r"[^/]+")


def shape(requests: list[str]) -> list[tuple[str, int]]:
    """Requests as the lists above have them: with SHA and OID, and numbered where they repeat."""
    found: list[tuple[str, int]] = []
    for request in requests:
        line = re.sub(r"(/resolve/)[0-9a-f]{40}/", r"\1SHA/", re.sub(r"[0-9a-f]{64}", "OID", request))
        found.append((line, sum(line == other for other, _ in found)))
    return found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Nobody waits; what zoo and the library would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(hub_client, "sleep", waited.append)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waited.append, time=lambda: 0.0))
    yield waited


@pytest.fixture
def judged(client: Client, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Client:
    """The copy is fetched as ever, and its files are compared; what is spared is the process that builds the model."""

    def compare(job: dict[str, Any], folder: Path, what: str) -> dict[str, Any]:
        (found,) = (folder / "hf" / "hub").glob("models--*/snapshots/*")
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found.iterdir()}
        return {"faults": [] if hashes == job["files"] else ["differs"], "images": 8, "difference": 0.0, "allowed": 1.0}

    monkeypatch.setattr(publish, "verify", verify.verify)
    monkeypatch.setattr(verify, "_rebuild", compare)
    return client


def there(client: Client) -> dict[str, str]:
    """What readers of main get: file -> hash; all of it is of one commit."""
    found = client.hub.repos.find("models", REPO)
    head = found.head() if found else None
    return {name: blob.sha256 for name, blob in head.files.items() if name != ".gitattributes"} if head else {}


def one_error(done: Outcome) -> dict[str, str]:
    """The error of a command that failed as it should."""
    assert done.code == 1 and "Traceback" not in done.err, done.err
    error: dict[str, str] = done.json["error"]
    assert done.json.keys() == {"error"} and all(error[part] for part in ("what", "why", "fix")), error
    assert "bug in zoo" not in json.dumps(error) and all("\n" not in part for part in error.values()), error
    return error


def told(done: Outcome, waits: list[float]) -> None:
    """No wait goes by in silence but the second before a download goes on; none is longer than anybody should wait."""
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert notes or max(waits, default=0) <= 1, (waits, done.err)
    assert all(wait <= hub_client.LONGEST_WAIT + 1 for wait in waits) and sum(waits) < 4 * hub_client.LONGEST_WAIT


def push_struck(
    faults: Try, client: Client, run: Run, waits: list[float], step: tuple[str, int], kind: str, times: int | None
) -> None:
    """One push with one fault, then one without."""
    line, number = step
    before = there(client)
    waits.clear()
    with faults("hub, push", words(line), f"{kind}, {'once' if times else 'lasting'}, request {number}") as fault:
        order = client.hub.fail(pattern(line), **FAULTS[kind], times=times, after=number)
        done = client.push(run.path, REPO, "--json")
        client.hub.faults.clear()
        assert order.hits, "the fault struck nothing"
        told(done, waits)
        after = there(client)
        assert after in ({}, before) or set(FILES) <= after.keys(), f"half a model: {sorted(after)}"
        if done.code == 0:
            assert done.json["verified"] is True
            outcome = AS_WITHOUT
        else:
            error = one_error(done)
            if "was pushed" not in error["what"] and "is not known" not in error["what"]:
                assert after in ({}, before), "it says that nothing was pushed"
            outcome = ONE_ERROR
        assert times is None or done.code == 0, f"one {kind} is no reason to give up: {done.out}"
        again = client.push(run.path, REPO, "--json")
        assert again.code == 0 and again.json["verified"] is True, again.out
        now = there(client)
        assert now == {file["path"]: file["sha256"] for file in again.json["files"]}
        assert done.code or now == after, "the second push had nothing to mend"
        fault.survived(outcome)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Before a slow server, time limits that it passes; else those that a busy machine keeps."""

    def limit(kind: str) -> None:
        seconds = 1.5 if kind == "slow" else 30.0
        monkeypatch.setattr(hub_client, "SILENCE", seconds)
        for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
            monkeypatch.setattr(constants, name, seconds)

    return limit


def test_the_lists_are_what_a_push_and_a_pull_ask(judged: Client, run: Run, tmp_path: Path) -> None:
    def asked(push: Run) -> list[tuple[str, int]]:
        judged.hub.requests.clear()
        assert judged.push(push.path, REPO).code == 0
        return shape(judged.hub.requests)

    assert asked(run) == FIRST
    assert asked(retrained(run, tmp_path / "later")) == UPDATE
    judged.hub.requests.clear()
    assert pull(judged).code == 0
    assert shape(judged.hub.requests) == PULL


def retrained(run: Run, folder: Path, second: int = 0) -> Run:
    """The same run adapted anew: later, and with other weights."""
    again = adapted_again(run, folder, created=f"2099-01-01T00:00:{second:02d}+00:00")
    path = again.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = second.to_bytes(4)
    path.write_bytes(content)
    rewrite(again, files=again.record["files"] | {"model.safetensors": file_sha256(path)})
    return again


def rotating(steps: list[tuple[str, int]]) -> list[Any]:
    """One fault for each request, another kind each time: the quick ones."""
    kinds = [(kind, times) for kind in QUICK for times in (1, None)]
    return [
        pytest.param(step, *kinds[place % len(kinds)], id=f"{words(step[0])} {step[1]}")
        for place, step in enumerate(steps)
    ]


def each(steps: list[tuple[str, int]]) -> list[Any]:
    return [pytest.param(step, id=f"{words(step[0])} {step[1]}") for step in steps]


@pytest.mark.parametrize("step", each([*UPLOAD, FIRST[0], FIRST[2], *FIRST[10:12]]))
def test_a_hub_that_wants_an_hour_is_not_waited_for(
    faults: Try, judged: Client, run: Run, waits: list[float], step: tuple[str, int]
) -> None:
    """The library would wait for it, silently and five times, where it tries again by itself."""
    with faults("hub, push", words(step[0]), "429 with an hour to wait") as fault:
        order = judged.hub.fail(pattern(step[0]), status=429, retry_after=3600, times=None)
        error = one_error(judged.push(run.path, REPO, "--json"))
        assert 1 <= order.hits <= 2 and waits == []  # the library looks at a file twice
        assert error["fix"] == "wait 3600 s and run the same command again"
        judged.hub.faults.clear()
        assert judged.push(run.path, REPO).code == 0
        fault.survived(ONE_ERROR)


Limit = Callable[[str], None]
ALL = [(kind, times) for kind in FAULTS for times in (1, None)]


@pytest.mark.parametrize(("step", "kind", "times"), rotating(FIRST))
def test_a_first_push(
    faults: Try, judged: Client, run: Run, waits: list[float], step: tuple[str, int], kind: str, times: int | None
) -> None:
    push_struck(faults, judged, run, waits, step, kind, times)


@pytest.mark.heavy
@pytest.mark.parametrize("step", each(FIRST))
def test_every_fault_of_a_first_push(
    faults: Try, judged: Client, run: Run, waits: list[float], limit: Limit, step: tuple[str, int]
) -> None:
    for kind, times in ALL:
        limit(kind)
        push_struck(faults, judged, run, waits, step, kind, times)
        found = judged.hub.repos.find("models", REPO)
        assert found is not None
        judged.hub.repos.delete(found)


@pytest.mark.heavy
@pytest.mark.parametrize("step", each(UPDATE[:-8]))  # the copy is then fetched as after a first push
def test_every_fault_of_an_update(
    faults: Try,
    judged: Client,
    run: Run,
    waits: list[float],
    limit: Limit,
    step: tuple[str, int],
    tmp_path: Path,
) -> None:
    assert judged.push(run.path, REPO).code == 0
    for place, (kind, times) in enumerate(ALL):
        limit(kind)
        later = retrained(run, tmp_path / f"later-{place}", place)
        push_struck(faults, judged, later, waits, step, kind, times)


# --- pull ---


def pull(client: Client, *more: str) -> Outcome:
    image = client.hub.root.parent / "image.png"
    Image.new("RGB", (32, 32)).save(image)
    return client.zoo("predict", f"hf-hub:{REPO}", image, *more)


def pull_struck(
    faults: Try, client: Client, waits: list[float], step: tuple[str, int], kind: str, times: int | None
) -> None:
    """One pull with one fault into an empty cache, then one without."""
    line, number = step
    waits.clear()
    with faults("hub, pull", words(line), f"{kind}, {'once' if times else 'lasting'}") as fault:
        order = client.hub.fail(pattern(line), **FAULTS[kind], times=times, after=number)
        done = pull(client, "--json")
        client.hub.faults.clear()
        assert order.hits, "the fault struck nothing"
        told(done, waits)
        if done.code:
            one_error(done)
        assert times is None or done.code == 0, f"one {kind} is no reason to give up: {done.out}"
        again = pull(client, "--json")
        assert again.code == 0 and again.json[0]["label"] in ("amber", "blue"), again.out
        assert done.code or done.json == again.json
        (folder,) = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
        cached = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        assert cached == {name: there(client)[name] for name in ("config.json", "model.safetensors")}
        fault.survived(ONE_ERROR if done.code else AS_WITHOUT)


@pytest.mark.parametrize(("step", "kind", "times"), rotating(PULL))
def test_a_pull(
    faults: Try, judged: Client, run: Run, waits: list[float], step: tuple[str, int], kind: str, times: int | None
) -> None:
    assert judged.push(run.path, REPO).code == 0
    pull_struck(faults, judged, waits, step, kind, times)


@pytest.mark.heavy
@pytest.mark.parametrize("step", each(PULL))
def test_every_fault_of_a_pull(
    faults: Try,
    judged: Client,
    run: Run,
    waits: list[float],
    limit: Limit,
    step: tuple[str, int],
    monkeypatch: Any,
) -> None:
    assert judged.push(run.path, REPO).code == 0
    for place, (kind, times) in enumerate(ALL):
        limit(kind)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{judged.hub.root.parent}/cache-{place}")
        pull_struck(faults, judged, waits, step, kind, times)
