"""Who may see and change what, as the real client meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.hub.conftest import Client
from tests.hub.server import Server


def test_whoami_tells_the_user_the_organisations_and_the_tokens_role(hub: Server, client: Client) -> None:
    hub.people.add_user("me", orgs={"acme": "admin", "readers": "read"})
    for role in ("write", "read", "fineGrained"):
        scopes = {"me/net": "write", "acme": "read"} if role == "fineGrained" else None
        told = client(hub.people.add_token("me", role, scopes)).whoami()
        assert told["name"] == "me" and told["type"] == "user"
        assert {org["name"]: org["roleInOrg"] for org in told["orgs"]} == {"acme": "admin", "readers": "read"}
        access = told["auth"]["accessToken"]
        assert access["role"] == role
    scoped = {entry["entity"]["name"]: entry["permissions"] for entry in access["fineGrained"]["scoped"]}
    assert scoped == {"me/net": ["repo.content.read", "repo.write"], "acme": ["repo.content.read"]}
    assert {entry["entity"]["type"] for entry in access["fineGrained"]["scoped"]} == {"model", "org"}


def test_a_wrong_token_is_401_even_for_what_everybody_may_see(hub: Server, client: Client) -> None:
    client().create_repo("net")
    for ask in (
        lambda api: api.model_info("tester/net"),
        lambda api: api.create_repo("other"),
        lambda api: api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="tester/net"),
    ):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
            ask(client("hf_wrong"))
        assert caught.value.response.status_code == 401
        assert not isinstance(caught.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        client("hf_wrong").whoami()
    hub.people.revoke(hub.token)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        client().whoami()


def test_without_a_token_nothing_is_written(hub: Server, client: Client) -> None:
    client().create_repo("net")
    with pytest.raises(HfHubHTTPError, match="Invalid username or password") as caught:
        client(False).create_repo("tester/other")
    assert caught.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError, match="401"):  # so the client names it, on the real Hub too
        client(False).upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="tester/net")
    assert client(False).model_info("tester/net").id == "tester/net"


# A token (its user's role in acme, its own role, its scopes) and whether it may make acme/new, and change acme/net.
CASES = {
    "an admin": ("admin", "write", None, True, True),
    "a writer": ("write", "write", None, True, True),
    "a reader": ("read", "write", None, False, False),
    "a stranger": (None, "write", None, False, False),
    "a read token": ("admin", "read", None, False, False),
    "fine-grained, the organisation": ("admin", "fineGrained", {"acme": "write"}, True, True),
    "fine-grained, this repository": ("admin", "fineGrained", {"acme/net": "write"}, False, True),
    "fine-grained, another one": ("admin", "fineGrained", {"acme/other": "write"}, False, False),
    "fine-grained, read": ("admin", "fineGrained", {"acme": "read"}, False, False),
    "fine-grained of a stranger": (None, "fineGrained", {"acme": "write"}, False, False),
}


@pytest.mark.parametrize("case", CASES)
def test_who_may_create_and_commit(hub: Server, client: Client, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # After a refusal create_repo(exist_ok=True) looks for the repository's address here, not in its own endpoint.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    org_role, role, scopes, may_create, may_commit = CASES[case]
    hub.people.add_user("owner", orgs={"acme": "admin"})
    client(hub.people.add_token("owner")).create_repo("acme/net")
    hub.people.add_user("me", orgs={"acme": org_role} if org_role else {})
    api = client(hub.people.add_token("me", role, scopes))
    if may_create:
        assert api.create_repo("acme/new").repo_id == "acme/new"
    else:
        rights = 'You don\'t have the rights to create a model under the namespace "acme"'
        with pytest.raises(HfHubHTTPError, match=rights) as caught:
            api.create_repo("acme/new")
        assert caught.value.response.status_code == 403
    api.create_repo("acme/net", exist_ok=True)  # the client is content with its being there
    if may_commit:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id="acme/net")
    else:
        with pytest.raises(HfHubHTTPError, match="create_pr=1") as caught:
            api.upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id="acme/net")
        assert caught.value.response.status_code == 403
    assert ("a" in api.list_repo_files("acme/net")) is may_commit


def test_a_private_repository_is_not_there_for_others(hub: Server, client: Client, tmp_path: Path) -> None:
    hub.people.add_user("me", orgs={"acme": "read"})
    hub.people.add_user("owner", orgs={"acme": "write"})
    api = client(hub.people.add_token("owner"))
    api.create_repo("acme/secret", private=True)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id="acme/secret")
    blind = [
        (False, 401),
        (hub.token, 404),
        (hub.people.add_token("me", "fineGrained", {"me": "write"}), 404),
    ]
    for token, status in blind:
        with pytest.raises(RepositoryNotFoundError) as caught:
            client(token).model_info("acme/secret")
        assert caught.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            client(token).hf_hub_download("acme/secret", "a", cache_dir=tmp_path)
    for token in (
        hub.people.add_token("me", "read"),
        hub.people.add_token("me", "fineGrained", {"acme/secret": "read"}),
    ):
        assert client(token).model_info("acme/secret").private is True
        assert Path(client(token).hf_hub_download("acme/secret", "a", cache_dir=tmp_path)).read_text() == "x"


def test_a_gate_opens_for_those_who_accepted_and_for_its_own_people(hub: Server, client: Client) -> None:
    hub.people.add_user("owner", orgs={"acme": "read"})
    place = hub.root / "models/acme/gated"
    place.mkdir(parents=True)
    (place / ".gated").write_text("friend\n")
    for token, status in ((False, 401), (hub.token, 403)):
        with pytest.raises(GatedRepoError, match="Accept its terms first") as caught:
            client(token).auth_check("acme/gated")
        assert caught.value.response.status_code == status
    for user in ("friend", "owner"):
        client(hub.people.add_token(user, "read")).auth_check("acme/gated")
