"""The resources of a declared API: each is asked, and lands; children are asked for the records of their parent.

    pedidos ─▶ staged ─┬─▶ {pedidos.id}, each once ─▶ /v1/pedidos/17/itens, ... (in parallel) ─▶ staged ─▶ landed first
                       └────────────────────────────────────────────────────────────────────────────────▶ landed last

A parent's cursor says that its children are there as well, so it moves last: a kill before that has the same parents, and their
children, asked for again. Children are asked for parents that this extraction delivers: those that changed where the parent has
`since`, all of them where it has none or a full extraction is asked for.

Does not belong here: one resource's pages (`rest.py`), how records land once (`extract.py`).
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lakehouse.core.engines.duckdb import literal, quoted
from lakehouse.core.errors import SourceRefusedError
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.sources import rest
from lakehouse.landing.sources.access import Access
from lakehouse.landing.sources.cursors import point_sql
from lakehouse.landing.sources.extract import Landed, land
from lakehouse.landing.sources.fetch import new_session
from lakehouse.landing.sources.generation import land_generation
from lakehouse.landing.sources.rate import Limiter
from lakehouse.landing.sources.window import Window
from lakehouse.tables.spec.rest import PLACEHOLDER, ApiKey, Basic, Bearer, OAuth2ClientCredentials, Resource, RestApi
from lakehouse.tables.spec.setting import plain

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.landing.sources.registry import Work

#: Pages that wait to be written while others are asked for.
_WAITING = 8
_KEYS = 1_000


@dataclass(frozen=True)
class _Staged:
    """A resource that was fetched and has not landed: its files where the session may read them."""

    api: rest.Api
    fetched: rest.Fetched
    paths: list[str]
    landed: list[LandedFile]


def take(system: RestApi, work: "Work") -> tuple[dict[str, Landed], dict[str, Any]]:
    """Ask for all resources, and land them. Returns what landed by resource, and the extraction's metadata.

    Raises:
        SourceDownError: worth another try; resources that were whole have landed.
        SourceRefusedError: not.
    """
    found: dict[str, Landed] = {}
    staged: dict[str, _Staged] = {}
    apis = {resource.name: api for resource, api in zip(system.resources, apis_of(system, work), strict=True)}
    for tree in trees(system.resources):
        for resource in tree:
            staged[resource.name] = _staged(system, resource, apis, staged, work)
        for resource in reversed(tree):
            found[resource.name] = _landed(system.folder(resource), resource, staged[resource.name], work)
    fetched = [one.fetched for one in staged.values()]
    metadata = {
        "source": next(iter(apis.values())).location,
        "cache_hit": all(one.hit for one in fetched),
        "fetched_at": min(one.started for one in fetched).isoformat(),
    }
    return {resource.name: found[resource.name] for resource in system.resources}, metadata


def _landed(folder: str, resource: Resource, one: _Staged, work: "Work") -> Landed:
    """Land what was fetched of a resource: what is new; all of it as a generation where nothing says what is new."""
    if resource.full_refresh:
        return land_generation(work.session, work.storage, folder, one.paths, started=one.fetched.started, landed=one.landed)
    return land(
        work.session,
        work.storage,
        folder,
        one.paths,
        cursor_field=resource.cursor,
        started=one.fetched.started,
        landed=one.landed,
        # The end of a window is that of the parents: what a child has later is not asked for again.
        window=Window() if resource.parent else work.window,
    )


def trees(resources: Iterable[Resource]) -> list[list[Resource]]:
    """Each resource without a parent, with all below it in the order in which they are asked for."""
    found: list[list[Resource]] = []
    for resource in resources:
        own = next((tree for tree in found if resource.parent in [each.name for each in tree]), None)
        if own is None:
            found.append([resource])
        else:
            own.append(resource)
    return found


def apis_of(system: RestApi, work: "Work") -> Iterator[rest.Api]:
    declared = work.declared.auth if isinstance(work.declared, RestApi) else None
    access, limiter = Access(system.auth, _credential(declared)), Limiter(system.rate)
    for resource in system.resources:
        yield rest.Api(
            url=rest.below(plain(system.url), resource.path),
            resource=resource.name if len(system.resources) > 1 else "",
            access=access,
            limiter=limiter,
            setting=work.setting,
            token_setting=access.setting if declared is not None else "",
            parameters=resource.parameters,
            headers=system.headers,
            since=resource.since,
            until=resource.until,
            end=work.window.until,
            records=resource.records,
            paginate=resource.paginate,
            total=resource.total,
            body=resource.body,
            encoding=system.encoding,
            name="sample" if work.sample else "",
            request_seconds=system.request_seconds,
            cache_seconds=0 if work.window else _seconds(system.cache),
        )


def _staged(
    system: RestApi, resource: Resource, apis: Mapping[str, rest.Api], staged: Mapping[str, _Staged], work: "Work"
) -> _Staged:
    """Fetch a resource, or take what was fetched of it within the hour."""
    api, folder = apis[resource.name], system.folder(resource)
    landed = work.storage.landed(folder)
    cache = Path(work.cache, *([] if len(system.resources) == 1 else [resource.name]))
    if resource.parent:
        parent = staged[resource.parent]
        batches = _children(system, resource, api, parent, work)
        since, after = parent.fetched.since, parent.fetched.started
        fetched = rest.fetch(api, cache, since=since, deadline=work.deadline, batches=batches, after=after)
    else:
        since = work.since(landed) if resource.since else None
        fetched = rest.fetch(api, cache, since=since, deadline=work.deadline)
    here = work.scratch(folder)  # the cache is outside what a session may read
    return _Staged(api, fetched, [str(copy(path, here)) for path in fetched.paths], landed)


# --- children ----------------------------------------------------------------------------------------------------------


def _children(system: RestApi, resource: Resource, api: rest.Api, parent: _Staged, work: "Work") -> "Iterator[pa.RecordBatch]":
    """The records of a child resource, of all of the parent's records that were fetched."""
    above = next(each for each in system.resources if each.name == resource.parent)

    def pages(key: Mapping[str, str], session: Any) -> "Iterator[pa.RecordBatch]":
        columns = {f"{above.name}_{name}": value for name, value in key.items() if value is not None}
        one = replace(api, url=expanded(api.url, key, resource.name), columns=columns, patient=True)
        return rest.pages(one, since=None, deadline=work.deadline, session=session)

    yield from in_parallel(_keys(above, resource, parent.paths, work), pages, workers=system.parallel)


def _keys(above: Resource, resource: Resource, paths: Sequence[str], work: "Work") -> Iterator[dict[str, str]]:
    """Each key among the parent's records once, with the newest instant at which the parent changed."""
    if not paths:
        return
    connection = work.session.connection.cursor()
    read = "read_parquet($1, union_by_name = true, hive_partitioning = false)"
    names = [row[0] for row in connection.execute(f"DESCRIBE FROM {read}", [[*map(literal, paths)]]).fetchall()]  # nosec B608
    if missing := sorted({*resource.fields} - {*names}):
        raise SourceRefusedError(
            f"Resource {resource.name} needs the field {missing[0]!r} of {above.name}, which its records have not.",
            remedy=f"They have {', '.join(sorted(names)[:20])}.",
        )
    keys = ", ".join(map(quoted, resource.fields))
    chosen, wanted = keys, list(resource.fields)
    if above.cursor in names and above.cursor not in resource.fields:
        instant, own = point_sql("instant", above.cursor, names), quoted(above.cursor)
        chosen += f", coalesce(arg_max({own}, {instant}), max({own}))"
        wanted.append(above.cursor)
    there = " AND ".join(f"{quoted(name)} <> ''" for name in resource.fields)
    found = connection.execute(
        f"SELECT {chosen} FROM {read} WHERE {there} GROUP BY {keys} ORDER BY {keys}",  # nosec B608 # names are quoted
        [[*map(literal, paths)]],
    )
    while rows := found.fetchmany(_KEYS):
        yield from (dict(zip(wanted, row, strict=True)) for row in rows)


def expanded(url: str, key: Mapping[str, str], resource: str) -> str:
    """The URL of a child resource for one of the parent's records.

    Raises:
        SourceRefusedError: a value cannot be a part of a path.
    """

    def value(name: str) -> str:
        if key[name] in (".", ".."):
            raise SourceRefusedError(
                f"Resource {resource}: {key[name]!r} as {name} of its parent cannot be in a path.", remedy="Fix it in the source."
            )
        return quote(key[name], safe="")

    return PLACEHOLDER.sub(lambda found: value(found[2]), url)


def in_parallel(
    keys: Iterator[dict[str, str]],
    pages: "Callable[[Mapping[str, str], Any], Iterator[pa.RecordBatch]]",
    *,
    workers: int,
) -> "Iterator[pa.RecordBatch]":
    """The pages of all keys, of so many keys at a time; the first error ends it. What waits to be taken is bounded."""
    found: queue.Queue[Any] = queue.Queue(_WAITING)
    lock, over = threading.Lock(), threading.Event()

    def put(each: Any) -> None:
        while not over.is_set():
            try:
                found.put(each, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            with new_session() as session:
                while not over.is_set():
                    with lock:
                        key = next(keys, None)
                    if key is None:
                        break
                    for page in pages(key, session):
                        put(page)
            put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the pages are taken
            put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        running = workers
        while running:
            each = found.get()
            if isinstance(each, BaseException):
                raise each
            if each is None:
                running -= 1
            else:
                yield each
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _credential(declared: Any) -> str:
    """What messages call the credential: its setting's name."""
    secret = {Bearer: "token", ApiKey: "key", Basic: "password", OAuth2ClientCredentials: "client_secret"}.get(type(declared))
    return getattr(getattr(declared, secret, None), "name", "its credential") if secret else "auth"


def _seconds(value: Any) -> float:
    """A duration of a resolved declaration: a timedelta, or a setting in seconds."""
    return float(value.total_seconds() if hasattr(value, "total_seconds") else value)
