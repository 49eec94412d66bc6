"""What the Hub's refusals mean: calls to it, with every failure as a message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from json import JSONDecodeError
from typing import Any, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever HTTP library it is built on

from zoo.errors import HubError, ZooError
from zoo.events import Listener, Note, ignore
from zoo.models import hub_client
from zoo.models.hub_client import one_line, place

T = TypeVar("T")


@contextlib.contextmanager
def session(emit: Listener = ignore) -> Iterator[hub_client.HubSession]:
    """`zoo.models.hub_client.session`, in which every wait is an event."""
    with hub_client.session(lambda text: emit(Note(text))) as hub:
        yield hub


def retrying(call: Callable[[], T], what: str, *, repo: str = "", emit: Listener = ignore) -> T:
    """Call within a session, and again after a failure that `hub_client` cannot mend by sending a request again.

    Args:
        call: Safe to repeat.
        what: What could not be done if it fails: "me/cats cannot be read".
        repo: "ORG/NAME", for the fix.
        emit: Told about every wait.

    Raises:
        HubError: The Hub refused, or the last try failed too; the cause and what to do about it.
    """
    wait = hub_client.FIRST_WAIT
    for left in reversed(range(hub_client.TRIES)):
        try:
            return call()
        except ZooError:
            raise
        except Exception as raised:
            error = _cause(raised)
            pause = max(wait, _asked_to_wait(error))
            if not left or not transient(error) or pause > hub_client.LONGEST_WAIT:
                known = refusal(error, what, repo)
                if known is None:
                    raise
                raise known from raised
            emit(Note(f"{_heard(error)}; trying again in {pause:.0f} s"))
            hub_client.sleep(pause)
            wait *= 2
    raise AssertionError("the last try returns or raises")


def _cause(error: Exception) -> Exception:
    """The failure behind the library's "Error while uploading"."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def transient(error: Exception) -> bool:
    """Whether the whole call may work in a moment: a commit that failed, an answer that broke off or makes no sense."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in hub_client.TRANSIENT and hub_client.is_commit(error.response.request)
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
    return request is not None and hub_client.is_commit(request)


def refusal(error: Exception, what: str, repo: str = "") -> HubError | None:
    """A failure as a message; None: it is none of the Hub's."""
    if isinstance(error, hub_client.Unreachable):
        return _unreachable(error, what)
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(what, why="HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE and run again")
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(what, why=f"nobody is logged in to {place()}", fix="hf auth login, or set HF_TOKEN")
    if isinstance(error, LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return HubError(
                what,
                why="HF_HUB_OFFLINE is set, and it is not in the cache",
                fix=f"unset HF_HUB_OFFLINE; or bring the cache of a machine where `hf download {repo}` has run",
            )
        cause = error.__cause__
        known = refusal(cause, what, repo) if isinstance(cause, HfHubHTTPError | hub_client.Unreachable) else None
        return known or _unreachable(cause or error, what)
    if isinstance(error, GatedRepoError):
        return HubError(
            what, why="its terms must be accepted first", fix=f"accept them at {place()}/{repo}, then: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(what, why=f"{repo} has no such revision", fix=f"see {place()}/{repo}/commits/main")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            what,
            why=f"{place()} has no model {repo}, or it is private",
            fix="check the name; for a private one: hf auth login",
        )
    if isinstance(error, HfHubHTTPError):
        return _answered(error, what, repo)
    if isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError):
        return _unreachable(error, what)
    if isinstance(error, JSONDecodeError):
        return HubError(what, why=f"{place()} answered with something that is not JSON", fix="try again later")
    if isinstance(error, OSError) and error.errno is not None:
        return HubError(what, why=error.strerror or str(error), fix="free some space, or choose another place: HF_HOME")
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubError(
            what, why="what came is not as long as the Hub says", fix="run the same command again; if it stays so, "
            "something between here and the Hub changes what it sends (a proxy?)"
        )  # fmt: skip
    if isinstance(error, RuntimeError):  # how hf_xet fails, which has tried again by itself
        return HubError(what, why=one_line(error), fix="run the same command again; HF_HUB_DISABLE_XET=1 avoids hf_xet")
    if isinstance(error, ValueError) and "metadata" in str(error).lower():
        return HubError(what, why=one_line(error), fix="this is a bug in zoo: report it with this message")
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


def _heard(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {error.response.status_code}"
    return "the Hub's answer makes no sense" if isinstance(error, JSONDecodeError) else "the Hub hung up"


def _asked_to_wait(error: Exception) -> float:
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    return hub_client.asked_to_wait(error.response.headers, error.response.status_code)
