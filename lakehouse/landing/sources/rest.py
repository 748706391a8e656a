"""A REST API as a source: its pages as batches of text columns, kept for an hour.

    GET <url>?<parameters>&updated_since=<instant>  ─▶  {"data": [{...}, ...], "next": "<url>" | null, "total": n}
                                                        or a bare list, which is everything

`next` is followed within the same origin until it is null; `total`, where given, must be what came. One request may take
`request_seconds` in all; the whole extraction ends by `deadline`. What cannot be read as JSON is worth another try.

Does not belong here: one request (`fetch.py`), what happens to the records (`extract.py`), when another try is made
(the step's retry policy).
"""

import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from lakehouse.core.errors import DeclarationError, SourceDownError, SourceRefusedError
from lakehouse.landing.sources.extract import stage_batches, text_batch
from lakehouse.landing.sources.fetch import Endpoint, ask

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE_BYTES = 64_000_000
_CACHED = re.compile(r"([0-9a-f]{16})-(\d{8}T\d{12}|all)-(\d{13})")


@dataclass(frozen=True, kw_only=True)
class Api:
    """Where the API is and how long it may take.

    Args:
        url: without the cursor; `parameters` are added to it.
        token: sent as `Authorization: Bearer`.
        setting: what messages call the URL, and `token_setting` the token.
        since: the parameter that takes the cursor.
        name: stands for the URL in the cache's key, where the URL is another every time.
        cache_seconds: for so long an extraction's pages are good for the next one; 0 asks every time.
    """

    url: str
    token: str = field(default="", repr=False)
    setting: str = "the URL"
    token_setting: str = "the token"
    parameters: Mapping[str, str] = field(default_factory=dict)
    since: str = "updated_since"
    name: str = ""
    request_seconds: float = 30.0
    cache_seconds: float = 3600.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise DeclarationError(
                f"{self.setting} is not the URL of an API.",
                remedy=f"Write https://host/path without credentials; they go in {self.token_setting or 'auth'}.",
            )

    @property
    def location(self) -> str:
        """For messages: without parameters, which may hold a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def key(self) -> str:
        """Hash of URL and parameters; the cursor is not part of it."""
        return hashlib.sha256(f"{self.name or self.url}?{urlencode(sorted(self.parameters.items()))}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Fetched:
    """The pages of one extraction, staged on this machine. `since` is the instant from which on they were asked for."""

    paths: tuple[str, ...]
    started: datetime
    since: datetime | None
    hit: bool
    seconds: float = 0.0


def below(url: str, path: str) -> str:
    """The URL of a path below an API's; its query stays."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path.lstrip('/')}").geturl() if path else url


def fetch(api: Api, cache: Path, *, since: datetime | None, deadline: float, now: Callable[[], float] = time.time) -> Fetched:
    """The records from `since` on: what was fetched within the hour, else what the API says now.

    Args:
        cache: folder of this machine; the caller alone uses it.
        deadline: `time.monotonic()` by which it ends.

    Raises:
        SourceDownError: worth another try.
        SourceRefusedError: not.
    """
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in cache.iterdir():
        found = _CACHED.fullmatch(folder.name)
        fresh = found is not None and 0 <= now() - int(found[3]) / 1000 < api.cache_seconds
        if found is None or not fresh:
            shutil.rmtree(folder, ignore_errors=True)
        elif found[1] == api.key and _covers(found[2], since):
            paths = tuple(sorted(str(path) for path in folder.glob("*.parquet")))
            return Fetched(paths, _instant(int(found[3])), _since(found[2]), True)
    started = int(now() * 1000)
    begun = time.monotonic()
    folder = cache / f"begun-{uuid.uuid4().hex}"
    folder.mkdir()
    stage_batches(_batches(api, since, deadline), folder)
    cached = cache / f"{api.key}-{'all' if since is None else f'{since:%Y%m%dT%H%M%S%f}'}-{started:013}"
    folder.rename(cached)
    paths = tuple(sorted(str(path) for path in cached.glob("*.parquet")))
    return Fetched(paths, _instant(started), since, False, time.monotonic() - begun)


def _batches(api: Api, since: datetime | None, deadline: float) -> "Iterator[pa.RecordBatch]":
    import requests

    parameters = dict(api.parameters)
    if since is not None:
        parameters[api.since] = f"{since:%Y-%m-%dT%H:%M:%S.%fZ}"
    parts = urlsplit(api.url)
    query = "&".join(part for part in (parts.query, urlencode(parameters)) if part)
    url: str | None = parts._replace(query=query).geturl()
    asked: set[str] = set()
    count, total = 0, None
    with requests.Session() as session:
        session.trust_env = False  # no proxy and no .netrc that nobody named
        if api.token:
            session.headers["Authorization"] = f"Bearer {api.token}"
        session.headers["Accept"] = "application/json"
        while url is not None:
            if url in asked:
                raise SourceRefusedError(
                    f"The pages of {api.location} go in a circle: page {len(asked)} names one that came before.",
                    remedy="Tell whoever runs the API.",
                )
            asked.add(url)
            records, following, announced = _page(api, _get(session, api, url, deadline=deadline), number=len(asked))
            total = announced if announced is not None else total
            count += len(records)
            if records:
                yield text_batch(records, list(dict.fromkeys(name for record in records for name in record)))
            url = urljoin(url, following) if following else None
            if url is not None and urlsplit(url)[:2] != parts[:2]:
                raise SourceRefusedError(
                    f"{api.location} sends to another origin for its next page; the token stays here.",
                    remedy=f"Set {api.setting} to that origin if it is right.",
                )
    if total is not None and total != count:
        raise SourceDownError(
            f"{api.location} says that it has {total:,} records and delivered {count:,}: it changed meanwhile.",
            remedy="Run again.",
        )


def _get(session: Any, api: Api, url: str, *, deadline: float) -> bytes:
    """The body of one page, whole."""
    left = min(api.request_seconds, deadline - time.monotonic())
    if left <= 0:
        raise SourceDownError(f"{api.location} is too slow: the step's time was up.", remedy="Run again later.")
    location = Endpoint(api.location, api.setting, api.token_setting)
    return ask(session, url, location, seconds=left, cap=_PAGE_BYTES).body


def _page(api: Api, body: bytes, *, number: int) -> tuple[list[dict[str, Any]], str | None, int | None]:
    """Records, next page and total of a page."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise SourceDownError(
            f"Page {number} of {api.location} is not JSON.", remedy="Run again; or tell whoever runs the API."
        ) from None
    outer: dict[str, Any] = found if isinstance(found, dict) else {"data": found}
    following, total, records = outer.get("next"), outer.get("total"), outer.get("data")
    if (
        not isinstance(records, list)
        or not all(isinstance(record, dict) for record in records)
        or not isinstance(following, (str, type(None)))
    ):
        raise SourceRefusedError(
            f"Page {number} of {api.location} is no list of records under `data` with a `next`.",
            remedy="lakehouse/landing/sources/rest.py says what is read; tell whoever runs the API.",
        )
    return records, following, total if isinstance(total, int) and not isinstance(total, bool) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _instant(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, tz=UTC)


def _since(text: str) -> datetime | None:
    return None if text == "all" else datetime.strptime(text, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)


def _covers(cached: str, since: datetime | None) -> bool:
    """Whether pages from the one instant on hold everything from the other on."""
    begun = _since(cached)
    return begun is None or (since is not None and begun <= since)
