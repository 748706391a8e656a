"""Engines: what computes. A `Session` is the seam; a table's declaration and its transform never see which one runs.

Frames are Narwhals lazy frames over whatever the engine uses inside (a DuckDB relation, a Spark DataFrame). What Narwhals
says the same way on every engine (filter, join, unique, concat, select) is written once against it, in the layers. What it
does not say, casting that yields null instead of an error, declared expressions, keeping an intermediate result and writing
data files, is the session's part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, get_args

from lakehouse.core.engines.casts import Cast
from lakehouse.core.errors import DeclarationError, install
from lakehouse.core.expressions import Expression
from lakehouse.core.json_path import Step
from lakehouse.core.names import Engine
from lakehouse.core.table.snapshot import DataFile

if TYPE_CHECKING:
    import narwhals as nw

    from lakehouse.core.engines.duckdb import DuckDBSession
    from lakehouse.core.engines.spark import SparkSession


@dataclass(frozen=True)
class Spark:
    """Where Spark runs, for the engine `spark`.

    Args:
        master: `local[*]`, `spark://host:port`, `yarn` or `k8s://...`.
        conf: any `spark.*` settings; they win over the engine's own.
        jars: paths of jars that the application loads.
        start: makes the application from its settings; Spark's own builder by default.
    """

    master: str = "local[*]"
    conf: Mapping[str, str] = field(default_factory=dict)
    jars: tuple[str, ...] = ()
    start: Callable[[Mapping[str, str]], Any] | None = None

    @property
    def local(self) -> bool:
        """Whether Spark runs in this process, and what it holds is lost with nothing but this process."""
        return self.master.startswith("local")


class Session(Protocol):
    """One piece of work on an engine; ended by its context manager. An engine inherits from it what is the same on each.

    `preserves_order` says whether rows leave a join and `write` in the order in which they were read.
    """

    preserves_order: bool

    def read(
        self,
        paths: Sequence[str],
        columns: Mapping[str, str],
        *,
        path_column: str | None = None,
        row_id: tuple[str, str] | None = None,
    ) -> "nw.LazyFrame[Any]":
        """Parquet files as a frame of exactly these `{column: type}`; a column that a file lacks is null.

        `path_column` adds a column with the path that each row was read from, `row_id` two columns of integers that
        together identify a row among those of these files.
        """
        ...

    def cast(
        self, frame: "nw.LazyFrame[Any]", casts: Mapping[str, tuple[str, Cast | str]], *, exact: bool = True
    ) -> "nw.LazyFrame[Any]":
        """Add columns `{name: (text column, cast or type)}`. A text that `casts.py` does not accept becomes null.

        Not `exact`, for choosing candidates: a text that is no value may become one ('6.7' the integer 7).
        """
        ...

    def compute(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[Expression, str]], *, failed: str
    ) -> "nw.LazyFrame[Any]":
        """Add columns `{name: (expression, type)}`, and for each `<failed><name>`: true where it could not be evaluated
        (an overflow, a bad cast). There the value is null; one record must not stop the others.

        Raises:
            ExpressionError: an expression does not fit the columns' types.
        """
        ...

    def extract(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[str, tuple[Step, ...]]], *, failed: str = ""
    ) -> "nw.LazyFrame[Any]":
        """Add text columns `{name: (column with JSON texts, steps)}`: numbers with the digits that are there, a nested value as
        its JSON text, null where the path leads nowhere.

        Args:
            failed: before a column's name: whether there is a text, and it is no JSON object or array. Empty: not asked.
        """
        ...

    def elements(self, frame: "nw.LazyFrame[Any]", column: str, *, element: str, index: str, failed: str) -> "nw.LazyFrame[Any]":
        """One row for each element of the JSON list in a text column; a row that has none, or an empty one, stays as one.

        Args:
            element: the column with an element as text, as `extract` has it; null for JSON's null.
            index: the column with its position, from 0; null where there is no element.
            failed: the column with whether there is a text, and it is no JSON list.
        """
        ...

    def fingerprint(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        """Add a text that is the same for rows whose given text columns are, on every engine and for ever: 32 characters."""
        ...

    def documents(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        """Add a text column that holds the given columns as one JSON object."""
        ...

    def digest(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        """Add a number that is the same for rows whose given columns are; good within this session, another one elsewhere."""
        ...

    def filter_true(self, frame: "nw.LazyFrame[Any]", column: str) -> "nw.LazyFrame[Any]":
        """The rows on which a boolean column is true. What that column is computed from is computed once."""
        ...

    def persist(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Compute a frame once and hold the result until the session ends, on disk when it outgrows the memory limit."""
        ...

    def key_ranges(self, paths: Sequence[str], key: Sequence[str]) -> list[tuple[Any, Any, str]] | None:
        """First key, last key and path of ranges of rows that are strictly ascending and together are all rows of the
        files; None where the rows are not ordered like that, or a key is null."""
        ...

    def rows(self, frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
        """The rows of a small frame."""
        ...

    def count(self, frame: "nw.LazyFrame[Any]") -> int:
        """How many rows a frame has."""
        import narwhals as nw

        return int(self.rows(frame.select(nw.len().alias("n")))[0][0])

    def dicts(self, frame: "nw.LazyFrame[Any]", *names: str) -> list[dict[str, Any]]:
        """The rows of a small frame as `{column: value}`: of these columns, or of all."""
        columns = names or tuple(frame.collect_schema().names())
        return [dict(zip(columns, row, strict=True)) for row in self.rows(frame.select(*columns))]

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> "nw.LazyFrame[Any]":
        """A small frame from Python values."""
        ...

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
        """Write a frame, cast to these columns, as Parquet data files with Delta statistics. Writes no file for no rows.

        Each file has rows of one value of the column `partition`, where one is named. The column stays in the files as well:
        Delta's readers take it from the log, and whoever reads the files finds it there.

        Raises:
            RefusedWriteError: a row has no value of `partition`.
        """
        ...


@contextmanager
def open_session(
    engine: str, *, memory_limit: str, spill: str, folders: Sequence[str], spark: Spark | None = None
) -> Iterator[Session]:
    """A session on the named engine.

    Args:
        engine: `duckdb` or `spark`.
        memory_limit: bound for intermediate results, e.g. `4GB`; of the driver's heap where Spark runs in this process.
        spill: folder for what does not fit; its content goes with the session. Spark puts a folder beside it.
        folders: those below which a DuckDB session may read and write files; all others are closed to it.
        spark: where Spark runs.

    Raises:
        DeclarationError: there is no such engine, or its packages are not installed.
    """
    if engine == "duckdb":
        with duckdb_session(memory_limit=memory_limit, spill=spill, folders=folders) as session:
            yield session
    elif engine == "spark":
        with spark_session(memory_limit=memory_limit, spill=spill, spark=spark or Spark()) as session:
            yield session
    else:
        known = " or ".join(get_args(Engine))
        raise DeclarationError(f"There is no engine {engine!r}.", remedy=f"Set LAKEHOUSE_ENGINE to {known}.")


@contextmanager
def spark_session(*, memory_limit: str, spill: str, spark: Spark) -> "Iterator[SparkSession]":
    """A Spark session; Spark itself starts when it is first used."""
    try:
        from lakehouse.core.engines.spark import SparkSession
    except ModuleNotFoundError as error:
        if error.name != "pyspark":
            raise
        raise DeclarationError(
            "The engine spark (LAKEHOUSE_ENGINE) needs pyspark, which is not installed.",
            remedy=f"{install('spark')}, or set LAKEHOUSE_ENGINE=duckdb.",
        ) from None
    session = SparkSession(memory_limit=memory_limit, spill=spill, spark=spark)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def duckdb_session(*, memory_limit: str, spill: str, folders: Sequence[str]) -> "Iterator[DuckDBSession]":
    """A DuckDB session, for what is DuckDB's whatever the engine: reading landed files, and gold."""
    from lakehouse.core.engines.duckdb import DuckDBSession

    session = DuckDBSession(memory_limit=memory_limit, spill=spill, folders=folders)
    try:
        yield session
    finally:
        session.close()
