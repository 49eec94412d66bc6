"""Hub client: requests that wait, try again and give up in one way, and what each failure means, as a message.

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
from functools import partial
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
    httpx,  # whichever HTTP library it is built on
    logging,
    parse_ratelimit_headers,
)

from zoo.errors import HubError, ZooError
from zoo.events import Listener, Note, ignore

TRIES = 4
TRIES_UNREACHED = 3  # where nobody listens; there is nothing to wait for
TRIES_SILENT = 2  # where a time limit has passed; that was a wait already
FIRST_WAIT = 1.0  # seconds before the second try; doubled each time
LONGEST_WAIT = 300.0  # seconds, of all waits for one request together
CONNECTING = 10.0  # seconds
SILENCE = 30.0  # seconds without a byte after which a connection counts as dead
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


class Unreachable(OfflineModeIsEnabled):
    """The Hub cannot be reached, and everything that uses it goes on as if it were offline."""


@dataclass(slots=True)
class HubSession:
    """What became of the Hub so far."""

    emit: Listener
    gone: str = ""  # why it is out of reach: it is not asked again
    failing: str = ""  # how it failed to the end: it gets one try each time

    @property
    def trouble(self) -> str:
        """What is wrong with it; "": nothing. What was had may be the cache's, then."""
        return self.gone or self.failing

    def tell(self, text: str) -> None:
        """Say what is waited for."""
        self.emit(Note(text))


_current: HubSession | None = None


@contextlib.contextmanager
def session(emit: Listener = ignore) -> Iterator[HubSession]:
    """Make the library's client patient, and keep the library from printing.

    A session within another is that one.

    Args:
        emit: Told about every wait, in a `Note`.
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
    _current = HubSession(emit)
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
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {error.response.status_code}"
    if isinstance(error, JSONDecodeError):
        return "the Hub's answer makes no sense"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "the Hub cannot be reached"
    return "the Hub does not answer" if isinstance(error, httpx.TimeoutException) else "the Hub hung up"


def retrying(call: Callable[[], T], what: str, *, repo: str = "") -> T:
    """Call within a session, and again after a failure that sending one request again cannot mend.

    Args:
        call: Safe to repeat.
        what: What could not be done if it fails: "me/cats cannot be read".
        repo: "ORG/NAME", for the fix.

    Raises:
        HubError: The Hub refused, or the last try failed too; the cause and what to do about it.
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
            pause = max(wait, _asked_to_wait(error))
            if not left or not transient(error) or pause > LONGEST_WAIT:
                known = hub_failure(error, what, repo)
                if known is None:
                    raise
                raise known from raised
            _current.tell(f"{_heard(error)}; trying again in {pause:.0f} s")
            sleep(pause)
            wait *= 2
    raise AssertionError("the last try returns or raises")


def _cause(error: Exception) -> Exception:
    """The failure behind the library's "Error while uploading"."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def transient(error: Exception) -> bool:
    """Whether the whole call may work in a moment: a commit that failed, an answer that broke off or makes no sense."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT and is_commit(error.response.request)
    if isinstance(error, httpx.TransportError):
        # The library goes on with a download after any other failure, several times.
        return isinstance(error, httpx.ReadError) or maybe_made(error)
    # A server in trouble answers with a page where the library expects JSON.
    return isinstance(error, JSONDecodeError)


def maybe_made(error: Exception) -> bool:
    """Whether a commit was sent without an answer that says what became of it."""
    request: Any = None
    if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
        request = error.response.request
    elif isinstance(error, httpx.TransportError):
        with contextlib.suppress(RuntimeError):  # it is not known
            request = error.request
    return request is not None and is_commit(request)


def hub_failure(error: Exception, doing: str, repo: str = "") -> HubError | None:
    """A failure as a message; None: it is none of the Hub's.

    Args:
        error: What was raised.
        doing: What could not be done: "me/cats cannot be read".
        repo: "ORG/NAME", for the fix.
    """
    failure = partial(HubError, doing)
    if isinstance(error, Unreachable):
        return _unreachable(error, doing)
    if isinstance(error, OfflineModeIsEnabled):
        return failure(why="HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE and run again")
    if isinstance(error, LocalTokenNotFoundError):
        return failure(why=f"nobody is logged in to {place()}", fix="hf auth login, or set HF_TOKEN")
    if isinstance(error, LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return failure(
                why="HF_HUB_OFFLINE is set, and it is not in the cache",
                fix=f"unset HF_HUB_OFFLINE; or bring the cache of a machine where `hf download {repo}` has run",
            )
        cause = error.__cause__
        known = hub_failure(cause, doing, repo) if isinstance(cause, HfHubHTTPError | Unreachable) else None
        return known or _unreachable(cause or error, doing)
    if isinstance(error, GatedRepoError):
        return failure(
            why="its terms must be accepted first", fix=f"accept them at {place()}/{repo}, then: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return failure(why=f"{repo} has no such revision", fix=f"see {place()}/{repo}/commits/main")
    if isinstance(error, RepositoryNotFoundError):
        return failure(
            why=f"{place()} has no model {repo}, or it is private",
            fix="check the name; for a private one: hf auth login",
        )
    if isinstance(error, HfHubHTTPError):
        return _answered(error, doing, repo)
    if isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError):
        return _unreachable(error, doing)
    if isinstance(error, JSONDecodeError):
        return failure(why=f"{place()} answered with something that is not JSON", fix="try again later")
    if isinstance(error, OSError) and error.errno is not None:
        return failure(why=error.strerror or str(error), fix="free some space, or choose another place: HF_HOME")
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return failure(
            why="what came is not as long as the Hub says",
            fix="run the same command again; if it stays so, something between here and the Hub changes what it sends "
            "(a proxy?)",
        )
    if isinstance(error, RuntimeError):  # how hf_xet fails, which has tried again by itself
        return failure(why=one_line(error), fix="run the same command again; HF_HUB_DISABLE_XET=1 avoids hf_xet")
    if isinstance(error, ValueError) and "metadata" in str(error).lower():
        return failure(why=one_line(error), fix="this is a bug in zoo: report it with this message")
    return None


def _answered(error: HfHubHTTPError, what: str, repo: str) -> HubError:
    status = error.response.status_code
    said = error.server_message or error.response.headers.get("X-Error-Message")
    why = f"{place()} answered {status}" + (f": {one_line(said)}" if said else "")
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
    return f"{place()}/settings/tokens"


def _unreachable(error: BaseException, what: str) -> HubError:
    reason = "it does not answer" if isinstance(error, httpx.TimeoutException) else one_line(error)
    return HubError(
        what,
        why=f"{place()} (HF_ENDPOINT) cannot be reached: {reason}",
        fix="check the network and HF_ENDPOINT, and run the same command again",
    )


def _asked_to_wait(error: Exception) -> float:
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    return asked_to_wait(error.response.headers, error.response.status_code)
