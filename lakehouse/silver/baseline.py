"""Baseline: what bronze records that have expired have made of a silver table; a rebuild starts from it.

    ops/baseline_<table>            per key the newest of the expired records, as a silver row
    ops/deletes_baseline_<table>    keys of which that is a delete

Silver is then the newest of baseline and bronze, as before it was the newest of all of bronze. A record is folded into the
baseline first and leaves bronze afterwards; both commits carry one number, so a kill in between is seen and the fold undone.

Here: where a baseline is, how it is opened and read. What puts records there: `maintenance/retention.py`. Pure: no dagster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import open_input
from lakehouse.core.table.provenance import Commit, Provenance
from lakehouse.core.table.snapshot import Snapshot, open_table, require_table
from lakehouse.core.table.transaction import Transaction, commit_staged, restore_version
from lakehouse.silver.merge import baseline_ref, delete_columns, silver_columns, tombstones_ref
from lakehouse.tables.spec import TableSpec

#: The application id under which a bronze table numbers what has left it for the baseline.
FOLDED = "folded"
#: In silver, under this application id: the instant (seconds since 1970) before which its rows have expired.
FLOOR = "floor"


@dataclass(frozen=True)
class Baseline:
    """A silver table's baseline, opened."""

    rows: Snapshot
    deletes: Snapshot


def folded_app(bronze: TableRef) -> str:
    """The application id under which a baseline numbers what came from a bronze table."""
    return f"{FOLDED}:{bronze}"


def floor(spec: TableSpec, silver: Snapshot) -> datetime | None:
    """The instant before which rows of a silver table have expired; None when none have, or its spec no longer says so."""
    seconds = silver.watermark(FLOOR)
    declared = spec.retention is not None and spec.retention.silver is not None
    return datetime.fromtimestamp(seconds, tz=UTC) if seconds and declared else None


def make_baseline(session: Session, storage: Storage, spec: TableSpec) -> Baseline:
    """The baseline of a silver table with the columns that are declared now, made empty when there is none."""
    ref, columns = baseline_ref(spec.silver), silver_columns(spec)
    rows = open_table(storage.uri(ref), columns, partition_by=[spec.partition] if spec.partition else [])
    if rows.columns != columns:
        frame = session.read(rows.paths(), columns)
        add = session.write(frame, rows.uri, columns=columns, sort_by=spec.key, file_mb=spec.file_mb, partition=spec.partition)
        commit_staged(
            Transaction(table=rows, add=add, remove=rows.files, columns=columns, provenance=Provenance(operation="evolve"))
        )
        rows = open_table(rows.uri, columns)
    return Baseline(rows, open_table(storage.uri(tombstones_ref(ref)), delete_columns(spec)))


def open_baseline(storage: Storage, spec: TableSpec, bronze: Sequence[Snapshot]) -> Baseline | None:
    """The baseline that belongs to the bronze tables of a spec; None when nothing of them has expired.

    What was folded into it and has not left bronze is taken out again first; of another lake's it is read without that.

    Raises:
        BrokenTableError: it is older than bronze, or cannot be taken back.
    """
    ref = baseline_ref(spec.silver)
    rows = open_input(storage, ref)
    left = {part.bronze: table.watermark(FOLDED) for part, table in zip(spec.parts, bronze, strict=True)}
    if rows is None and not any(left.values()):
        return None
    remedy = f"One of the two was replaced without the other: restore both, and {spec.silver}, from the same backup."
    if rows is None or any(rows.watermark(folded_app(name)) < number for name, number in left.items()):
        raise BrokenTableError(f"Records of {spec.silver} have left bronze, and are not in {ref}.", remedy=remedy)
    for name, number in left.items():
        if rows.watermark(folded_app(name)) > number:
            rows = _without(rows, name, number=number, remedy=remedy, own=rows.uri == storage.uri(ref))
    deletes = open_input(storage, tombstones_ref(ref))
    if deletes is None:
        raise BrokenTableError(f"{ref} has no {tombstones_ref(ref)}.", remedy=remedy)
    return Baseline(rows, deletes)


def frames(session: Session, spec: TableSpec, base: Baseline) -> "tuple[nw.LazyFrame[Any], nw.LazyFrame[Any]]":
    """Rows and deletes of a baseline; a column that was declared since is null."""
    rows = session.read(base.rows.paths(), silver_columns(spec))
    return rows, session.read(base.deletes.paths(), delete_columns(spec))


def _without(rows: Snapshot, bronze: TableRef, *, number: int, remedy: str, own: bool) -> Snapshot:
    """The baseline as it was before what is numbered higher came from a bronze table."""
    app = folded_app(bronze)
    folds = [commit.version for commit in rows.commits() if _folded(commit, bronze) > number]
    if not folds:
        raise BrokenTableError(f"{rows.uri} holds records that are in {bronze} too.", remedy=remedy)
    if not own:
        return require_table(rows.uri, rows.uri, version=min(folds) - 1, remedy=remedy)
    made = Provenance(maintenance="retention", operation="undo")
    return restore_version(rows, min(folds) - 1, watermarks={app: number}, provenance=made)


def _folded(commit: Commit, bronze: TableRef) -> int:
    """The number of the fold of a bronze table that a commit is; 0 of any other."""
    facts = commit.provenance.facts
    return int(facts.get(FOLDED, 0)) if facts.get("bronze") == str(bronze) else 0
