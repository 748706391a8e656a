"""Engines: what computes. A `Session` is the seam; a table's declaration and its transform never see which one runs.

Frames are Narwhals lazy frames over whatever the engine uses inside (a DuckDB relation, a Spark DataFrame). What Narwhals
says the same way on every engine (filter, join, unique, concat, select) is written once against it, in the layers. What it
does not say, casting that yields null instead of an error, declared expressions, keeping an intermediate result and writing
data files, is the session's part.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from lakehouse.core.delta import DataFile
from lakehouse.core.errors import DeclarationError
from lakehouse.core.expressions import Expression

if TYPE_CHECKING:
    import narwhals as nw

    from lakehouse.core.engines.duckdb import DuckDBSession


class Session(Protocol):
    """One piece of work on an engine; ended by its context manager."""

    def read(
        self,
        paths: Sequence[str],
        columns: Mapping[str, str],
        *,
        path_column: str | None = None,
        place: tuple[str, str] | None = None,
    ) -> "nw.LazyFrame[Any]":
        """Parquet files as a frame of exactly these `{column: type}`; a column that a file lacks is null.

        `path_column` adds a column with the path that each row was read from, `place` two columns of integers that together
        identify a row among those of these files.
        """
        ...

    def cast(
        self, frame: "nw.LazyFrame[Any]", casts: Mapping[str, tuple[str, str]], *, exact: bool = True
    ) -> "nw.LazyFrame[Any]":
        """Add columns `{name: (text column, type)}`. What is no value of its type becomes null; decimals round half up.

        Not `exact`, for choosing candidates: a text that is no value may become one ('6.7' the integer 7).
        """
        ...

    def compute(
        self, frame: "nw.LazyFrame[Any]", values: Mapping[str, tuple[Expression, str]], *, failed: str
    ) -> "nw.LazyFrame[Any]":
        """Add columns `{name: (expression, type)}`, and for each `<failed><name>`: true where it could not be evaluated
        (an overflow, a bad cast). There the value is null; one record must not stop the others."""
        ...

    def documents(self, frame: "nw.LazyFrame[Any]", name: str, columns: Sequence[str]) -> "nw.LazyFrame[Any]":
        """Add a text column that holds the given columns as one JSON object."""
        ...

    def sift(self, frame: "nw.LazyFrame[Any]", column: str) -> "nw.LazyFrame[Any]":
        """The rows on which a boolean column is true. What that column is computed from is computed once."""
        ...

    def keep(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Compute a frame once and hold the result until the session ends, on disk when it outgrows the memory limit."""
        ...

    def stretches(self, paths: Sequence[str], key: Sequence[str]) -> list[tuple[Any, Any, str]] | None:
        """First key, last key and path of stretches of rows that are strictly ascending and together are all rows of the
        files; None where the rows are not ordered like that, or a key is null."""
        ...

    def rows(self, frame: "nw.LazyFrame[Any]") -> list[tuple[Any, ...]]:
        """The rows of a small frame."""
        ...

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
    ) -> list[DataFile]:
        """Write a frame, cast to these columns, as Parquet data files with Delta statistics. Writes no file for no rows."""
        ...


@contextmanager
def open_session(engine: str, *, memory_limit: str, spill: str, folders: Sequence[str]) -> Iterator[Session]:
    """A session on the named engine.

    Args:
        engine: `duckdb`.
        memory_limit: bound for intermediate results, e.g. `4GB`.
        spill: folder for what does not fit; its content goes with the session.
        folders: those below which the session may read and write files; all others are closed to it.
    """
    if engine != "duckdb":
        raise DeclarationError(f"There is no engine {engine!r}.", remedy="Set LAKEHOUSE_ENGINE to duckdb.")
    with duckdb_session(memory_limit=memory_limit, spill=spill, folders=folders) as session:
        yield session


@contextmanager
def duckdb_session(*, memory_limit: str, spill: str, folders: Sequence[str]) -> "Iterator[DuckDBSession]":
    """A DuckDB session, for what is DuckDB's whatever the engine: reading landed files, and gold."""
    from lakehouse.core.engines.duckdb import DuckDBSession

    session = DuckDBSession(memory_limit=memory_limit, spill=spill, folders=folders)
    try:
        yield session
    finally:
        session.close()
