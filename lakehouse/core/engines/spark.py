"""The Spark engine: the same session on an Apache Spark master, from threads of this machine to a cluster.

Spark computes and writes Parquet; commits stay with deltalake, as on DuckDB, so fences, ledger and quarantine are the same
and no jar is needed. Nothing but what `rows` asks for reaches the driver. Workers on other machines need the lake's folders
mounted in the same place.

The Spark application starts with the first method that is called, is shared by the sessions that are open meanwhile, and
ends with the last of them (starting one takes about 5 s, a second one in the same process about 1 s).
"""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import narwhals as nw
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkConf, SparkContext, StorageLevel
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import DataFrame, DataFrameReader, Window
from pyspark.sql import SparkSession as Application
from pyspark.sql import functions as F
from pyspark.sql import types as T

from lakehouse.core.delta import DataFile
from lakehouse.core.engines import Spark
from lakehouse.core.engines.copies import Copies
from lakehouse.core.engines.spark_sql import attempt, must_convert, quoted, text_cast
from lakehouse.core.engines.statistics import column_statistic, data_file, parts
from lakehouse.core.errors import DeclarationError
from lakehouse.core.expressions import Expression
from lakehouse.core.storage import hold

#: How long a master may take to answer, and then to give the application its first worker.
PATIENCE = 30.0
_STRETCH = 122_880
#: The driver of a cluster may take 1 GB; with this heap Java takes 0.84 GB (1 M rows). Spark refuses less than 450 MB.
_DRIVER_HEAP = "512m"
_URI, _FILE, _PATH, _ROW = "_lakehouse_uri", "_lakehouse_file", "_lakehouse_path", "_lakehouse_row"
#: Bytes that a value takes in ZSTD Parquet, roughly: what a target size in MB is in rows.
_WIDTHS = {"bigint": 5, "int": 3, "double": 8, "boolean": 1, "date": 2, "timestamp": 5, "string": 14}
_CONF = {
    "spark.app.name": "lakehouse",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.hadoop.parquet.compression.codec.zstd.level": "1",
    "spark.log.level": "ERROR",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.decimalOperations.allowPrecisionLoss": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "1024",  # a Spark job to list few local files is slower
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


class _Applications:
    """The one Spark application of this process and how many sessions use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._running: Application | None = None
        self._stack = ExitStack()

    def enter(self, start: Callable[[ExitStack], Application]) -> Application:
        with self._lock:
            if self._running is None:
                with ExitStack() as stack:
                    self._running = start(stack)
                    self._stack = stack.pop_all()
            self._users += 1
            return self._running

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._running is not None:
                try:
                    self._running.stop()
                finally:
                    self._running = None
                    self._stack.close()


_APPLICATIONS = _Applications()


class SparkSession:
    """See `core/engines/__init__.py` for the contract of each method.

    Raises:
        DeclarationError: by the first method, when Java is missing or the master does not answer or has no worker.
    """

    keeps_order = False

    def __init__(self, *, memory_limit: str, spill: str, spark: Spark) -> None:
        self._memory_limit, self._spill, self._settings = memory_limit, spill, spark
        self._application: Application | None = None
        self._copies = Copies(spill)
        self._kept: list[DataFrame] = []

    @property
    def spark(self) -> Application:
        """The Spark application, started when it is first asked for."""
        if self._application is None:
            self._application = _APPLICATIONS.enter(self._start)
        return self._application

    def close(self) -> None:
        if self._application is None:
            return
        self._application = None
        try:
            for frame in self._kept:
                frame.unpersist()
        finally:
            _APPLICATIONS.leave()

    def _start(self, stack: ExitStack) -> Application:
        spill = Path(self._spill).parent
        spill.mkdir(parents=True, exist_ok=True)
        # Beside this session's folder, not in it: another session may go on with the application when this one ends.
        with hold(str(spill)):  # as `lake.scratch` does, which removes what nobody holds
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spark-", dir=spill, ignore_cleanup_errors=True))
            stack.enter_context(hold(folder))
        master = self._settings.master
        conf = {**_CONF, "spark.master": master, "spark.local.dir": folder}
        # With a cluster the driver plans and commits; the rows are the executors'.
        conf["spark.driver.memory"] = _megabytes(self._memory_limit) if master.startswith("local") else _DRIVER_HEAP
        if self._settings.jars:
            conf["spark.jars"] = ",".join(self._settings.jars)
        conf |= self._settings.conf
        _check_master(master)
        application = _started(master, conf, self._settings.start or _build)
        if "spark.sql.shuffle.partitions" not in conf:
            partitions = max(2 * application.sparkContext.defaultParallelism, 4)
            application.conf.set("spark.sql.shuffle.partitions", str(partitions))
        return application

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
        frame = self._parquet(paths, columns)
        if path_column is None and place is None:
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
        if place is not None:
            named += [known_file.alias(place[0]), F.col(_ROW).alias(place[1])]
        return _frame(frame.select(*named))

    def cast(
        self, frame: "nw.LazyFrame[Any]", casts: Mapping[str, tuple[str, str]], *, exact: bool = True
    ) -> "nw.LazyFrame[Any]":
        return _add(frame, {name: text_cast(quoted(source), kind) for name, (source, kind) in casts.items()})

    def compute(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[Expression, str]], *, failed: str
    ) -> "nw.LazyFrame[Any]":
        for name, (expression, kind) in values.items():  # one step per value: a calculated column may read those before it
            if expression.safe and kind == "boolean":
                frame = _add(frame, {name: expression.sql("spark"), f"{failed}{name}": "false"})
                continue
            have = _native(frame)
            value, broken = attempt(expression, kind, partial(_kind, have))
            # A part that failed may be one whose null the whole does not show.
            frame = _add(frame, {f"{failed}{name}": f"coalesce({broken}, false)"})
            frame = _add(frame, {name: f"CASE WHEN NOT {quoted(failed + name)} THEN {value} END"})
        return frame

    def documents(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        fields = F.struct(*[F.col(quoted(column)) for column in columns])
        native = _native(frame)
        return _frame(native.withColumn(name, F.to_json(fields, {"ignoreNullFields": "false"})))

    def sift(self, frame: "nw.LazyFrame[Any]", column: str) -> "nw.LazyFrame[Any]":
        # A plain filter is pushed below the projections, and every cast it depends on is then done twice. Nothing volatile is.
        return _frame(_native(frame).filter(F.when(F.rand() < 0, F.lit(False)).otherwise(F.col(quoted(column)))))

    def keep(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        kept = _native(frame).persist(StorageLevel.MEMORY_AND_DISK)
        self._kept.append(kept)
        return _frame(kept)

    def stretches(self, paths: Sequence[str], key: Sequence[str]) -> list[tuple[Any, Any, str]] | None:
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
            F.floor(row / _STRETCH).alias("stretch"),
        )
        order = Window.partitionBy("file", "stretch").orderBy("place")
        follows = F.lag("now").over(order) < F.col("now")
        steps = steps.withColumn(
            "proven", F.col("complete") & (F.coalesce(follows, F.lit(False)) | (F.col("place") % _STRETCH == 0))
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
        with self._copies.staging(folder) as place:
            files: dict[str, DataFile] = {}  # described before the first is moved: what fails here leaves no file behind
            for number, (rows, part) in enumerate(self._parts(native, folder, partition)):
                ordered = rows.orderBy(*[F.col(quoted(name)).asc_nulls_last() for name in sort_by]) if sort_by else rows
                data = place / f"{number}"
                ordered.write.option("maxRecordsPerFile", most).parquet(f"file://{data}")
                written = [(staged, _describe(staged, columns, part)) for staged in sorted(data.glob("*.parquet"))]
                files |= {str(staged): file for staged, file in written if file.rows}
            self._copies.place({staged: f"{folder}/{file.path}" for staged, file in files.items()})
            return list(files.values())

    def _parts(self, rows: DataFrame, folder: str, partition: str) -> list[tuple[DataFrame, dict[str, str]]]:
        """The rows of each value of the partition column, and the value as the log says it; all rows where there is none."""
        if not partition:
            return [(rows, {})]
        kept, column = _native(self.keep(_frame(rows))), F.col(quoted(partition))
        values = [value for (value,) in kept.select(column).distinct().orderBy(column).collect()]
        found = parts(values, folder=folder, partition=partition)
        return [(kept.where(column == F.lit(value)), part) for value, part in found.items()]

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
    native = _native(frame)
    kept = [F.col(quoted(name)) for name in native.columns if name not in values]
    return _frame(native.select(*kept, *[F.expr(text).alias(name) for name, text in values.items()]))


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


# --- starting ----------------------------------------------------------------------------------------------------------


def _megabytes(limit: str) -> str:
    number, unit = re.fullmatch(r"([\d.]+)\s?(MB|GB|MiB|GiB)", limit).groups()  # type: ignore[union-attr]
    return f"{max(int(float(number) * (1000 if unit.startswith('G') else 1)), 512)}m"


def _build(conf: Mapping[str, str]) -> Application:
    builder = Application.builder
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _no_answer(master: str, why: str) -> DeclarationError:
    return DeclarationError(
        f"The Spark master {master} (LAKEHOUSE_SPARK_MASTER) {why}.",
        remedy="Start it and its workers, or set LAKEHOUSE_SPARK_MASTER to one that runs, or to local[*].",
    )


def _check_master(master: str) -> None:
    """Spark itself tries for a minute, and then ends the JVM."""
    if not master.startswith("spark://"):
        return
    for place in master.removeprefix("spark://").split(","):
        host, _, port = place.rpartition(":")
        if not host or not port.isdigit():
            raise _no_answer(master, "is no spark://host:port")
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        except OSError:
            continue
        return
    raise _no_answer(master, "does not answer")


def _started(master: str, conf: Mapping[str, str], start: Callable[[Mapping[str, str]], Application]) -> Application:
    try:
        SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(list(conf.items())))
    except (PySparkRuntimeError, OSError):
        raise DeclarationError(
            "The engine spark (LAKEHOUSE_ENGINE) could not start Java.",
            remedy="Install Java 17 or later and put it on PATH or in JAVA_HOME, or set LAKEHOUSE_ENGINE=duckdb.",
        ) from None
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(start(conf))
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE if master.startswith("spark://") else None)  # YARN and Kubernetes queue, with limits of their own
    if not outcome:
        _kill_java()
        raise _no_answer(master, f"did not answer within {PATIENCE:.0f} s")
    if isinstance(outcome[0], Exception):
        text = str(outcome[0])
        _kill_java()
        first = next((line for line in text.splitlines() if line.strip()), type(outcome[0]).__name__)
        raise _no_answer(master, f"could not be used: {first[:200]}")
    application = cast("Application", outcome[0])
    if master.startswith("spark://"):
        _await_worker(application, master)
    return application


def _await_worker(application: Application, master: str) -> None:
    """Without a worker the first job would wait for ever."""
    deadline = time.monotonic() + PATIENCE
    status = application.sparkContext._jsc.sc()
    while status.getExecutorMemoryStatus().size() < 2:  # the driver counts
        if time.monotonic() > deadline:
            application.stop()
            raise _no_answer(master, f"gave no worker within {PATIENCE:.0f} s")
        time.sleep(0.1)


def _kill_java() -> None:
    """End the JVM of a start that failed, so that the next one gets its own."""
    gateway = SparkContext._gateway
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    Application._instantiatedSession = None
    if gateway is not None and getattr(gateway, "proc", None) is not None:
        gateway.proc.kill()
        gateway.proc.wait()
