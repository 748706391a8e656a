"""Extraction: what a source delivered becomes landed files, each record once, and the cursor follows from those files.

    names of landed files ─▶ cursor ─▶ [a source: batches of text columns, staged on this machine]
        ─▶ minus the records that landed before ─▶ raw/<stream>/<newest>_<digest>[_until_<cursor>].parquet

There is no state beside the landed files, so nothing can be ahead of them. An extraction asks for everything from the cursor
on, ties and an overlap included (what a slow transaction committed late), and lands what is not there yet: a record is
known by what it says and by how many copies of it came before, so a copy that the source really has twice lands twice, and
what is asked for again does not. The last file of an extraction alone carries the cursor in its name, and is put when the
others are there: a kill leaves records that the next extraction recognises, and the cursor where it was.

Files are Airbyte's v2 layout in Parquet, every field as text (typing is silver's work); names follow from the content and
are put only if absent. Does not belong here: how a source is asked (`rest.py`, `database.py`), what names tell (`cursors.py`),
a stream that lands whole every time (`generation.py`).
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import duckdb

from lakehouse.core.engines.casts import LOCAL
from lakehouse.core.engines.duckdb import DuckDBSession, literal, quoted, text
from lakehouse.core.errors import SourceRefusedError
from lakehouse.core.names import AIRBYTE
from lakehouse.core.store import files
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.sources.catalogue import CursorKind
from lakehouse.landing.sources.cursors import (
    UNDATED,
    Point,
    aggregate_sql,
    cursor,
    point_sql,
    read_point,
    stamp,
    with_points_from,
)
from lakehouse.landing.sources.window import Window

if TYPE_CHECKING:
    import pyarrow as pa

_PART_MB = 64
_NEW = Window()
#: What is gathered of small batches before it is written.
_GROUP_ROWS, _GROUP_BYTES = 50_000, 4_000_000
_LINE_BYTES = 16_000_000
#: Of a file's records, whatever their order.
DIGEST = "md5(concat(count(*), bit_xor(md5_number(_airbyte_raw_id))))"


@dataclass(frozen=True)
class Landed:
    """What an extraction left in landing. `delivered` counts what the source gave, `new` what was not there before. A stream that
    lands whole has no cursor, and the number of its `generation`."""

    delivered: int
    new: int
    files: tuple[str, ...]
    cursor: Point | None
    generation: int = 0


def stage_batches(batches: "Iterable[pa.RecordBatch]", folder: Path) -> list[str]:
    """Write batches of text columns as Parquet files, a new one where the columns change. Returns their paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths: list[str] = []
    writer: Any = None
    waiting: list[pa.RecordBatch] = []
    rows = size = 0

    def write() -> None:
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
            waiting.clear()

    try:
        for batch in batches:
            if writer is None or writer.schema != batch.schema:
                if writer is not None:
                    write()
                    writer.close()
                paths.append(str(folder / f"staged-{len(paths):05}.parquet"))
                writer = pq.ParquetWriter(paths[-1], batch.schema, compression="snappy")
                rows = size = 0
            waiting.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                write()
                rows = size = 0
        write()
    finally:
        if writer is not None:
            writer.close()
    pa.default_memory_pool().release_unused()  # what follows has a bound of its own
    return paths


def as_text(value: object) -> str | None:
    """A value as the text that bronze keeps."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=float)
    return str(value)


def text_batch(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> "pa.RecordBatch":
    """Rows as a batch of text columns."""
    import pyarrow as pa

    columns = [_text_column([row.get(name) for row in rows]) for name in names]
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def _text_column(values: list[Any]) -> "pa.Array":
    """Values as `as_text` has them. Texts and numbers, which most are, take no call of our own for each."""
    import pyarrow as pa

    kinds = {*map(type, values)} - {NoneType}
    if kinds <= {int, Decimal}:
        values = [value if value is None else str(value) for value in values]
    elif kinds != {str}:
        values = list(map(as_text, values))
    return pa.array(values, pa.string())


def land(
    session: DuckDBSession,
    storage: Storage,
    stream: str,
    staged: Sequence[str],
    *,
    cursor_field: str,
    started: datetime,
    landed: Sequence[LandedFile],
    kind: CursorKind = "instant",
    zones: Mapping[str, str] | None = None,
    window: Window = _NEW,
) -> Landed:
    """Land what is new among the staged records. The caller holds the stream.

    Args:
        staged: files of one extraction on this machine: Parquet or CSV with a header, all text.
        kind: what the cursor field counts in.
        zones: of fields whose instants have no zone of their own and are not UTC.
        started: when the source was asked; no cursor goes beyond it, whatever instants the records say.
        landed: the files of the stream as they were when the source was asked.
        window: what was asked for; records from its end on are left out.

    Raises:
        SourceRefusedError: the source has a field of Airbyte's own name.
    """
    before = cursor(landed, kind)
    if not staged:
        return Landed(0, 0, (), before)
    records = read_staged(session, stream, staged, zones or {})
    names = list(records.columns)
    point = point_sql(kind, cursor_field, names)
    if window.until is not None:
        records = records.filter(f"({point}) IS NULL OR ({point}) < TIMESTAMPTZ {text(window.until.isoformat())}")
    folder = Path(session.folder, f"landing-{stream.replace('/', '-')}")
    folder.mkdir()
    older = with_points_from(landed, _oldest(records, kind, point) if landed else None)
    delivered, parts = _stage_new(session, storage, records, names, folder, started=started, older=older)
    described = [_describe(session, part, kind, point) for part in parts]
    # A source whose clock is ahead, or a date in the next century, must not hide what comes before it.
    reached = [min(dated, started) if isinstance(dated, datetime) else dated for _, dated, _, _ in described if dated is not None]
    until = window.reach(before, reached)
    put = []
    for number, (path, dated, undated, (rows, digest)) in enumerate(described, start=1):
        newest = UNDATED if undated or dated is None else dated
        last = f"_until_{stamp(until)}" if number == len(described) and until is not None else ""
        name = f"raw/{stream}/{stamp(newest)}_{digest}{last}.parquet"
        files.put(storage.landed_path(name), Path(path), new=True)
        put.append((name, rows))
    return Landed(delivered, sum(rows for _, rows in put), tuple(name for name, _ in put), until)


def _stage_new(
    session: DuckDBSession,
    storage: Storage,
    records: duckdb.DuckDBPyRelation,
    names: Sequence[str],
    folder: Path,
    *,
    started: datetime,
    older: Sequence[LandedFile],
) -> tuple[int, list[str]]:
    connection = session.connection
    here = storage.landed_here(older, f"{session.folder}/landed-{folder.name}")
    paths = [literal(f"{here}/{file.path}") for file in older]
    seen = connection.sql("SELECT NULL AS _id WHERE false")
    if paths:
        read = "FROM read_parquet($1, union_by_name = true, hive_partitioning = false)"
        seen = connection.sql(f"SELECT _airbyte_raw_id AS _id {read}", params=[paths])
    with identified(session, records, names):
        seen.create_view("_seen")
        count, parts = stage_parts(
            session, "FROM _identified ANTI JOIN _seen USING (_id)", names, folder, started=started, generation=0
        )
        connection.execute("DROP VIEW _seen")
    return count, parts


@contextmanager
def identified(session: DuckDBSession, records: duckdb.DuckDBPyRelation, names: Sequence[str]) -> Iterator[None]:
    """The records as the view `_identified` for the block, each with an `_id`: a digest of it and the number of the copy.

    They are read once, into the table `_delivered`: the rest looks at them twice more.
    """
    connection = session.connection
    parts = ", ".join(f"{text(name + '=')} || {quoted(name)}" for name in names)
    known = records.select(duckdb.SQLExpression(f"md5(concat_ws(chr(31), {parts}))").alias("_digest"), duckdb.StarExpression())
    known.create_view("_digested")
    connection.execute("CREATE TEMP TABLE _delivered AS FROM _digested")
    # A window over all of them takes three times as long as a window over the few that came more than once.
    connection.execute("CREATE TEMP TABLE _copies AS SELECT _digest FROM _delivered GROUP BY 1 HAVING count(*) > 1")
    once = "SELECT *, _digest || '-0' AS _id FROM _delivered ANTI JOIN _copies USING (_digest)"
    copy = "row_number() OVER (PARTITION BY _digest) - 1"
    more = f"SELECT *, concat(_digest, '-', {copy}) AS _id FROM _delivered SEMI JOIN _copies USING (_digest)"  # nosec B608 # fixed text
    connection.execute(f"CREATE VIEW _identified AS {once} UNION ALL {more}")
    try:
        yield
    finally:
        for kind, name in (("VIEW", "_identified"), ("TABLE", "_copies"), ("TABLE", "_delivered"), ("VIEW", "_digested")):
            connection.execute(f"DROP {kind} {name}")


def stage_parts(
    session: DuckDBSession, source: str, names: Sequence[str], folder: Path, *, started: datetime, generation: int
) -> tuple[int, list[str]]:
    """Write what a FROM clause over `_identified` has to files in `folder`, with Airbyte's columns. Returns how many records were
    delivered, and the paths."""
    connection = session.connection
    envelope = {
        "_airbyte_raw_id": f"_id || '-g{generation:d}'" if generation else "_id",
        "_airbyte_extracted_at": f"TIMESTAMPTZ {text(started.isoformat())}",
        "_airbyte_meta": text('{"changes":[]}'),
        "_airbyte_generation_id": f"CAST({generation:d} AS BIGINT)",
    }
    columns = [f"{value} AS {name}" for name, value in envelope.items()] + [quoted(name) for name in names]
    connection.execute(f"CREATE VIEW _new AS SELECT {', '.join(columns)} {source}")
    result = connection.execute(
        f"COPY _new TO $1 (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, RETURN_FILES, "
        f"FILE_SIZE_BYTES {_PART_MB * 1_000_000:d}, WRITE_EMPTY_FILE false)",
        [str(folder / "data")],
    ).fetchall()
    [(count,)] = connection.execute("SELECT count(*) FROM _delivered").fetchall()
    connection.execute("DROP VIEW _new")
    return count, sorted(str(path) for row in result for path in row[1])


def _describe(session: DuckDBSession, path: str, kind: CursorKind, point: str) -> tuple[str, Point | None, bool, tuple[int, str]]:
    """Of a part: path, newest point, whether a record has none, rows, and a digest that its records' order leaves alone."""
    [(newest, filled, rows, found)] = session.connection.execute(
        f"SELECT {aggregate_sql(kind, 'max', point)}, count({point}), count(*), {DIGEST} FROM read_parquet($1)",  # nosec B608 # quoted
        [literal(path)],
    ).fetchall()
    return path, read_point(kind, newest), filled < rows, (rows, found)


def _oldest(records: duckdb.DuckDBPyRelation, kind: CursorKind, point: str) -> Point | None:
    """The oldest point among the records, whatever was asked for: a source may deliver more than that."""
    [(oldest,)] = records.aggregate(aggregate_sql(kind, "min", point)).fetchall()
    return read_point(kind, oldest)


def read_staged(session: DuckDBSession, stream: str, staged: Sequence[str], zones: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
    """The staged records, all text; instants of a zone as those of UTC.

    Raises:
        SourceRefusedError: the source has a field of Airbyte's own name, or two that differ in case alone.
    """
    if twins := namesakes(list(dict.fromkeys(name for path in staged for name in _names(path)))):
        raise SourceRefusedError(
            f"The source of {stream} has the fields {twins[0]!r} and {twins[1]!r}, which an engine takes for one.",
            remedy="Have the source deliver one of them, or give them names that differ in more than case.",
        )
    records = _read(session, staged)
    names = list(records.columns)
    if taken := sorted(set(names) & set(AIRBYTE)):
        raise SourceRefusedError(
            f"The source of {stream} has a field {taken[0]!r}, which is Airbyte's.", remedy="Rename it in the source's query."
        )
    if not zones:
        return records
    return records.select(*(duckdb.SQLExpression(_in_utc(name, zones.get(name, ""))).alias(name) for name in names))


def _in_utc(name: str, zone: str) -> str:
    """SQL of a field whose texts are instants of a zone, with their offset; what is no such text stays as it is."""
    if not zone:
        return quoted(name)
    instant = f"TRY_CAST({quoted(name)} AS TIMESTAMP) AT TIME ZONE {text(zone)}"
    local = f"regexp_full_match({quoted(name)}, {text(LOCAL)})"
    return f"CASE WHEN {local} THEN coalesce(CAST({instant} AS VARCHAR), {quoted(name)}) ELSE {quoted(name)} END"


def namesakes(names: Sequence[str]) -> tuple[str, str] | None:
    """Two of some names that are the same but for case, or entirely; None where there are none."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            return seen[name.lower()], name
        seen[name.lower()] = name
    return None


def _names(path: str) -> list[str]:
    """The fields of a staged file, as they were delivered."""
    if path.endswith(".csv"):
        with Path(path).open(encoding="utf-8", newline="") as content:
            return next(csv.reader(content))
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _read(session: DuckDBSession, staged: Sequence[str]) -> duckdb.DuckDBPyRelation:
    paths = [literal(path) for path in staged]
    if staged[0].endswith(".csv"):
        columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in _names(staged[0]))
        # COPY writes a null as nothing, and an empty text in quotes.
        options = f"columns = {{{columns}}}, auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', "
        options += f"nullstr = '', allow_quoted_nulls = false, max_line_size = {_LINE_BYTES:d}, "
        options += f"buffer_size = {2 * _LINE_BYTES:d}"  # DuckDB takes 16 lines otherwise, for each thread
        return session.connection.sql(f"FROM read_csv($1, {options})", params=[paths])
    return session.connection.sql("FROM read_parquet($1, union_by_name = true, hive_partitioning = false)", params=[paths])
