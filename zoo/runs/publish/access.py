"""Check write access to the Hub before anything is created or sent.

Creating a repository that exists succeeds even without write access; the refusal would come after the upload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it re-exports implicitly

from zoo.errors import HubError
from zoo.models.hub_client import retrying, tokens_page

_MAY_WRITE = ("repo.write", "repo.content.write")


@dataclass(frozen=True, slots=True)
class Account:
    """The account of a token."""

    name: str
    orgs: Mapping[str, str]  # organisation -> the user's role in it: "admin", "write", "contributor", "read"
    role: str  # of the token: "write", "read", "fineGrained"; "" if the Hub does not say
    scopes: Mapping[str, frozenset[str]] = field(default_factory=dict)  # namespace or repository -> permissions


def check_name(repo: str) -> None:
    """Raises HubError if `repo` is not a valid ORG/NAME, without asking the Hub."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise HubError(
            f"{repo!r} does not name a repository",
            why="it takes an account or organisation, a slash and a name",
            fix=f"write ORG/{repo.strip('/').replace('/', '-') or 'NAME'}, with your account's name for ORG",
        )
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(
            f"the Hub takes no repository named {repo!r}",
            why=str(error).partition(": '")[0],
            fix="use letters, digits, '-', '_' and '.', 96 at most; not '--' or '..', and no '-' or '.' at the ends",
        ) from error


def account(hub: HfApi) -> Account:
    """Ask the Hub whose token this is; raises HubError without a valid token or network."""
    answer = retrying(lambda: hub.whoami(token=get_token()), "cannot log in to the Hub")
    token = (answer.get("auth") or {}).get("accessToken") or {}
    scopes: dict[str, frozenset[str]] = {}
    for scope in (token.get("fineGrained") or {}).get("scoped") or ():
        name = str((scope.get("entity") or {}).get("name") or "")
        scopes[name] = scopes.get(name, frozenset()) | frozenset(scope.get("permissions") or ())
    orgs = {str(org["name"]): str(org.get("roleInOrg") or "") for org in answer.get("orgs") or ()}
    return Account(str(answer["name"]), orgs, str(token.get("role") or ""), scopes)


def check_access(who: Account, repo: str) -> None:
    """Raises HubError if the token may not write, or the namespace is not the account's or its organisations'."""
    namespace, _, name = repo.partition("/")
    what = f"{who.name} may not write to {repo}"
    if namespace != who.name and namespace not in who.orgs:
        own = [who.name, *sorted(org for org, role in who.orgs.items() if role != "read")]
        raise HubError(
            what,
            why=f"{namespace} is neither this account nor one of its organisations",
            fix=f"push to {' or '.join(f'{space}/{name}' for space in own)}, or log in as another user: hf auth login",
        )
    if who.orgs.get(namespace) == "read":
        raise HubError(
            what,
            why=f"its role in {namespace} is `read`",
            fix=f"ask an admin of {namespace}, or push to {who.name}/{name}",
        )
    again = f"make one that may write at {tokens_page()}, then: hf auth login"
    if who.role == "read":
        raise HubError(what, why="the token is read-only", fix=again)
    if who.role == "fineGrained":
        allowed: frozenset[str] = frozenset().union(*(who.scopes.get(place, ()) for place in (namespace, repo)))
        if not any(permission in allowed for permission in _MAY_WRITE):
            raise HubError(what, why=f"the fine-grained token does not include writing to {namespace}", fix=again)
