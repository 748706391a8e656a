"""Fetch: every way in which a source fails ends in one sentence and in time, and a source that recovers is heard."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lakehouse.core.errors import SourceError
from lakehouse.landing.sources import fetch as module
from lakehouse.landing.sources.fetch import fetch, shown

Reply = Callable[[BaseHTTPRequestHandler], None]


class Source:
    """A server on 127.0.0.1 that gives each request the next of its replies, the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.asked = 0
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.asked += 1
                replies[min(source.asked, len(replies)) - 1](self)

            def log_message(self, format, *arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server.server_address[1]}/gps?token=secret"

    def fetch(self, *, cap: int = 1_000_000) -> module.Answer:
        return fetch(self.url, setting="LAKEHOUSE_X_URL", check=check, cap=cap, pause=0.01)


def check(body: bytes) -> None:
    if body != b"whole":
        raise ValueError("It is not whole.")


def reply(status: int = 200, body: bytes = b"whole", **headers: str) -> Reply:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(2)


def dripping(piece: bytes) -> Reply:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(0.1)

    return send


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    reply(body=b"who", Content_Length="5")(handler)


@pytest.fixture
def source() -> Iterator[Callable[..., Source]]:
    opened = []

    def make(*replies: Reply) -> Source:
        opened.append(Source(*replies))
        return opened[-1]

    yield make
    for one in opened:
        one.server.shutdown()
        one.server.server_close()


def test_an_answer_comes_with_its_instant_and_the_sources_clock(source):
    before = time.time_ns() // 1_000_000
    found = source(reply(body=gzip.compress(b"whole"), Content_Encoding="gzip")).fetch()
    assert found.body == b"whole"
    assert before <= found.at <= time.time_ns() // 1_000_000
    assert abs(found.source_at - found.at) < 2_000


@pytest.mark.parametrize("first", [reply(500), reply(503), reply(429), reply(body=b"half"), cut_off])
def test_what_may_be_better_next_time_is_asked_again(source, first):
    feed = source(first, first, reply())
    assert feed.fetch().body == b"whole"
    assert feed.asked == 3


@pytest.mark.parametrize(
    ("replies", "expected", "asked"),
    [
        (reply(500), "answered 500", 3),
        (reply(404), "answered 404", 1),
        (reply(body=b""), "no usable answer: It is not whole", 3),
        (reply(body=b"w" * 5_000), "more than 1,000 bytes", 1),
        (reply(body=gzip.compress(b"w" * 5_000_000), Content_Encoding="gzip"), "more than 1,000 bytes", 1),
        (reply(302, Location="http://127.0.0.1:9/"), "did not answer", 3),
    ],
    ids=["500", "404", "empty", "large", "bomb", "elsewhere"],
)
def test_every_failure_is_one_sentence_without_the_secrets_of_the_address(source, replies, expected, asked):
    feed = source(replies)
    with pytest.raises(SourceError, match=expected) as caught:
        feed.fetch(cap=1_000)
    assert feed.asked == asked
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("piece", [b"x", b"x" * (1 << 16)], ids=["bytes", "chunks"])
def test_a_source_that_never_ends_is_given_up_in_time(source, monkeypatch, piece):
    monkeypatch.setattr(module, "TRY_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"too slow: the answer was not whole after 0\.5 s"):
        source(dripping(piece)).fetch(cap=1 << 30)
    assert time.monotonic() - started < 5


def test_a_source_that_does_not_answer_is_given_up_in_time(source, monkeypatch):
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"did not answer: ReadTimeout"):
        source(silent).fetch()
    assert time.monotonic() - started < 5


def test_all_tries_together_end_in_time(source, monkeypatch):
    monkeypatch.setattr(module, "ALL_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(SourceError, match="too slow"):
        source(dripping(b"x")).fetch()
    assert time.monotonic() - started < 6


def test_no_server_is_an_error_like_any_other(source):
    feed = source(reply())
    feed.server.shutdown()
    feed.server.server_close()
    with pytest.raises(SourceError, match="did not answer"):
        feed.fetch()


def test_what_people_see_of_an_address(source):
    assert shown("https://u:p@host/a?key=1#x") == "https://host/a"
    assert shown("file:///folder") == "file:///folder"


def test_gzip_that_no_header_tells_of_is_unpacked_and_what_is_none_or_too_large_is_not():
    assert Source(reply(body=gzip.compress(b"whole"))).fetch().body == b"whole"
    assert module.unpacked(b"\x1f\x8bno", cap=10) == b"\x1f\x8bno"
    large = gzip.compress(b"x" * 1_000)
    assert module.unpacked(large, cap=999) == large and module.unpacked(large, cap=1_000) == b"x" * 1_000


def test_a_rest_that_is_asked_for_is_waited_and_one_that_is_longer_than_the_minute_ends_it():
    source = Source(reply(429, Retry_After="1"), reply())
    begun = time.monotonic()
    assert source.fetch().body == b"whole" and time.monotonic() - begun >= 1
    busy = Source(reply(503, Retry_After="3600"))
    begun = time.monotonic()
    with pytest.raises(SourceError, match="asks for 3600 s of rest"):
        busy.fetch()
    assert busy.asked == 1 and time.monotonic() - begun < 1


def test_a_redirect_is_followed_to_another_address():
    target = Source(reply())
    assert Source(reply(302, b"", Location=target.url)).fetch().body == b"whole"
