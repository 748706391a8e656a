"""Generations: a stream that is delivered whole every time lands whole, under the number of a generation of its own.

    staged records ─▶ as those of the newest generation? ─▶ raw/<stream>/g<generation>_<digest>[_all_<digest>].parquet
                                                        ─▶ raw/<stream>/_complete/<generation>

As with cursors (`extract.py`) landing is the only state. The last file of a generation carries a digest of all of its records
and is put when the others are there; the mark that it is complete, which `TableSpec(sync="overwrite")` waits for, follows. A
kill before that leaves a generation that nobody shows, and the next extraction lands one with a higher number. A stream that
has not changed lands nothing, and is marked again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lakehouse.core.engines.duckdb import DuckDBSession, literal, quoted
from lakehouse.core.errors import SourceRefusedError
from lakehouse.core.store import files
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.sources.extract import DIGEST, Landed, identified, read_staged, stage_parts

_NAME = re.compile(r"g(?P<generation>\d{1,18})_[0-9a-f]{32}(_all_(?P<all>[0-9a-f]{32}))?\.parquet")
_WHOLE = "md5(concat(count(*), bit_xor(md5_number(_id))))"
_NO_RECORDS = "cfcd208495d565ef66e7dff9f98764da"  # md5 of 0


@dataclass(frozen=True)
class _Newest:
    """The newest generation of a stream. `digest` is that of all its records; empty where not all of them landed."""

    number: int
    digest: str


def land_generation(
    session: DuckDBSession,
    storage: Storage,
    stream: str,
    staged: Sequence[str],
    *,
    started: datetime,
    landed: Sequence[LandedFile],
    key: Sequence[str] = (),
    zones: Mapping[str, str] | None = None,
) -> Landed:
    """Land the staged records as a generation, unless the newest one is the same. The caller has the lock of the stream.

    Args:
        staged: files of one extraction on this machine, all text; none of them, or none with records, is a generation too.
        started: when the source was asked.
        landed: the files of the stream as they were then.
        key: fields that no two records share, nor have as null.
        zones: of fields whose instants have no zone of their own and are not UTC.

    Raises:
        SourceRefusedError: the key is not one, or a field has one of Airbyte's names.
    """
    newest = _newest(storage, stream, landed)
    if not staged:  # a source that has no record tells no field either
        number = newest.number if newest.number and newest.digest == _NO_RECORDS else newest.number + 1
        storage.complete(stream, number)
        return Landed(0, 0, (), None, number)
    records = read_staged(session, stream, staged, zones or {})
    names = list(records.columns)
    folder = Path(session.folder, f"landing-{stream}")
    folder.mkdir(parents=True)
    with identified(session, records, names):
        _check_key(session, stream, names, key)
        [(count, digest)] = session.connection.execute(f"SELECT count(*), {_WHOLE} FROM _identified").fetchall()  # nosec B608
        if newest.number and digest == newest.digest:
            storage.complete(stream, newest.number)
            return Landed(count, 0, (), None, newest.number)
        number = newest.number + 1
        _, parts = stage_parts(session, "FROM _identified", names, folder, started=started, generation=number)
    put = []
    for position, part in enumerate(parts, start=1):
        [(own,)] = session.connection.execute(f"SELECT {DIGEST} FROM read_parquet($1)", [literal(part)]).fetchall()  # nosec B608
        last = f"_all_{digest}" if position == len(parts) else ""
        name = f"raw/{stream}/g{number}_{own}{last}.parquet"
        files.put(storage.landed_path(name), Path(part), new=True)
        put.append(name)
    storage.complete(stream, number)
    return Landed(count, count, tuple(put), None, number)


def _newest(storage: Storage, stream: str, landed: Sequence[LandedFile]) -> _Newest:
    """The newest generation that has a file or is complete; one without a file is of no records."""
    found = [named for file in landed if (named := _NAME.fullmatch(Path(file.path).name))]
    number = max([storage.completed(stream), *(int(named["generation"]) for named in found)])
    own = [named for named in found if int(named["generation"]) == number]
    empty = "" if own or not number else _NO_RECORDS
    return _Newest(number, next((named["all"] for named in own if named["all"]), empty))


def _check_key(session: DuckDBSession, stream: str, names: Sequence[str], key: Sequence[str]) -> None:
    if not key:
        return
    if missing := sorted({*key} - {*names}):
        raise SourceRefusedError(
            f"What {stream} returns has no column {missing[0]!r}, which is of its key.", remedy=f"It has {', '.join(names)}."
        )
    columns, null = ", ".join(map(quoted, key)), " OR ".join(f"{quoted(name)} IS NULL" for name in key)
    [(rows, unset)] = session.connection.execute(
        f"SELECT count(*) - (SELECT count(*) FROM (SELECT DISTINCT {columns} FROM _delivered)), count_if({null}) FROM _delivered"  # nosec B608
    ).fetchall()
    if rows or unset:
        raise SourceRefusedError(
            f"{stream}: of its key ({', '.join(key)}) {rows:,} rows are copies, and {unset:,} have a null.",
            remedy="Fix the query (a join may multiply rows) or its key in lakehouse/tables/.",
        )
