"""A REST API for tests: real HTTP on 127.0.0.1, every way in which pages follow each other, and every fault when it is told to.

`python -m lakehouse_tests.landing.rest_stub RECORDS.json STYLE` prints its URL and serves until stdin ends.
"""

import base64
import gzip
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from lakehouse.sample.serving import served

Record = dict[str, Any]
#: `token` is a cursor at another path, under another name.
Style = Literal["next", "link", "cursor", "offset", "pages", "single", "token"]
STYLES: tuple[Style, ...] = ("next", "link", "cursor", "offset", "pages", "single")
PROTOBUF = b'\n\x0d\n\x032.0\x10\x00\x18\xa0\xd0\xc1\xb7\x06\x12\x1f\n\x01a"\x1a\n\x06\n\x00*\x02T1'
ELSEWHERE = "http://127.0.0.2:9"


@dataclass
class Stub:
    """Its lists by path, how it paginates, what it does to requests, and what it was asked.

    Args:
        lists: `{"/v1/pedidos": [record, ...]}`; `updated_since` filters what has `updated_at`.
        faults: `{(path, page): fault}`, each once: a status, `(status, Retry-After)`, or a word of `_Handler.misbehave`.
        always: what it does to every request.
        styles: of some paths, where they are not as the others.
        secret: a bearer token, `user:password`, or a key that the header X-Api-Key or the parameter `key` has.
        ahead: how far its clock is ahead of ours.
        wait: seconds before each answer.
    """

    lists: dict[str, list[Record]]
    style: Style = "next"
    styles: dict[str, Style] = field(default_factory=dict)
    size: int = 10
    faults: dict[tuple[str, int], Any] = field(default_factory=dict)
    always: Any = None
    secret: str = ""
    tokens: int = 0
    ahead: timedelta = timedelta()
    wait: float = 0.0
    asked: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve(stub: Stub) -> Iterator[Stub]:
    class Handler(_Handler):
        own = stub

    with served(Handler, port=stub.port) as stub.port:
        yield stub


class _Handler(BaseHTTPRequestHandler):
    own: Stub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.respond({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if urlsplit(self.path).path == "/token":
            self.token(dict(parse_qsl(body.decode())))
        else:
            self.respond(json.loads(body))

    def respond(self, posted: Record) -> None:
        stub, parts = self.own, urlsplit(self.path)
        time.sleep(stub.wait)
        given = {**dict(parse_qsl(parts.query)), **{name: str(value) for name, value in posted.items()}}
        with stub.lock:
            stub.asked.append(self.path)
            stub.at.append(time.monotonic())
        if stub.secret and not self.is_let_in(given):
            self.answer(b"{}", status=401)
            return
        if parts.path not in stub.lists:
            self.answer(b"{}", status=404)
            return
        given.pop("key", None)
        number, body, headers = self.page(parts.path, given)
        with stub.lock:
            fault = stub.faults.pop((parts.path, number), stub.always)
        if fault is None:
            self.answer(json.dumps(body, ensure_ascii=False).encode(), headers=headers)
        elif isinstance(fault, int):
            self.answer(b"sorry", status=fault)
        elif isinstance(fault, tuple):
            self.answer(b"sorry", status=fault[0], headers={"Retry-After": str(fault[1])})
        else:
            self.misbehave(fault, body, headers)

    def page(self, path: str, given: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """Number, body and headers of the page that was asked for."""
        stub = self.own
        since = given.get("updated_since", "")[:19]
        records = [record for record in stub.lists[path] if str(record.get("updated_at", "9")) >= since]
        size, style = stub.size, stub.styles.get(path, stub.style)
        if style == "single":
            return 1, records, {}
        if style == "offset":
            start = int(given["offset"])
        elif style in ("cursor", "token"):
            after = given.get("after") or given.get("cursor")
            start = int(base64.b64decode(after).decode()[3:]) if after else 0
        else:
            start = (int(given.get("page", "1")) - 1) * size
        number, more = start // size + 1, start + size < len(records)
        found = records[start : start + size]
        link = f"{path}?{urlencode({**given, 'page': number + 1})}"
        if style == "next":
            return number, {"data": found, "total": len(records), "next": link if more else None}, {}
        if style == "link":
            return number, found, {"Link": f'<{stub.url}{link}>; rel="next", <{stub.url}>; rel="first"'} if more else {}
        if style in ("cursor", "token"):
            after = base64.b64encode(f"at {start + size}".encode()).decode() if more else ""
            at_top = {"data": found, "next": after or None}
            return number, at_top if style == "token" else {"result": {"items": found}, "paging": {"after": after}}, {}
        return number, {"data": found}, {}

    def misbehave(self, fault: str, body: Any, headers: dict[str, str]) -> None:
        whole = json.dumps(body, ensure_ascii=False).encode()
        plain: dict[str, tuple[bytes, dict[str, str]]] = {
            "html": (b"<!DOCTYPE html><html><body>Bad gateway</body></html>", {"Content-Type": "text/html"}),
            "xml": (b'<?xml version="1.0"?><erro>manutencao</erro>', {}),
            "protobuf": (PROTOBUF, {}),
            "empty": (b"", {}),
            "truncated": (whole[: len(whole) // 2], headers),
            "gzip without its header": (gzip.compress(whole), headers),
            "gzip": (gzip.compress(whole), {**headers, "Content-Encoding": "gzip"}),
            "broken gzip": (gzip.compress(whole)[:-20], headers),
            "latin-1": (whole.decode().encode("latin-1"), {**headers, "Content-Type": "application/json; charset=ISO-8859-1"}),
            "latin-1 unnamed": (whole.decode().encode("latin-1"), headers),
            "surrogate": (json.dumps(body).encode().replace(b"S\\u00e3o", b"S\\ud800o", 1), headers),
        }
        if fault in plain:
            content, own = plain[fault]
            self.answer(content, headers=own)
        elif fault in ("cut off", "drips"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            with suppress(OSError):
                for byte in whole[:-1] if fault == "drips" else [*whole[: len(whole) // 2]]:
                    self.wfile.write(bytes([byte]))
                    if fault == "drips":
                        time.sleep(0.05)
            self.close_connection = True
        elif fault == "redirect":
            self.answer(b"", status=302, headers={"Location": f"{ELSEWHERE}/v1?key=s3cret"})
        elif fault == "loops":
            self.answer(*self.looping(body))
        elif fault == "elsewhere":
            link = f"{ELSEWHERE}/v1/pedidos?page=2"
            changed = {**body, "next": link} if isinstance(body, dict) else body
            self.answer(json.dumps(changed).encode(), headers={"Link": f'<{link}>; rel="next"'})
        elif fault == "blank":  # no record, and the way to the page after this one
            without = {**body, "result": {"items": []}} if isinstance(body, dict) and "result" in body else []
            without = {**body, "data": []} if isinstance(body, dict) and "data" in body else without
            self.answer(json.dumps(without).encode(), headers=headers)
        elif fault == "repeats":  # the page before this one, with the way to the page after this one
            before = self.own.lists[urlsplit(self.path).path][: self.own.size]
            changed = {**body, "data": before} if isinstance(body, dict) and "data" in body else before
            if isinstance(body, dict) and "result" in body:
                changed = {**body, "result": {"items": before}}
            self.answer(json.dumps(changed, ensure_ascii=False).encode(), headers=headers)
        else:
            raise ValueError(fault)

    def looping(self, body: Any) -> tuple[bytes, int, dict[str, str]]:
        """A page that names itself as the next one."""
        given = dict(parse_qsl(urlsplit(self.path).query))
        if isinstance(body, dict) and "paging" in body:
            body = {**body, "paging": {"after": given.get("after") or base64.b64encode(b"at 0").decode()}}
        elif isinstance(body, dict):
            body = {**body, "next": self.path}
        return json.dumps(body, ensure_ascii=False).encode(), 200, {"Link": f'<{self.own.url}{self.path}>; rel="next"'}

    def is_let_in(self, given: dict[str, str]) -> bool:
        secret, header = self.own.secret, self.headers.get("Authorization", "")
        basic = f"Basic {base64.b64encode(secret.encode()).decode()}"
        return header in (f"Bearer {secret}", basic) or secret in (self.headers.get("X-Api-Key"), given.get("key"))

    def token(self, form: dict[str, str]) -> None:
        """A token for the client `loja`; each token is another one, and the one before it ends."""
        if self.headers.get("Authorization") != f"Basic {base64.b64encode(b'loja:s3cret').decode()}":
            self.answer(b'{"error": "invalid_client"}', status=401)
            return
        assert form["grant_type"] == "client_credentials"
        with self.own.lock:
            self.own.tokens += 1
            self.own.secret = f"token-{self.own.tokens}"
        self.answer(json.dumps({"access_token": self.own.secret, "expires_in": 3600}).encode())

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        self.send_header("Date", format_datetime(datetime.now(UTC) + self.own.ahead, usegmt=True))
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    style: Any = sys.argv[2]
    with serve(Stub(json.loads(Path(sys.argv[1]).read_text()), style=style)) as stub:
        print(stub.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
