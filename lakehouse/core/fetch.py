"""Fetch: one HTTP answer, whole, of bounded size and time, and judged by whoever wants it.

    fetch(url, check) ─▶ attempt ─▶ attempt ─▶ attempt ─▶ Answer, or SourceError that says what the last attempt met

Asked again with growing pauses: no connection, no answer in time, 429, 5xx, an answer that `check` refuses (it may have been
cut off). Not asked again: other 4xx, and an answer that is too large. What the answer means does not belong here.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from lakehouse.core.errors import SourceError

ATTEMPTS = 3
#: Seconds: to connect, between two pieces, and for a whole attempt. Three attempts and their pauses end within a minute.
CONNECT, PIECE, WHOLE = 5.0, 10.0, 15.0
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """An answer, the instant at which it was complete and the source's own clock, both in milliseconds since 1970."""

    body: bytes
    at: int
    source_at: int | None = None


class _AgainError(SourceError):
    """Another attempt may do better."""


def shown(url: str) -> str:
    """A URL for people: without user, password and query."""
    return re.sub(r"[?#].*", "", re.sub(r"//[^/@]*@", "//", url))


def fetch(url: str, *, check: Callable[[bytes], object], cap: int, attempts: int = ATTEMPTS, pause: float = 0.5) -> Answer:
    """GET a URL.

    Args:
        check: raises ValueError, whose text is a sentence, for a body that is no answer.
        cap: the largest body in bytes, after decompression.
        pause: seconds; before the second attempt up to twice that, then up to four times.

    Raises:
        SourceError: no attempt gave a usable answer.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception_type(_AgainError),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=pause, max=5),
        reraise=True,
    )
    return retrying(_attempt, url, check, cap)


def _attempt(url: str, check: Callable[[bytes], object], cap: int) -> Answer:
    import requests

    where, ends = shown(url), time.monotonic() + WHOLE
    try:
        with requests.get(url, stream=True, timeout=(CONNECT, PIECE)) as response:
            if response.status_code != 200:
                kind = _AgainError if response.status_code in (408, 425, 429) or response.status_code >= 500 else SourceError
                raise kind(f"{where} answered HTTP {response.status_code}.", remedy="Look at the source, and at its address.")
            body = bytearray()
            for piece in response.iter_content(_CHUNK):
                body += piece
                if len(body) > cap:
                    raise SourceError(f"{where} answered more than {cap:,} bytes.", remedy="Look at what it sends.")
                if time.monotonic() > ends:
                    raise _AgainError(f"{where} did not finish within {WHOLE:.0f} s.", remedy="Look at the source.")
            date = response.headers.get("Date", "")
    except requests.RequestException as error:
        # The library's own text may hold the whole URL.
        raise _AgainError(
            f"{where} did not answer ({type(error).__name__}).", remedy="Look at the source and the network."
        ) from None
    content = bytes(body)
    try:
        check(content)
    except ValueError as error:
        raise _AgainError(f"{where} gave no usable answer: {error}", remedy="Look at what it sends.") from None
    return Answer(content, time.time_ns() // 1_000_000, _milliseconds(date))


def _milliseconds(date: str) -> int | None:
    try:
        return round(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return None
