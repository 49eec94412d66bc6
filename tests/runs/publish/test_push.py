"""What a push puts on the Hub, when it updates and when it refuses, and what it does about faults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hub.server import nowhere
from tests.runs.publish.conftest import Client, adapted_again, rewrite
from zoo.runs.publish.contents import public_record
from zoo.runs.run_folder import Run

FILES = {"README.md", "config.json", "model.safetensors", "zoo.json"}


def on_hub(client: Client, repo: str) -> dict[str, bytes]:
    folder = client.hub.root / "models" / repo
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".gitattributes"}


def titles(client: Client, repo: str) -> list[str]:
    found = client.hub.repos.find("models", repo)
    return [commit.title for commit in found.commits()] if found else []


def nothing_was_pushed(client: Client) -> None:
    sent = [line for line in client.hub.requests if "/commit/" in line or line.startswith("PUT") or "/create" in line]
    assert not sent, sent


def test_one_commit_holds_the_model_its_card_and_its_record(client: Client, run: Run) -> None:
    done = client.push(run.path, "tester/tints", "--json")
    assert done.code == 0, done.err
    assert set(on_hub(client, "tester/tints")) == FILES
    assert titles(client, "tester/tints") == ["initial commit", "Push the run tints with zoo 0.1.0"]
    answer = done.json
    assert {"repo", "commit", "verified", "files"} <= answer.keys()
    assert answer["repo"] == "tester/tints" and answer["verified"] is True and answer["license"] == "apache-2.0"
    assert answer["commit"] == client.hub.repos.find("models", "tester/tints").head().sha
    assert [file["path"] for file in answer["files"]] == sorted(FILES)
    assert answer["private"] is False and answer["replaced"] is None


def test_it_says_where_it_is_and_how_to_load_it(client: Client, run: Run) -> None:
    done = client.push(run.path, "acme/tints", "--private")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"pushed to {client.hub.url}/acme/tints (private)"
    assert 'timm.create_model("hf-hub:acme/tints", pretrained=True)' in done.out
    assert "loaded in a fresh process with plain timm" in done.out
    assert (client.hub.root / "models/acme/tints/.private").exists()
    assert "asking the Hub who you are" in done.err and "uploading" in done.err


def test_no_pickle_and_nothing_of_this_machine_is_published(client: Client, run: Run) -> None:
    assert client.push(run.path, "tester/tints").code == 0
    files = on_hub(client, "tester/tints")
    assert not [name for name in files if re.search(r"\.(bin|pt|pth|pkl|ckpt)$|verify", name)]
    for name in ("README.md", "config.json", "zoo.json"):
        text = files[name].decode()
        for private in (str(run.path.parent), "secret-place", str(Path.home()), "/tmp"):
            assert private not in text, f"{private} in {name}"
    published = json.loads(files["zoo.json"])
    assert published["dataset"]["ref"] is None and published["dataset"]["name"] == "photos"
    assert "mistakes" not in published["result"] and "bad" not in published["dataset"]
    assert published["recipe"] == run.record["recipe"] and published["plan"] == run.record["plan"]
    assert published["dataset"]["fingerprint"] == run.record["dataset"]["fingerprint"]
    assert published["files"] == {"model.safetensors": run.record["files"]["model.safetensors"]}


@pytest.mark.parametrize("kind", ["target", "unlabelled"])
def test_nor_do_images_without_labels_name_files_of_this_machine(run: Run, kind: str) -> None:
    place = "/home/secret-place/drawings"
    images = {
        "ref": place, "name": "drawings", "fingerprint": "ab", "n": 3, "notes": [f"all of '{place}/more' were read"],
        "bad": [{"path": f"{place}/secret.png", "error": "truncated"}],
    }  # fmt: skip
    if kind == "target":
        images["result"] = {"accuracy": 0.5, "mistakes": [{"id": "secret.png"}]}
    record = run.record | {kind: images}
    record["recipe"] = record["recipe"] | {kind: place}
    public = public_record(record)
    assert "secret" not in json.dumps(public)
    assert public[kind]["ref"] is None and public[kind]["fingerprint"] == "ab" and public["recipe"][kind] == "drawings"
    elsewhere = public_record(record | {kind: images | {"ref": "hf:me/drawings"}})
    assert elsewhere[kind]["ref"] == "hf:me/drawings"


def test_the_card_names_the_repository(client: Client, run: Run) -> None:
    assert client.push(run.path, "tester/tints").code == 0
    card = on_hub(client, "tester/tints")["README.md"].decode()
    assert 'timm.create_model("hf-hub:tester/tints", pretrained=True)' in card
    assert 'pipeline("image-classification", model="tester/tints")' in card
    assert 'zoo.predict("hf-hub:tester/tints", ["image.jpg"])' in card
    assert "local-dir" not in card


def test_a_dry_run_writes_the_folder_and_asks_nobody(client: Client, run: Run, tmp_path: Path) -> None:
    client.be("")
    done = client.push(run.path, "tester/tints", "--dry-run", tmp_path / "look", "--json")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "look").iterdir()} == FILES
    assert done.json["commit"] is None and done.json["verified"] is False
    assert done.json["folder"] == str(tmp_path / "look")
    assert not client.hub.requests
    again = client.push(run.path, "tester/tints", "--dry-run", tmp_path / "look")
    assert again.code == 1 and "look is not empty" in again.err
    assert "nothing was pushed" in client.push(run.path, "tester/tints", "--dry-run", tmp_path / "other").out


# --- again ---


def test_the_same_run_again_changes_nothing(client: Client, run: Run) -> None:
    first = client.push(run.path, "tester/tints", "--json").json
    again = client.push(run.path, "tester/tints", "--json")
    assert again.code == 0 and again.json["commit"] == first["commit"] and again.json["replaced"] is None
    assert len(titles(client, "tester/tints")) == 2


def test_a_renamed_folder_is_still_the_same_run(client: Client, run: Run, tmp_path: Path) -> None:
    assert client.push(run.path, "tester/tints").code == 0
    assert client.push(run.path.rename(tmp_path / "renamed"), "tester/tints").code == 0


def test_adapting_again_under_the_same_name_updates(client: Client, run: Run, tmp_path: Path) -> None:
    first = client.push(run.path, "tester/tints", "--json").json
    again = adapted_again(run, tmp_path / "later")
    done = client.push(again.path, "tester/tints", "--json")
    assert done.code == 0, done.err
    assert done.json["replaced"] == first["commit"] != done.json["commit"]
    assert "note: tester/tints holds the run tints of " in done.err and "this push replaces it" in done.err
    config = json.loads(on_hub(client, "tester/tints")["config.json"])
    assert config["zoo"]["run"] == again.record["id"]


def test_an_update_removes_what_an_earlier_push_left_and_keeps_what_people_added(client: Client, run: Run) -> None:
    assert client.push(run.path, "tester/tints").code == 0
    folder = client.hub.root / "models/tester/tints"
    record = json.loads((folder / "zoo.json").read_text())
    record["published"].append("old-weights.bin")
    (folder / "zoo.json").write_text(json.dumps(record))
    (folder / "old-weights.bin").write_text("of an earlier push")
    (folder / "picture.png").write_text("added by hand")
    before = len(titles(client, "tester/tints"))
    assert client.push(run.path, "tester/tints").code == 0
    assert set(on_hub(client, "tester/tints")) == FILES | {"picture.png"}
    assert len(titles(client, "tester/tints")) == before + 1, "one commit for all of it"


def test_an_earlier_run_of_that_name_does_not_replace_a_later_one(client: Client, run: Run, tmp_path: Path) -> None:
    assert client.push(adapted_again(run, tmp_path / "later").path, "tester/tints").code == 0
    done = client.push(run.path, "tester/tints")
    assert done.code == 1
    assert "error: tester/tints holds a later run of that name" in done.err and "add --overwrite" in done.err
    assert client.push(run.path, "tester/tints", "--overwrite").code == 0


def test_another_run_needs_overwrite(client: Client, run: Run, tmp_path: Path) -> None:
    assert client.push(run.path, "tester/tints").code == 0
    before = on_hub(client, "tester/tints")
    other = adapted_again(run, tmp_path / "other", name="other")
    done = client.push(other.path, "tester/tints")
    assert done.code == 1
    assert "error: tester/tints holds another run\n  why: it holds the run tints of " in done.err
    assert "choose another name, or replace what is there: add --overwrite" in done.err
    assert on_hub(client, "tester/tints") == before
    assert client.push(other.path, "tester/tints", "--overwrite").code == 0
    assert json.loads(on_hub(client, "tester/tints")["config.json"])["zoo"]["name"] == "other"


@pytest.mark.parametrize("config", [None, "{}", "no json", '{"zoo": 7}', '{"architecture": "resnet18"}', "[" * 99_999])
def test_somebody_elses_repository_needs_overwrite_and_is_then_replaced_whole(
    client: Client, run: Run, config: str | None
) -> None:
    folder = client.hub.root / "models/tester/theirs"
    folder.mkdir(parents=True)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    if config is not None:
        (folder / "config.json").write_text(config)
    done = client.push(run.path, "tester/theirs")
    assert done.code == 1
    assert "error: tester/theirs exists already, and holds no run that zoo published" in done.err
    assert "pytorch_model.bin" in done.err and "add --overwrite" in done.err
    assert (folder / "pytorch_model.bin").exists() and not (folder / "model.safetensors").exists()
    assert client.push(run.path, "tester/theirs", "--overwrite").code == 0
    assert set(on_hub(client, "tester/theirs")) == FILES


def test_an_empty_repository_is_filled(client: Client, run: Run) -> None:
    (client.hub.root / "models/tester/empty").mkdir(parents=True)
    assert client.push(run.path, "tester/empty").code == 0


def test_private_does_not_publish_where_everybody_reads(client: Client, run: Run) -> None:
    (client.hub.root / "models/tester/open").mkdir(parents=True)
    done = client.push(run.path, "tester/open", "--private")
    assert done.code == 1 and "tester/open exists already, and is public" in done.err
    assert "hf repos settings tester/open --private" in done.err
    assert not on_hub(client, "tester/open")


# --- who ---


@pytest.mark.parametrize(
    ("scopes", "role", "repo", "why"),
    [
        (None, "read", "tester/tints", "the token is read-only"),
        (
            {"tester": "read"},
            "fineGrained",
            "tester/tints",
            "the fine-grained token does not include writing to tester",
        ),
        ({"acme": "write"}, "fineGrained", "tester/a", "the fine-grained token does not include writing to tester"),
        (None, "write", "stranger/tints", "stranger is neither this account nor one of its organisations"),
        (None, "write", "school/tints", "its role in school is `read`"),
    ],
)
def test_without_the_right_to_write_nothing_is_made(
    client: Client, run: Run, scopes: Any, role: str, repo: str, why: str
) -> None:
    (client.hub.root / "models" / repo).mkdir(parents=True)  # "create" would say yes
    client.be(client.hub.people.add_token("tester", role, scopes))
    done = client.push(run.path, repo)
    assert done.code == 1
    assert f"error: tester may not write to {repo}\n  why: {why}\n  fix: " in done.err
    nothing_was_pushed(client)
    assert client.hub.requests == ["GET /api/whoami-v2"]


def test_a_fine_grained_token_for_the_repository_or_its_namespace_will_do(client: Client, run: Run) -> None:
    (client.hub.root / "models/tester/one").mkdir(parents=True)
    client.be(client.hub.people.add_token("tester", "fineGrained", {"tester/one": "write"}))
    assert client.push(run.path, "tester/one").code == 0
    client.be(client.hub.people.add_token("tester", "fineGrained", {"acme": "write"}))
    assert client.push(run.path, "acme/two").code == 0


def test_without_a_token_it_says_how_to_log_in(client: Client, run: Run) -> None:
    client.be("")
    done = client.push(run.path, "tester/tints")
    assert done.code == 1
    assert f"why: nobody is logged in to {client.hub.url}\n  fix: hf auth login, or set HF_TOKEN" in done.err
    assert not client.hub.requests


def test_a_wrong_token_is_not_shown(client: Client, run: Run) -> None:
    client.be("hf_no_such_token")
    done = client.push(run.path, "tester/tints", "--json")
    assert done.code == 1 and done.out.startswith("{")
    error = done.json["error"]
    assert error["what"] == "cannot log in to the Hub" and "answered 401" in error["why"]
    assert "hf auth login" in error["fix"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("tints", "'tints' does not name a repository"),
        ("a/b/c", "'a/b/c' does not name a repository"),
        ("tester/", "'tester/' does not name a repository"),
        ("tester/a--b", "the Hub takes no repository named 'tester/a--b'"),
        ("tester/.hidden", "the Hub takes no repository named 'tester/.hidden'"),
        ("tester/a b", "the Hub takes no repository named 'tester/a b'"),
        ("tester/x.git", "the Hub takes no repository named 'tester/x.git'"),
        ("tester/" + "x" * 97, "the Hub takes no repository named"),
    ],
)
def test_names_that_the_hub_refuses_are_refused_before_the_network(
    client: Client, run: Run, name: str, what: str
) -> None:
    done = client.push(run.path, name)
    assert done.code == 1 and f"error: {what}" in done.err and "\n  fix: " in done.err
    assert not client.hub.requests


# --- the run ---


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "verify.safetensors"])
def test_a_file_edited_by_hand_is_refused(client: Client, run: Run, name: str) -> None:
    content = bytearray((run.path / name).read_bytes())
    content[-1] ^= 1
    (run.path / name).write_bytes(content)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1
    assert f"error: {run.path / name} was changed after the run was finished" in done.err
    assert "zoo adapt --recipe" in done.err
    assert not client.hub.requests


def test_a_result_edited_by_hand_is_refused(client: Client, run: Run) -> None:
    record = run.record
    record["result"]["accuracy"] = 0.999
    run.write_record(record)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1
    assert f"error: {run.record_path} was changed after the run was finished" in done.err
    assert "the card would claim what was not measured" in done.err
    assert not client.hub.requests


def test_a_missing_file_is_named(client: Client, run: Run) -> None:
    (run.path / "verify.safetensors").unlink()
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and f"verify.safetensors of {run.path} is missing" in done.err


def test_a_run_from_before_the_hashes_is_refused(client: Client, run: Run) -> None:
    record = run.record
    del record["files"]
    run.write_record(record)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and "its run.json lacks the hashes of its files" in done.err
    assert f"adapt again: zoo adapt --recipe {run.path} --out" in done.err


def test_a_run_that_is_not_finished_is_refused(client: Client, run: Run) -> None:
    rewrite(run, status="interrupted")
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and "is not finished (status: interrupted)" in done.err
    assert f"zoo adapt --resume {run.path}" in done.err
    assert not client.hub.requests


def test_what_is_no_run_is_refused(client: Client, tmp_path: Path) -> None:
    done = client.push(tmp_path / "nothing", "tester/tints")
    assert done.code == 1 and "nothing is not a run folder" in done.err


@pytest.mark.parametrize(
    ("weights", "chosen", "code"),
    [
        ("cc-by-nc-4.0", "apache-2.0", 1),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", 0),
        ("apache-2.0", "cc-by-4.0", 0),
        ("apache-2.0", "cc0-1.0", 1),
        ("apache-2.0", "apache", 1),
        (None, "mit", 0),
    ],
)
def test_the_licence_is_never_more_permissive_than_the_weights(
    client: Client, run: Run, weights: str | None, chosen: str, code: int
) -> None:
    rewrite(
        run, backbone=run.record["backbone"] | {"weights": run.record["backbone"]["weights"] | {"license": weights}}
    )
    done = client.push(run.path, "tester/tints", "--license", chosen)
    assert done.code == code, done.err
    if code:
        assert not client.hub.requests
        assert "permits less" in done.err or "is not a licence that the Hub has an id for" in done.err
        return
    files = on_hub(client, "tester/tints")
    assert f"license: {chosen}\n" in files["README.md"].decode()
    assert json.loads(files["config.json"])["pretrained_cfg"]["license"] == chosen


# --- faults ---

STEPS = [
    "GET /api/whoami-v2",
    "GET /api/models/tester/tints",
    "POST /api/repos/create",
    "POST /api/validate-yaml",
    "POST /api/models/tester/tints/commit/main",
]


@pytest.mark.parametrize("how", [{"status": 500}, {"status": 429}, {"drop": True}], ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_what_the_library_does_not_try_again_is_tried_again(
    client: Client, run: Run, step: str, how: dict[str, Any]
) -> None:
    order = client.hub.fail(step, **how)
    done = client.push(run.path, "tester/tints")
    assert done.code == 0, done.err
    assert order.hits == 1 and "trying again in" in done.err
    assert set(on_hub(client, "tester/tints")) == FILES
    assert len(titles(client, "tester/tints")) == 2


@pytest.mark.parametrize("step", ["POST /api/repos/create", "POST /api/models/tester/tints/commit/main"])
def test_a_lost_answer_does_not_make_a_second_commit(client: Client, run: Run, step: str) -> None:
    order = client.hub.fail(step, lose=True)
    done = client.push(run.path, "tester/tints", "--json")
    assert done.code == 0 and order.hits == 1
    assert len(titles(client, "tester/tints")) == 2
    assert done.json["commit"] == client.hub.repos.find("models", "tester/tints").head().sha


def test_too_many_requests_are_waited_out_as_long_as_the_hub_asks(
    client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("zoo.models.hub_client.sleep", waited.append)
    client.hub.fail("POST /api/repos/create", status=429, retry_after=7)
    done = client.push(run.path, "tester/tints")
    assert done.code == 0 and 7.0 in waited
    assert "note: the Hub answered 429; trying again in 7 s" in done.err


def test_a_hub_that_wants_an_hour_is_left_alone(client: Client, run: Run) -> None:
    client.hub.fail("GET /api/whoami-v2", status=429, retry_after=3600, times=None)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and "answered 429" in done.err
    assert "wait 3600 s and run the same command again" in done.err
    assert len(client.hub.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@pytest.mark.parametrize("step", STEPS)
def test_a_lasting_refusal_is_one_short_message_and_nothing_is_half_there(
    client: Client, run: Run, step: str, status: int
) -> None:
    client.hub.fail(step, status=status, times=None)
    done = client.push(run.path, "tester/tints")
    if step == "GET /api/models/tester/tints" and status == 404:  # not there: made, and then still not there
        assert "tester/tints is gone" in done.err
    assert done.code == 1
    lines = done.err[done.err.index("error: ") :].splitlines()
    assert len(lines) == 3 and lines[1].startswith("  why: ") and lines[2].startswith("  fix: "), done.err
    assert all(len(line) < 400 for line in lines) and "Traceback" not in done.err
    if (client.hub.root / "models/tester/tints").exists():
        assert not on_hub(client, "tester/tints")
    client.hub.faults.clear()
    assert client.push(run.path, "tester/tints").code == 0, "the same command goes on"


def test_an_upload_that_breaks_off_goes_on(client: Client, run: Run) -> None:
    order = client.hub.fail("PUT /lfs/.*", drop=True)
    assert client.push(run.path, "tester/tints").code == 0 and order.hits == 1


def test_a_commit_that_somebody_else_makes_in_between_is_not_written_over(
    client: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    real = HfApi.create_commit

    def late(self: HfApi, repo: str, *args: Any, **named: Any) -> Any:
        (client.hub.root / "models" / repo / "theirs.txt").write_text("meanwhile")
        return real(self, repo, *args, **named)

    monkeypatch.setattr(HfApi, "create_commit", late)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1
    assert "someone else changed tester/tints at the same time" in done.err
    assert set(on_hub(client, "tester/tints")) == {"theirs.txt"}


def test_a_hub_that_is_not_there(client: Client, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", nowhere())
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and "(HF_ENDPOINT) cannot be reached: " in done.err
    assert "check the network and HF_ENDPOINT" in done.err


def test_a_hub_that_says_nothing(client: Client, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.models.hub_client.SILENCE", 0.2)
    client.hub.fail("GET /api/whoami-v2", slow=1, times=None)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and "cannot be reached: it does not answer" in done.err


def test_offline(client: Client, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = client.push(run.path, "tester/tints")
    assert done.code == 1 and "why: HF_HUB_OFFLINE is set\n  fix: unset HF_HUB_OFFLINE and run again" in done.err
    assert not client.hub.requests


def test_the_library_is_as_loud_afterwards_as_before(client: Client, run: Run) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, get_session, logging

    before = are_progress_bars_disabled(), logging.get_verbosity(), get_session().timeout
    assert client.push(run.path, "tester/tints").code == 0
    assert (are_progress_bars_disabled(), logging.get_verbosity(), get_session().timeout) == before
