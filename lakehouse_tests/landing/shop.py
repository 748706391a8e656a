"""A web shop's API for tests: real HTTP on 127.0.0.1, and everything that such an API does wrong when it is told to.

In a process of its own:  python -m lakehouse_tests.landing.shop RECORDS.json   prints its URL and serves until stdin ends.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lakehouse.sample.pedidos import page
from lakehouse.sample.serving import served

Record = dict[str, Any]


@dataclass
class Shop:
    """Its orders, what it does to the next requests, and what it was asked.

    Args:
        faults: one for each request to come: a status, or a word of `_Handler.misbehave`. Then it answers well again.
    """

    orders: list[Record]
    token: str = ""
    faults: list[Any] = field(default_factory=list)
    always: Any = None
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/pedidos"


@contextmanager
def serve(shop: Shop) -> Iterator[Shop]:
    class Handler(_Handler):
        own = shop

    with served(Handler) as shop.port:
        yield shop


class _Handler(BaseHTTPRequestHandler):
    own: Shop

    def do_GET(self) -> None:
        shop = self.own
        shop.asked.append(self.path)
        if shop.token and self.headers.get("Authorization") != f"Bearer {shop.token}":
            self.answer(b"{}", status=401)
            return
        parts = urlsplit(self.path)
        found = page(shop.orders, parse_qs(parts.query), path=parts.path)
        fault = shop.faults.pop(0) if shop.faults else shop.always
        if fault is None:
            self.answer(json.dumps(found).encode())
        elif isinstance(fault, int):
            self.answer(b"sorry", status=fault)
        elif isinstance(fault, tuple):
            self.answer(b"sorry", status=fault[0], headers={"Retry-After": str(fault[1])})
        else:
            self.misbehave(fault, found)

    def misbehave(self, fault: str, found: Record) -> None:
        body = json.dumps(found).encode()
        if fault == "not json":
            self.answer(b"<html>maintenance</html>")
        elif fault == "NaN":
            self.answer(body.replace(b'"valor": ', b'"valor": NaN, "x": ', 1))
        elif fault == "broken off":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
        elif fault == "drips":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:  # it was left
                pass
        elif fault == "circle":
            self.answer(json.dumps({**found, "next": self.path}).encode())
        elif fault == "other origin":
            self.answer(json.dumps({**found, "next": "http://127.0.0.2:9/pedidos"}).encode())
        elif fault == "redirect":
            self.answer(b"", status=302, headers={"Location": "http://127.0.0.2:9/"})
        elif fault == "repeated":  # the page before it once more; nobody can say how many there should be
            self.answer(json.dumps({"data": self.own.orders[:100], "next": found["next"]}).encode())
        elif fault == "fewer than it says":
            self.answer(json.dumps({**found, "total": found["total"] + 1}).encode())
        elif fault == "no records":
            self.answer(b'{"data": [1, 2], "next": null}')
        else:
            raise ValueError(fault)

    def answer(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    with serve(Shop(json.loads(Path(sys.argv[1]).read_text()))) as shop:
        print(shop.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
