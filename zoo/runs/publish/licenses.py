"""Licences of image weights, and which of them may replace another."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from zoo.errors import HubError

# Those with an id on the Hub; a card gives others as `other` with a name.
HUB_LICENSES = frozenset(
    {
        *("afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "bsd", "bsd-2-clause", "bsd-3-clause"),
        *("bsd-3-clause-clear", "cc", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0"),
        *("fair-noncommercial-research-license", "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0"),
        *("openrail", "openrail++", "unlicense"),
    }
)
_FREE = frozenset({"cc0-1.0", "unlicense"})  # without conditions, not even attribution
_RESEARCH = frozenset({"apple-amlr", "fair-noncommercial-research-license"})
# Derived models must stay under the same licence.
_BINDING = frozenset(
    {"agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "openrail", "openrail++", "cc"}
)


def stated(license_: object) -> str:
    """A licence in lower case; "" if none was stated."""
    text = str(license_ or "").strip().lower()
    return "" if text in ("unknown", "other", "none") else text


def permits(inherited: str, chosen: str) -> bool:
    """Whether a model derived from weights under one licence may be published under another.

    The other must have at least the same conditions (attribution, no commercial use). A licence that binds
    derived models, or that is not known here, permits only itself.
    """
    if chosen == inherited or not inherited:
        return True
    if inherited not in HUB_LICENSES or inherited in _BINDING or "-sa-" in inherited or "-nd-" in inherited:
        return False
    return _conditions(inherited) <= _conditions(chosen)


def settle(inherited: object, chosen: str | None) -> str | None:
    """The licence to publish under: the user's choice, or else the weights' (None if unknown).

    Raises HubError if the choice is not known to the Hub, or permits more than the weights' licence.
    """
    before = stated(inherited)
    if chosen is None:
        return before or None
    licence = chosen.strip().lower()
    if licence not in HUB_LICENSES and licence != before:
        near = difflib.get_close_matches(licence, HUB_LICENSES, n=3, cutoff=0.5)
        raise HubError(
            f"{chosen!r} is not a licence that the Hub has an id for",
            fix=f"did you mean {' or '.join(near)}?" if near else "for example: --license apache-2.0",
        )
    if not permits(before, licence):
        raise HubError(
            f"the model cannot be published under {licence}",
            why=f"the weights that it started from are under {before}, which permits less",
            fix=f"leave --license out to publish under {before}, or adapt other weights: see `zoo show`",
        )
    return licence


def settle_all(inherited: Sequence[object], chosen: str | None) -> str | None:
    """The licence to publish several models under: the user's choice, or else the strictest of their weights'.

    Raises HubError as `settle` does, or if none of the weights' licences is the strictest.
    """
    before = list(dict.fromkeys(filter(None, map(stated, inherited))))
    if chosen is not None:
        for one in before:
            settle(one, chosen)
        return settle(None, chosen) if not before else chosen.strip().lower()
    strictest = [one for one in before if all(permits(other, one) for other in before)]
    if before and not strictest:
        raise HubError(
            f"the members' weights are under {' and '.join(before)}",
            why="none of these has all conditions of the others",
            fix="choose one that has with --license, or leave a member out",
        )
    return strictest[0] if strictest else None


def _conditions(license_: str) -> set[str]:
    research = license_ in _RESEARCH
    conditions = {
        "attribution": license_ not in _FREE,
        "no commercial use": "-nc-" in license_ or research,
        "research only": research,
    }
    return {name for name, holds in conditions.items() if holds}
