"""The DuckDB engine: in process, streaming, bounded by a memory limit, spilling to disk.

Numbers behind the choices (10 M sales, 2 cores): COPY with RETURN_STATS stages 5 M rows in 1.5 s where `write_deltalake` needs
2.7 s; ZSTD level 1 is as fast to scan as snappy and a quarter smaller; with insertion order kept, COPY splits a sorted
result into files of neighbouring rows (the row groups of a file may be out of order).
"""

import datetime as dt
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import duckdb
import narwhals as nw

from lakehouse.core.engines.casts import Cast, is_exact, may_round
from lakehouse.core.engines.copies import Copies
from lakehouse.core.engines.digits import exact, fingerprint, unmarked
from lakehouse.core.engines.duckdb_casts import CASTS
from lakehouse.core.engines.duckdb_database import confine, literal, open_database, quoted, sql_type, text
from lakehouse.core.engines.session import Session
from lakehouse.core.engines.statistics import column_statistic, data_file, parts
from lakehouse.core.expressions import Expression, uncomputable
from lakehouse.core.json_path import Step, pointer
from lakehouse.core.names import is_remote
from lakehouse.core.table.snapshot import DataFile

__all__ = ["DuckDBSession", "bounded", "confine", "literal", "quoted", "sql_type", "text"]

_PATH = "_lakehouse_path"
_SCHEME = r"\1://"
_READ = "FROM read_parquet($1, union_by_name = true, hive_partitioning = false, filename = $2)"
_WITH_ROW_ID = "SELECT *, file_index AS _lakehouse_file, file_row_number AS _lakehouse_row "
_ROW_GROUP = 122_880
_DATE = r"\d{4}-\d{2}-\d{2}"
_BOUND_TEXTS = {"date": _DATE, "timestamp": _DATE + r" [\d:.]+\+00"}
_BOUNDS = {
    "date": ("0001-01-01", "9999-12-31"),
    "timestamp": ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
}


class DuckDBSession(Session):
    """A private in-memory database that sees its `folders` and no other file. See `session.py` for the contract of each
    method."""

    preserves_order = True

    def __init__(self, *, memory_limit: str, spill: str, folders: Sequence[str], threads: int | None = None) -> None:
        Path(spill).mkdir(parents=True, exist_ok=True)
        #: A folder of this machine that goes with the session.
        self.folder = tempfile.mkdtemp(prefix="duckdb-", dir=spill)
        self._copies = Copies(self.folder)
        self.connection = open_database(memory_limit=memory_limit, spill=self.folder, folders=[*folders, spill], threads=threads)

    def close(self) -> None:
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(
        self,
        paths: Sequence[str],
        columns: Mapping[str, str],
        *,
        path_column: str | None = None,
        row_id: tuple[str, str] | None = None,
    ) -> "nw.LazyFrame[Any]":
        wanted = {**columns, **({path_column: "string"} if path_column else {}), **dict.fromkeys(row_id or (), "bigint")}
        if not paths:
            return self.table([], wanted)
        relation = self.connection.sql(
            (_WITH_ROW_ID if row_id else "") + _READ,
            params=[[literal(path) for path in self.local(paths)], path_column or _PATH],
        )
        present = set(relation.columns)
        texts = {n: quoted(n) if n in present else f"CAST(NULL AS {sql_type(kind)})" for n, kind in wanted.items()}
        texts.update(zip(row_id or (), ("_lakehouse_file", "_lakehouse_row"), strict=bool(row_id)))
        if path_column and any(map(is_remote, paths)):
            copies = re.escape(f"{self.folder}/copies/")
            uri = f"regexp_replace({quoted(path_column)}, {text(f'^{copies}([a-z0-9]+)/')}, {text(_SCHEME)})"
            texts[path_column] = uri
        return _frame(relation.select(*[duckdb.SQLExpression(text).alias(name) for name, text in texts.items()]))

    def stream(self, rows: Any) -> "nw.LazyFrame[Any]":
        """An Arrow stream (`pyarrow.RecordBatchReader`, or what has its C stream) as a frame that can be computed once."""
        return _frame(self.connection.from_arrow(rows))

    def without(self, frame: "nw.LazyFrame[Any]", other: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The rows of a frame that another of the same columns has not, or not as often; nested values by value."""
        return _frame(_relation(frame).except_(_relation(other)))  # EXCEPT ALL

    def copy(self, frame: "nw.LazyFrame[Any]", path: Path) -> None:
        """Write a frame as one Parquet file of this machine, as it comes."""
        _relation(frame).write_parquet(str(path), compression="snappy")

    def batches(self, frame: "nw.LazyFrame[Any]", *, rows: int = 10_000) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a frame of any size, so many at once."""
        for batch in _relation(frame).to_arrow_reader(rows):
            yield [*zip(*(column.to_pylist() for column in batch.columns), strict=True)]

    def local(self, paths: Sequence[str], *, folder: str = "") -> list[str]:
        """Paths on this machine of data files; copies of those in a bucket are below the session's folder or `folder`."""
        return self._copies.local(paths, folder=folder)

    def cast(
        self, frame: "nw.LazyFrame[Any]", casts: Mapping[str, tuple[str, Cast | str]], *, exact: bool = True
    ) -> "nw.LazyFrame[Any]":
        texts, values = CASTS.columns(casts, identifier=quoted, exact=exact)
        frame = self._add(self._add(frame, texts) if texts else frame, values)
        return frame.drop(*texts) if texts else frame

    def compute(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[Expression, str]], *, failed: str
    ) -> "nw.LazyFrame[Any]":
        # One step per value: a calculated column may read those before it. The struct tells a failure from a null result.
        for name, (expression, kind) in values.items():
            if expression.safe and kind == "boolean":
                frame = self._add(frame, {name: expression.sql("duckdb"), f"{failed}{name}": "false"})
                continue
            relation = _relation(frame)
            # From TIMESTAMPTZ to DATE DuckDB asks ICU, 0.4 s of CPU per 10 M rows; days are UTC here and need no calendar.
            instants = {n for n, t in zip(relation.columns, relation.types, strict=True) if t == "TIMESTAMP WITH TIME ZONE"}
            tried, value = f"_tried_{name}", f"({expression.sql('duckdb', instants=instants)})"
            converted = f"CAST({value} AS {sql_type(kind)})"
            try:
                source = _kind(relation, value) if is_exact(kind) else ""
                written = source == "VARCHAR"
                exactly = written or may_round(source, kind)
                frame = self._add(frame, {tried: _attempt(value if exactly else converted, repeats=expression.repeats)})
            except (duckdb.ProgrammingError, duckdb.DataError) as error:  # types that do not fit, a broken regular expression
                raise uncomputable(expression, kind, error) from error
            result, broken = f"{quoted(tried)}.v", f"{quoted(tried)} IS NULL"
            if written:
                number = CASTS.strict(result, Cast(kind))
                result, broken = number, f"{broken} OR ({result} IS NOT NULL AND {number} IS NULL)"
            elif exactly:
                fits, number = _fits(result, source, kind), f"TRY_CAST({result} AS {sql_type(kind)})"
                result, broken = f"CASE WHEN {fits} THEN {number} END", f"{broken} OR NOT {fits}"
            frame = self._add(frame, {name: result, f"{failed}{name}": broken}).drop(tried)
        return frame

    def extract(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[str, tuple[Step, ...]]], *, failed: str = ""
    ) -> "nw.LazyFrame[Any]":
        documents = {column: f"_document_{number}" for number, column in enumerate(sorted({of for of, _ in values.values()}))}
        frame = self._add(frame, {name: _document(quoted(column)) for column, name in documents.items()})
        found = {
            name: unmarked(f"json_extract_string({documents[column]}, {text(pointer(steps))})")
            for name, (column, steps) in values.items()
        }
        if failed:
            no = {name: f"{quoted(column)} IS NOT NULL AND {documents[column]} IS NULL" for name, (column, _) in values.items()}
            found |= {f"{failed}{name}": condition for name, condition in no.items()}
        return self._add(frame, found).drop(*documents.values())

    def elements(self, frame: "nw.LazyFrame[Any]", column: str, *, element: str, index: str, failed: str) -> "nw.LazyFrame[Any]":
        source, found = quoted(column), f"_elements_of_{column}"
        frame = self._add(frame, {found: f"json_extract_string({_document(source, begin='[')}, '$[*]')"})
        frame = self._add(frame, {failed: f"{source} <> '' AND {source} IS NOT NULL AND {quoted(found)} IS NULL"})
        # A list of nothing would take its row with it. The two lists are as long, so they go side by side.
        listed = f"unnest(CASE WHEN len({quoted(found)}) > 0 THEN {{}} ELSE [NULL] END)"
        each = {element: listed.format(quoted(found)), index: listed.format(f"range(len({quoted(found)}))")}
        frame = self._add(frame, each).drop(found)
        return self._add(frame, {element: unmarked(quoted(element))})

    def fingerprint(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        return self._add(frame, {name: fingerprint(map(quoted, columns))})

    def documents(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        fields = ", ".join(f"{quoted(column)} := {quoted(column)}" for column in columns)
        return self._add(frame, {name: f"CAST(to_json(struct_pack({fields})) AS VARCHAR)"})

    def digest(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        return self._add(frame, {name: f"CAST(hash({', '.join(map(quoted, columns))}) >> 2 AS BIGINT)"})

    def filter_true(self, frame: "nw.LazyFrame[Any]", column: str) -> "nw.LazyFrame[Any]":
        # A plain filter is pushed below the projections, and every cast it depends on is then done twice (10 M sales:
        # 12.0 s of CPU, 3.8 s like this). Nothing volatile is pushed down.
        return _frame(_relation(frame).filter(f"CASE WHEN random() < 0 THEN false ELSE {quoted(column)} END"))

    def persist(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        name = f"kept_{uuid.uuid4().hex}"
        _relation(frame).create_view(f"{name}_source")
        self.connection.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_source")
        return _frame(self.connection.table(name))

    def key_ranges(self, paths: Sequence[str], key: Sequence[str]) -> list[tuple[Any, Any, str]] | None:
        if not paths:
            return []
        now = quoted(key[0]) if len(key) == 1 else f"row({', '.join(map(quoted, key))})"
        complete = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in key)
        # COPY may put the row groups of a file out of order. That each row follows the one before it is part of the proof.
        columns = {
            "now": now,
            "complete": complete,
            "place": "_lakehouse_row",
            "file": "_lakehouse_file",
            "stretch": f"_lakehouse_row // {_ROW_GROUP:d}",
            "follows": f"lag({now}) OVER () < {now} AND lag(_lakehouse_row) OVER () = _lakehouse_row - 1",
        }
        proof = f"bool_and(complete AND (place % {_ROW_GROUP:d} = 0 OR coalesce(follows, false)))"

        def walk(some: Sequence[str]) -> list[tuple[Any, Any, str, bool]]:
            with self.connection.cursor() as cursor:
                relation = cursor.sql(_WITH_ROW_ID + "FROM read_parquet($1)", params=[[*map(literal, self.local(some))]])
                steps = relation.select(*[duckdb.SQLExpression(text).alias(name) for name, text in columns.items()])
                found = steps.aggregate(f"min(now), max(now), file, {proof}", "file, stretch").fetchall()
            return [(low, high, some[file], proven) for low, high, file, proven in found]

        # A window over a stream runs on one thread, so each gets its share of the files.
        threads = self.connection.sql("SELECT current_setting('threads')").fetchall()[0][0]
        shares = [paths[n::threads] for n in range(min(threads, len(paths)))]
        with ThreadPoolExecutor(len(shares)) as pool:
            found = [key_range for key_ranges in pool.map(walk, shares) for key_range in key_ranges]
        return [key_range[:3] for key_range in found] if all(proven for *_, proven in found) else None

    def rows(self, frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
        return _relation(frame).fetchall()

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> "nw.LazyFrame[Any]":
        name = f"values_{uuid.uuid4().hex}"
        declared = ", ".join(f"{quoted(column)} {sql_type(kind)}" for column, kind in columns.items())
        self.connection.execute(f"CREATE TEMP TABLE {name} ({declared})")
        if rows:  # column by column: executemany takes 0.3 ms a row, Arrow imports pandas
            lists = [f"unnest(CAST(${n} AS {sql_type(kind)}[]))" for n, kind in enumerate(columns.values(), start=1)]
            self.connection.execute(
                f"INSERT INTO {name} SELECT {', '.join(lists)}",
                [[row.get(column) for row in rows] for column in columns],
            )
        return _frame(self.connection.table(name))

    def write(
        self,
        frame: "nw.LazyFrame[Any]",
        folder: str,
        *,
        columns: Mapping[str, str],
        sort_by: Sequence[str] = (),
        file_mb: int = 64,
        partition: str = "",
    ) -> list[DataFile]:
        name = f"staged_{uuid.uuid4().hex}"
        relation = _relation(frame)
        have = dict(zip(relation.columns, map(str, relation.types), strict=True))
        values = {column: _must_convert(quoted(column), have.get(column, of), of) for column, of in columns.items()}
        casts = ", ".join(f"{value} AS {quoted(column)}" for column, value in values.items())
        order = [*([partition] if partition else []), *sort_by] if sort_by else []
        rows = f"SELECT {casts} FROM {name}_frame"  # nosec B608 # names are quoted
        rows += f" ORDER BY {', '.join(map(quoted, order))}" if order else ""
        relation.create_view(f"{name}_frame")
        kind = "TABLE" if partition else "VIEW"  # a table holds what is read again for every partition, in order
        try:
            self.connection.execute(f"CREATE TEMP {kind} {name} AS {rows}")
            with self._copies.staging(folder) as target:
                files: dict[str, DataFile] = {}  # described before the first is moved: what fails here leaves no file behind
                for number, (value, part) in enumerate(self._parts(name, folder, partition).items()):
                    written = self._copy(name, target / f"{number}", partition=partition, value=value, file_mb=file_mb)
                    files |= {entry["filename"]: _describe(entry, columns, part) for entry in written if entry["count"]}
                self._copies.adopt({staged: f"{folder}/{file.path}" for staged, file in files.items()})
                return list(files.values())
        finally:
            self.connection.execute(f"DROP {kind} IF EXISTS {name}")
            self.connection.execute(f"DROP VIEW {name}_frame")

    def _parts(self, name: str, folder: str, partition: str) -> dict[Any, dict[str, str]]:
        """The values of a table's partition column, each as the log says it; one that is all rows where there is no column."""
        if not partition:
            return {None: {}}
        found = self.connection.table(name).select(duckdb.ColumnExpression(partition)).distinct().order("1").fetchall()
        return parts([value for (value,) in found], folder=folder, partition=partition)

    def _copy(self, name: str, target: Path, *, partition: str, value: Any, file_mb: int) -> list[dict[str, Any]]:
        """Write a view's rows, or those of a partition, as files in `target`: what DuckDB says of each."""
        # A filtered scan of a table gives its blocks in any order.
        part = f"(FROM {name} WHERE {quoted(partition)} = $2 ORDER BY rowid)"
        rows, values = (part, [value]) if partition else (name, [])
        result = self.connection.execute(
            f"COPY {rows} TO $1 (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, RETURN_STATS, "
            f"FILE_SIZE_BYTES {file_mb * 1_000_000:d}, ROW_GROUP_SIZE {_ROW_GROUP:d}, WRITE_EMPTY_FILE false)",
            [str(target), *values],
        )
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def _add(self, frame: "nw.LazyFrame[Any]", values: Mapping[str, str]) -> "nw.LazyFrame[Any]":
        relation = _relation(frame)
        # One star instead of every column: DuckDB compares each expression of a select with the name of each column.
        retained = duckdb.StarExpression(exclude=[name for name in relation.columns if name in values])
        added = [duckdb.SQLExpression(text).alias(name) for name, text in values.items()]
        return _frame(relation.select(retained, *added))


def _relation(frame: "nw.LazyFrame[Any]") -> duckdb.DuckDBPyRelation:
    return cast("duckdb.DuckDBPyRelation", frame.to_native())


def _frame(relation: duckdb.DuckDBPyRelation) -> "nw.LazyFrame[Any]":
    return nw.from_native(relation)


def _kind(relation: duckdb.DuckDBPyRelation, text: str) -> str:
    """The type of an SQL text over a relation."""
    return str(relation.select(duckdb.SQLExpression(text)).types[0])


def _attempt(value: str, *, repeats: bool) -> str:
    """A struct `v` of a value, null where that cannot be evaluated.

    A part that occurs twice DuckDB computes once for both, outside of TRY, but never from within a lambda (15 ns a row).
    """
    attempt = f"struct_pack(v := {value})"
    return f"TRY(list_transform([0], lambda _: {attempt})[1])" if repeats else f"TRY({attempt})"


def _fits(value: str, source: str, kind: str) -> str:
    """Whether a number is as another type what it is; true of null."""
    return f"({value} IS NULL OR coalesce(TRY_CAST(TRY_CAST({value} AS {sql_type(kind)}) AS {source}) = {value}, false))"


def _must_convert(value: str, source: str, kind: str) -> str:
    """A column as the type that it is stored in; a number that this would change ends the work, as does what is none."""
    converted = f"CAST({value} AS {sql_type(kind)})"
    if not may_round(source, kind):
        return converted
    message = f"error('Could not convert ' || CAST({value} AS VARCHAR) || ' to {kind}')"
    return f"CASE WHEN {_fits(value, source, kind)} THEN {converted} ELSE {message} END"


def _document(text: str, *, begin: str = "[{") -> str:
    """A text with the digits of its numbers marked, null when it is no JSON value that begins with one of these characters."""
    return f"CASE WHEN regexp_matches({text}, '^\\s*[\\{begin}]') AND json_valid({text}) THEN {exact(text)} END"


def bounded(value: str, kind: str) -> str:
    """A date or timestamp, null where Delta's readers cannot hold it: DuckDB knows infinity, BC and the year 294247."""
    low, high = (f"CAST('{bound}' AS {sql_type(kind)})" for bound in _BOUNDS[kind])
    return f"CASE WHEN {value} BETWEEN {low} AND {high} THEN {value} END"


def _describe(entry: Mapping[str, Any], columns: Mapping[str, str], part: Mapping[str, str]) -> DataFile:
    """A staged file under its final name, as the log will know it."""
    size = Path(entry["filename"]).stat().st_size
    statistics = {
        column.strip('"'): _statistic(stat, columns[column.strip('"')])
        for column, stat in entry["column_statistics"].items()
        if column.strip('"') in columns
    }
    return data_file(part, size=size, rows=entry["count"], statistics=statistics)


def _statistic(stat: Mapping[str, str], kind: str) -> dict[str, Any]:
    """What DuckDB says of a column of a staged file, as statistics."""
    bounds = None if stat.get("has_nan") == "true" else (_value(stat.get("min"), kind), _value(stat.get("max"), kind))
    low, high = bounds or (None, None)
    nulls = int(stat["null_count"]) if "null_count" in stat else None
    empty = stat.get("num_values") == stat.get("null_count")
    return column_statistic(kind, low, high, nulls=nulls, empty=empty, exact=stat.get("max_is_exact", "true") == "true")


def _value(text: str | None, kind: str) -> Any:
    """DuckDB's text of a bound as a Python value; None for one that Python and Delta's statistics cannot hold."""
    if text is None or not re.fullmatch(_BOUND_TEXTS.get(kind, "(?s:.*)"), text):
        return None
    if kind == "timestamp":
        return dt.datetime.fromisoformat(text + ":00")
    known: dict[str, Callable[[str], Any]] = {"bigint": int, "int": int, "double": float, "date": dt.date.fromisoformat}
    known |= {"string": str, "boolean": "1".__eq__}
    return known.get(kind, Decimal)(text)
