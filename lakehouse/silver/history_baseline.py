"""What a history is made of beside its own rows: which records count, its other points, and those of records that have expired.

    ops/points_<table>_history     points that opened no version: deletes, and records that repeat what was known
    ops/baseline_<table>_history   all points of the records that have left bronze; a rebuild starts from them

Points are a set: one that is there twice, or that is in bronze as well, changes nothing. So both tables are only ever added to,
and before anything else that depends on it: a kill in between leaves points too many, never one too few. A history that is
declared after records have expired begins with what the baseline of silver has of them. Pure: no dagster.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals as nw

from lakehouse.core import quarantine, rules
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Release
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import open_input
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.silver import baseline, inputs
from lakehouse.silver.inputs import ROW_ID
from lakehouse.silver.merge import baseline_ref, delete_columns, silver_columns, table_beside, tombstones_ref
from lakehouse.silver.validate import ACCEPTED, DELETED, Validator
from lakehouse.silver.versions import INSTANT, ORIGIN, instant_of, points
from lakehouse.tables.spec import TableSpec, history_ref

_AS_SILVER = Release("Silver has read it.", accept=True)


def points_ref(spec: TableSpec) -> TableRef:
    """Where the points are that opened no version."""
    return table_beside("points", history_ref(spec))


def history_baseline_ref(spec: TableSpec) -> TableRef:
    """Where the points of expired records are."""
    return baseline_ref(history_ref(spec))


def tables_of(spec: TableSpec) -> tuple[TableRef, ...]:
    """The tables of a history, its own first; none where it has none."""
    return (history_ref(spec), points_ref(spec), history_baseline_ref(spec)) if spec.history else ()


def point_columns(spec: TableSpec) -> dict[str, str]:
    """`{column: type}` of points."""
    return {**silver_columns(spec), DELETED: "boolean"}


# --- which records count -----------------------------------------------------------------------------------------------


def validator(session: Session, spec: TableSpec, *tables: Snapshot) -> Validator:
    """The rules as they act on what silver has read: what stops a batch has stopped it there, or was released.

    Args:
        tables: silver and the history, which say what has expired.
    """
    floors = [floor for table in tables if (floor := baseline.floor(spec, table)) is not None]
    return Validator(session, spec, release=_AS_SILVER, floor=max(floors, default=None))


def accepted(
    session: Session,
    storage: Storage,
    feeds: Sequence[inputs.Feed],
    own: Validator,
    validated: "nw.LazyFrame[Any]",
    *,
    shown: int | None = None,
) -> "nw.LazyFrame[Any]":
    """The validated records that silver has accepted: with a release it may have refused, or taken in, what a rule with the
    action `fail` would have stopped; its quarantine knows.

    Args:
        shown: of a table that is overwritten the generation that silver has; in the others nothing was released.
    """
    found = session.filter_true(validated, ACCEPTED)
    if not own.relaxed:
        return found
    frame, flags = rules.violations(session, found, own.relaxed)
    offends = nw.any_horizontal(*flags.values(), ignore_nulls=False) & ~nw.col(DELETED)
    names = {"_batch_id": "batch_id", "_source_file": "source_file", "_airbyte_raw_id": "raw_id"}
    offending = session.persist(frame.filter(offends).select(*ROW_ID, *names, inputs.GENERATION))
    gone = [offending.filter(nw.col(inputs.GENERATION) != shown).select(*ROW_ID)] if shown is not None else []
    for feed in feeds:
        table = open_existing(storage.uri(feed.part.quarantine))
        if table is not None and table.files:
            waiting = quarantine.waiting(session, table, layer="silver").select(**{n: nw.col(c) for n, c in names.items()})
            mine = offending if feed.alone else offending.filter(inputs.of_feed(feed))
            gone.append(mine.join(waiting, on=list(names), how="semi").select(*ROW_ID))
    return found.join(session.persist(nw.concat(gone, how="vertical")), on=list(ROW_ID), how="anti") if gone else found


# --- what has expired --------------------------------------------------------------------------------------------------


def frame(session: Session, storage: Storage, spec: TableSpec, bronze: Sequence[Snapshot]) -> "nw.LazyFrame[Any] | None":
    """The points of expired records; None when there are none.

    Raises:
        BrokenTableError: records have left bronze, and are in no baseline.
    """
    own, of_silver = open_input(storage, history_baseline_ref(spec)), open_input(storage, baseline_ref(spec.silver))
    left = {part.bronze: table.watermark(baseline.FOLDED) for part, table in zip(spec.parts, bronze, strict=True)}
    if own is None and of_silver is None and not any(left.values()):
        return None
    found = [session.read(own.paths(), point_columns(spec))] if own is not None else []
    if own is None or _is_behind(own, left):  # not declared when they left
        if of_silver is None or _is_behind(of_silver, left):
            raise BrokenTableError(
                f"Records of {history_ref(spec)} have left bronze, and are in no baseline.",
                remedy=f"One was replaced without the other: restore bronze, {spec.silver} and their baselines from one backup.",
            )
        found.append(_of_silver(session, storage, spec, of_silver))
    return nw.concat(found, how="vertical") if len(found) > 1 else found[0]


def _is_behind(table: Snapshot, folded: Mapping[TableRef, int]) -> bool:
    """Whether a baseline lacks something that has left bronze for one."""
    return any(table.watermark(baseline.folded_app(name)) < number for name, number in folded.items())


def _of_silver(session: Session, storage: Storage, spec: TableSpec, table: Snapshot) -> "nw.LazyFrame[Any]":
    """The rows and tombstones of silver's baseline as points."""
    columns = silver_columns(spec)
    rows = session.read(table.paths(), columns).with_columns(nw.lit(False).alias(DELETED))
    ended = open_input(storage, tombstones_ref(baseline_ref(spec.silver)))
    if ended is None:
        return rows.select(*point_columns(spec))
    gone = as_deletes(session, spec, session.read(ended.paths(), delete_columns(spec)))
    return nw.concat([rows.select(*point_columns(spec)), gone], how="vertical")


def as_deletes(session: Session, spec: TableSpec, rows: "nw.LazyFrame[Any]", *beside: str) -> "nw.LazyFrame[Any]":
    """Rows with some of silver's columns as points that are deletes; the other columns are null, those `beside` stay."""
    have = rows.collect_schema().names()
    others = {name: kind for name, kind in silver_columns(spec).items() if name not in have}
    types = session.table([], others).collect_schema() if others else {}
    missing = {name: nw.lit(None).cast(dtype) for name, dtype in types.items()}
    return rows.with_columns(**missing, **{DELETED: nw.lit(True)}).select(*point_columns(spec), *beside)


def fold(
    session: Session, storage: Storage, spec: TableSpec, records: "nw.LazyFrame[Any]", *, bronze: TableRef, number: int
) -> None:
    """Let the baseline have the points of accepted records that are about to leave bronze, before anything else has them.

    Args:
        records: silver's columns and `DELETED`.
        number: of the fold, as bronze will know it.
    """
    columns, before = point_columns(spec), open_existing(storage.uri(baseline_ref(spec.silver)))
    own = open_table(storage.uri(history_baseline_ref(spec)), columns)
    marked = records.with_columns(instant_of(spec).alias(INSTANT), nw.lit(0).alias(ORIGIN))
    parts = [points(spec, marked).select(*columns)]
    watermarks = {baseline.folded_app(bronze): number}
    folded = {part.bronze: before.watermark(baseline.folded_app(part.bronze)) for part in spec.parts} if before else {}
    if before is not None and _is_behind(own, folded):
        parts.append(_of_silver(session, storage, spec, before))
        watermarks = {baseline.folded_app(ref): n for ref, n in folded.items() if n} | watermarks
    if own.columns != columns:
        parts.append(session.read(own.paths(), columns))
    add = session.write(nw.concat(parts, how="vertical"), own.uri, columns=columns, sort_by=spec.key, file_mb=spec.file_mb)
    other = own.columns != columns
    commit_staged(
        Transaction(
            table=own,
            add=add,
            remove=own.files if other else (),
            columns=columns if other else None,
            watermarks=watermarks,
            provenance=Provenance(operation="fold"),
        )
    )
