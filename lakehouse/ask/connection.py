"""The connection: DuckDB over the lake's tables, each opened when a statement names it. `lakehouse.connect()` makes one.

    with lakehouse.connect() as lake:
        lake.sql("select data, receita from gold.vendas_diarias order by data").df()

All tables are those of one instant: when it was connected or last refreshed, or the one asked for. Data files of a bucket are
copied to this machine once for each connection, as every engine of the lake does.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.ask.catalogue import Catalogue
from lakehouse.ask.instant import Versions, versions_at
from lakehouse.ask.statement import StatementError, explained, parse
from lakehouse.core.engines.copies import Copies
from lakehouse.core.engines.duckdb_database import literal, open_database, quoted, sql_type, text
from lakehouse.core.errors import BrokenTableError, ForeignTableError, install
from lakehouse.core.names import DELTA_LAYERS, TableRef
from lakehouse.core.store.scratch import scratch
from lakehouse.core.table.snapshot import Snapshot, open_existing

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa

MASK = "***"
_PLAN = ["explain_key", "explain_value"]


class Answer:
    """The rows that a statement asks for, computed when they are fetched."""

    def __init__(self, relation: "duckdb.DuckDBPyRelation") -> None:
        #: DuckDB's own frame, to be computed further there.
        self.relation = relation

    @property
    def columns(self) -> list[str]:
        return list(self.relation.columns)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows as tuples."""
        with _computed():
            return self.relation.fetchall()

    def df(self) -> "pd.DataFrame":
        """The rows as a pandas frame."""
        with _computed("pandas"):
            return self.relation.df()

    def pl(self) -> "pl.DataFrame":
        """The rows as a Polars frame."""
        with _computed("polars"):
            return self.relation.pl()

    def arrow(self) -> "pa.Table":
        """The rows as an Arrow table."""
        with _computed():
            return self.relation.to_arrow_table()

    def show(self, *, rows: int = 20, width: int | None = None) -> None:
        """Print a table of the first and last rows, at most so many, within so many characters; a plan as it is."""
        with _computed():
            if self.columns == _PLAN:
                print("\n".join(text.rstrip() for _, text in self.relation.fetchall()))
            else:
                self.relation.show(max_rows=rows, max_width=width)

    def __repr__(self) -> str:
        with _computed():
            return str(self.relation)


class LakeConnection:
    """Questions to one lake. It ends with `close()`, with its context manager, or with the process.

    Args:
        versions: which version of each table; the newest at the instant of the connection by default.
        personal: show personal columns, which are masked otherwise.
    """

    def __init__(self, catalogue: Catalogue, *, versions: Versions | None = None, personal: bool = False) -> None:
        self.storage = catalogue.storage
        self.at = datetime.now(UTC)
        self._catalogue, self._asked, self._personal = catalogue, versions, personal
        self._versions = versions or versions_at(self.storage, self.at)
        self._opened: dict[TableRef, int] = {}
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(scratch(catalogue.spill))
        self._copies = Copies(self._folder)
        # Of the lake's folders those of its tables alone: what landed, and the databases beside them, are closed.
        layers = [self.storage.uri(TableRef(layer, "x")).removesuffix("/x") for layer in DELTA_LAYERS]
        folders = [folder for folder in layers if "://" not in folder]
        self._duckdb = open_database(memory_limit=catalogue.memory_limit, spill=self._folder, folders=[*folders, self._folder])
        self._stack.callback(self._duckdb.close)
        for layer in DELTA_LAYERS:
            self._duckdb.execute(f"CREATE SCHEMA {layer}")

    def __enter__(self) -> "LakeConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it: its scratch folder goes, and no answer of it can be computed any more."""
        self._stack.close()

    def cursor(self) -> "duckdb.DuckDBPyConnection":
        """Another connection to the same database, with the same bounds, for its parser."""
        return self._duckdb.cursor()

    def columns(self) -> list[str]:
        """The columns of the tables that were opened."""
        found = self._duckdb.execute("SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
        return sorted(name for (name,) in found)

    def tables(self) -> list[TableRef]:
        """Every table that is there now, in the order of layers."""
        return self.storage.tables()

    def refresh(self) -> None:
        """Read the tables as they are from now on, where no other versions were asked for."""
        self.at = datetime.now(UTC)
        self._versions = self._asked or versions_at(self.storage, self.at)
        for ref in self._opened:
            self._duckdb.execute(f"DROP VIEW {_name(ref)}")
        self._opened.clear()

    def sql(self, statement: str) -> Answer:
        """What one statement asks for: SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN.

        Raises:
            StatementError: it is no question, or DuckDB cannot answer it.
            BrokenTableError: a table that it names does not exist (then), or cannot be read.
            StoreError: the lake's bucket does not answer.
        """
        checked = parse(self._duckdb, statement)
        for ref in self.tables() if checked.lists_tables else checked.tables:
            self.open(ref)
        with _computed():
            relation = self._duckdb.sql(checked.text)
        if relation is None:
            raise StatementError("The statement has no rows to show.", remedy="Ask with SELECT.")
        return Answer(relation)

    def open(self, ref: TableRef) -> int:
        """Make a table's view, unless it is there, and return the version that it shows."""
        if ref not in self._opened:
            snapshot = self.snapshot(ref)
            paths = self._copies.local(snapshot.paths())
            hidden = frozenset[str]() if self._personal else self._catalogue.personal_columns(ref)
            with _computed():
                self._create(_name(ref), paths, snapshot.columns, hidden)
            self._opened[ref] = snapshot.version
        return self._opened[ref]

    def snapshot(self, ref: TableRef) -> Snapshot:
        """A table at the version that this connection reads.

        Raises:
            BrokenTableError: it does not exist (then), or cannot be read.
            ForeignTableError: its files alone are not its rows.
        """
        uri = self.storage.uri(ref)
        newest = open_existing(uri)
        if newest is None:
            raise BrokenTableError(f"The table {ref} does not exist.", remedy=_similar(ref, self.tables()))
        protocol = newest.table.protocol()
        if protocol.min_reader_version > 1:
            features = ", ".join(protocol.reader_features or ()) or f"reader version {protocol.min_reader_version}"
            raise ForeignTableError(
                f"The table {ref} was made by another writer, with {features}.",
                remedy=f"Adopt it first: make adopt FROM={uri}.",
                feature=features,
            )
        version = self._versions(ref, newest)
        if version == newest.version:
            return newest
        found = open_existing(uri, version=version)
        assert found is not None
        return found

    def local(self, paths: list[str], *, folder: str) -> list[str]:
        """Paths on this machine of data files; those of a bucket are copied below a folder."""
        return self._copies.local(paths, folder=folder)

    def exported(self, answer: Answer, options: str) -> Path:
        """An answer as a file of the scratch folder, which whoever asked removes.

        Args:
            options: COPY's, which name the format.
        """
        file = Path(self._folder, f"answer-{uuid.uuid4().hex}")
        with _computed():
            self._duckdb.register("answer", answer.relation)
            try:
                self._duckdb.execute(f"COPY answer TO $1 ({options})", [str(file)])
            finally:
                self._duckdb.unregister("answer")
        return file

    def _create(self, name: str, paths: list[str], columns: dict[str, str], hidden: frozenset[str]) -> None:
        import duckdb

        try:
            self._duckdb.execute(f"CREATE VIEW {name} AS {view(paths, columns, hidden)}")
        except duckdb.BinderException:  # no file has a column that was added since they were written
            self._duckdb.execute(f"CREATE VIEW {name} AS {view(paths, columns, hidden, complete=False)}")


def view(paths: list[str], columns: dict[str, str], hidden: frozenset[str] = frozenset(), *, complete: bool = True) -> str:
    """The query of a table's view over its data files.

    Args:
        hidden: columns of which no value is shown: texts become `***`, everything else null.
        complete: whether some file has every column.
    """
    none = ", ".join(f"CAST(NULL AS {sql_type(kind)}) AS {quoted(name)}" for name, kind in columns.items())
    empty = f"SELECT {none} WHERE false"  # nosec B608 # names are quoted, types are Delta's
    if not paths:
        return empty
    files = ", ".join(text(literal(path)) for path in paths)
    by_name = len(paths) > 1
    rows = f"FROM read_parquet([{files}], hive_partitioning = false, union_by_name = {by_name})"
    if not complete:
        rows = f"FROM ({empty} UNION ALL BY NAME {rows})"
    shown = ", ".join(_masked(name, kind) if name in hidden else quoted(name) for name, kind in columns.items())
    return f"SELECT {shown} {rows}"  # nosec B608


def _masked(name: str, kind: str) -> str:
    value = f"CASE WHEN {quoted(name)} IS NOT NULL THEN '{MASK}' END" if kind == "string" else f"CAST(NULL AS {sql_type(kind)})"
    return f"{value} AS {quoted(name)}"


def _name(ref: TableRef) -> str:
    return f"{ref.layer}.{quoted(ref.table)}"


def _similar(ref: TableRef, there: list[TableRef]) -> str:
    """What to do where a table does not exist: to use one of nearly that name, or to make it."""
    import difflib

    names = {f"{known.layer}.{known.table}": known for known in there}
    other = [name for name, known in names.items() if known.table == ref.table]
    found = other or difflib.get_close_matches(f"{ref.layer}.{ref.table}", names, n=3)
    return f"Use {', '.join(found)}." if found else f"{ref.how_to_make} SHOW ALL TABLES lists those that are there."


@contextmanager
def _computed(extra: str = "") -> Iterator[None]:
    """Explain DuckDB's errors, and a frame's package that is not installed."""
    import duckdb

    try:
        yield
    except duckdb.InvalidInputException as error:
        if extra and re.search(rf"\b{extra}\b", str(error)):
            raise StatementError(f"{extra} is not installed.", remedy=f"{install('notebook')}.") from None
        raise explained(error) from None
    except duckdb.Error as error:
        raise explained(error) from None
    except ModuleNotFoundError as error:
        raise StatementError(f"{error.name} is not installed.", remedy=f"{install('notebook')}.") from None
