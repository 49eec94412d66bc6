"""The faults that a test can order, as the real client meets them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

from tests.hub.conftest import Client
from tests.hub.server import Server, nowhere

COMMIT = "POST /api/models/.*/commit/.*"


def upload(api: HfApi, folder: Path) -> str:
    api.create_repo("net", exist_ok=True)
    return str(api.upload_folder(repo_id="tester/net", folder_path=folder).oid)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, HfHubHTTPError, "Invalid credentials in Authorization header"),
        (403, HfHubHTTPError, "403 Forbidden: Authorization error."),
        (404, RepositoryNotFoundError, "Repository not found"),
        (429, HfHubHTTPError, "429 Too Many Requests"),
        (500, HfHubHTTPError, "Internal Error"),
        (503, HfHubHTTPError, "Service Unavailable"),
    ],
)
def test_a_status_refuses_once_and_changes_nothing(
    hub: Server, client: Client, folder: Path, status: int, error: type[HfHubHTTPError], words: str
) -> None:
    order = hub.fail(COMMIT, status=status)
    with pytest.raises(error) as caught:
        upload(client(), folder)
    assert words.lower() in str(caught.value).lower()
    assert caught.value.response.status_code == status
    assert order.hits == 1
    assert client().list_repo_files("tester/net") == [".gitattributes"]
    assert upload(client(), folder) == client().model_info("tester/net").sha
    assert order.hits == 1


def test_the_words_and_the_code_of_a_refusal_can_be_chosen(hub: Server, client: Client) -> None:
    hub.fail("GET /api/models/.*", status=403, code="GatedRepo", message="Not today")
    with pytest.raises(HfHubHTTPError, match="Cannot access gated repo"):
        client().model_info("tester/net")
    hub.fail("POST /api/repos/create", status=402, message="Your plan ends here")
    with pytest.raises(HfHubHTTPError, match="Your plan ends here"):
        client().create_repo("net")


def test_what_the_client_tries_again_succeeds(hub: Server, client: Client, folder: Path) -> None:
    orders = [
        hub.fail("PUT /lfs/.*", status=503),
        hub.fail("POST /api/models/.*/preupload/main", status=429, retry_after=0),
        hub.fail("POST .*/info/lfs/objects/batch", drop=True),
    ]
    started = time.monotonic()
    upload(client(), folder)
    assert [order.hits for order in orders] == [1, 1, 1]
    assert time.monotonic() - started >= 3  # it waits a second before each


def test_a_dropped_request_is_not_carried_out_and_a_lost_answer_is(hub: Server, client: Client, folder: Path) -> None:
    for kind, carried_out in (("drop", False), ("lose", True)):
        (folder / "config.json").write_text(f'"{kind}"')
        client().create_repo("net", exist_ok=True)
        before = client().model_info("tester/net").sha
        order = hub.fail(COMMIT, **{kind: True})
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected without sending a response"):
            upload(client(), folder)
        assert order.hits == 1
        assert (client().model_info("tester/net").sha != before) is carried_out


def test_a_download_cut_midway_is_resumed(hub: Server, client: Client, folder: Path, tmp_path: Path) -> None:
    upload(client(), folder)
    order = hub.fail("GET /tester/net/resolve/.*/model.safetensors", cut=True)
    got = client().hf_hub_download("tester/net", "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(got).read_bytes() == (folder / "model.safetensors").read_bytes()
    assert order.hits == 1
    assert sum(line.startswith("GET /tester/net/resolve/") for line in hub.requests) == 2


def test_a_cut_answer_of_the_api_is_an_error(hub: Server, client: Client) -> None:
    client().create_repo("net")
    hub.fail("GET /api/models/.*", cut=True)
    with pytest.raises(httpx.RemoteProtocolError, match="closed connection without sending complete message body"):
        client().model_info("tester/net")


def test_a_slow_answer_comes_late_or_too_late(hub: Server, client: Client) -> None:
    client().create_repo("net")
    hub.fail("GET /api/models/.*", slow=0.6, times=2)
    started = time.monotonic()
    assert client().model_info("tester/net").id == "tester/net"
    assert time.monotonic() - started >= 0.6
    with pytest.raises(httpx.ReadTimeout):
        client().model_info("tester/net", timeout=0.2)


def test_how_often_and_from_which_on(hub: Server, client: Client) -> None:
    client().create_repo("net")
    some = hub.fail("GET /api/models/.*", status=500, times=2, after=1)
    for fails in (False, True, True, False):
        if fails:
            with pytest.raises(HfHubHTTPError, match="500"):
                client().model_info("tester/net")
        else:
            client().model_info("tester/net")
    assert some.hits == 2
    always = hub.fail(".*", status=500, times=None)
    for _ in range(3):
        with pytest.raises(HfHubHTTPError, match="500"):
            client().model_info("tester/net")
    assert always.hits == 3
    hub.faults.clear()
    client().model_info("tester/net")


def test_an_order_is_of_one_kind(hub: Server) -> None:
    with pytest.raises(ValueError, match="a fault is one of"):
        hub.fail(".*")
    with pytest.raises(ValueError, match="a fault is one of"):
        hub.fail(".*", status=500, drop=True)


def test_a_server_that_is_not_there(hub: Server, client: Client) -> None:
    for stop in (False, True):
        api = client()
        api.create_repo("net", exist_ok=True)  # leaves an open connection behind, which must be of no use
        if stop:
            hub.stop()
        else:
            api = HfApi(endpoint=nowhere(), token="hf_any")
        with pytest.raises((httpx.ConnectError, httpx.RemoteProtocolError)):
            api.model_info("tester/net")


def test_a_failure_of_the_server_itself_is_kept_for_the_fixture(hub: Server, client: Client) -> None:
    client().create_repo("net")
    (hub.root / "models/tester/net/README.md").write_bytes(b"\xff")  # no text
    with pytest.raises(HfHubHTTPError, match="the local Hub itself has failed"):
        client().model_info("tester/net")
    assert "UnicodeDecodeError" in hub.errors.pop()
