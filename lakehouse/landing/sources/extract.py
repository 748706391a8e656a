"""Extraction: what a source delivered becomes landed files, each record once, and the cursor follows from those files.

    names of landed files ─▶ cursor ─▶ [a source: batches of text columns, staged on this machine]
        ─▶ minus the records that landed before ─▶ raw/<stream>/<newest>_<digest>[_until_<cursor>].parquet

There is no state beside the landed files, so nothing can be ahead of them. An extraction asks for everything from the cursor
on, ties and an overlap included (what a slow transaction committed late), and lands what is not there yet: a record is
known by what it says and by how many copies of it came before, so a copy that the source really has twice lands twice, and
what is asked for again does not. The last file of an extraction alone carries the cursor in its name, and is put when the
others are there: a kill leaves records that the next extraction recognises, and the cursor where it was.

Files are Airbyte's v2 layout in Parquet, every field as text (typing is silver's work); names follow from the content and
are put only if absent. Does not belong here: how a source is asked (`rest.py`, `database.py`).
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import duckdb

from lakehouse.core.engines.duckdb import DuckDBSession, bounded, literal, quoted, text
from lakehouse.core.errors import SourceRefusedError
from lakehouse.core.names import AIRBYTE
from lakehouse.core.store import files
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.sources.window import Window

if TYPE_CHECKING:
    import pyarrow as pa

_INSTANT = "%Y%m%dT%H%M%S%f"
_NAME = re.compile(r"(?P<newest>\d{8}T\d{12})_[0-9a-f]{32}(_until_(?P<until>\d{8}T\d{12}))?\.parquet")
#: In a name: the file holds a record without a readable instant, which is delivered every time.
_UNDATED = datetime(9999, 12, 31, tzinfo=UTC)
_PART_MB = 64
_NEW = Window()
#: What is gathered of small batches before it is written.
_GROUP_ROWS, _GROUP_BYTES = 50_000, 4_000_000
_LINE_BYTES = 16_000_000


@dataclass(frozen=True)
class Landed:
    """What an extraction left in landing. `delivered` counts what the source gave, `new` what was not there before."""

    delivered: int
    new: int
    files: tuple[str, ...]
    cursor: datetime | None


def cursor(landed: Iterable[LandedFile]) -> datetime | None:
    """How far complete extractions have come: the newest instant of the cursor field; None before the first."""
    found = [instant for file in landed if (instant := _instants(file)[1]) is not None]
    return max(found, default=None)


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
    window: Window = _NEW,
) -> Landed:
    """Land what is new among the staged records. The caller holds the stream.

    Args:
        staged: files of one extraction on this machine: Parquet or CSV with a header, all text.
        started: when the source was asked; no cursor goes beyond it, whatever instants the records say.
        landed: the files of the stream as they were when the source was asked.
        window: what was asked for; records from its end on are left out.

    Raises:
        SourceRefusedError: the source has a field of Airbyte's own name.
    """
    before = cursor(landed)
    if not staged:
        return Landed(0, 0, (), before)
    records = _read(session, staged)
    names = list(records.columns)
    if taken := sorted(set(names) & set(AIRBYTE)):
        raise SourceRefusedError(
            f"The source of {stream} has a field {taken[0]!r}, which is Airbyte's.", remedy="Rename it in the source's query."
        )
    if window.until is not None:
        instant = instant_sql(cursor_field, names)
        records = records.filter(f"({instant}) IS NULL OR ({instant}) < TIMESTAMPTZ {text(window.until.isoformat())}")
    folder = Path(session.folder, f"landing-{stream.replace('/', '-')}")
    folder.mkdir()
    older = _with_instants_from(landed, _oldest(records, cursor_field) if landed else None)
    delivered, parts = _stage_new(session, storage, records, names, folder, started=started, older=older)
    described = [_describe(session, part, cursor_field, names) for part in parts]
    # A source whose clock is ahead, or a date in the next century, must not hide what comes before it.
    until = window.reach(before, [min(dated, started) for _, dated, _, _ in described if dated is not None])
    put = []
    for number, (path, dated, undated, (rows, digest)) in enumerate(described, start=1):
        newest = _UNDATED if undated or dated is None else dated
        last = f"_until_{_stamp(until)}" if number == len(described) and until is not None else ""
        name = f"raw/{stream}/{_stamp(newest)}_{digest}{last}.parquet"
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
    parts = ", ".join(f"{text(name + '=')} || {quoted(name)}" for name in names)
    known = records.select(duckdb.SQLExpression(f"md5(concat_ws(chr(31), {parts}))").alias("_digest"), duckdb.StarExpression())
    known.create_view("_digested")
    # The source's files are read once: the rest of this looks at the records twice more.
    connection.execute("CREATE TEMP TABLE _delivered AS FROM _digested")
    # A window over all of them takes three times as long as a window over the few that came more than once.
    connection.execute("CREATE TEMP TABLE _copies AS SELECT _digest FROM _delivered GROUP BY 1 HAVING count(*) > 1")
    once = "SELECT *, _digest || '-0' AS _id FROM _delivered ANTI JOIN _copies USING (_digest)"
    copy = "row_number() OVER (PARTITION BY _digest) - 1"
    more = f"SELECT *, concat(_digest, '-', {copy}) AS _id FROM _delivered SEMI JOIN _copies USING (_digest)"  # nosec B608 # fixed text
    here = storage.landed_here(older, f"{session.folder}/landed-{folder.name}")
    paths = [literal(f"{here}/{file.path}") for file in older]
    seen = connection.sql("SELECT NULL AS _id WHERE false")
    if paths:
        read = "FROM read_parquet($1, union_by_name = true, hive_partitioning = false)"
        seen = connection.sql(f"SELECT _airbyte_raw_id AS _id {read}", params=[paths])
    seen.create_view("_seen")
    envelope = {
        "_airbyte_raw_id": "_id",
        "_airbyte_extracted_at": f"TIMESTAMPTZ {text(started.isoformat())}",
        "_airbyte_meta": text('{"changes":[]}'),
        "_airbyte_generation_id": "CAST(0 AS BIGINT)",
    }
    columns = [f"{value} AS {name}" for name, value in envelope.items()] + [quoted(name) for name in names]
    wanted = f"SELECT {', '.join(columns)} FROM ({once} UNION ALL {more}) ANTI JOIN _seen USING (_id)"  # nosec B608 # names are quoted
    connection.execute(f"CREATE VIEW _new AS {wanted}")
    result = connection.execute(
        f"COPY _new TO $1 (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, RETURN_FILES, "
        f"FILE_SIZE_BYTES {_PART_MB * 1_000_000:d}, WRITE_EMPTY_FILE false)",
        [str(folder / "data")],
    ).fetchall()
    [(count,)] = connection.execute("SELECT count(*) FROM _delivered").fetchall()
    for kind, name in (("VIEW", "_new"), ("VIEW", "_seen"), ("TABLE", "_copies"), ("TABLE", "_delivered"), ("VIEW", "_digested")):
        connection.execute(f"DROP {kind} {name}")
    return count, sorted(str(path) for row in result for path in row[1])


def _describe(
    session: DuckDBSession, path: str, cursor_field: str, names: Sequence[str]
) -> tuple[str, datetime | None, bool, tuple[int, str]]:
    """Of a part: path, newest instant, whether a record has none, rows, and a digest that its records' order leaves alone."""
    dated = instant_sql(cursor_field, names)
    digest = "md5(concat(count(*), bit_xor(md5_number(_airbyte_raw_id))))"
    [(newest, filled, rows, found)] = session.connection.execute(
        f"SELECT epoch_us(max({dated})), count({dated}), count(*), {digest} FROM read_parquet($1)",  # nosec B608 # quoted
        [literal(path)],
    ).fetchall()
    return path, _from_micros(newest), filled < rows, (rows, found)


def instant_sql(cursor_field: str, names: Sequence[str]) -> str:
    """SQL of a record's instant; null where it says none that can be read."""
    if cursor_field not in names:
        return "CAST(NULL AS TIMESTAMPTZ)"
    return bounded(f"TRY_CAST({quoted(cursor_field)} AS TIMESTAMPTZ)", "timestamp")


def _oldest(records: duckdb.DuckDBPyRelation, cursor_field: str) -> datetime | None:
    """The oldest instant among the records, whatever was asked for: a source may say more than that."""
    [(oldest,)] = records.aggregate(f"epoch_us(min({instant_sql(cursor_field, records.columns)}))").fetchall()
    return _from_micros(oldest)


def _with_instants_from(landed: Sequence[LandedFile], oldest: datetime | None) -> list[LandedFile]:
    """The landed files that may hold a record of that instant or later, or of none."""
    return [file for file in landed if oldest is None or _instants(file)[0] >= oldest]


def _from_micros(value: int | None) -> datetime | None:
    return None if value is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)


def _read(session: DuckDBSession, staged: Sequence[str]) -> duckdb.DuckDBPyRelation:
    paths = [literal(path) for path in staged]
    if staged[0].endswith(".csv"):
        with Path(staged[0]).open(encoding="utf-8", newline="") as content:
            header = next(csv.reader(content))
        columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in header)
        # COPY writes a null as nothing, and an empty text in quotes.
        options = f"columns = {{{columns}}}, auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', "
        options += f"nullstr = '', allow_quoted_nulls = false, max_line_size = {_LINE_BYTES:d}"
        return session.connection.sql(f"FROM read_csv($1, {options})", params=[paths])
    return session.connection.sql("FROM read_parquet($1, union_by_name = true, hive_partitioning = false)", params=[paths])


def _instants(file: LandedFile) -> tuple[datetime, datetime | None]:
    """Newest record of a landed file, and the cursor that it carries. Another writer's may hold anything and carries none."""
    found = _NAME.fullmatch(Path(file.path).name)
    if found is None:
        return _UNDATED, None
    newest, until = (datetime.strptime(t, _INSTANT).replace(tzinfo=UTC) if t else None for t in found.group("newest", "until"))
    return newest or _UNDATED, until


def _stamp(instant: datetime) -> str:
    found = instant.astimezone(UTC)
    return f"{found.year:04}{found:%m%dT%H%M%S%f}"  # %Y leaves out leading zeros
