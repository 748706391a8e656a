"""The Spark engine: the same session on an Apache Spark master, from threads of this machine to a cluster.

Spark computes and writes Parquet; commits stay with deltalake, as on DuckDB, so fences, ledger and quarantine are the same
and no jar is needed. Nothing but what `rows` asks for reaches the driver. Workers on other machines need the lake's folders
mounted in the same place.

The Spark application starts with the first method that is called, is shared by the sessions that are open meanwhile, and
ends with the last of them (starting one takes about 5 s, a second one in the same process about 1 s).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import narwhals as nw
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameReader, Window
from pyspark.sql import SparkSession as Application
from pyspark.sql import functions as F
from pyspark.sql import types as T

from lakehouse.core.engines.casts import Cast
from lakehouse.core.engines.copies import Copies
from lakehouse.core.engines.digits import fingerprint
from lakehouse.core.engines.session import Session, Spark
from lakehouse.core.engines.spark_application import APPLICATIONS
from lakehouse.core.engines.spark_casts import CASTS
from lakehouse.core.engines.spark_json import document, elements_of, unmarked, value_at
from lakehouse.core.engines.spark_sql import attempt, must_convert, quoted
from lakehouse.core.engines.statistics import column_statistic, data_file, parts
from lakehouse.core.expressions import Expression, uncomputable
from lakehouse.core.json_path import Step
from lakehouse.core.table.snapshot import DataFile

_RANGE_ROWS = 122_880
_URI, _FILE, _PATH, _ROW = "_lakehouse_uri", "_lakehouse_file", "_lakehouse_path", "_lakehouse_row"
#: Bytes that a value takes in ZSTD Parquet, roughly: what a target size in MB is in rows.
_WIDTHS = {"bigint": 5, "int": 3, "double": 8, "boolean": 1, "date": 2, "timestamp": 5, "string": 14}


class SparkSession(Session):
    """See `session.py` for the contract of each method.

    Raises:
        DeclarationError: by the first method, when Java is missing or the master does not answer or has no worker.
    """

    preserves_order = False

    def __init__(self, *, memory_limit: str, spill: str, spark: Spark) -> None:
        self._memory_limit, self._spill, self._settings = memory_limit, spill, spark
        self._application: Application | None = None
        self._copies = Copies(spill)

    @property
    def spark(self) -> Application:
        """The Spark application, started when it is first asked for."""
        if self._application is None:
            self._application = APPLICATIONS.enter(self._settings, memory_limit=self._memory_limit, spill=self._spill)
        return self._application

    def close(self) -> None:
        if self._application is None:
            return
        self._application = None
        APPLICATIONS.leave()

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
        frame = self._parquet(paths, columns)
        if path_column is None and row_id is None:
            return _frame(frame)
        frame = frame.select("*", F.col("_metadata.file_path").alias(_URI), F.col("_metadata.row_index").alias(_ROW))
        here = zip(self._copies.local(paths), paths, strict=True)
        known = [{_URI: _uri(local), _FILE: number, _PATH: path} for number, (local, path) in enumerate(here)]
        files = _native(self.table(known, {_URI: "string", _FILE: "bigint", _PATH: "string"}))
        frame = frame.join(F.broadcast(files), _URI, "left")
        # A path that Spark spells otherwise must not lose its rows.
        known_file = F.coalesce(F.col(_FILE), F.raise_error(F.concat(F.lit("Not asked for: "), F.col(_URI))).cast("bigint"))
        named = [F.col(quoted(name)) for name in columns]
        if path_column is not None:
            named.append(F.when(known_file >= 0, F.col(_PATH)).alias(path_column))
        if row_id is not None:
            named += [known_file.alias(row_id[0]), F.col(_ROW).alias(row_id[1])]
        return _frame(frame.select(*named))

    def cast(
        self, frame: "nw.LazyFrame[Any]", casts: Mapping[str, tuple[str, Cast | str]], *, exact: bool = True
    ) -> "nw.LazyFrame[Any]":
        texts, values = CASTS.columns(casts, identifier=quoted, exact=exact)
        frame = _add(_add(frame, texts) if texts else frame, values)
        return frame.drop(*texts) if texts else frame

    def compute(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[Expression, str]], *, failed: str
    ) -> "nw.LazyFrame[Any]":
        for name, (expression, kind) in values.items():  # one step per value: a calculated column may read those before it
            if expression.safe and kind == "boolean":
                frame = _add(frame, {name: expression.sql("spark"), f"{failed}{name}": "false"})
                continue
            try:
                value, broken = attempt(expression, kind, partial(_kind, _native(frame)))
                # A part that failed may be one whose null the whole does not show.
                frame = _add(frame, {f"{failed}{name}": f"coalesce({broken}, false)"})
                frame = _add(frame, {name: f"CASE WHEN NOT {quoted(failed + name)} THEN {value} END"})
            except AnalysisException as error:  # types that do not fit
                raise uncomputable(expression, kind, error) from error
        return frame

    def extract(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[str, tuple[Step, ...]]], *, failed: str = ""
    ) -> "nw.LazyFrame[Any]":
        documents = {column: f"_document_{number}" for number, column in enumerate(sorted({of for of, _ in values.values()}))}
        frame = _add(frame, {name: document(quoted(column)) for column, name in documents.items()})
        found = {name: value_at(documents[column], steps) for name, (column, steps) in values.items()}
        if failed:
            no = {name: f"{quoted(column)} IS NOT NULL AND {documents[column]} IS NULL" for name, (column, _) in values.items()}
            found |= {f"{failed}{name}": condition for name, condition in no.items()}
        return _add(frame, found).drop(*documents.values())

    def elements(self, frame: "nw.LazyFrame[Any]", column: str, *, element: str, index: str, failed: str) -> "nw.LazyFrame[Any]":
        source, found = quoted(column), f"_elements_of_{column}"
        frame = _add(frame, {found: elements_of(source)})
        frame = _add(frame, {failed: f"{source} IS NOT NULL AND {source} <> '' AND {quoted(found)} IS NULL"})
        each = F.posexplode_outer(quoted(found)).alias(index, element)
        return _add(_frame(_native(frame).select("*", each)).drop(found), {element: unmarked(quoted(element))})

    def fingerprint(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        return _add(frame, {name: fingerprint(map(quoted, columns))})

    def documents(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        fields = F.struct(*[F.col(quoted(column)) for column in columns])
        native = _native(frame)
        return _frame(native.withColumn(name, F.to_json(fields, {"ignoreNullFields": "false"})))

    def digest(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        found = [F.col(quoted(column)) for column in columns]  # a null alone leaves the hash as it is
        return _frame(_native(frame).withColumn(name, F.xxhash64(*found, *[one.isNull() for one in found])))

    def filter_true(self, frame: "nw.LazyFrame[Any]", column: str) -> "nw.LazyFrame[Any]":
        # A plain filter is pushed below the projections, and every cast it depends on is then done twice. Nothing volatile is.
        return _frame(_native(frame).filter(F.when(F.rand() < 0, F.lit(False)).otherwise(F.col(quoted(column)))))

    def persist(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        # A checkpoint and no cache: plans built on it begin here. It cannot be computed again, so a cluster keeps it twice.
        level = StorageLevel.MEMORY_AND_DISK if self._settings.local else StorageLevel.MEMORY_AND_DISK_2
        return _frame(_native(frame).localCheckpoint(eager=False, storageLevel=level))

    def key_ranges(self, paths: Sequence[str], key: Sequence[str]) -> list[tuple[Any, Any, str]] | None:
        if not paths:
            return []
        uris = {_uri(local): path for local, path in zip(self._copies.local(paths), paths, strict=True)}
        columns = [F.col(quoted(name)) for name in key]
        now = columns[0] if len(columns) == 1 else F.struct(*columns)
        frame = self._stored(paths)
        complete = F.lit(True)
        for column in columns:
            complete = complete & column.isNotNull()
        row = F.col("_metadata.row_index")
        steps = frame.select(
            now.alias("now"),
            complete.alias("complete"),
            row.alias("place"),
            F.col("_metadata.file_path").alias("file"),
            F.floor(row / _RANGE_ROWS).alias("stretch"),
        )
        order = Window.partitionBy("file", "stretch").orderBy("place")
        follows = F.lag("now").over(order) < F.col("now")
        steps = steps.withColumn(
            "proven", F.col("complete") & (F.coalesce(follows, F.lit(False)) | (F.col("place") % _RANGE_ROWS == 0))
        )
        found = steps.groupBy("file", "stretch").agg(
            F.min("now").alias("low"), F.max("now").alias("high"), F.every("proven").alias("proven")
        )
        rows = _rows(found.select("low", "high", "file", "proven"))
        return [(_bound(low), _bound(high), uris[file]) for low, high, file, _ in rows] if all(r[3] for r in rows) else None

    def rows(self, frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
        return _rows(_native(frame))

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> "nw.LazyFrame[Any]":
        schema = _schema(columns)
        if not rows:
            return _frame(self.spark.createDataFrame([], schema))
        arrays = {name: pa.array([row.get(name) for row in rows], _arrow_type(kind)) for name, kind in columns.items()}
        return _frame(self.spark.createDataFrame(pa.table(arrays), schema))

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
        native = _native(frame)
        types = {field.name: field.dataType.simpleString() for field in native.schema.fields}
        values = {name: must_convert(quoted(name), types[name], kind) for name, kind in columns.items()}
        native = native.select(*[F.expr(text).cast(_type(columns[name])).alias(name) for name, text in values.items()])
        most = max(file_mb * 1_000_000 // sum(_WIDTHS.get(kind, 6) for kind in columns.values()), 1)
        with self._copies.staging(folder) as target:
            files: dict[str, DataFile] = {}  # described before the first is moved: what fails here leaves no file behind
            for number, (rows, part) in enumerate(self._parts(native, folder, partition)):
                ordered = rows.orderBy(*[F.col(quoted(name)).asc_nulls_last() for name in sort_by]) if sort_by else rows
                data = target / f"{number}"
                ordered.write.option("maxRecordsPerFile", most).parquet(f"file://{data}")
                written = [(staged, _describe(staged, columns, part)) for staged in sorted(data.glob("*.parquet"))]
                files |= {str(staged): file for staged, file in written if file.rows}
            self._copies.adopt({staged: f"{folder}/{file.path}" for staged, file in files.items()})
            return list(files.values())

    def _parts(self, rows: DataFrame, folder: str, partition: str) -> list[tuple[DataFrame, dict[str, str]]]:
        """The rows of each value of the partition column, and the value as the log says it; all rows where there is none."""
        if not partition:
            return [(rows, {})]
        retained, column = _native(self.persist(_frame(rows))), F.col(quoted(partition))
        values = [value for (value,) in retained.select(column).distinct().orderBy(column).collect()]
        found = parts(values, folder=folder, partition=partition)
        return [(retained.where(column == F.lit(value)), part) for value, part in found.items()]

    def _parquet(self, paths: Sequence[str], columns: Mapping[str, str]) -> DataFrame:
        return self._reader().schema(_schema(columns)).parquet(*[f"file://{path}" for path in self._copies.local(paths)])

    def _stored(self, paths: Sequence[str]) -> DataFrame:
        """All columns, in the types that they are stored in."""
        return self._reader().parquet(*[f"file://{path}" for path in self._copies.local(paths)])

    def _reader(self) -> DataFrameReader:
        return self.spark.read.option("__globPaths__", "false")  # `[`, `*` and `?` in a path would select others


def _native(frame: "nw.LazyFrame[Any]") -> DataFrame:
    return cast("DataFrame", frame.to_native())


def _frame(native: DataFrame) -> "nw.LazyFrame[Any]":
    frame: nw.LazyFrame[Any] = nw.from_native(native)  # mypy: also where pyspark is not installed
    return frame


def _add(frame: "nw.LazyFrame[Any]", values: Mapping[str, str]) -> "nw.LazyFrame[Any]":
    return _frame(_native(frame).withColumns({name: F.expr(text) for name, text in values.items()}))


def _kind(frame: DataFrame, text: str) -> str:
    """The type of an SQL text over a frame."""
    return str(frame.select(F.expr(text)).schema.fields[0].dataType.simpleString())


def _rows(frame: DataFrame) -> list[tuple[Any, ...]]:
    """Through Arrow: `collect` gives naive instants in the time of this machine."""
    return list(zip(*(column.to_pylist() for column in frame.toArrow().columns), strict=True))


def _bound(value: Any) -> Any:
    return tuple(value.values()) if isinstance(value, dict) else value


def _type(kind: str) -> T.DataType:
    if kind.startswith("decimal"):
        precision, scale = map(int, re.findall(r"\d+", kind))
        return T.DecimalType(precision, scale)
    types: dict[str, T.DataType] = {
        "string": T.StringType(),
        "bigint": T.LongType(),
        "int": T.IntegerType(),
        "double": T.DoubleType(),
        "boolean": T.BooleanType(),
        "date": T.DateType(),
        "timestamp": T.TimestampType(),
    }
    return types[kind]


def _schema(columns: Mapping[str, str]) -> T.StructType:
    return T.StructType([T.StructField(name, _type(kind)) for name, kind in columns.items()])


def _arrow_type(kind: str) -> pa.DataType:
    if kind.startswith("decimal"):
        return pa.decimal128(*map(int, re.findall(r"\d+", kind)))
    types = {"string": pa.string(), "bigint": pa.int64(), "int": pa.int32(), "double": pa.float64(), "boolean": pa.bool_()}
    return types.get(kind) or (pa.date32() if kind == "date" else pa.timestamp("us", "UTC"))


def _uri(path: str) -> str:
    """A path as `_metadata.file_path` spells it (java.net.URI leaves letters of other scripts alone)."""
    return "file:" + re.sub(r"[\x00-\x7f]+", lambda part: quote(part[0], safe="/-_.~!$&'()*+,;=:@"), path)


def _describe(path: Path, columns: Mapping[str, str], part: Mapping[str, str]) -> DataFile:
    """A staged file under its final name, as the log will know it."""
    footer = pq.read_metadata(path)
    position = {footer.schema.column(n).path: n for n in range(footer.num_columns)}
    groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
    statistics = {
        name: _statistic([group.column(position[name]).statistics for group in groups], kind, footer.num_rows)
        for name, kind in columns.items()
    }
    return data_file(part, size=path.stat().st_size, rows=footer.num_rows, statistics=statistics)


def _statistic(groups: Sequence[Any], kind: str, rows: int) -> dict[str, Any]:
    known = all(group is not None and group.has_null_count for group in groups)
    nulls = sum(group.null_count for group in groups) if known else None
    filled = [g for g in groups if g is None or not g.has_null_count or g.num_values]
    if not filled or not all(group is not None and group.has_min_max for group in filled):
        return column_statistic(kind, None, None, nulls=nulls, empty=nulls == rows)
    low, high = min(group.min for group in filled), max(group.max for group in filled)
    if kind == "timestamp":
        low, high = (value.astimezone(UTC) if isinstance(value, datetime) else value for value in (low, high))
    return column_statistic(kind, low, high, nulls=nulls)
