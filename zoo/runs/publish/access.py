"""Who pushes, and whether they may: asked before anything is made or sent.

The Hub says yes to "create this repository" for one that exists and that the person cannot write to; the refusal
would come after the upload.
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
    """What the Hub says about a token."""

    name: str
    orgs: Mapping[str, str]  # organisation -> the person's role in it: "admin", "write", "contributor", "read"
    role: str  # of the token: "write", "read", "fineGrained"; "" where the Hub does not say
    scopes: Mapping[str, frozenset[str]] = field(default_factory=dict)  # namespace or repository -> permissions


def check_name(repo: str) -> None:
    """Refuse what cannot be a repository's name, without asking the Hub.

    Raises:
        HubError: It is not ORG/NAME, or holds something that the Hub refuses.
    """
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
    """Ask the Hub whose token this is.

    Raises:
        HubError: There is no token, it is not valid, or the Hub cannot be reached.
    """
    answer = retrying(lambda: hub.whoami(token=get_token()), "cannot log in to the Hub")
    token = (answer.get("auth") or {}).get("accessToken") or {}
    fine = token.get("fineGrained") or {}
    scopes: dict[str, frozenset[str]] = {}
    for scope in fine.get("scoped") or ():
        name = str((scope.get("entity") or {}).get("name") or "")
        scopes[name] = scopes.get(name, frozenset()) | frozenset(scope.get("permissions") or ())
    return Account(
        name=str(answer["name"]),
        orgs={str(org["name"]): str(org.get("roleInOrg") or "") for org in answer.get("orgs") or ()},
        role=str(token.get("role") or ""),
        scopes=scopes,
    )


def check_access(who: Account, repo: str) -> None:
    """Refuse a push that the Hub would refuse later.

    Raises:
        HubError: The token only reads, or the namespace is neither the account nor one of its organisations.
    """
    namespace, _, name = repo.partition("/")
    what = f"{who.name} may not write to {repo}"
    if namespace != who.name and namespace not in who.orgs:
        own = [who.name, *sorted(org for org, role in who.orgs.items() if role != "read")]
        raise HubError(
            what,
            why=f"{namespace} is neither this account nor one of its organisations",
            fix=f"push to {' or '.join(f'{space}/{name}' for space in own)}, or log in as somebody else: hf auth login",
        )
    if who.orgs.get(namespace) == "read":
        raise HubError(
            what,
            why=f"its role in {namespace} is `read`",
            fix=f"ask an admin of {namespace}, or push to {who.name}/{name}",
        )
    again = f"make one that may at {tokens_page()}, then: hf auth login"
    if who.role == "read":
        raise HubError(what, why="the token is for reading only", fix=again)
    if who.role == "fineGrained":
        allowed: frozenset[str] = frozenset().union(*(who.scopes.get(place, ()) for place in (namespace, repo)))
        if not any(permission in allowed for permission in _MAY_WRITE):
            raise HubError(what, why=f"the fine-grained token does not include writing to {namespace}", fix=again)
