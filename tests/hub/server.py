"""The server itself: finds a request's route, asks it, sends its answer; meets the ordered faults on the way."""

from __future__ import annotations

import re
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub import reading, writing
from tests.hub.faults import Fault, Faults
from tests.hub.messages import Answer, Refusal, Request
from tests.hub.repos import Repos
from tests.hub.tokens import Directory

Route = tuple[str, re.Pattern[str], Callable[[Request], Answer]]
_KIND = "(?P<kind>models|datasets)"
_SHORT_KIND = "(?:/(?P<kind>datasets))?"
_IDENTITY = r"(?P<identity>[\w.\-]+/[\w.\-]+)"
_REVISION = r"(?P<revision>[^/]+)"
_API = f"/api/{_KIND}/{_IDENTITY}"

ROUTES: list[Route] = [
    (method, re.compile(pattern), function)
    for method, pattern, function in (
        ("GET", "/api/whoami-v2", reading.whoami),
        ("GET", f"{_API}(?:/revision/{_REVISION})?", reading.info),
        ("GET", f"{_API}/auth-check", reading.auth_check),
        ("GET", f"{_API}/refs", reading.refs),
        ("GET", f"{_API}/commits/{_REVISION}", reading.commits),
        ("GET", f"{_API}/tree/{_REVISION}(?:/(?P<path>.*))?", reading.tree),
        ("POST", f"{_API}/paths-info/{_REVISION}", reading.paths_info),
        ("GET", f"{_SHORT_KIND}/{_IDENTITY}/resolve/{_REVISION}/(?P<path>.+)", reading.resolve),
        ("POST", "/api/repos/create", writing.create),
        ("DELETE", "/api/repos/delete", writing.delete),
        ("POST", "/api/validate-yaml", writing.validate_yaml),
        ("POST", f"{_API}/preupload/{_REVISION}", writing.preupload),
        ("POST", rf"{_SHORT_KIND}/{_IDENTITY}\.git/info/lfs/objects/batch", writing.lfs_batch),
        ("PUT", f"/lfs/{_KIND}/{_IDENTITY}/(?P<oid>[0-9a-f]+)", writing.lfs_put),
        ("POST", f"/lfs/{_KIND}/{_IDENTITY}/verify", writing.lfs_verify),
        ("POST", f"{_API}/commit/{_REVISION}", writing.commit),
    )
]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        # Read to its end whatever happens next: what is left unread would turn a closed connection into a reset one.
        body = self._body()
        if self.server.stopped:
            self.close_connection = True
            return
        line = f"{self.command} {unquote(urlsplit(self.path).path)}"
        self.server.requests.append(line)
        fault = self.server.faults.strike(line)
        if fault:
            time.sleep(fault.slow)
        if fault and fault.drop:
            self.close_connection = True
            return
        answer = (fault and fault.answer()) or self._answer(body)
        if fault and fault.lose:
            self.close_connection = True
            return
        self._send(answer, cut=bool(fault and fault.cut))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> Answer:
        address = urlsplit(self.path)
        path, method = unquote(address.path), "GET" if self.command == "HEAD" else self.command
        try:
            token = self.server.people.identify(self.headers.get("Authorization"))
            for route_method, pattern, function in ROUTES:
                match = pattern.fullmatch(path) if route_method == method else None
                if match:
                    query = parse_qs(address.query)
                    return function(Request(self.server, self.headers, match.groupdict(), query, body, token))
            raise Refusal(404, "EntryNotFound", f"no such endpoint: {method} {path}")
        except Refusal as refusal:
            return refusal.answer()
        except Exception:
            self.server.errors.append(traceback.format_exc())
            return Refusal(500, "", "the local Hub itself has failed; see Server.errors").answer()

    def _send(self, answer: Answer, *, cut: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.close_connection = self.close_connection or cut


class Server(ThreadingHTTPServer):
    """A Hub over the folders below `root`, on a port of its own. A context manager.

    Attributes:
        root: Holds `models/ORG/NAME` and `datasets/ORG/NAME`.
        people: Its users and tokens.
        token: A write token of the user `tester`, who is there from the start.
        repos: Its repositories.
        requests: "METHOD /path" of each request so far.
        errors: Tracebacks of the server's own failures; the fixture checks that there are none.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root = root
        self.repos = Repos(root)
        self.people = Directory()
        self.token = self.people.add_token("tester", value="hf_tester")
        self.faults = Faults()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.secret = secrets.token_hex()
        self.stopped = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, token: str = "") -> dict[str, str]:
        """What a subprocess needs in its environment to use this Hub and no other, as this token's user."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": token,
            "NO_PROXY": "127.0.0.1",
        }

    def fail(self, match: str, **how: Any) -> Fault:
        """Order a fault; see `Faults.add`."""
        return self.faults.add(match, **how)

    def stop(self) -> None:
        """Go away: from now on nobody listens at `url`."""
        if not self.stopped:
            self.stopped = True
            self.shutdown()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""

    def __enter__(self) -> Server:
        # Asked for often: `shutdown` waits until the loop looks up.
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def nowhere() -> str:
    """The address of a Hub that is not there: connections to it are refused at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
