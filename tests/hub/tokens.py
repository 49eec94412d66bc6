"""Who is who: users, their organisations and tokens, and what each token may do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.hub.messages import Refusal

Role = Literal["write", "read", "fineGrained"]
TIME = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Token:
    value: str
    user: str
    role: Role
    scopes: Mapping[str, str] = field(default_factory=dict)  # fineGrained: a namespace or ORG/NAME -> read | write


class Directory:
    """The users and tokens that a server knows."""

    def __init__(self) -> None:
        self._users: dict[str, dict[str, str]] = {}  # user -> organisation -> role in it
        self._tokens: dict[str, Token] = {}

    def add_user(self, name: str, orgs: Mapping[str, str] | None = None) -> None:
        """Add a user, or to what is known of one.

        Args:
            name: Also the namespace of the user's own repositories.
            orgs: Organisation -> role in it: "admin" and "write" may create and write, "read" may only read.
        """
        self._users.setdefault(name, {}).update(orgs or {})

    def add_token(
        self, user: str, role: Role = "write", scopes: Mapping[str, str] | None = None, value: str | None = None
    ) -> str:
        """Give a user a token, and the user a record if there is none yet.

        Args:
            user: Whose it is.
            role: As the Hub has them; "fineGrained" allows what `scopes` says and nothing else.
            scopes: A namespace or "ORG/NAME" -> "read" or "write" (which includes "read").
            value: What is sent; left out, one is made up.

        Returns:
            The token's value.
        """
        self.add_user(user)
        value = value or f"hf_{user}_{role}_{len(self._tokens)}"
        self._tokens[value] = Token(value, user, role, dict(scopes or {}))
        return value

    def revoke(self, value: str) -> None:
        """From now on the token is a wrong one."""
        del self._tokens[value]

    def identify(self, authorization: str | None) -> Token | None:
        """The token that a request's Authorization header holds; None without the header.

        Raises:
            Refusal: 401; nobody has that token.
        """
        if not authorization:
            return None
        token = self._tokens.get(authorization.removeprefix("Bearer "))
        if token is None:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return token

    def may_read(self, token: Token | None, identity: str) -> bool:
        """Whether the token opens a private repository."""
        if token is None or not self._role(token, identity.split("/")[0]):
            return False
        return token.role != "fineGrained" or bool(_scope(token, identity))

    def may_write(self, token: Token | None, identity: str) -> bool:
        """Whether the token may commit to a repository."""
        if token is None or self._role(token, identity.split("/")[0]) not in ("admin", "write"):
            return False
        return token.role == "write" or _scope(token, identity) == "write"

    def may_create(self, token: Token, namespace: str) -> bool:
        """Whether the token may make a new repository there; a scope that names single repositories is not enough."""
        return self.may_write(token, namespace)

    def whoami(self, token: Token) -> dict[str, Any]:
        """The answer of whoami-v2."""
        access: dict[str, Any] = {"displayName": "test", "role": token.role, "createdAt": TIME}
        if token.role == "fineGrained":
            scoped = [self._scoped(token.user, entity, right) for entity, right in token.scopes.items()]
            access["fineGrained"] = {"canReadGatedRepos": True, "global": [], "scoped": scoped}
        return {
            "type": "user",
            "id": _id(token.user),
            "name": token.user,
            "fullname": token.user.title(),
            "isPro": False,
            "canPay": False,
            "periodEnd": None,
            "avatarUrl": f"/avatars/{token.user}.svg",
            "orgs": [
                {
                    "type": "org",
                    "id": _id(org),
                    "name": org,
                    "fullname": org.title(),
                    "email": None,
                    "canPay": False,
                    "periodEnd": None,
                    "avatarUrl": f"/avatars/{org}.svg",
                    "roleInOrg": role,
                }
                for org, role in self._users[token.user].items()
            ],
            "auth": {"type": "access_token", "accessToken": access},
        }

    def _role(self, token: Token, namespace: str) -> str | None:
        """The role that a token's user has in a namespace."""
        return "admin" if namespace == token.user else self._users[token.user].get(namespace)

    def _scoped(self, user: str, entity: str, right: str) -> dict[str, Any]:
        kind = "model" if "/" in entity else "user" if entity == user else "org"
        permissions = ["repo.content.read", "repo.write"] if right == "write" else ["repo.content.read"]
        return {"entity": {"_id": _id(entity), "type": kind, "name": entity}, "permissions": permissions}


def _scope(token: Token, identity: str) -> str | None:
    """What a fine-grained token's entries for a repository and for its namespace allow; also of a namespace alone."""
    rights = {token.scopes.get(identity), token.scopes.get(identity.split("/")[0])}
    return "write" if "write" in rights else "read" if "read" in rights else None


def _id(name: str) -> str:
    return hashlib.md5(name.encode()).hexdigest()[:24]
