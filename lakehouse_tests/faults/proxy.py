"""A proxy before an object store that misbehaves on request.

    drop     the request is applied and the reply is lost: the connection is closed instead
    refuse   503 SlowDown, the store never sees the request
    reset    the connection is reset before the request is passed on
    delay    passed on after some seconds

It passes requests on as they are (the signature covers the host they were sent to), one thread per connection, on 127.0.0.1.
"""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["drop", "refuse", "reset", "delay"]
_SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path matches, or to all of them for `seconds`."""

    kind: Kind
    path: str = ""
    methods: tuple[str, ...] = ("PUT",)
    times: int = 1
    seconds: float = 0.0
    delay: float = 0.5
    happened: int = 0
    until: float = field(default=0.0, init=False)


class Proxy:
    """The proxy's address, and its faults."""

    def __init__(self, url: str, target: str) -> None:
        self.url, self.target = url, target
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def plan(self, *faults: Fault) -> None:
        """From now on these, instead of those before."""
        for fault in faults:
            fault.until = time.monotonic() + fault.seconds if fault.seconds else 0.0
        with self._lock:
            self._faults = list(faults)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            for fault in self._faults:
                active = time.monotonic() < fault.until if fault.until else fault.happened < fault.times
                if active and method in fault.methods and re.search(fault.path, path):
                    fault.happened += 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.take(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == "reset":
            # Closed with nothing left to send, the kernel resets instead of ending.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self._end()
        if kind == "refuse":
            return self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        if fault and kind == "delay":
            time.sleep(fault.delay)
        place = urlsplit(self.proxy.target)
        store = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
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


@contextmanager
def before(target: str) -> Iterator[Proxy]:
    """A proxy before the store at `target`, for the block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", target)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"proxy": proxy})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
