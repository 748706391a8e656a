"""The lake file: a DuckDB database of views over the tables' current files, for DBeaver, Metabase and whatever opens DuckDB.

The views read Parquet, which DuckDB does without an extension. They show the versions that were current when it was written:
files of a version stay for LAKEHOUSE_VACUUM_HOURS after it was replaced, and the file has to be written again before that.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lakehouse.ask.catalogue import Catalogue
from lakehouse.ask.connection import LakeConnection, view
from lakehouse.core.engines.duckdb_database import quoted, text
from lakehouse.core.errors import BrokenTableError, LakehouseError
from lakehouse.core.names import DELTA_LAYERS, TableRef

#: What DuckDB has read since its version 1.0, so that the program that opens the file may be older than ours.
_STORAGE = "v1.0.0"


@dataclass(frozen=True)
class Written:
    """What was written: the version of each table in it, and why others are not."""

    file: Path
    versions: dict[TableRef, int]
    left_out: dict[TableRef, str]


def write_lake_file(catalogue: Catalogue, file: Path, *, layers: Collection[str] = (), personal: bool = False) -> Written:
    """Write the file anew, whole or not at all; whoever has it open sees the old one until it is opened again.

    Args:
        layers: those whose tables are in it; all by default. Tables of a bucket are copied to a folder beside the file.

    Raises:
        BrokenTableError: there is no table.
        StoreError: the lake's bucket does not answer.
    """
    copies, found, left = Path(f"{file}.files"), dict[TableRef, str](), dict[TableRef, str]()
    versions, files = dict[TableRef, int](), set[str]()
    with LakeConnection(catalogue) as lake:
        for ref in [ref for ref in lake.tables() if ref.layer in (layers or DELTA_LAYERS)]:
            try:
                snapshot = lake.snapshot(ref)
                paths = lake.local(snapshot.paths(), folder=str(copies))
            except LakehouseError as error:
                left[ref] = str(error)
                continue
            hidden = frozenset[str]() if personal else catalogue.personal_columns(ref)
            found[ref] = view(paths, snapshot.columns, hidden, complete=False)
            versions[ref] = snapshot.version
            files.update(paths)
    if not found:
        raise BrokenTableError("There is no table to write views of.", remedy="Run make run first.")
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(part, found)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    for left_over in copies.rglob("*.parquet"):
        if str(left_over) not in files:
            left_over.unlink()
    return Written(file, versions, left)


def _write(file: Path, views: dict[TableRef, str]) -> None:
    with duckdb.connect() as database:
        database.execute(f"ATTACH {text(str(file))} AS lake (STORAGE_VERSION '{_STORAGE}')")
        for layer in sorted({ref.layer for ref in views}):
            database.execute(f"CREATE SCHEMA lake.{layer}")
        for ref, query in views.items():
            database.execute(f"CREATE VIEW lake.{ref.layer}.{quoted(ref.table)} AS {query}")
        database.execute("DETACH lake")
