"""A REST API as a source: its pages as batches of text columns, stored for an hour.

    GET or POST <url>?<parameters>&<since>=<instant>  ─▶  {"data": [{...}, ...], "next": "<url>" | null, "total": n}
                                                          or a bare list of records

How pages follow each other is in `paging.py`; they are followed within the same origin, and not in a circle. `total`, where
given, must be what came. One request may take `request_seconds` in all; the whole extraction ends by `deadline`. What cannot be
read as JSON is worth another try. A Retry-After between two pages is waited for; before the first it ends the try.

Does not belong here: one request (`fetch.py`), which resources are asked for (`rest_streams.py`), what happens to the records
(`extract.py`), when another try is made (the step's retry policy).
"""

import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.message import Message
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from lakehouse.core.errors import DeclarationError, SourceDownError, SourceRefusedError
from lakehouse.landing.sources import bodies
from lakehouse.landing.sources.access import Access
from lakehouse.landing.sources.extract import stage_batches, text_batch
from lakehouse.landing.sources.fetch import Endpoint, Reply, ask, new_session
from lakehouse.landing.sources.paging import Ask, Page, at, begin, comes_again, following, linked
from lakehouse.landing.sources.rate import Limiter
from lakehouse.tables.spec.rest import LinkHeader, NextUrl, Paginate

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE_BYTES = 64_000_000
#: So often in a row a page is asked for again after its Retry-After.
_WAITS = 5
_PAUSE = 0.1
_CACHED = re.compile(r"([0-9a-f]{16})-(\d{8}T\d{12}|all)-(\d{13})")


@dataclass(frozen=True, kw_only=True)
class Api:
    """One resource of an API: where it is, how it is asked, and how long it may take.

    Args:
        url: without the cursor; `parameters` are added to it.
        resource: what messages call it.
        access: what lets us in.
        setting: what messages call the URL, and `token_setting` the credential.
        since: the parameter that takes the cursor; `until` the one for the end of a window.
        end: of that window.
        records: the JSON path of the records, and `total` that of their number; empty where there is none.
        body: makes the requests POST.
        columns: added to every record.
        name: stands for the URL in the cache's key, where the URL is another every time.
        patient: something was fetched before its first page, which a Retry-After shall not cost.
        cache_seconds: for so long an extraction's pages are good for the next one; 0 asks every time.
    """

    url: str
    resource: str = ""
    access: Access = field(default_factory=Access, repr=False)
    limiter: Limiter = field(default_factory=lambda: Limiter(None), repr=False)
    setting: str = "the URL"
    token_setting: str = "the token"
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    since: str = "updated_since"
    until: str = ""
    end: datetime | None = None
    records: str = "data"
    paginate: Paginate = field(default_factory=NextUrl)
    total: str = "total"
    body: Mapping[str, Any] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    name: str = ""
    patient: bool = False
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
        """For messages: without parameters, which may have a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def shown(self) -> str:
        return f"{self.resource} ({self.location})" if self.resource else self.location

    @property
    def key(self) -> str:
        """Hash of URL and parameters; the cursor is not part of it."""
        form = (self.records, self.paginate, self.body, self.end)
        asked = f"{self.name or self.url} {self.resource}?{urlencode(sorted(self.parameters.items()))} {form}"
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


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


def fetch(
    api: Api,
    cache: Path,
    *,
    since: datetime | None,
    deadline: float,
    now: Callable[[], float] = time.time,
    batches: "Iterable[pa.RecordBatch] | None" = None,
    after: datetime | None = None,
) -> Fetched:
    """The records from `since` on: what was fetched within the hour, else what the API reports now.

    Args:
        cache: folder of this machine; the caller alone uses it.
        deadline: `time.monotonic()` by which it ends.
        batches: the records, where more than one list of pages has them.
        after: what was fetched before that is not good.

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
        elif found[1] == api.key and _covers(found[2], since) and (after is None or _instant(int(found[3])) >= after):
            paths = tuple(sorted(str(path) for path in folder.glob("*.parquet")))
            return Fetched(paths, _instant(int(found[3])), _since(found[2]), True)
    started = int(now() * 1000)
    begun = time.monotonic()
    folder = cache / f"begun-{uuid.uuid4().hex}"
    folder.mkdir()
    stage_batches(pages(api, since=since, deadline=deadline) if batches is None else batches, folder)
    cached = cache / f"{api.key}-{'all' if since is None else f'{since:%Y%m%dT%H%M%S%f}'}-{started:013}"
    folder.rename(cached)
    paths = tuple(sorted(str(path) for path in cached.glob("*.parquet")))
    return Fetched(paths, _instant(started), since, False, time.monotonic() - begun)


def pages(api: Api, *, since: datetime | None, deadline: float, session: Any = None) -> "Iterator[pa.RecordBatch]":
    """The records, page by page.

    Args:
        session: of `fetch.new_session`, for more than one list of pages.

    Raises:
        SourceDownError: worth another try.
        SourceRefusedError: not.
    """
    wanted: Ask | None = Ask(api.url, {**_asked(api, since), **begin(api.paginate)})
    asked: set[str] = set()
    count, total = 0, None
    before: list[dict[str, Any]] = []
    with new_session() if session is None else nullcontext(session) as used:
        while wanted is not None:
            if wanted.identity in asked:
                raise SourceRefusedError(
                    f"The pages of {api.shown} go in a circle: page {len(asked)} names one that came before.",
                    remedy="Tell whoever runs the API.",
                )
            asked.add(wanted.identity)
            number = len(asked)
            reply = _reply(used, api, wanted, number=number, deadline=deadline)
            records, outer, announced = _page(api, reply.body, number=number, headers=reply.headers)
            if comes_again(records, before):
                raise SourceDownError(
                    f"Page {number} of {api.shown} is page {number - 1} again.",
                    remedy="Run again; where it stays, see how the API paginates and declare that.",
                )
            before = records
            total = announced if announced is not None else total
            count += len(records)
            if records:
                yield _batch(api, records, number=number)
            wanted = _following(api, wanted, Page(outer, reply.headers, len(records), count, total), number=number)
    if total is not None and total != count:
        raise SourceDownError(
            f"{api.shown} says that it has {total:,} records and delivered {count:,}: it changed meanwhile.",
            remedy="Run again.",
        )


def _asked(api: Api, since: datetime | None) -> dict[str, str | int]:
    parameters = dict(api.parameters)
    for name, instant in ((api.since, since), (api.until, api.end)):
        if name and instant is not None:
            parameters[name] = f"{instant:%Y-%m-%dT%H:%M:%S.%fZ}"
    return parameters


def _following(api: Api, wanted: Ask, page: Page, *, number: int) -> Ask | None:
    """The next request."""
    what = f"Page {number} of {api.shown}"
    try:
        # What was asked for stays as it was first: the URL of a next page has all that it needs.
        found = following(api.paginate, _whole(api, wanted), page)
    except ValueError as error:
        raise SourceRefusedError(
            f"{what} is no page as declared: {error}", remedy=f"See paginate of {api.resource or 'the resource'}."
        ) from None
    if found is None and isinstance(api.paginate, NextUrl) and linked(page.headers, "next"):
        raise SourceRefusedError(
            f"{what} names the next page in its Link header, which is not followed.", remedy="Declare paginate=LinkHeader()."
        )
    if found is not None and api.body is not None and isinstance(api.paginate, (NextUrl, LinkHeader)):
        found = Ask(found.url, wanted.parameters)
    if found is not None:
        found = Ask(without(found.url, api.access.query), found.parameters)
    if found is not None and urlsplit(found.url)[:2] != urlsplit(api.url)[:2]:
        raise SourceRefusedError(
            f"{what} sends to another origin for its next page; the token stays here.",
            remedy=f"Set {api.setting} to that origin if it is right.",
        )
    return found


def _whole(api: Api, wanted: Ask) -> Ask:
    """A request with its parameters in the URL, where the next one is named by a URL."""
    if api.body is None and isinstance(api.paginate, (NextUrl, LinkHeader)):
        return Ask(with_query(wanted.url, wanted.parameters))
    return wanted


def without(url: str, names: Container[str]) -> str:
    """A URL without some parameters: a server that names its next page may repeat the key in it."""
    parts = urlsplit(url)
    return parts._replace(query="&".join(part for part in parts.query.split("&") if part.partition("=")[0] not in names)).geturl()


def with_query(url: str, parameters: Mapping[str, Any]) -> str:
    """A URL with parameters added to its query."""
    parts = urlsplit(url)
    return parts._replace(query="&".join(part for part in (parts.query, urlencode(parameters)) if part)).geturl()


def _reply(session: Any, api: Api, wanted: Ask, *, number: int, deadline: float) -> Reply:
    """The answer with one page, whole. A page after the first is asked for again when it is told how long to wait."""
    what = f"Page {number} of {api.shown}"
    where = Endpoint(what, api.setting, api.token_setting)
    posted = {**api.body, **wanted.parameters} if api.body is not None else None
    url = wanted.url if posted is not None else with_query(wanted.url, wanted.parameters)
    waits, renewed = 0, False
    while True:
        api.limiter.wait(what, deadline=deadline)
        left = min(api.request_seconds, deadline - time.monotonic())
        if left <= 0:
            raise SourceDownError(f"{what} is too slow: the step's time was up.", remedy="Run again later.")
        headers = {"Accept": "application/json", **api.headers, **api.access.headers(seconds=left)}
        try:
            return ask(
                session,
                url,
                where,
                seconds=left,
                cap=_PAGE_BYTES,
                method="GET" if posted is None else "POST",
                query=api.access.query,
                content=posted,
                headers=headers,
            )
        except SourceRefusedError as error:
            if error.status != 401 or not api.access.renews or renewed:
                raise
            renewed = True
            api.access.renew()
        except SourceDownError as error:
            waits += 1
            pause = max(error.after or 0.0, _PAUSE)
            late = time.monotonic() + pause >= deadline
            if error.after is None or late or waits > _WAITS or (number == 1 and not api.patient):
                raise
            time.sleep(pause)


def _page(
    api: Api, body: bytes, *, number: int, headers: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], Any, int | None]:
    """Records, whole body and total of a page."""
    what = f"Page {number} of {api.shown}"
    body = bodies.unpacked(body, cap=_PAGE_BYTES)
    try:
        text = bodies.as_text(body, charset=_charset(headers or {}), declared=api.encoding)
    except ValueError as error:
        looks = bodies.looks_like(body)
        if looks.startswith(bodies.NO_JSON):
            raise SourceDownError(f"{what} is {looks}.", remedy="Run again; or tell whoever runs the API.") from None
        raise SourceRefusedError(
            f"{what} cannot be read: {error}", remedy='Declare its encoding="cp1252", or what it is.'
        ) from None
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise SourceDownError(
            f"{what} is {bodies.looks_like(body)}.", remedy="Run again; or tell whoever runs the API."
        ) from None
    records = found if isinstance(found, list) else at(found, api.records)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise SourceRefusedError(
            f"{what} is no list of records under `{api.records}`.",
            remedy="Declare the JSON path of its records, or tell whoever runs the API.",
        )
    total = at(found, api.total) if api.total and isinstance(found, dict) else None
    return records, found, total if isinstance(total, int) and not isinstance(total, bool) else None


def _batch(api: Api, records: list[dict[str, Any]], *, number: int) -> "pa.RecordBatch":
    """Records as a batch of text columns, with those that are added."""
    for name, value in api.columns.items():
        if any(record.get(name, value) != value for record in records):
            raise SourceRefusedError(
                f"Page {number} of {api.shown} has a field {name!r} of its own, which is added from the parent's record.",
                remedy="Give the parent resource another name.",
            )
    if api.columns:
        records = [{**record, **api.columns} for record in records]
    try:
        return text_batch(records, list(dict.fromkeys(chain.from_iterable(records))))
    except UnicodeEncodeError:
        raise SourceRefusedError(
            f"Page {number} of {api.shown} has half a character (a lone surrogate).", remedy="Tell whoever runs the API."
        ) from None


def _charset(headers: Mapping[str, str]) -> str:
    message = Message()
    message["Content-Type"] = headers.get("Content-Type") or ""
    return message.get_content_charset() or ""


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
