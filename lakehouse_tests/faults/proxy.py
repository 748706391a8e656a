"""A proxy before an object store that misbehaves on request.

    drop     the request is applied and the reply is lost: the connection is closed instead
    refuse   503 SlowDown, the store never sees the request
    reset    the connection is reset before the request is passed on
    delay    passed on after some seconds

It passes requests on as they are (the signature covers the host they were sent to), one thread per connection, on 127.0.0.1.
It is a process of its own: delta-rs keeps Python's lock while it waits for an answer. It is told of faults, and says what
happened, under a path that no bucket has.
"""

import http.client
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["drop", "refuse", "reset", "delay"]
_SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


_CONTROL = "/_faults"


@dataclass(frozen=True)
class Fault:
    """What happens to the next `times` requests of a method whose path matches, or to all of them for `seconds`."""

    kind: Kind
    path: str = ""
    methods: tuple[str, ...] = ("PUT",)
    times: int = 1
    seconds: float = 0.0
    delay: float = 0.5


class Proxy:
    """A running proxy, as a test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def plan(self, *faults: Fault) -> None:
        """From now on these, instead of those before."""
        body = json.dumps([asdict(fault) for fault in faults]).encode()
        urllib.request.urlopen(urllib.request.Request(self.url + _CONTROL, body, method="PUT"), timeout=10).close()

    @property
    def happened(self) -> int:
        """How often the faults that are planned have met a request."""
        with urllib.request.urlopen(self.url + _CONTROL, timeout=10) as reply:
            return int(json.load(reply))


@contextmanager
def before(target: str) -> Iterator[Proxy]:
    """A proxy before the store at `target`, for the block."""
    from lakehouse_tests.conftest import with_parent  # not for the process itself: pytest takes a second to load

    command = with_parent(sys.executable, "-m", "lakehouse_tests.faults.proxy", target)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Proxy(process.stdout.readline().strip())
        finally:
            process.kill()


# --- the process -----------------------------------------------------------------------------------------------------


class _Plan:
    """The faults, and how often each happened."""

    def __init__(self, faults: list[Fault]) -> None:
        now = time.monotonic()
        self.entries = [[fault, now + fault.seconds, 0] for fault in faults]
        self.lock = threading.Lock()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            for entry in self.entries:
                fault, until, count = entry
                active = time.monotonic() < until if fault.seconds else count < fault.times
                if active and method in fault.methods and re.search(fault.path, path):
                    entry[2] += 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: str
    plan = _Plan([])

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == _CONTROL:
            return self._control(body)
        fault = self.plan.take(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == "reset":
            # Closed with nothing left to send, the kernel resets instead of ending.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self._end()
        if kind == "refuse":
            return self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        if fault and kind == "delay":
            time.sleep(fault.delay)
        location = urlsplit(self.target)
        store = http.client.HTTPConnection(location.hostname or "", location.port, timeout=60)
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                store.putheader(name, value)
            store.endheaders(body or None)
            reply = store.getresponse()
            content = reply.read()
        finally:
            store.close()
        if kind == "drop":
            return self._end()
        return self._answer(reply.status, reply.getheaders(), content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _control(self, body: bytes) -> None:
        if self.command == "PUT":
            type(self).plan = _Plan([Fault(**{**fault, "methods": tuple(fault["methods"])}) for fault in json.loads(body)])
        self._answer(200, [], json.dumps(sum(entry[2] for entry in self.plan.entries)).encode())

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        own = ("transfer-encoding", "connection", "content-length")
        for name, value in headers:
            if name.lower() not in own or (name.lower() == "content-length" and self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _end(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing: it would be a line per request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is none."""


if __name__ == "__main__":
    _Handler.target = sys.argv[1]
    server = _Server(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
