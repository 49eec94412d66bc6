"""Hub client: one way to wait, retry and give up for all Hub requests, and their failures as messages.

huggingface_hub silently retries some requests and not others, for half a minute or for as long as a server likes.
Within `session` its client, which timm and `datasets` use too, follows these rules:

- A request that can be repeated is repeated after a dropped connection, a server error or "too many requests".
- "Retry-After" is waited out, up to `LONGEST_WAIT`; if the Hub asks for more, the request fails.
- A Hub that cannot be reached counts as offline after some seconds: the cache is used.
- Every wait is reported as a `Note`.

Commits are never repeated here, as only the response may have been lost: `runs/publish/push.py` checks first. Nor are
uploads of a file: the library rewinds it and sends it again itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from logging import CRITICAL
from time import sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

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
    hf_raise_for_status,
    httpx,  # the HTTP library that it is built on
    logging,
    parse_ratelimit_headers,
)

from zoo.errors import HubError, ZooError
from zoo.events import Listener, Note, ignore

TRIES = 4
TRIES_UNREACHED = 3  # if nothing listens there
TRIES_SILENT = 2  # after a timeout, which was a wait already
FIRST_WAIT = 1.0  # seconds before the second try; doubled each time
LONGEST_WAIT = 300.0  # seconds, the waits for one request in total
CONNECTING = 10.0  # seconds
SILENCE = 30.0  # seconds without a byte after which a connection counts as dead
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


class Unreachable(OfflineModeIsEnabled):
    """The Hub cannot be reached; the libraries that use it go on as if it were offline."""


@dataclass(slots=True)
class HubSession:
    """The state of the Hub in a session."""

    emit: Listener
    gone: str = ""  # why it cannot be reached: it gets no further request
    failing: str = ""  # how its last try failed: each request gets one try

    @property
    def trouble(self) -> str:
        """Why the Hub fails, so that files may come from the cache; "" if it does not."""
        return self.gone or self.failing

    def tell(self, text: str) -> None:
        """Report a wait."""
        self.emit(Note(text))


_current: HubSession | None = None


@contextlib.contextmanager
def session(emit: Listener = ignore) -> Iterator[HubSession]:
    """Make the library's client patient and silent; `emit` gets a `Note` of each wait. A nested one changes nothing."""
    global _current
    if _current is not None:
        yield _current
        return
    barred, verbosity = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(CRITICAL)
    # The library's client, not a new one: the user's own has their proxies and certificates.
    client: Any = get_session()
    before, send = client.timeout, client.send
    client.timeout = httpx.Timeout(SILENCE, connect=CONNECTING)
    _current = HubSession(emit)
    client.send = _patiently(_current, send)
    try:
        yield _current
    finally:
        _current = None
        del client.send  # the class's own method is back
        client.timeout = before
        logging.set_verbosity(verbosity)
        if not barred:
            enable_progress_bars()


def is_commit(request: Any) -> bool:
    """Whether a request makes a commit."""
    return request.method == "POST" and re.search(r"/commit/[^/]+\Z", request.url.path) is not None


def retry_after(response: Any) -> float:
    """Seconds that the Hub asks for by `Retry-After` or its rate limit's reset; 0 if it does not."""
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = str(response.headers.get("Retry-After") or "")
    return float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else 0.0


def place() -> str:
    """The Hub's address, without a user and password in it."""
    parts = urlsplit(str(constants.ENDPOINT))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def without_token(text: str) -> str:
    """Text without the user's token and the user and password in the Hub's address."""
    login = urlsplit(str(constants.ENDPOINT)).netloc.rpartition("@")[0]
    if login:
        text = text.replace(f"{login}@", "")
    for secret in filter(None, (get_token(), login.partition(":")[2])):
        # As it is, and as Python shows it: an error quotes a token with an odd character in it.
        for form in (secret, repr(secret)[1:-1], repr(secret.encode())[2:-1]):
            text = text.replace(form, "(token)")
    return text


def one_line(error: object) -> str:
    """An error's message on one line, without the token."""
    return without_token(" ".join(str(error).split()))[:600] or type(error).__name__


def _patiently(hub: HubSession, send: Callable[..., Any]) -> Callable[..., Any]:
    home = httpx.URL(str(constants.ENDPOINT))

    def patient(request: Any, **named: Any) -> Any:
        ours = (request.url.host, request.url.port) == (home.host, home.port)
        # Other hosts keep the Hub's files. No other request to them is worth a wait: `datasets` can do without.
        worthwhile = ours or named.get("stream", False) or request.method == "PUT"
        if hub.gone and ours:
            raise Unreachable(hub.gone)
        commit = is_commit(request)
        repeatable = isinstance(request.stream, httpx.ByteStream) and not commit
        waited, wait = 0.0, FIRST_WAIT
        for number in range(1, TRIES + 1):
            pause = wait
            try:
                response = send(request, **named)
            except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                problem = _problem(error)
                if not (repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)):
                    if not commit:
                        hub.tell(f"{problem} while a file was being sent")
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
                requested = retry_after(response)
                pause = max(wait, requested)
                problem = f"the Hub answered {status}"
                if not repeatable and requested <= LONGEST_WAIT:
                    if not commit:
                        waiting = f"; waiting {requested:.0f} s" if requested else ""
                        hub.tell(f"{problem} while a file was being sent{waiting}")
                    return response
                last = number == TRIES or hub.failing or not worthwhile
                if last or not repeatable or waited + pause > LONGEST_WAIT:
                    hub.failing = f"it answered {status}" if worthwhile else hub.failing
                    response.read()
                    hf_raise_for_status(response)
                response.close()
            hub.tell(f"{problem}; trying again in {pause:.0f} s")
            sleep(pause)
            waited += pause
            wait *= 2
        raise AssertionError("the last try returns or raises")

    return patient


def _tries(error: Exception) -> int:
    if isinstance(error, httpx.TimeoutException):
        return TRIES_SILENT
    return TRIES_UNREACHED if isinstance(error, httpx.ConnectError) else TRIES


def _problem(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {error.response.status_code}"
    if isinstance(error, JSONDecodeError):
        return "the Hub's answer makes no sense"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "the Hub cannot be reached"
    return "the Hub does not answer" if isinstance(error, httpx.TimeoutException) else "the Hub hung up"


def retrying(call: Callable[[], T], what: str, *, repo: str = "") -> T:
    """Call `call`, which must be safe to repeat, in a session, and again after a failure that one request cannot mend.

    Raises HubError if the Hub refuses or the last try fails: `what` failed ("me/cats cannot be read"), and the fix
    names `repo` ("ORG/NAME").
    """
    assert _current is not None
    wait = FIRST_WAIT
    for left in reversed(range(TRIES)):
        try:
            return call()
        except ZooError:
            raise
        except Exception as raised:
            error = _cause(raised)
            pause = max(wait, retry_after(error.response) if isinstance(error, HfHubHTTPError) else 0.0)
            if not left or not transient(error) or pause > LONGEST_WAIT:
                known = hub_failure(error, what, repo)
                if known is None:
                    raise
                raise known from raised
            _current.tell(f"{_problem(error)}; trying again in {pause:.0f} s")
            sleep(pause)
            wait *= 2
    raise AssertionError("the last try returns or raises")


def _cause(error: Exception) -> Exception:
    """The failure behind the library's "Error while uploading"."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def transient(error: Exception) -> bool:
    """Whether the whole call may work in a moment: a commit failed, or a response broke off or is not JSON."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT and is_commit(error.response.request)
    if isinstance(error, httpx.TransportError):
        # The library itself resumes a download after any other failure.
        return isinstance(error, httpx.ReadError) or maybe_made(error)
    # A server in trouble sends a page instead of JSON.
    return isinstance(error, JSONDecodeError)


def maybe_made(error: Exception) -> bool:
    """Whether a commit was sent, and no response says whether it was made."""
    request: Any = None
    if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
        request = error.response.request
    elif isinstance(error, httpx.TransportError):
        with contextlib.suppress(RuntimeError):  # it is not known
            request = error.request
    return request is not None and is_commit(request)


def hub_failure(error: Exception, doing: str, repo: str = "") -> HubError | None:
    """A failure as a message that `doing` failed ("me/cats cannot be read"); None if it is not one of the Hub's.

    The fix names `repo` ("ORG/NAME").
    """
    if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
        cause = error.__cause__
        known = hub_failure(cause, doing, repo) if isinstance(cause, HfHubHTTPError | Unreachable) else None
        return known or _unreachable(cause or error, doing)
    if isinstance(error, Unreachable):
        return _unreachable(error, doing)
    if isinstance(error, OfflineModeIsEnabled):
        why, fix = "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE and run again"
    elif isinstance(error, LocalTokenNotFoundError):
        why, fix = f"nobody is logged in to {place()}", "hf auth login, or set HF_TOKEN"
    elif isinstance(error, LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set, and it is not in the cache"
        fix = f"unset HF_HUB_OFFLINE; or bring the cache of a machine where `hf download {repo}` has run"
    elif isinstance(error, GatedRepoError):
        why, fix = "its terms must be accepted first", f"accept them at {place()}/{repo}, then: hf auth login"
    elif isinstance(error, RevisionNotFoundError):
        why, fix = f"{repo} has no such revision", f"see {place()}/{repo}/commits/main"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"{place()} has no model {repo}, or it is private"
        fix = "check the name; for a private one: hf auth login"
    elif isinstance(error, HfHubHTTPError):
        why, fix = _refusal(error, repo)
    elif isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError):
        return _unreachable(error, doing)
    elif isinstance(error, JSONDecodeError):
        why, fix = f"{place()} answered with something that is not JSON", "try again later"
    elif isinstance(error, OSError) and error.errno is not None:
        why, fix = error.strerror or str(error), "free some space, or choose another place: HF_HOME"
    elif isinstance(error, OSError) and "Consistency check failed" in str(error):
        why = "the downloaded file does not have the length that the Hub gives"
        fix = (
            "run the same command again; if it fails again, something on the way (a proxy?) changes what the Hub sends"
        )
    elif isinstance(error, RuntimeError):  # how hf_xet fails, after its own retries
        why, fix = one_line(error), "run the same command again; HF_HUB_DISABLE_XET=1 avoids hf_xet"
    elif isinstance(error, ValueError) and "metadata" in str(error).lower():
        why, fix = one_line(error), "this is a bug in zoo: report it with this message"
    else:
        return None
    return HubError(doing, why=why, fix=fix)


def _refusal(error: HfHubHTTPError, repo: str) -> tuple[str, str]:
    """Why the Hub refused, and the fix."""
    status = error.response.status_code
    message = error.server_message or error.response.headers.get("X-Error-Message")
    why = f"{place()} answered {status}" + (f": {one_line(message)}" if message else "")
    if status == 401:
        fix = f"the token is wrong or has run out: make one that may write at {tokens_page()}, then: hf auth login"
    elif status == 403:
        fix = f"use a token that may write to {repo or 'it'}: {tokens_page()}, then: hf auth login"
    elif status == 412:
        why, fix = f"someone else changed {repo} at the same time", "look at what they did, then push again"
    elif status == 429:
        after = retry_after(error.response)
        fix = f"wait {after:.0f} s and run the same command again" if after else "wait some minutes and run it again"
    elif status >= 500:
        fix = "the server is in trouble: run the same command again later (status.huggingface.co)"
    else:
        fix = "correct what the server names, and run the same command again"
    return why, fix


def tokens_page() -> str:
    """Where tokens are made."""
    return f"{place()}/settings/tokens"


def _unreachable(error: BaseException, what: str) -> HubError:
    reason = "it does not answer" if isinstance(error, httpx.TimeoutException) else one_line(error)
    why = f"{place()} (HF_ENDPOINT) cannot be reached: {reason}"
    return HubError(what, why=why, fix="check the network and HF_ENDPOINT, and run the same command again")
