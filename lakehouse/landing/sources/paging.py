"""Pages of a REST API: which request follows one, by how the resource is declared to paginate. Pure.

begin(paginate)                  ─▶ the parameters of the first request
following(paginate, ask, page)   ─▶ the next request, or None at the end
comes_again(records, before)     ─▶ whether a page is the one before it
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any
from urllib.parse import unquote_plus, urljoin, urlsplit

from lakehouse.tables.spec.rest import Cursor, LinkHeader, NextUrl, Offset, Pages, Paginate, Single


@dataclass(frozen=True)
class Ask:
    """One request: a URL, and the parameters that are added to its query or to its body."""

    url: str
    parameters: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What tells it from other requests, in whatever order its parameters are written, in the URL or beside it."""
        parts = urlsplit(self.url)
        beside = [f"{name}={value}" for name, value in self.parameters.items()]
        asked = [*map(unquote_plus, filter(None, parts.query.split("&"))), *beside]
        return f"{parts._replace(query='', fragment='').geturl()} {sorted(asked, key=lambda one: one.partition('=')[0])}"


@dataclass(frozen=True)
class Page:
    """What came: the parsed body, the headers, how many records it has and how many there were with it.

    Args:
        total: how many there are in all, where the API reports it.
    """

    body: Any
    headers: Mapping[str, str]
    records: int
    delivered: int
    total: int | None = None


def comes_again(records: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a page is the one before it once more. An empty page is not, and where a page itself has a record twice, records
    are not told apart by what they are: two pages may have the same ones.
    """
    return bool(records) and records == before and len({json.dumps(record, default=str) for record in records}) == len(records)


def at(body: Any, path: str) -> Any:
    """What a body has at a JSON path (`data.items`, `$.paging.next`); None where there is nothing."""
    for name in path.removeprefix("$").strip(".").split("."):
        if isinstance(body, list) and name.isdigit() and int(name) < len(body):
            body = body[int(name)]
        elif isinstance(body, dict):
            body = body.get(name)
        else:
            return None
    return body


def begin(paginate: Paginate) -> dict[str, str | int]:
    """The parameters of the first request."""
    if isinstance(paginate, Offset):
        return {paginate.parameter: 0, **_size(paginate)}
    if isinstance(paginate, Pages):
        return {paginate.parameter: paginate.first, **_size(paginate)}
    return {}


def following(paginate: Paginate, ask: Ask, page: Page) -> Ask | None:
    """The request after one; None at the end.

    Raises:
        ValueError: the answer has something else where the next page should be named; the text is a sentence.
    """
    if isinstance(paginate, (NextUrl, LinkHeader)):
        url = _url(paginate, page)
        return Ask(urljoin(ask.url, url)) if url else None
    if isinstance(paginate, Cursor):
        found = _cursor(paginate, page)
        return Ask(ask.url, {**ask.parameters, paginate.parameter: found}) if found != "" else None
    ended = not page.records or (page.total is not None and page.delivered >= page.total)
    if isinstance(paginate, Single) or ended:
        return None
    step = page.records if isinstance(paginate, Offset) else 1
    return Ask(ask.url, {**ask.parameters, paginate.parameter: int(ask.parameters[paginate.parameter]) + step})


def _url(paginate: NextUrl | LinkHeader, page: Page) -> str:
    if isinstance(paginate, LinkHeader):
        return linked(page.headers, paginate.relation)
    found = at(page.body, paginate.path)
    if isinstance(found, (str, NoneType)):
        return found or ""
    raise ValueError(f"It has no URL at {paginate.path!r}.")


def _cursor(paginate: Cursor, page: Page) -> str | int:
    found = at(page.body, paginate.path)
    if isinstance(found, (str, int, NoneType)) and not isinstance(found, bool):
        return "" if found is None else found
    raise ValueError(f"It has no cursor at {paginate.path!r}.")


def linked(headers: Mapping[str, str], relation: str) -> str:
    """The URL that the header `Link` has for a relation; empty where it has none."""
    from requests.utils import parse_header_links

    links = parse_header_links(headers.get("Link") or "")
    return next((str(link["url"]) for link in links if relation in str(link.get("rel", "")).split()), "")


def _size(paginate: Offset | Pages) -> dict[str, str | int]:
    return {paginate.size_parameter: paginate.size} if paginate.size_parameter else {}
