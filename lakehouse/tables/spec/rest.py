"""REST APIs as sources: which resources are asked for, how their pages follow each other, and what lets us in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.tables.spec.member import check_member
from lakehouse.tables.spec.setting import Setting
from lakehouse.tables.spec.sources import AirbyteStream
from lakehouse.tables.spec.system import SourceSystem

# --- what lets us in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bearer:
    """`Authorization: Bearer <token>`; nothing is sent while the token is empty."""

    token: str | Setting


@dataclass(frozen=True)
class ApiKey:
    """A key in a header or in a parameter of the query: `ApiKey(setting(...), header="X-Api-Key")`."""

    key: str | Setting
    header: str = ""
    query: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.query):
            raise DeclarationError("An API key goes into a header or into the query.", remedy="Give header= or query=.")


@dataclass(frozen=True)
class Basic:
    """A user and a password in each request."""

    user: str | Setting
    password: str | Setting


@dataclass(frozen=True)
class OAuth2ClientCredentials:
    """A token that `url` gives for a client, asked for again before it expires."""

    url: str | Setting
    client_id: str | Setting
    client_secret: str | Setting
    scope: str = ""


Auth = Bearer | ApiKey | Basic | OAuth2ClientCredentials


# --- how pages follow each other ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NextUrl:
    """The body has the URL of the next page at a JSON path; none there, or null, is the end."""

    path: str = "next"


@dataclass(frozen=True)
class LinkHeader:
    """The header `Link` has the URL of the next page, with `rel="next"`."""

    relation: str = "next"


@dataclass(frozen=True)
class Cursor:
    """The body has, at a JSON path, what the next request sends as a parameter; none there, null or an empty text is the end."""

    path: str
    parameter: str = "cursor"


@dataclass(frozen=True)
class Offset:
    """How many records to pass over, and how many to give. An empty page is the end, or the total that a resource names."""

    size: int
    parameter: str = "offset"
    size_parameter: str = "limit"

    def __post_init__(self) -> None:
        _check_size(self.size)


@dataclass(frozen=True)
class Pages:
    """Pages by number. An empty page is the end, or the total that a resource names: a server may cap the size of its pages."""

    size: int
    parameter: str = "page"
    size_parameter: str = "per_page"
    first: int = 1

    def __post_init__(self) -> None:
        _check_size(self.size)


@dataclass(frozen=True)
class Single:
    """One answer is everything."""


Paginate = NextUrl | LinkHeader | Cursor | Offset | Pages | Single


@dataclass(frozen=True)
class Rate:
    """No more requests than this in any second, minute or hour: `Rate(10, per="second")`."""

    times: int
    per: Literal["second", "minute", "hour"] = "second"

    def __post_init__(self) -> None:
        check_member(self.per, Literal["second", "minute", "hour"], "Rate: per")
        if self.times < 1:
            raise DeclarationError(f"A rate of {self.times} asks for nothing.", remedy="Give one request or more.")

    @property
    def seconds(self) -> float:
        return {"second": 1.0, "minute": 60.0, "hour": 3600.0}[self.per]


def _check_size(size: int) -> None:
    if size < 1:
        raise DeclarationError(f"Pages of {size} records have no end.", remedy="Give a size of one or more.")


# --- what is asked for -------------------------------------------------------------------------------------------------

_FIELD = re.compile(r"[A-Za-z_][\w.-]{0,127}", re.ASCII)
#: In a path: a field of the parent's records.
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\.([A-Za-z_][\w-]*)\}", re.ASCII)


@dataclass(frozen=True)
class Resource:
    """One list of records of an API.

    A child resource names fields of another one in its path, `/v1/pedidos/{pedidos.id}/itens`, and is asked once for each of
    that one's records which the same extraction delivers. Its records get those fields, and the parent's cursor, as columns:
    `pedidos_id`, `pedidos_updated_at`.

    Args:
        name: what it is called in its source.
        path: below the API's URL; empty for the URL itself.
        records: the JSON path of the records in an answer; an answer that is a list is the records itself.
        paginate: how pages follow each other.
        since: the parameter that asks for what changed from an instant on; without it everything is asked for every time.
        until: the parameter for the end of a window, where the API has one.
        cursor: the field of a record that says when it changed.
        total: the JSON path of how many records there are, which must have come in the end.
        parameters: sent with every request.
        body: makes the requests POST, with this JSON; what changes from page to page and `since` are added to it.
        folder: where below `raw/` it lands, when that is not `<source>/<name>`.
    """

    name: str
    path: str = ""
    records: str = "data"
    paginate: Paginate = field(default_factory=NextUrl)
    since: str = ""
    until: str = ""
    cursor: str = ""
    total: str = ""
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    folder: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "resource name")
        if self.cursor and not _FIELD.fullmatch(self.cursor):
            raise DeclarationError(
                f"Resource {self.name!r}: {self.cursor[:80]!r} cannot be the cursor.", remedy="Name a field of its records."
            )
        if (self.since or self.until) and not self.cursor:
            raise DeclarationError(
                f"Resource {self.name!r} is asked from an instant on, and no field says when a record changed.",
                remedy='Give cursor="updated_at", or whatever the field is called.',
            )
        if "{" in PLACEHOLDER.sub("", self.path) or len({parent for parent, _ in PLACEHOLDER.findall(self.path)}) > 1:
            raise DeclarationError(
                f"Resource {self.name!r}: {self.path!r} is no path.",
                remedy="Write fields of one parent: /v1/pedidos/{pedidos.id}/itens.",
            )
        if self.parent and (self.since or self.until):
            raise DeclarationError(
                f"Resource {self.name!r} is a child of {self.parent!r}, whose records say when to ask.", remedy="Leave out since."
            )

    @property
    def parent(self) -> str:
        """The resource whose records it is asked for; empty where there is none."""
        found = PLACEHOLDER.search(self.path)
        return found[1] if found else ""

    @property
    def full_refresh(self) -> bool:
        """Whether each run reads all of it: nothing says what is new, and no parent whom to ask for."""
        return not (self.cursor or self.parent)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the parent that its path has."""
        return tuple(dict.fromkeys(name for _, name in PLACEHOLDER.findall(self.path)))


@dataclass(frozen=True, kw_only=True)
class RestApi(SourceSystem):
    """An API that answers with JSON.

        LOJA = RestApi("loja_api", url=setting("LOJA_API_URL"), auth=Bearer(setting("LOJA_API_TOKEN", secret=True)),
                       resources=(Resource("pedidos", path="/v1/pedidos"),))
        TableSpec(name="pedidos_loja", source=LOJA.resource("pedidos"), ...)

    Args:
        rate: the most requests that it takes; all resources of an extraction together.
        parallel: requests at a time for child resources.
        headers: sent with every request.
        encoding: of answers that are not UTF-8 and name no charset.
        request_seconds: for one answer, whole.
        cache: for so long the answers of one extraction are good for the next; a timedelta, or a setting in seconds.
    """

    kind: ClassVar[str] = "rest"

    resources: tuple[Resource, ...]
    auth: Auth | None = None
    rate: Rate | None = None
    parallel: int = 4
    headers: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    request_seconds: float = 30.0
    cache: timedelta | Setting = timedelta()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.request_seconds <= 0 or (isinstance(self.cache, timedelta) and self.cache < timedelta()):
            raise DeclarationError(f"Source {self.name!r}: a duration is negative.", remedy="Give seconds above zero.")
        if not 1 <= self.parallel <= 32:
            raise DeclarationError(f"Source {self.name!r}: parallel is {self.parallel}.", remedy="Give 1 to 32.")
        known: set[str] = set()
        for resource in self.resources:
            if resource.parent and resource.parent not in known:
                raise DeclarationError(
                    f"Resource {resource.name!r} is a child of {resource.parent!r}, which is not declared before it.",
                    remedy=f"Declare Resource({resource.parent!r}, ...) first.",
                )
            known.add(resource.name)

    @property
    def streams(self) -> tuple[Resource, ...]:
        return self.resources

    def resource(self, name: str) -> AirbyteStream:
        """One of its resources as the source of a table.

        Raises:
            DeclarationError: it has no such resource.
        """
        return self.stream(name)
