"""HTTP answers, whole, of bounded size and time.

    ask(url)          ─▶ one try:  status 200, its whole body            ─▶ Reply   or SourceDownError (worth another try:
    fetch(url, check) ─▶ ask ─▶ ask ─▶ ask, and a body that `check` takes ─▶ Answer  no answer, too slow, cut off, 408, 425, 429,
                                                                                    5xx) or SourceRefusedError (it is not)

What an answer means does not belong here, nor what happens to it.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import LakehouseError, SourceDownError, SourceRefusedError
from lakehouse.landing.sources.bodies import unpacked

if TYPE_CHECKING:
    from tenacity import RetryCallState

#: Tries of `fetch`; seconds of one and of all with their pauses, so that a capture ends within its minute.
TRIES, TRY_SECONDS, ALL_SECONDS = 3, 15.0, 45.0
_CONNECT_SECONDS, _SILENT_SECONDS = 5.0, 10.0
_CHUNK = 1 << 16
#: Worth another try besides every 5xx: request timeout, too early, too many requests.
_BUSY = (408, 425, 429)


@dataclass(frozen=True)
class Endpoint:
    """Who is asked, for messages. `token` is the setting with the credential, where there is one."""

    shown: str
    setting: str
    token: str = ""


@dataclass(frozen=True)
class Reply:
    """The body of an answer with status 200, decompressed, and its headers."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """An answer, the instant at which it was complete and the source's own clock, both in milliseconds since 1970."""

    body: bytes
    at: int
    source_at: int | None = None


def shown(url: str) -> str:
    """A URL for people: without user, password and query."""
    return re.sub(r"[?#].*", "", re.sub(r"//[^/@]*@", "//", url))


def new_session() -> Any:
    """A `requests.Session` that takes no proxy and no .netrc which nobody named."""
    import requests

    session = requests.Session()
    session.trust_env = False
    return session


def ask(
    session: Any,
    url: str,
    endpoint: Endpoint,
    *,
    seconds: float,
    cap: int,
    silent: float | None = None,
    follow: bool = False,
    method: str = "GET",
    query: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask once.

    Args:
        session: a `requests.Session`.
        seconds: for the whole answer, however slowly it drips.
        cap: the largest body in bytes, after decompression.
        silent: seconds between two pieces; `seconds` by default.
        follow: go where a redirect says; otherwise it is a refusal.
        content: sent as JSON; `form` as the fields of a form.

    Raises:
        SourceDownError: worth another try.
        SourceRefusedError: not.
    """
    import requests

    ends = time.monotonic() + seconds
    body = bytearray()
    try:
        timeout = (min(_CONNECT_SECONDS, seconds), min(silent or seconds, seconds))
        sent = {"params": query, "json": content, "data": form, "headers": headers}
        options = {"stream": True, "timeout": timeout, "allow_redirects": follow}
        with session.request(method, url, **sent, **options) as reply:
            _check_status(endpoint, reply)
            # One receive at a time: a server that drips would keep a read of a whole chunk waiting for ever.
            while chunk := reply.raw.read1(_CHUNK, decode_content=True):
                body += chunk
                _check_bounds(endpoint, len(body), cap=cap, ends=ends, seconds=seconds)
            _check_whole(endpoint, len(body), reply.headers)
            return Reply(bytes(body), reply.headers)
    except LakehouseError:
        raise
    except (requests.RequestException, OSError, ValueError) as error:
        raise _broken(endpoint, error) from None  # the library's own text may hold the whole URL
    except Exception as error:  # urllib3's own, which requests leaves as they are while a body is read
        if not type(error).__module__.startswith("urllib3"):
            raise
        raise _broken(endpoint, error) from None


def fetch(url: str, *, setting: str, check: Callable[[bytes], object], cap: int, pause: float = 0.5) -> Answer:
    """Ask until there is a usable answer, `TRIES` times with growing pauses, or as long as it asks for.

    Args:
        setting: the one that holds the URL.
        check: raises ValueError, whose text is a sentence, for a body that is no answer.
        cap: the largest body in bytes, after decompression.
        pause: seconds; before the second try up to twice that, then up to four times.

    Raises:
        SourceError: no try gave a usable answer.
    """
    import requests
    from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

    ends = time.monotonic() + ALL_SECONDS
    endpoint = Endpoint(shown(url), setting)

    def once() -> Answer:
        with requests.Session() as session:
            left = min(TRY_SECONDS, max(ends - time.monotonic(), 1.0))
            reply = ask(session, url, endpoint, seconds=left, silent=_SILENT_SECONDS, cap=cap, follow=True)
        at = time.time_ns() // 1_000_000
        body = unpacked(reply.body, cap=cap)
        try:
            check(body)
        except ValueError as error:
            raise SourceDownError(f"{endpoint.shown} gave no usable answer: {error}", remedy="Look at what it sends.") from None
        return Answer(body, at, _milliseconds(reply.headers.get("Date", "")))

    def rest(state: "RetryCallState") -> float:
        """The pause before the next try: a growing one, or as long as it asked for."""
        return max(growing(state), _asked(state))

    def is_late(state: "RetryCallState") -> bool:
        """Whether the rest that it asked for is longer than this may take."""
        return time.monotonic() + _asked(state) >= ends

    growing = wait_random_exponential(multiplier=pause, max=5)
    retrying = Retrying(
        retry=retry_if_exception_type(SourceDownError),
        stop=lambda state: is_late(state) or state.attempt_number >= TRIES,
        wait=rest,
        reraise=True,
    )
    return retrying(once)


def _asked(state: "RetryCallState") -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return error.after or 0.0 if isinstance(error, SourceDownError) else 0.0


def _check_status(endpoint: Endpoint, reply: Any) -> None:
    status = int(reply.status_code)
    if status == 200:
        return
    what = f"{endpoint.shown} answered {status}"
    if status in _BUSY or status >= 500:
        after = _seconds(reply.headers.get("Retry-After"), reply.headers.get("Date"))
        asked = f" and asks for {after:.0f} s of rest" if after is not None else ""
        raise SourceDownError(f"{what}{asked}.", remedy="Run again later.", after=after)
    reported = reply.raw.read1(_CHUNK, decode_content=True).decode("utf-8", "replace")
    if endpoint.token and status in (401, 403):
        raise SourceRefusedError(
            f"{what}: the token is not accepted.", remedy=f"Fix {endpoint.token}.", status=status, reported=reported
        )
    to = shown(reply.headers.get("Location", "")) if 300 <= status < 400 else ""
    raise SourceRefusedError(
        f"{what}{f' and sends to {to}, where nothing is asked' if to else ''}.",
        remedy=f"Fix {endpoint.setting}.",
        status=status,
        reported=reported,
    )


def _check_bounds(endpoint: Endpoint, size: int, *, cap: int, ends: float, seconds: float) -> None:
    remedy = "Look at what it sends; ask for less at a time."
    if time.monotonic() > ends:
        raise SourceDownError(f"{endpoint.shown} is too slow: the answer was not whole after {seconds:g} s.", remedy=remedy)
    if size > cap:
        raise SourceRefusedError(f"{endpoint.shown} answered more than {cap:,} bytes.", remedy=remedy)


def _check_whole(endpoint: Endpoint, received: int, headers: Mapping[str, str]) -> None:
    announced = headers.get("Content-Length", "")
    if announced.isdigit() and not headers.get("Content-Encoding") and int(announced) != received:
        raise SourceDownError(f"{endpoint.shown} broke off after {received:,} of {int(announced):,} bytes.", remedy="Run again.")


def _broken(endpoint: Endpoint, error: BaseException) -> SourceDownError:
    return SourceDownError(
        f"{endpoint.shown} did not answer: {type(error).__name__}.",
        remedy=f"See that it runs and that {endpoint.setting} is right.",
    )


def _seconds(header: str | None, date: str | None = None) -> float | None:
    """Retry-After: seconds, or a date by the clock of whoever answers, which its header Date tells."""
    if header is None:
        return None
    with suppress(ValueError):
        return max(float(int(header)), 0.0)
    with suppress(ValueError, TypeError):
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max((parsedate_to_datetime(header) - now).total_seconds(), 0.0)
    return None


def _milliseconds(date: str) -> int | None:
    try:
        return round(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return None
