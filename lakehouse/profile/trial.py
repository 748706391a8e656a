"""Trial: a lake of its own in a scratch folder, into which files are read as bronze reads them. The real one is not touched.

files ─▶ <folder>/landing/raw/<name>/ ─▶ bronze ─▶ the text of every field, as silver will cast it
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import narwhals as nw

from lakehouse.bronze.ingest import stage_batch
from lakehouse.core import quarantine
from lakehouse.core.engines.duckdb import DuckDBSession, quoted
from lakehouse.core.errors import RefusedWriteError, UnreadableFileError
from lakehouse.core.names import column_name
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import Snapshot, open_existing, require_table
from lakehouse.core.table.transaction import commit_staged
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.profile.dialect import Dialect
from lakehouse.profile.personal import WITHIN, masked
from lakehouse.silver.inputs import bronze_columns, delivered
from lakehouse.silver.refresh import stage_refresh
from lakehouse.silver.validate import text_of, texts
from lakehouse.tables.spec import AirbyteStream, Column, DeltaSource, PlainFiles, Source, TableSpec

if TYPE_CHECKING:
    import narwhals as nw

_SHOWN = 3
_NAME = 63


@dataclass(frozen=True)
class Trial:
    """What files became in the scratch lake.

    Args:
        source: how they are declared.
        bronze: the scratch table.
        fields: the delivered fields, each with the column that it is declared as.
        types: of Parquet's fields, as the files have them.
        rows: records in bronze.
        hive: those of the columns that files have in their path.
        refused: records and files that cannot be read, with the reasons of some.
    """

    name: str
    source: Source
    bronze: Snapshot
    fields: Mapping[str, Column]
    types: Mapping[str, str]
    rows: int
    hive: tuple[str, ...] = ()
    refused: int = 0
    reasons: tuple[str, ...] = field(default=())


def storage_of(folder: Path) -> Storage:
    """The places of a scratch lake."""
    return Storage(root=str(folder / "lake"), landing=str(folder / "landing"))


def read(
    session: DuckDBSession, storage: Storage, name: str, dialect: Dialect, *, folder: str = "", delta: DeltaSource | None = None
) -> Trial:
    """Take the files that landed in the scratch lake, or the rows of a Delta table, into its bronze.

    Args:
        folder: below `raw/`, when that is not the name.
        delta: the table of another writer that is read instead.

    Raises:
        UnreadableFileError: not one record can be read.
    """
    files = PlainFiles(name, folder=folder or name, csv=dialect.csv, sheet=dialect.sheet)
    source = delta or files
    parts = {part for file in storage.landed(files.folder) for part in file.path.split("/")[:-1] if "=" in part}
    names = {column for part in parts if (column := column_name(part.partition("=")[0])) is not None}
    hive = tuple(Column(column, "string") for column in sorted(names))
    probe = TableSpec(name=name, source=source, columns=hive, sync="append")
    batch = stage_batch(session, storage, probe, run_id="profile")
    if batch.transaction is not None:
        commit_staged(batch.transaction)
    refused, reasons = _refused(session, storage, probe)
    bronze = open_existing(storage.uri(probe.bronze))
    if bronze is None or not bronze.rows:
        why = f" {reasons[0]}" if reasons else ""
        raise UnreadableFileError(
            f"Not one record of {name} can be read.{why}", remedy="Give another one, or see docs/tables.md."
        )
    types = {} if batch.transaction is None else _types(batch.transaction.provenance.facts)
    declared: Source = source
    if delta is None and _has_envelope(session, bronze):
        declared = AirbyteStream(name, folder=folder or name, csv=dialect.csv)
    own = tuple(column.name for column in hive)
    return Trial(name, declared, bronze, _columns(bronze), types, bronze.rows, own, refused, reasons)


def silver_rows(session: DuckDBSession, storage: Storage, spec: TableSpec) -> list[dict[str, Any]]:
    """The rows of silver after what landed in a scratch lake went through bronze and silver, in the order of all columns.

    Raises:
        RefusedWriteError: a record was refused, or the batch stopped.
    """
    batch = stage_batch(session, storage, spec, run_id="profile")
    if batch.transaction is not None:
        commit_staged(batch.transaction)
    refresh = stage_refresh(session, storage, spec, run_id="profile")
    if refresh.transaction is None or refresh.entry is None or refresh.entry.quarantined:
        wrong = ", ".join(sorted(finding.rule for finding in refresh.findings if not finding.passed))
        raise RefusedWriteError(
            f"Invented rows of {spec.name} are refused: {wrong}.", remedy="Report this with the file's header."
        )
    commit_staged(refresh.transaction)
    silver = require_table(storage.uri(spec.silver), str(spec.silver), remedy="Run it again.")
    names = [column.name for column in spec.columns]
    frame = session.read(silver.paths(), {name: silver.columns[name] for name in names})
    return session.dicts(frame.sort(*names), *names)


def text_frame(session: DuckDBSession, trial: Trial, columns: Sequence[Column]) -> "nw.LazyFrame[Any]":
    """The text that each column would be cast from, under the column's name; null where there is none."""
    spec = table_of(trial, columns)
    frame = session.read(trial.bronze.paths(), bronze_columns(spec, trial.bronze))
    frame = texts(session, spec, delivered(session, spec, trial.bronze, frame))
    return frame.select(**{column.name: nw.col(text_of(spec, column)) for column in columns})


def table_of(trial: Trial, columns: Sequence[Column]) -> TableSpec:
    """Some columns as a table of the trial's files, without key and rules."""
    return TableSpec(name=trial.name, source=trial.source, columns=tuple(columns), sync="append")


def _columns(bronze: Snapshot) -> dict[str, Column]:
    """A text column for every delivered field; with its exact name where the column's own would not lead to it, or would lead to
    another one too."""
    out: dict[str, Column] = {}
    for column in (name for name in bronze.columns if name not in ENVELOPE):
        fields = bronze.fields.get(column, ()) or (column,)
        for field_name in fields:
            name = plain_name(field_name, [one.name for one in out.values()])
            own = name == column and len(fields) == 1
            out[field_name] = Column(name, "string") if own else Column(name, "string", source=field_name)
    return out


def plain_name(delivered: str, taken: Sequence[str]) -> str:
    """A column's name for a field of any name: `Código` is codigo, `2024` is c_2024."""
    plain = unicodedata.normalize("NFKD", delivered).encode("ascii", "ignore").decode()
    plain = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]", "_", plain.lower())).strip("_") or "coluna"
    base = (plain if plain[0].isalpha() else f"c_{plain}")[:_NAME]
    name, number = column_name(base) or base, 1
    while name in taken:
        number += 1
        name = f"{base[: _NAME - 3]}_{number}"
    return name


def _has_envelope(session: DuckDBSession, bronze: Snapshot) -> bool:
    """Whether the files came from Airbyte: a record without an id of its own gets an md5."""
    frame = session.read(bronze.paths()[:1], {"_airbyte_raw_id": "string", "_airbyte_meta": "string"})
    own = "_airbyte_meta IS NOT NULL OR NOT regexp_full_match(_airbyte_raw_id, '[0-9a-f]{32}')"
    return bool(frame.to_native().filter(own).limit(1).fetchall())


def _refused(session: DuckDBSession, storage: Storage, spec: TableSpec) -> tuple[int, tuple[str, ...]]:
    table = open_existing(storage.uri(spec.quarantine))
    if table is None or not table.rows:
        return 0, ()
    rows = session.rows(quarantine.waiting(session, table, layer="bronze").select("source_file", "reason").head(_SHOWN))
    # A reason may repeat what is in a line.
    hidden = [re.sub(rf"{WITHIN}|[0-9]{{5,}}", lambda found: masked(str(found[0])), str(reason)) for _, reason in rows]
    return table.rows, tuple(f"{Path(path).name}: {reason}" for (path, _), reason in zip(rows, hidden, strict=True))


def _types(facts: Mapping[str, str]) -> dict[str, str]:

    found: dict[str, str] = json.loads(facts.get("types", "{}"))
    return found


def sample(session: DuckDBSession, frame: "nw.LazyFrame[Any]", rows: int, *, most: int) -> duckdb.DuckDBPyRelation:
    """About so many of the rows of a frame as a table: the first, and as many that are spread over all."""
    relation: duckdb.DuckDBPyRelation = frame.to_native()
    if rows > most:
        spread = relation.filter(f"hash({', '.join(map(quoted, relation.columns))}) % {2 * rows // most:d} = 0")
        relation = relation.limit(most // 2).union(spread.limit(most // 2))
    retained: duckdb.DuckDBPyRelation = session.persist(nw.from_native(relation)).to_native()
    return retained
