"""Uploads by the real client: what they ask for, in which order, and what is there afterwards."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.conftest import Client
from tests.hub.repos import NAME_RULE
from tests.hub.server import Server

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".gitattributes" and ".cache" not in path.parts
    }


def test_an_upload_asks_in_the_hubs_order_and_stores_large_files_by_their_hash(
    hub: Server, client: Client, folder: Path
) -> None:
    assert client().create_repo("net").repo_id == "tester/net"
    client().upload_folder(repo_id="tester/net", folder_path=folder)
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    asked = list(dict.fromkeys(hub.requests))  # the card is validated twice
    assert asked == [
        "POST /api/repos/create",
        "POST /api/validate-yaml",
        "POST /api/models/tester/net/preupload/main",
        "POST /tester/net.git/info/lfs/objects/batch",
        f"PUT /lfs/models/tester/net/{sha256}",
        "POST /lfs/models/tester/net/verify",
        "POST /api/models/tester/net/commit/main",
    ]
    info = client().model_info("tester/net", files_metadata=True)
    large = {row.rfilename: row.lfs.sha256 for row in info.siblings or [] if row.lfs}
    assert large == {"model.safetensors": sha256}
    assert (info.library_name, info.tags, info.card_data and info.card_data.license) == ("timm", ["timm"], "mit")
    assert contents(hub.root / "models/tester/net") == contents(folder)


def test_commits_stay_readable_and_main_moves(hub: Server, client: Client, folder: Path, tmp_path: Path) -> None:
    client().create_repo("net")
    first = client().upload_folder(repo_id="tester/net", folder_path=folder, commit_message="One")
    before = contents(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"other weights")
    second = client().upload_folder(repo_id="tester/net", folder_path=folder, commit_message="Two")
    assert [commit.title for commit in client().list_repo_commits("tester/net")] == ["Two", "One", "initial commit"]
    for revision, expected, sha in (
        (first.oid, before, first.oid),
        ("main", contents(folder), second.oid),
        (None, contents(folder), second.oid),
    ):
        cache = tmp_path / f"cache-{revision}"
        got = client().snapshot_download("tester/net", revision=revision, cache_dir=cache)
        assert contents(Path(got)) == expected
        assert Path(got).name == sha
        config = client().hf_hub_download("tester/net", "config.json", revision=revision, cache_dir=cache)
        assert Path(config).read_bytes() == expected["config.json"]
    with pytest.raises(RevisionNotFoundError):
        client().model_info("tester/net", revision="0" * 40)


def test_what_has_not_changed_is_not_sent_again(hub: Server, client: Client, folder: Path) -> None:
    client().create_repo("net")
    first = client().upload_folder(repo_id="tester/net", folder_path=folder)
    hub.requests.clear()
    again = client().upload_folder(repo_id="tester/net", folder_path=folder)
    assert again.oid == first.oid
    assert not [line for line in hub.requests if "/commit/" in line or line.startswith("PUT")]
    (folder / "config.json").write_text("{}")
    client().upload_folder(repo_id="tester/net", folder_path=folder)
    assert not [line for line in hub.requests if line.startswith("PUT")]  # only the small file was sent


def test_nothing_shows_before_the_commit(hub: Server, client: Client, folder: Path) -> None:
    client().create_repo("net")
    start = client().model_info("tester/net").sha
    hub.fail("POST /api/models/.*/commit/.*", status=500)
    with pytest.raises(HfHubHTTPError, match="500"):
        client().upload_folder(repo_id="tester/net", folder_path=folder)
    assert any(line.startswith("PUT /lfs/") for line in hub.requests)
    assert client().list_repo_files("tester/net") == [".gitattributes"]
    assert client().model_info("tester/net").sha == start
    client().upload_folder(repo_id="tester/net", folder_path=folder)
    assert sum(line.startswith("PUT /lfs/") for line in hub.requests) == 1  # the large file was there already
    assert "model.safetensors" in client().list_repo_files("tester/net")


def test_files_and_folders_are_deleted(hub: Server, client: Client) -> None:
    client().create_repo("net")
    names = ["a.txt", "deep/b.txt", "deep/er/c.txt", "kept.txt"]
    added = [CommitOperationAdd(name, name.encode()) for name in names]
    client().create_commit("tester/net", added, commit_message="+")
    gone = [CommitOperationDelete("a.txt"), CommitOperationDelete("deep/")]
    client().create_commit("tester/net", gone, commit_message="-")
    assert client().list_repo_files("tester/net") == [".gitattributes", "kept.txt"]
    assert not (hub.root / "models/tester/net/a.txt").exists()
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        client().delete_file("a.txt", "tester/net")


def test_a_commit_on_a_parent_that_is_no_longer_the_last_is_refused(hub: Server, client: Client) -> None:
    client().create_repo("net")
    start = client().model_info("tester/net").sha
    adds = [[CommitOperationAdd("a.txt", text)] for text in (b"one", b"two")]
    done = client().create_commit("tester/net", adds[0], commit_message="+", parent_commit=start)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        client().create_commit("tester/net", adds[1], commit_message="+", parent_commit=start)
    assert caught.value.response.status_code == 412
    assert client().model_info("tester/net").sha == done.oid


def test_a_folder_filled_by_hand_and_commits_go_together(hub: Server, client: Client, tmp_path: Path) -> None:
    place = hub.root / "models/tester/net"
    place.mkdir(parents=True)
    (place / "by-hand.txt").write_text("one")
    first = client().model_info("tester/net").sha
    (place / "by-hand.txt").write_text("two")  # the same size, at once
    second = client().model_info("tester/net").sha
    assert second != first
    client().upload_file(path_or_fileobj=b"sent", path_in_repo="sent.txt", repo_id="tester/net")
    assert client().list_repo_files("tester/net") == ["by-hand.txt", "sent.txt"]
    assert (place / "sent.txt").read_bytes() == b"sent"
    for revision, text in ((first, "one"), (second, "two"), ("main", "two")):
        got = client().hf_hub_download("tester/net", "by-hand.txt", revision=revision, cache_dir=tmp_path / "cache")
        assert Path(got).read_text() == text


def test_commits_outlive_the_server(hub: Server, client: Client, folder: Path) -> None:
    client().create_repo("net", private=True)
    done = client().upload_folder(repo_id="tester/net", folder_path=folder)
    hub.stop()
    with Server(hub.root) as next_hub:
        repo = next_hub.repos.find("models", "tester/net")
        assert repo is not None and repo.private
        assert [commit.title for commit in repo.commits()] == ["initial commit", "Upload folder using huggingface_hub"]
        commit = repo.at(done.oid)
        assert commit is not None
        assert repo.read(commit.files["config.json"]) == (folder / "config.json").read_bytes()


def test_a_repository_is_made_once_and_unmade(hub: Server, client: Client) -> None:
    url = client().create_repo("net")
    with pytest.raises(HfHubHTTPError, match="You already created this model repo"):
        client().create_repo("net")
    assert client().create_repo("net", exist_ok=True) == url
    assert client().create_repo("net", repo_type="dataset").repo_id == "tester/net"
    client().delete_repo("net")
    with pytest.raises(RepositoryNotFoundError):
        client().model_info("tester/net")
    assert client().dataset_info("tester/net").id == "tester/net"


# The client lets the first through; the others are what a caller of its own sends.
@pytest.mark.parametrize("name", ["modèle", "a--b", "a..b", "-a", "a.", ".a", "a.git", "a b", "", "a" * 97])
def test_a_name_that_the_hub_refuses_is_refused(hub: Server, client: Client, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        api = client()
        type(api).create_repo.__wrapped__(api, name)
    assert NAME_RULE in str(caught.value)
    assert not (hub.root / "models").exists()


@pytest.mark.parametrize("name", ["a", "net_1.5-x", "a" * 96, "resnet50.a1_in1k"])
def test_a_name_that_the_hub_takes_is_taken(client: Client, name: str) -> None:
    assert client().create_repo(name).repo_id == f"tester/{name}"


RESULTS = (
    "model-index:\n- name: net\n  results:\n  - task: {type: image-classification}\n    dataset: {type: x, name: x}\n"
)


@pytest.mark.parametrize(
    ("card", "error"),
    [
        ("license: mit\ntags: [a\n", "YAML Metadata Error"),
        ("license: my-own\n", '"license" must be one of'),
        ("base_model: ./runs/one\n", '"base_model" with value "./runs/one" is not valid'),
        ("tags: timm\n", '"tags" must be an array'),
        (RESULTS, '"model-index[0].results[0].metrics" is required'),
        (f"{RESULTS}    metrics: [{{type: accuracy}}]\n", '"model-index[0].results[0].metrics[0].value" is required'),
    ],
)
def test_a_card_with_faults_is_refused_before_anything_is_sent(
    hub: Server, client: Client, folder: Path, card: str, error: str
) -> None:
    client().create_repo("net")
    (folder / "README.md").write_text(f"---\n{card}---\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md") as caught:
        client().upload_folder(repo_id="tester/net", folder_path=folder)
    assert error in str(caught.value)
    assert hub.requests[-1] == "POST /api/validate-yaml"


def test_a_card_in_order_passes_and_one_without_metadata_warns(client: Client, folder: Path) -> None:
    client().create_repo("net")
    (folder / "README.md").write_text(f"---\n{RESULTS}    metrics: [{{type: accuracy, value: 0.5}}]\n---\n")
    client().upload_folder(repo_id="tester/net", folder_path=folder)
    (folder / "README.md").write_text("# Nothing\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        client().upload_folder(repo_id="tester/net", folder_path=folder)


def test_from_the_shell(tmp_path: Path, folder: Path) -> None:
    """As `make` starts it, and a client that learns everything from its environment."""
    words = ["--root", str(tmp_path / "hub"), "--user", "me", "--org", "acme", "--token", "hf_me"]
    command = [sys.executable, "-m", "tests.hub", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            variables = dict(word.split("=", 1) for word in server.stdout.readline().split()[1:])
            code = (
                "import json, sys; from huggingface_hub import HfApi; api = HfApi()\n"
                "api.create_repo('acme/net')\n"
                "api.upload_folder(repo_id='acme/net', folder_path=sys.argv[1])\n"
                "print(json.dumps([api.whoami()['name'], api.list_repo_files('acme/net')]))"
            )
            home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
            done = subprocess.run(
                [sys.executable, "-c", code, str(folder)], env={**variables, **home}, capture_output=True, text=True
            )
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr
    name, files = json.loads(done.stdout)
    assert (name, files) == ("me", [".gitattributes", "README.md", "config.json", "model.safetensors"])


COMMIT = "/api/models/tester/net/commit/main"
HEADER = {"key": "header", "value": {"summary": "by hand"}}
NO_OBJECT = {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 3}}
OUTSIDE = {"key": "file", "value": {"path": "../../other/a.txt", "content": "eA==", "encoding": "base64"}}


@pytest.mark.parametrize(
    ("method", "path", "lines", "status", "words"),
    [
        pytest.param("POST", COMMIT, [HEADER, NO_OBJECT], 400, "Offending file: a.bin", id="never uploaded"),
        pytest.param("POST", COMMIT, [HEADER, OUTSIDE], 400, "Invalid path: ../../other/a.txt", id="outside"),
        pytest.param("POST", f"{COMMIT}?create_pr=1", [HEADER], 400, "Pull requests are not", id="pull request"),
        pytest.param("PUT", f"/lfs/models/tester/net/{'0' * 64}", [], 403, "SignatureDoesNotMatch", id="unsigned"),
        pytest.param("GET", "/api/spaces/tester/net", [], 404, "no such endpoint", id="no endpoint"),
    ],
)
def test_what_no_client_of_good_will_sends_is_refused(
    hub: Server, client: Client, method: str, path: str, lines: list[object], status: int, words: str
) -> None:
    client().create_repo("net")
    before = client().model_info("tester/net").sha
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    sent = urllib.request.Request(hub.url + path, body, {"Authorization": f"Bearer {hub.token}"}, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(sent)
    assert caught.value.code == status
    assert words in json.loads(caught.value.read())["error"]
    assert client().model_info("tester/net").sha == before
