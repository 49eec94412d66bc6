"""Requests to the Hub that wait, try again and give up in one way, whichever library makes them.

huggingface_hub tries some requests again and others never, for half a minute or for as long as a server likes, and
without a word. Within `session` its client does what is written here, for timm and `datasets` too, which use it:

- A request that can be repeated is, after a dropped connection, a server's error or "too many requests".
- "Retry-After" is waited out, up to `LONGEST_WAIT`; a Hub that asks for more is one to come back to later.
- A Hub that is out of reach counts as offline after some seconds: what is in the cache is used.
- Every wait is told.

A commit is never repeated here, for its answer may have been lost: `runs/publish/push.py` looks first. Neither is a
file that is being sent: the library rewinds it, and sends it again by itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from logging import CRITICAL
from time import sleep as sleep  # `zoo.models.hub_errors` waits with it too
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    hf_raise_for_status,
    httpx,  # whichever HTTP library it is built on
    logging,
    parse_ratelimit_headers,
)

TRIES = 4
TRIES_UNREACHED = 3  # where nobody listens; there is nothing to wait for
TRIES_SILENT = 2  # where a time limit has passed; that was a wait already
FIRST_WAIT = 1.0  # seconds before the second try; doubled each time
LONGEST_WAIT = 300.0  # seconds, of all waits for one request together
CONNECTING = 10.0  # seconds
SILENCE = 30.0  # seconds without a byte after which a connection counts as dead
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Tell = Callable[[str], None]


class Unreachable(OfflineModeIsEnabled):
    """The Hub cannot be reached, and everything that uses it goes on as if it were offline."""


@dataclass(slots=True)
class HubSession:
    """What became of the Hub so far."""

    tell: Tell
    gone: str = ""  # why it is out of reach: it is not asked again
    failing: str = ""  # how it failed to the end: it gets one try each time

    @property
    def trouble(self) -> str:
        """What is wrong with it; "": nothing. What was had may be the cache's, then."""
        return self.gone or self.failing


_current: HubSession | None = None


@contextlib.contextmanager
def session(tell: Tell = lambda _text: None) -> Iterator[HubSession]:
    """Make the library's client patient, and keep the library from printing.

    A session within another is that one.

    Args:
        tell: Told about every wait, in one line.
    """
    global _current
    if _current is not None:
        yield _current
        return
    barred, verbosity = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(CRITICAL)
    # The client that is there and not one of ours: a person's own brings their proxies and certificates along.
    client: Any = get_session()
    before, send = client.timeout, client.send
    client.timeout = httpx.Timeout(SILENCE, connect=CONNECTING)
    _current = HubSession(tell)
    client.send = _patiently(_current, send)
    try:
        yield _current
    finally:
        _current = None
        del client.send  # the class's own shows again
        client.timeout = before
        logging.set_verbosity(verbosity)
        if not barred:
            enable_progress_bars()


def is_commit(request: Any) -> bool:
    """Whether a request makes a commit."""
    return request.method == "POST" and re.search(r"/commit/[^/]+\Z", request.url.path) is not None


def asked_to_wait(headers: Any, status: int) -> float:
    """Seconds that the Hub asks for by `Retry-After` or its rate limit's reset; 0 where it does not."""
    limit = parse_ratelimit_headers(headers)
    if status == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = str(headers.get("Retry-After") or "")
    return float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else 0.0


def place() -> str:
    """The Hub's address, without a user and password that may be in it."""
    parts = urlsplit(str(constants.ENDPOINT))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def without_token(text: str) -> str:
    """Text in which the person's token, and a user and password in the Hub's address, cannot be read."""
    login = urlsplit(str(constants.ENDPOINT)).netloc.rpartition("@")[0]
    if login:
        text = text.replace(f"{login}@", "")
    for secret in (get_token(), login.partition(":")[2]):
        if secret:
            # As it is, and as Python shows it: a token with an odd character in it is quoted in an error's text.
            for form in (secret, repr(secret)[1:-1], repr(secret.encode())[2:-1]):
                text = text.replace(form, "(token)")
    return text


def one_line(error: object) -> str:
    """What an error says, on one line, without the token."""
    return without_token(" ".join(str(error).split()))[:600] or type(error).__name__


def _patiently(hub: HubSession, send: Callable[..., Any]) -> Callable[..., Any]:
    home = httpx.URL(str(constants.ENDPOINT))

    def patient(request: Any, **named: Any) -> Any:
        ours = (request.url.host, request.url.port) == (home.host, home.port)
        # Elsewhere the Hub keeps files. Nothing else that is asked of other hosts is worth a wait: `datasets` looks
        # there for what it can do without.
        worthwhile = ours or named.get("stream", False) or request.method == "PUT"
        if hub.gone and ours:
            raise Unreachable(hub.gone)
        commit = is_commit(request)
        again = isinstance(request.stream, httpx.ByteStream) and not commit
        waited, wait = 0.0, FIRST_WAIT
        for number in range(1, TRIES + 1):
            pause = wait
            try:
                response = send(request, **named)
            except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                heard = _heard(error)
                if not (again or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)):
                    if not commit:
                        hub.tell(f"{heard} while a file was being sent")
                    raise
                if number >= _tries(error) or hub.failing or not worthwhile:
                    reason = "it does not answer" if isinstance(error, httpx.TimeoutException) else one_line(error)
                    hub.gone = reason if ours else hub.gone
                    raise Unreachable(reason) from error
            else:
                status = response.status_code
                if status not in TRANSIENT:
                    hub.failing = "" if ours else hub.failing
                    return response
                asked = asked_to_wait(response.headers, status)
                pause = max(wait, asked)
                heard = f"the Hub answered {status}"
                if not again and asked <= LONGEST_WAIT:
                    if not commit:
                        hub.tell(f"{heard} while a file was being sent" + (f"; waiting {asked:.0f} s" if asked else ""))
                    return response
                last = number == TRIES or hub.failing or not worthwhile
                if last or not again or waited + pause > LONGEST_WAIT:
                    hub.failing = f"it answered {status}" if worthwhile else hub.failing
                    response.read()
                    hf_raise_for_status(response)
                response.close()
            hub.tell(f"{heard}; trying again in {pause:.0f} s")
            sleep(pause)
            waited += pause
            wait *= 2
        raise AssertionError("the last try returns or raises")

    return patient


def _tries(error: Exception) -> int:
    if isinstance(error, httpx.TimeoutException):
        return TRIES_SILENT
    return TRIES_UNREACHED if isinstance(error, httpx.ConnectError) else TRIES


def _heard(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "the Hub cannot be reached"
    return "the Hub does not answer" if isinstance(error, httpx.TimeoutException) else "the Hub hung up"
