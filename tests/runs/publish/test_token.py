"""Wherever a token comes from, it is never shown, logged or written: a canary, looked for in everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hub.server import nowhere
from tests.runs.publish.conftest import Client
from zoo.models import hub_client
from zoo.runs.publish.verify import _environment
from zoo.runs.run_folder import Run

CANARY = "hf_canaryDoNotShowMe0123456789abcdef"
COMMIT = "POST /api/models/tester/tints/commit/main"


@pytest.fixture(params=["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "the file of hf auth login"])
def given(request: Any, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The canary is a good token, given in one of the ways there are."""
    client.hub.people.add_token("tester", value=CANARY)
    monkeypatch.delenv("HF_TOKEN")
    if request.param.isupper():
        monkeypatch.setenv(request.param, CANARY)
    else:
        (tmp_path / "token").write_text(CANARY + "\n")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(hub_client, "sleep", lambda _seconds: None)
    return client


def nowhere_in(*folders: Path) -> None:
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("words", [(), ("--debug",), ("--json",), ("--json", "--debug")], ids=" ".join)
def test_a_push_never_shows_it(given: Client, run: Run, words: tuple[str, ...]) -> None:
    orders = [
        # A server that says it back.
        {"match": COMMIT, "status": 403, "message": f"Bearer {CANARY} may not do that"},
        {"match": "GET /api/whoami-v2", "status": 500, "message": f"cannot parse {CANARY}", "times": None},
        {"match": "GET /api/models/.*", "status": 418, "message": CANARY},
        {"match": "POST /api/validate-yaml", "status": 429, "message": CANARY, "retry_after": 3600},
        {"match": "PUT .*", "drop": True, "times": 1},
    ]
    for order in orders:
        given.hub.fail(**order)
        done = given.push(run.path, "tester/tints", *words)
        given.hub.faults.clear()
        assert CANARY not in done.out + done.err
        assert done.code == ("drop" not in order), done.err
        assert ("Traceback" in done.err) is ("--debug" in words and done.code == 1)
        assert done.code == 0 or "retry_after" in order or "(token)" in done.out + done.err, "it was left out, not lost"
    nowhere_in(run.path, given.hub.root)


@pytest.mark.parametrize("given", ["the file of hf auth login"], indirect=True)
def test_a_run_from_a_private_model_does_not_hold_it(given: Client, run: Run, tmp_path: Path) -> None:
    assert given.push(run.path, "tester/tints", "--private").code == 0
    out = tmp_path / "again"
    done = given.zoo(
        "adapt", "resnet_nano", "--dataset", "digits", "--weights", "hf-hub:tester/tints", "--strategy", "probe",
        "--epochs", 1, "--train-per-class", 2, "--limit", 20, "--image-size", 32, "--out", out, "--debug",
    )  # fmt: skip
    assert done.code == 0 and CANARY not in done.out + done.err, done.err
    nowhere_in(out, Path(constants.HF_HUB_CACHE))
    assert CANARY not in "".join(_environment(tmp_path).values()), "the process that checks the copy needs none"


def test_a_token_that_no_header_can_hold_is_not_shown_either(
    client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = f"hf_\x01{CANARY}"
    monkeypatch.setenv("HF_TOKEN", odd)
    for words in ((), ("--debug",), ("--json",)):
        done = client.push(run.path, "tester/tints", *words)
        assert done.code == 1 and CANARY not in done.out + done.err


def test_a_password_in_the_hubs_address_is_not_shown(
    client: Client, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = nowhere().replace("//", f"//somebody:{CANARY}@")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hub_client, "sleep", lambda _seconds: None)
    for words in ((), ("--debug",), ("--json",)):
        done = client.push(run.path, "tester/tints", *words)
        assert done.code == 1 and CANARY not in done.out + done.err and "somebody" not in done.out + done.err
        assert "cannot be reached" in done.out + done.err
    looked_at = client.push(run.path, "tester/tints", "--dry-run", tmp_path / "look", "--json")
    assert (
        looked_at.code == 0 and json.loads(looked_at.out)["url"] == f"http://{address.rpartition('@')[2]}/tester/tints"
    )
    nowhere_in(tmp_path / "look")
