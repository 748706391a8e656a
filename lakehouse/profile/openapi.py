"""OpenAPI (3.x, and Swagger 2.0): which lists of records an API describes, how it pages them, and what lets us in.

    document ─▶ described(document, url) ─▶ Described: the API's URL, its resources, and the paths that are none

Pure: whoever calls has the document. A description is a claim: what `make connect` writes from it is checked by the first run.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import column_name
from lakehouse.tables.spec.rest import (
    ApiKey,
    Auth,
    Basic,
    Bearer,
    Cursor,
    LinkHeader,
    NextUrl,
    OAuth2ClientCredentials,
    Offset,
    Pages,
    Paginate,
    Resource,
    Single,
)
from lakehouse.tables.spec.setting import setting

#: Properties that list the records of an answer, the likeliest first.
_LISTS = ("data", "items", "results", "records", "content", "value", "rows", "entries", "dados", "resultados", "itens")
#: Fields that say when a record changed.
CHANGED = (
    *("updated_at", "updatedat", "updated", "modified_at", "modifiedat", "last_modified", "lastmodified", "date_modified"),
    *("atualizado_em", "data_atualizacao", "dataatualizacao", "alterado_em", "modified"),
)
#: Parameters that ask for what changed from an instant on.
_SINCE = (
    *("updated_since", "updatedsince", "updated_after", "updatedafter", "modified_since", "modifiedsince", "modified_after"),
    *("updated_at_min", "since", "atualizado_desde", "changed_since", "updated_from"),
)
#: Properties of an answer with what leads to the next page: its URL, or what a parameter takes.
_NEXT_URL = ("next", "next_url", "nexturl", "next_page_url", "@odata.nextlink", "proxima")
_NEXT_CURSOR = ("next_cursor", "nextcursor", "cursor", "next_page_token", "nextpagetoken", "continuation_token", "next_token")
_CURSOR = ("cursor", "page_token", "pagetoken", "after", "starting_after", "continuation_token", "next_token", "pagination_token")
_PAGE, _OFFSET = ("page", "page_number", "pagenumber", "pagina", "p"), ("offset", "skip", "start")
_SIZE = ("per_page", "perpage", "page_size", "pagesize", "limit", "size", "count", "top", "por_pagina", "tamanho")
_TOTAL = ("total", "total_count", "totalcount", "count", "total_results")
_KEYS = ("id", "uuid", "codigo", "code", "key")
#: Of a parameter, a path in an answer: what may be in a declaration.
_NAME = re.compile(r"[A-Za-z_@$][\w.@$\[\]-]{0,127}", re.ASCII)
_PATH = re.compile(r"(/[\w{}.~:@,+-]*)+", re.ASCII)
_DEPTH = 12
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """A field of a record: its name as delivered, silver's type, and what the description says of it."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class Listed:
    """A path that answers with a list of records: as it is declared, its fields, the one that tells records apart (empty where
    none is found), and why each guess was made.
    """

    resource: Resource
    fields: tuple[Field, ...]
    key: str = ""
    evidence: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.resource.name


@dataclass(frozen=True)
class Described:
    """What an API describes; its credentials are declared of settings, and `passed_over` tells why a path is no resource."""

    title: str
    url: str
    listed: tuple[Listed, ...]
    auth: Auth | None = None
    passed_over: tuple[tuple[str, str], ...] = ()


def parsed(text: bytes) -> Any:
    """A description as JSON or YAML writes it.

    Raises:
        DeclarationError: it is neither.
    """
    import yaml

    try:
        return json.loads(text)
    except ValueError:  # YAML then
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise DeclarationError(
            "That is neither JSON nor YAML.", remedy="Give the URL or the file of an OpenAPI description, such as openapi.json."
        ) from None


def described(document: Any, url: str, *, prefix: str) -> Described:
    """The resources of an API.

    Args:
        document: the parsed description.
        url: where it came from; relative servers count from it.
        prefix: of the settings with its credentials, such as `LOJA_API`.

    Raises:
        DeclarationError: it is no description of an API.
    """
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise DeclarationError(
            "That is no OpenAPI description: it has no `paths`.", remedy="Give the URL of openapi.json or swagger.json."
        )
    found: dict[str, Listed] = {}
    passed: list[tuple[str, str]] = []
    at: dict[str, str] = {}
    for path in sorted(filter(_PATH.fullmatch, document["paths"]), key=lambda one: (one.count("{"), one)):
        operation = document["paths"][path].get("get") if isinstance(document["paths"][path], dict) else None
        if not isinstance(operation, dict):
            continue
        shared = document["paths"][path].get("parameters") or []
        try:
            query = _query(document, [*shared, *(operation.get("parameters") or [])])
            own = _listed(document, _path(path, found, at), operation, query, known=found)
        except _NoneError as reason:
            passed.append((path, str(reason)))
            continue
        found[own.name] = own
        at[path.rstrip("/")] = own.name
    info = document.get("info")
    title = str(info.get("title", "")) if isinstance(info, dict) else ""
    return Described(title[:80], _server(document, url), tuple(found.values()), _auth(document, prefix), tuple(passed))


# --- one path ----------------------------------------------------------------------------------------------------------


class _NoneError(Exception):
    """A path is no resource; the text says why."""


def _query(document: Schema, given: Sequence[Any]) -> dict[str, Schema]:
    """The parameters of the query, by name."""
    found = {str(one["name"]): one for each in given if (one := _resolved(document, each)).get("in") == "query" and "name" in one}
    asked = [name for name, one in found.items() if one.get("required") and _plain(name) not in (*_PAGE, *_SIZE, *_OFFSET)]
    if asked:
        raise _NoneError(f"it needs the parameter {asked[0]}")
    return {name: one for name, one in found.items() if _NAME.fullmatch(name)}


def _listed(
    document: Schema, path: str, operation: Schema, query: Mapping[str, Schema], *, known: Mapping[str, Listed]
) -> Listed:
    """A path as a resource."""
    answer = _answer(document, operation)
    where, record = _records(document, answer)
    fields = tuple(_fields(document, record))
    names = {_plain(field.name): field.name for field in fields}
    is_child = "{" in path
    cursor = next((names[name] for name in CHANGED if name in names), "")
    since = next((name for name in query if _plain(name) in _SINCE), "") if cursor and not is_child else ""
    paginate, why = _pages(document, operation, answer, query)
    properties = _properties(document, answer)
    total = next((name for name in properties if _plain(name) in _TOTAL and _kind(properties[name]) == "integer"), "")
    segments = [segment for segment in path.split("/") if segment and "{" not in segment]
    resource = Resource(
        _unique(column_name(segments[-1]) or "resource" if segments else "resource", known),
        path=path,
        records=where or "data",
        paginate=paginate,
        since=since,
        cursor="" if is_child else cursor,
        total=total if _NAME.fullmatch(total) else "",
    )
    key = next((names[name] for name in _KEYS if name in names), "")
    changed = f"{since} asks for what changed" if since else "" if is_child else "everything is asked for each time"
    return Listed(resource, fields, key, tuple(filter(None, (why, changed))))


def _path(path: str, known: Mapping[str, Listed], at: Mapping[str, str]) -> str:
    """A path whose parameter is a field of a list before it: `/pedidos/{id}/itens` as `/pedidos/{pedidos.id}/itens`."""
    names = re.findall(r"\{([^}]+)\}", path)
    if not names:
        return path
    before = path.partition("{")[0].rstrip("/")
    parent = known.get(at.get(before, ""))
    if len(names) > 1 or parent is None or parent.resource.parent:
        raise _NoneError(f"it needs {', '.join(names)}")
    fields = {_plain(field.name): field.name for field in parent.fields}
    wanted = _plain(names[0])
    field = fields.get(wanted) or (fields.get("id") if wanted.endswith("id") or wanted in ("key", "codigo") else None)
    if field is None:
        raise _NoneError(f"it needs {names[0]}, which no field of {parent.name} is")
    return path.replace("{" + names[0] + "}", "{" + f"{parent.name}.{field}" + "}")


def _pages(document: Schema, operation: Schema, answer: Schema, query: Mapping[str, Schema]) -> tuple[Paginate, str]:
    """How pages follow each other, and why."""
    plain = {_plain(name): name for name in query}
    first = {names: next((plain[name] for name in names if name in plain), "") for names in (_SIZE, _CURSOR, _PAGE, _OFFSET)}
    size, cursor, page, offset = first.values()
    most = _most(document, query.get(size, {}))
    inside = [one for one in _deep(document, _properties(document, answer)) if _NAME.fullmatch(one[0])]
    following = next((where for where, name, _ in inside if _plain(name) in _NEXT_CURSOR), "")
    if cursor and following:
        return Cursor(following, parameter=cursor), f"{following} goes into {cursor}"
    url = next((where for where, name, kind in inside if _plain(name) in _NEXT_URL and kind == "string"), "")
    if url:
        return NextUrl(url), f"{url} is the next page's URL"
    responses = operation.get("responses") or {}
    headers = [name for each in responses.values() if isinstance(each, dict) for name in (each.get("headers") or {})]
    if any(name.lower() == "link" for name in headers):
        return LinkHeader(), "the header Link leads to the next page"
    if page:
        return Pages(most, parameter=page, size_parameter=size or "per_page"), f"{page} is the number of a page"
    if offset and size:
        return Offset(most, parameter=offset, size_parameter=size), f"{offset} passes records over"
    return Single(), "nothing leads to another page"


def _most(document: Schema, parameter: Schema) -> int:
    """The largest page that a parameter allows, up to 1,000."""
    schema = _resolved(document, parameter.get("schema") or parameter)
    most = schema.get("maximum", schema.get("default", 100))
    return min(int(most), 1_000) if isinstance(most, (int, float)) and most >= 1 else 100


# --- schemas -----------------------------------------------------------------------------------------------------------


def _answer(document: Schema, operation: Schema) -> Schema:
    """The schema of a good answer; empty where it is no JSON."""
    responses = operation.get("responses") or {}
    reply = next((_resolved(document, responses[code]) for code in ("200", 200, "default", "2XX") if code in responses), {})
    if isinstance(reply.get("schema"), dict):  # Swagger 2.0
        return _resolved(document, reply["schema"])
    content = reply.get("content") or {}
    found: Any = next((each for kind, each in content.items() if "json" in kind or kind == "*/*"), {})
    return _resolved(document, found.get("schema") or {}) if isinstance(found, dict) else {}


def _records(document: Schema, answer: Schema) -> tuple[str, Schema]:
    """Where in an answer its records are, empty where it is the list itself, and the schema of one."""
    if _kind(answer) == "array" and _properties(document, item := _resolved(document, answer.get("items") or {})):
        return "", item
    lists: dict[str, Schema] = {}
    for where, schema in _walk(document, _properties(document, answer), "", 2):
        item = _resolved(document, schema.get("items") or {}) if _kind(schema) == "array" else {}
        if _properties(document, item) and _NAME.fullmatch(where):
            lists[where] = item
    named = sorted(lists, key=lambda where: (_rank(where), where.count("."), where))
    if not named or (len(named) > 1 and _rank(named[0]) == len(_LISTS)):
        raise _NoneError("its answer lists no records")
    return named[0], lists[named[0]]


def _rank(where: str) -> int:
    name = _plain(where.rpartition(".")[2])
    return _LISTS.index(name) if name in _LISTS else len(_LISTS)


def _walk(document: Schema, properties: Schema, before: str, depth: int) -> Iterator[tuple[str, Schema]]:
    for name, given in properties.items():
        schema = _resolved(document, given)
        where = f"{before}.{name}" if before else str(name)
        yield where, schema
        if depth > 1 and _kind(schema) == "object":
            yield from _walk(document, _properties(document, schema), where, depth - 1)


def _deep(document: Schema, properties: Schema) -> Iterator[tuple[str, str, str]]:
    """Path, name and kind of the properties of an answer and of the objects within it."""
    for where, schema in _walk(document, properties, "", 2):
        yield where, where.rpartition(".")[2], _kind(schema)


def _fields(document: Schema, record: Schema) -> Iterator[Field]:
    for name, given in _properties(document, record).items():
        schema = _resolved(document, given)
        text = " ".join(str(schema.get("description") or "").split())
        yield Field(str(name), _type(schema), text[:200])


def _type(schema: Schema) -> str:
    kind, form = _kind(schema), str(schema.get("format") or "")
    if kind == "integer":
        return "bigint"
    if kind == "number":
        return "double" if form in ("float", "double") else "decimal(38,9)"
    if kind == "boolean":
        return "boolean"
    return {"date": "date", "date-time": "timestamp"}.get(form, "string") if kind == "string" else "string"


def _kind(schema: Any) -> str:
    """The type of a schema without null; `object` where it has properties."""
    given = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(given, list):
        kinds = [one for one in given if one != "null"]
        given = kinds[0] if len(kinds) == 1 else None
    if given is None and isinstance(schema, dict):
        given = "object" if schema.get("properties") or schema.get("allOf") else "array" if schema.get("items") else ""
    return str(given or "")


def _properties(document: Schema, schema: Schema, depth: int = 0) -> dict[str, Any]:
    """The properties of an object, with those of what it is composed of."""
    if depth > _DEPTH:
        return {}
    found: dict[str, Any] = {}
    for part in schema.get("allOf") or ():
        found |= _properties(document, _resolved(document, part), depth + 1)
    own = schema.get("properties")
    return found | (dict(own) if isinstance(own, dict) else {})


def _resolved(document: Schema, given: Any) -> dict[str, Any]:
    """What a reference within the document leads to, and of two alternatives one of which is null the other; else itself."""
    for _ in range(_DEPTH):
        if not isinstance(given, dict):
            return {}
        options = [one for name in ("oneOf", "anyOf") for one in given.get(name) or () if _kind(one) != "null"]
        if len(options) == 1:
            given = options[0]
            continue
        reference = given.get("$ref")
        if not isinstance(reference, str):
            return given
        target: Any = document if reference.startswith("#/") else {}
        for part in reference.removeprefix("#/").split("/"):
            step = part.replace("~1", "/").replace("~0", "~")
            target = target.get(step, {}) if isinstance(target, dict) else {}
        given = target
    return {}


# --- the API -----------------------------------------------------------------------------------------------------------


def _server(document: Schema, url: str) -> str:
    servers = document.get("servers")
    if isinstance(servers, list) and servers and isinstance(servers[0], dict):
        given = str(servers[0].get("url") or "/")
        for name, one in (servers[0].get("variables") or {}).items():
            given = given.replace("{" + str(name) + "}", str(one.get("default", "")) if isinstance(one, dict) else "")
        return urljoin(url, given).rstrip("/")
    if document.get("host") or document.get("basePath"):
        parts = urlsplit(url)
        schemes = document.get("schemes") or [parts.scheme]
        scheme = "https" if "https" in schemes else str(schemes[0])
        return f"{scheme}://{document.get('host') or parts.netloc}{document.get('basePath') or ''}".rstrip("/")
    return urljoin(url, "/").rstrip("/")


def _auth(document: Schema, prefix: str) -> Auth | None:
    """What lets us in, with settings for what is secret."""

    def secret(suffix: str) -> Any:
        return setting(f"{prefix}_{suffix}", secret=True)

    components = document.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, dict) else None
    for given in (schemes or document.get("securityDefinitions") or {}).values():
        one = _resolved(document, given)
        kind, scheme, name = str(one.get("type")), str(one.get("scheme", "")).lower(), str(one.get("name"))
        if (kind == "http" and scheme == "bearer") or (kind == "apiKey" and name.lower() == "authorization"):
            return Bearer(secret("TOKEN"))
        if kind == "apiKey" and one.get("in") in ("header", "query") and _NAME.fullmatch(name):
            return ApiKey(secret("KEY"), **{str(one["in"]): name})
        if kind == "basic" or (kind == "http" and scheme == "basic"):
            return Basic(setting(f"{prefix}_USER"), secret("PASSWORD"))
        flow = (one.get("flows") or {}).get("clientCredentials") if kind == "oauth2" else None
        if isinstance(flow, dict) and flow.get("tokenUrl"):
            return OAuth2ClientCredentials(
                setting(f"{prefix}_TOKEN_URL"), setting(f"{prefix}_CLIENT_ID"), secret("CLIENT_SECRET")
            )
    return None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _unique(name: str, known: Mapping[str, Any]) -> str:
    number = 2
    found = name
    while found in known:
        found, number = f"{name}_{number}", number + 1
    return found
