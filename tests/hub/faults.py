"""Faults that a test orders: an endpoint that refuses, hangs up, stops midway or takes its time."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from tests.hub.messages import Answer, Refusal

# The Hub's own words, and the code by which the client tells the error over plain http.
_REFUSALS = {
    401: ("", "Invalid credentials in Authorization header"),
    403: ("", "Authorization error."),
    404: ("RepoNotFound", "Repository not found"),
    429: ("", "We had to rate limit you. Retry later."),
    500: ("", "Internal Error - We're working hard to fix this as soon as possible!"),
    503: ("", "Service Unavailable"),
}


@dataclass
class Fault:
    """One order. `hits` counts the requests that it struck."""

    match: re.Pattern[str]
    status: int | None
    drop: bool
    lose: bool
    cut: bool
    slow: float
    times: int | None
    after: int
    code: str | None
    message: str | None
    retry_after: int
    hits: int = 0
    passed: int = 0

    def answer(self) -> Answer | None:
        """What is sent instead of the route's answer."""
        if self.status is None:
            return None
        code, message = _REFUSALS.get(self.status, ("", "Refused"))
        headers = {"Retry-After": str(self.retry_after)} if self.status == 429 else {}
        code = code if self.code is None else self.code
        return Refusal(self.status, code, self.message or message, headers=headers).answer()


class Faults:
    """The orders that stand; the earliest that matches a request strikes it."""

    def __init__(self) -> None:
        self._orders: list[Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        match: str,
        *,
        status: int | None = None,
        drop: bool = False,
        lose: bool = False,
        cut: bool = False,
        slow: float = 0.0,
        times: int | None = 1,
        after: int = 0,
        code: str | None = None,
        message: str | None = None,
        retry_after: int = 0,
    ) -> Fault:
        """Order a fault.

        Args:
            match: A regular expression for the whole of "METHOD /path" (no query).
            status: Answer with this one and do nothing: 401, 403, 404, 429 (with Retry-After), 500, 503, …
            drop: Close the connection without doing anything or answering.
            lose: Do what is asked, then close the connection without answering.
            cut: Answer with the whole answer's headers and half of its body, then close the connection.
            slow: Seconds to wait first; alone, the answer then comes as ever.
            times: How many requests it strikes; None: all of them.
            after: How many matching requests pass before.
            code: X-Error-Code instead of the status's usual one; "" sends none.
            message: Instead of the status's usual one.
            retry_after: Seconds, of a 429.

        Returns:
            The order; its `hits` say whether it has struck.
        """
        kinds = [status is not None, drop, lose, cut]
        if sum(kinds) > 1 or not (any(kinds) or slow):
            raise ValueError("a fault is one of status, drop, lose and cut, each slow or not, or only slow")
        fault = Fault(re.compile(match), status, drop, lose, cut, slow, times, after, code, message, retry_after)
        with self._lock:
            self._orders.append(fault)
        return fault

    def clear(self) -> None:
        """From now on everything works."""
        with self._lock:
            self._orders.clear()

    def strike(self, line: str) -> Fault | None:
        """The fault that this request ("METHOD /path") meets."""
        with self._lock:
            for fault in self._orders:
                if not fault.match.fullmatch(line) or fault.hits == fault.times:
                    continue
                if fault.passed < fault.after:
                    fault.passed += 1
                    continue
                fault.hits += 1
                return fault
        return None
