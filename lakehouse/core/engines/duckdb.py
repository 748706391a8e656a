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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import duckdb
import narwhals as nw

from lakehouse.core.delta import DataFile
from lakehouse.core.engines.copies import Copies
from lakehouse.core.engines.statistics import MILLIS, column_statistic, data_file, parts
from lakehouse.core.expressions import Expression
from lakehouse.core.files import is_remote

#: Delta types and DuckDB's words for them, where they differ.
_TYPES = {"string": "VARCHAR", "timestamp": "TIMESTAMPTZ"}
_INTEGERS = ("bigint", "int")
_PATH = "_lakehouse_path"
_SCHEME = r"\1://"
_READ = "FROM read_parquet($1, union_by_name = true, hive_partitioning = false, filename = $2)"
_PLACED = "SELECT *, file_index AS _lakehouse_file, file_row_number AS _lakehouse_row "
_ROW_GROUP = 122_880
_DATE = r"\d{4}-\d{2}-\d{2}"
_BOUND_TEXTS = {"date": _DATE, "timestamp": _DATE + r" [\d:.]+\+00"}
_BOUNDS = {
    "date": ("0001-01-01", "9999-12-31"),
    "timestamp": ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
}


def sql_type(kind: str) -> str:
    """DuckDB's name of a spec type."""
    return _TYPES.get(kind, kind)


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A value as an SQL text, for statements that take no parameters."""
    return "'" + value.replace("'", "''") + "'"


def literal(path: str) -> str:
    """A path as DuckDB reads that one file: `[`, `*` and `?` in it would select others."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def confine(connection: duckdb.DuckDBPyConnection, folders: Sequence[str]) -> None:
    """From here on this database reads and writes files below these folders alone (a file may be given too), loads no
    extension that is not part of DuckDB, and no cursor can change its settings.

    DuckDB resolves links, of the folders and of what is opened: a link that leads out of them is refused like any other file.
    """
    files = [folder for folder in folders if Path(folder).is_file()]
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    # Refused once external access is off, which cannot be turned on again.
    # With what `literal` makes of them: DuckDB compares a pattern before it takes it apart.
    allowed = {form for folder in folders if folder not in files for form in (folder, str(Path(folder).resolve()))}
    connection.execute(f"SET allowed_directories = {_texts(sorted(allowed | set(map(literal, allowed))))}")
    connection.execute(f"SET allowed_paths = {_texts(files)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _texts(values: Iterable[str]) -> str:
    """A list as SQL."""
    return f"[{', '.join(map(text, values))}]"


class DuckDBSession:
    """A private in-memory database that sees its `folders` and no other file. See `core/engines/__init__.py` for the contract
    of each method."""

    keeps_order = True

    def __init__(self, *, memory_limit: str, spill: str, folders: Sequence[str], threads: int | None = None) -> None:
        Path(spill).mkdir(parents=True, exist_ok=True)
        #: A folder of this machine that goes with the session.
        self.folder = tempfile.mkdtemp(prefix="duckdb-", dir=spill)
        self._copies = Copies(self.folder)
        config: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": self.folder}
        if threads:
            config["threads"] = threads
        self.connection = duckdb.connect(config=config)
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET preserve_insertion_order = true")
        self.connection.execute("SET enable_progress_bar = false")
        # Give freed memory back at once; it is wanted by the next step of a refresh.
        self.connection.execute("SET allocator_flush_threshold = '16MB'")
        confine(self.connection, [*folders, spill])

    def close(self) -> None:
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(
        self,
        paths: Sequence[str],
        columns: Mapping[str, str],
        *,
        path_column: str | None = None,
        place: tuple[str, str] | None = None,
    ) -> "nw.LazyFrame[Any]":
        wanted = {**columns, **({path_column: "string"} if path_column else {}), **dict.fromkeys(place or (), "bigint")}
        if not paths:
            return self.table([], wanted)
        relation = self.connection.sql(
            (_PLACED if place else "") + _READ,
            params=[[literal(path) for path in self.local(paths)], path_column or _PATH],
        )
        present = set(relation.columns)
        texts = {n: quoted(n) if n in present else f"CAST(NULL AS {sql_type(kind)})" for n, kind in wanted.items()}
        texts.update(zip(place or (), ("_lakehouse_file", "_lakehouse_row"), strict=bool(place)))
        if path_column and any(map(is_remote, paths)):
            copies = re.escape(f"{self.folder}/copies/")
            uri = f"regexp_replace({quoted(path_column)}, {text(f'^{copies}([a-z0-9]+)/')}, {text(_SCHEME)})"
            texts[path_column] = uri
        return _frame(relation.select(*[duckdb.SQLExpression(text).alias(name) for name, text in texts.items()]))

    def local(self, paths: Sequence[str], *, folder: str = "") -> list[str]:
        """Paths on this machine of data files; copies of those in a bucket are below the session's folder or `folder`."""
        return self._copies.local(paths, folder=folder)

    def cast(
        self, frame: "nw.LazyFrame[Any]", casts: Mapping[str, tuple[str, str]], *, exact: bool = True
    ) -> "nw.LazyFrame[Any]":
        read = _exact_cast if exact else _try_cast
        return self._add(frame, {name: read(quoted(source), kind) for name, (source, kind) in casts.items()})

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
            tried = f"_tried_{name}"
            attempt = f"TRY(struct_pack(v := CAST({expression.sql('duckdb', instants=instants)} AS {sql_type(kind)})))"
            frame = self._add(frame, {tried: attempt})
            frame = self._add(frame, {name: f"{quoted(tried)}.v", f"{failed}{name}": f"{quoted(tried)} IS NULL"}).drop(tried)
        return frame

    def documents(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        fields = ", ".join(f"{quoted(column)} := {quoted(column)}" for column in columns)
        return self._add(frame, {name: f"CAST(to_json(struct_pack({fields})) AS VARCHAR)"})

    def sift(self, frame: "nw.LazyFrame[Any]", column: str) -> "nw.LazyFrame[Any]":
        # A plain filter is pushed below the projections, and every cast it depends on is then done twice (10 M sales:
        # 12.0 s of CPU, 3.8 s like this). Nothing volatile is pushed down.
        return _frame(_relation(frame).filter(f"CASE WHEN random() < 0 THEN false ELSE {quoted(column)} END"))

    def keep(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        name = f"kept_{uuid.uuid4().hex}"
        _relation(frame).create_view(f"{name}_source")
        self.connection.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_source")
        return _frame(self.connection.table(name))

    def stretches(self, paths: Sequence[str], key: Sequence[str]) -> list[tuple[Any, Any, str]] | None:
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
                relation = cursor.sql(_PLACED + "FROM read_parquet($1)", params=[[*map(literal, self.local(some))]])
                steps = relation.select(*[duckdb.SQLExpression(text).alias(name) for name, text in columns.items()])
                found = steps.aggregate(f"min(now), max(now), file, {proof}", "file, stretch").fetchall()
            return [(low, high, some[file], proven) for low, high, file, proven in found]

        # A window over a stream runs on one thread, so each gets its share of the files.
        threads = self.connection.sql("SELECT current_setting('threads')").fetchall()[0][0]
        shares = [paths[n::threads] for n in range(min(threads, len(paths)))]
        with ThreadPoolExecutor(len(shares)) as pool:
            found = [stretch for stretches in pool.map(walk, shares) for stretch in stretches]
        return [stretch[:3] for stretch in found] if all(proven for *_, proven in found) else None

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
        casts = ", ".join(f"CAST({quoted(column)} AS {sql_type(of)}) AS {quoted(column)}" for column, of in columns.items())
        order = [*([partition] if partition else []), *sort_by] if sort_by else []
        rows = f"SELECT {casts} FROM {name}_frame"  # nosec B608 # names are quoted
        rows += f" ORDER BY {', '.join(map(quoted, order))}" if order else ""
        _relation(frame).create_view(f"{name}_frame")
        kind = "TABLE" if partition else "VIEW"  # a table holds what is read again for every partition, in order
        try:
            self.connection.execute(f"CREATE TEMP {kind} {name} AS {rows}")
            with self._copies.staging(folder) as place:
                files: dict[str, DataFile] = {}  # described before the first is moved: what fails here leaves no file behind
                for number, (value, part) in enumerate(self._parts(name, folder, partition).items()):
                    written = self._copy(name, place / f"{number}", partition=partition, value=value, file_mb=file_mb)
                    files |= {entry["filename"]: _describe(entry, columns, part) for entry in written if entry["count"]}
                self._copies.place({staged: f"{folder}/{file.path}" for staged, file in files.items()})
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
        kept = duckdb.StarExpression(exclude=[name for name in relation.columns if name in values])
        added = [duckdb.SQLExpression(text).alias(name) for name, text in values.items()]
        return _frame(relation.select(kept, *added))


def _relation(frame: "nw.LazyFrame[Any]") -> duckdb.DuckDBPyRelation:
    return cast("duckdb.DuckDBPyRelation", frame.to_native())


def _frame(relation: duckdb.DuckDBPyRelation) -> "nw.LazyFrame[Any]":
    return nw.from_native(relation)


def _try_cast(source: str, kind: str) -> str:
    if kind == "epoch_ms":
        return _exact_cast(source, kind)
    return source if kind == "string" else f"TRY_CAST({source} AS {sql_type(kind)})"


def _exact_cast(source: str, kind: str) -> str:
    if kind == "epoch_ms":
        number, (low, high) = _exact_cast(source, "bigint"), MILLIS
        return f"CASE WHEN {number} BETWEEN {low} AND {high} THEN CAST(make_timestamp({number} * 1000) AS TIMESTAMPTZ) END"
    attempt = _try_cast(source, kind)
    if kind in _INTEGERS:
        # DuckDB would round '6.7' to 7 and '15e-1' to 2, and read '0x1F' and '1_000' (Spark does not): an integer is digits,
        # or a number that is equal to one. What prints as it was delivered needs no second look.
        number = rf"regexp_full_match({source}, '\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*')"
        equal = f"TRY_CAST({source} AS DECIMAL(38,18)) = {attempt}"
        closely = f"CASE WHEN {number} AND {equal} THEN {attempt} END"
        return f"CASE CAST({attempt} AS VARCHAR) WHEN {source} THEN {attempt} ELSE {closely} END"
    if kind.startswith("decimal"):
        return f"CASE WHEN NOT contains({source}, '_') THEN {attempt} END"
    if kind == "double":  # '1e400' is no infinity, and '1_0' no number
        spelled = f"regexp_full_match({source}, '\\s*[+-]?inf(inity)?\\s*', 'i')"
        return f"CASE WHEN NOT contains({source}, '_') AND (NOT isinf({attempt}) OR {spelled}) THEN {attempt} END"
    return bounded(attempt, kind) if kind in _BOUNDS else attempt


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
