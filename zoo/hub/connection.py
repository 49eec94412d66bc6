"""Talk to the Hub: quietly, with time limits, trying again where that can help, and every refusal as a message."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from json import JSONDecodeError
from logging import CRITICAL
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    httpx,  # whichever HTTP library it is built on
    logging,
    parse_ratelimit_headers,
)

from zoo.engine.events import Listener, Note, ignore
from zoo.errors import HubError, ZooError

TRIES = 4
FIRST_WAIT = 1.0  # seconds before the second try; doubled each time
LONGEST_WAIT = 300.0  # seconds: a Hub that asks for more is one to come back to later
SILENCE = 30.0  # seconds without a byte after which a connection counts as dead
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
# The library tries these again by itself; doing that once more would only take longer to fail.
_RETRIED_THERE = ("/preupload/", "/info/lfs/")

T = TypeVar("T")


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Keep the library from printing, and from waiting for ever for a server that says nothing."""
    barred, verbosity = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(CRITICAL)
    client = get_session()
    before = client.timeout
    client.timeout = httpx.Timeout(SILENCE)
    try:
        yield
    finally:
        client.timeout = before
        logging.set_verbosity(verbosity)
        if not barred:
            enable_progress_bars()


def retrying(call: Callable[[], T], what: str, *, repo: str = "", emit: Listener = ignore) -> T:
    """Call until it works, a few times; a "429 Too Many Requests" is waited out for as long as the Hub asks.

    Args:
        call: Safe to repeat.
        what: What could not be done if it fails: "me/cats cannot be read".
        repo: "ORG/NAME", for the fix.
        emit: Told about every wait.

    Raises:
        HubError: The Hub refused, or the last try failed too; the cause and what to do about it.
    """
    wait = FIRST_WAIT
    for left in reversed(range(TRIES)):
        try:
            return call()
        except ZooError:
            raise
        except Exception as error:
            pause = max(wait, _asked_to_wait(error))
            if not left or not transient(error) or pause > LONGEST_WAIT:
                known = refusal(error, what, repo)
                if known is None:
                    raise
                raise known from error
            emit(Note(f"{_heard(error)}; trying again in {pause:.0f} s"))
            time.sleep(pause)
            wait *= 2
    raise AssertionError("the last try returns or raises")


def transient(error: Exception) -> bool:
    """Whether the same call may work in a moment."""
    if isinstance(error, HfHubHTTPError):
        path = str(error.response.request.url.path)
        return error.response.status_code in _TRANSIENT and not any(part in path for part in _RETRIED_THERE)
    # A server in trouble answers with a page where the library expects JSON.
    return isinstance(error, httpx.TransportError | JSONDecodeError) and not isinstance(error, OfflineModeIsEnabled)


def refusal(error: Exception, what: str, repo: str = "") -> HubError | None:
    """A failure as a message; None: it is none of the Hub's."""
    place = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(what, why="HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE and run again")
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(what, why=f"nobody is logged in to {place}", fix="hf auth login, or set HF_TOKEN")
    if isinstance(error, LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return HubError(
                what,
                why="HF_HUB_OFFLINE is set, and it is not in the cache",
                fix=f"unset HF_HUB_OFFLINE; or bring the cache of a machine where `hf download {repo}` has run",
            )
        return _unreachable(error.__cause__ or error, what)
    if isinstance(error, GatedRepoError):
        return HubError(
            what, why="its terms must be accepted first", fix=f"accept them at {place}/{repo}, then: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(what, why=f"{repo} has no such revision", fix=f"see {place}/{repo}/commits/main")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            what,
            why=f"{place} has no model {repo}, or it is private",
            fix="check the name; for a private one: hf auth login",
        )
    if isinstance(error, HfHubHTTPError):
        return _answered(error, what, repo)
    if isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError):
        return _unreachable(error, what)
    if isinstance(error, JSONDecodeError):
        return HubError(what, why=f"{place} answered with something that is not JSON", fix="try again later")
    if isinstance(error, ValueError) and "metadata" in str(error).lower():
        return HubError(what, why=one_line(error), fix="this is a bug in zoo: report it with this message")
    return None


def one_line(error: object) -> str:
    """What an error says, on one line, without the token."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    token = get_token()
    return text.replace(token, "(token)") if token else text


def _answered(error: HfHubHTTPError, what: str, repo: str) -> HubError:
    place, status = constants.ENDPOINT, error.response.status_code
    said = error.server_message or error.response.headers.get("X-Error-Message")
    why = f"{place} answered {status}" + (f": {one_line(said)}" if said else "")
    if status == 401:
        fix = "the token is wrong or has run out: make one that may write at " + tokens_page() + ", then: hf auth login"
    elif status == 403:
        fix = f"use a token that may write to {repo or 'it'}: {tokens_page()}, then: hf auth login"
    elif status == 412:
        why, fix = f"somebody else changed {repo} at the same time", "look at what they did, then push again"
    elif status == 429:
        after = _asked_to_wait(error)
        fix = f"wait {after:.0f} s and run the same command again" if after else "wait some minutes and run it again"
    elif status >= 500:
        fix = "the server is in trouble: run the same command again later (status.huggingface.co)"
    else:
        fix = "put right what the server names, and run the same command again"
    return HubError(what, why=why, fix=fix)


def tokens_page() -> str:
    """Where tokens are made."""
    return f"{constants.ENDPOINT}/settings/tokens"


def _unreachable(error: BaseException, what: str) -> HubError:
    reason = "it does not answer" if isinstance(error, httpx.TimeoutException) else one_line(error)
    return HubError(
        what,
        why=f"{constants.ENDPOINT} (HF_ENDPOINT) cannot be reached: {reason}",
        fix="check the network and HF_ENDPOINT, and run the same command again",
    )


def _heard(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {error.response.status_code}"
    return "the Hub does not answer" if isinstance(error, httpx.TransportError) else "the Hub's answer makes no sense"


def _asked_to_wait(error: Exception) -> float:
    """Seconds that the Hub asks for by `Retry-After` or its rate limit's reset; 0 where it does not."""
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    limit = parse_ratelimit_headers(error.response.headers)
    if error.response.status_code == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = str(error.response.headers.get("Retry-After") or "")
    return float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else 0.0
