"""Licences that image weights come with, and which of them may follow which."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from zoo.errors import HubError

# Those that the Hub has an id for; others are given on a card as `other` with a name.
HUB_LICENSES = frozenset(
    {
        *("afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "bsd", "bsd-2-clause", "bsd-3-clause"),
        *("bsd-3-clause-clear", "cc", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0"),
        *("fair-noncommercial-research-license", "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0"),
        *("openrail", "openrail++", "unlicense"),
    }
)
_FREE = frozenset({"cc0-1.0", "unlicense"})  # ask for nothing, not even a name
_RESEARCH = frozenset({"apple-amlr", "fair-noncommercial-research-license"})
# Hand themselves down word for word: what is made from such weights stays under the same licence.
_BINDING = frozenset(
    {"agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "openrail", "openrail++", "cc"}
)


def stated(license_: object) -> str:
    """A licence as it is written down, lower case; "" where nobody stated one."""
    text = str(license_ or "").strip().lower()
    return "" if text in ("unknown", "other", "none") else text


def permits(inherited: str, chosen: str) -> bool:
    """Whether what was made from weights under one licence may be published under another.

    It may if the other asks for at least as much: naming the authors, no commercial use. A licence that binds what is
    made from it, or that is not known here, is followed by itself alone.
    """
    if chosen == inherited or not inherited:
        return True
    if inherited not in HUB_LICENSES or inherited in _BINDING or "-sa-" in inherited or "-nd-" in inherited:
        return False
    return _asks(inherited) <= _asks(chosen)


def settle(inherited: object, chosen: str | None) -> str | None:
    """The licence to publish under.

    Args:
        inherited: What run.json says of the weights' licence; None where it is not known or there were none.
        chosen: What the person asked for; None takes the weights'.

    Raises:
        HubError: The choice is no licence that the Hub knows, or permits more than the weights do.
    """
    before = stated(inherited)
    if chosen is None:
        return before or None
    wanted = chosen.strip().lower()
    if wanted not in HUB_LICENSES and wanted != before:
        near = difflib.get_close_matches(wanted, HUB_LICENSES, n=3, cutoff=0.5)
        raise HubError(
            f"{chosen!r} is not a licence that the Hub has an id for",
            fix=f"did you mean {' or '.join(near)}?" if near else "for example: --license apache-2.0",
        )
    if not permits(before, wanted):
        raise HubError(
            f"the model cannot be published under {wanted}",
            why=f"the weights that it started from are under {before}, which permits less",
            fix=f"leave --license out to publish under {before}, or adapt other weights: see `zoo show`",
        )
    return wanted


def settle_all(inherited: Sequence[object], chosen: str | None) -> str | None:
    """The licence to publish several models under, together.

    Args:
        inherited: What is known of the licence of each one's weights.
        chosen: What the person asked for; None takes the one that asks for most.

    Raises:
        HubError: As for `settle`; or none of them asks for as much as all the others do.
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
            why="none of these asks for as much as the others do",
            fix="choose one that does with --license, or leave a member out",
        )
    return strictest[0] if strictest else None


def _asks(license_: str) -> frozenset[str]:
    asked = set() if license_ in _FREE else {"attribution"}
    if "-nc-" in license_ or license_ in _RESEARCH:
        asked.add("no commercial use")
    if license_ in _RESEARCH:
        asked.add("research only")
    return frozenset(asked)
