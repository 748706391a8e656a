"""Commands for one table when something is wrong with it: `rebuild`, `quarantine`, `redrive`, `release`.

Each holds the table, stages with the same pure functions as the assets, commits and settles; the next run of the asset
repeats in Dagster what was found. 0 is success, 1 that a rule stopped it or there was nothing to do.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakehouse.core.delta import open_existing
from lakehouse.core.errors import DeclarationError, RefusedWriteError
from lakehouse.core.names import TableRef, column_name
from lakehouse.core.rules import Finding, Release
from lakehouse.core.storage import Storage, hold
from lakehouse.resources import build_resources
from lakehouse.settings import load_settings
from lakehouse.steps import findings_info, settle, stopped
from lakehouse.tables.spec import TableSpec

if TYPE_CHECKING:
    from lakehouse.lake import LakeResource
    from lakehouse.silver.refresh import Mode

_HIDDEN = "***"
_LINE = 400


def rebuild(table: str, *, permission: Release | None = None) -> int:
    """Compute a silver table again from all of bronze."""
    return _silver(declared(table), "rebuild", permission)


def redrive(table: str) -> int:
    """Judge again what is in quarantine: records by the rules as they are now, unreadable files with the next run."""
    from lakehouse.bronze.ingest import redrive_files

    spec = declared(table)
    with _held(spec.bronze) as (lake, storage), lake.duckdb() as session:
        files = redrive_files(session, storage, spec, run_id="redrive")
    for path in files:
        print(f"{path}: the next run of medallion_etl reads it again")
    if open_existing(storage.uri(spec.silver)) is None:
        return 0 if files else _nothing(spec)
    return _silver(spec, "redrive", None)


def release(table: str, permission: Release) -> int:
    """Take in the batch that a rule with action `fail` stops: bronze's (drift policy `freeze`), then silver's.

    Raises:
        RefusedWriteError: nothing is stopped.
    """
    spec = declared(table)
    if not _bronze(spec, permission):
        return _silver(spec, "increment", permission)
    try:
        return _silver(spec, "increment", permission)
    except RefusedWriteError:  # bronze was all that was stopped
        return _silver(spec, "increment", None)


def show(table: str, *, limit: int = 20, as_json: bool = False) -> int:
    """Print what is in quarantine: how much by rule, then records, the newest first. Personal columns are masked."""
    import narwhals as nw

    spec = declared(table)
    lake = build_resources(load_settings())["lake"]
    snapshot = open_existing(lake.storage.uri(spec.quarantine))
    if snapshot is None or not snapshot.rows:
        print(f"Nothing of {spec.name} is in quarantine.")
        return 0
    with lake.duckdb() as session:
        frame = session.read(snapshot.paths(), snapshot.columns)
        counts = session.rows(frame.group_by("layer", "rules").agg(nw.len().alias("n")).sort("layer", "rules"))
        names = ("layer", "rules", "reason", "source_file", "batch_id", "quarantined_at", "record")
        newest = frame.sort("batch_id", "quarantined_at", "source_file", "record", descending=[True, True, False, False])
        rows = [dict(zip(names, row, strict=True)) for row in session.rows(newest.head(limit).select(*names))]
    if as_json:
        for row in rows:
            print(json.dumps({**row, "record": _masked(spec, row["record"])}, default=str, ensure_ascii=False))
        return 0
    print(f"{spec.quarantine}: {snapshot.rows:,} in all")
    for layer, rules, count in counts:
        print(f"{count:>9,}  {layer}: {rules}")
    for row in rows:
        print(f"\n{row['source_file']} (batch {row['batch_id']}, {row['quarantined_at']:%Y-%m-%d %H:%M} UTC)")
        print(f"  {row['layer']}: {row['rules']}. {row['reason']}")
        print(f"  {_masked(spec, row['record'])[:_LINE]}")
    hidden = snapshot.rows - len(rows)
    more = f"{hidden:,} more: make quarantine TABLE={spec.name} LIMIT={snapshot.rows}. " if hidden else ""
    print(f"\n{more}After mending a rule, a type or the source: make redrive TABLE={spec.name}")
    return 0


def declared(table: str) -> TableSpec:
    """The spec of a table by its bronze or silver name.

    Raises:
        DeclarationError: there is none.
    """
    specs = load_settings().tables
    found = [spec for spec in specs if table in (spec.name, spec.silver_name)]
    if not found:
        names = ", ".join(spec.name for spec in specs)
        raise DeclarationError(f"There is no table {table[:80]!r}.", remedy=f"Use one of {names}.")
    return found[0]


# --- what they share ---------------------------------------------------------------------------------------------------


@contextmanager
def _held(table: TableRef) -> "Iterator[tuple[LakeResource, Storage]]":
    lake = build_resources(load_settings())["lake"]
    with hold(lake.storage.uri(table)):
        yield lake, lake.storage


def _bronze(spec: TableSpec, permission: Release) -> bool:
    """Take in bronze's batch if the drift policy `freeze` stops it; whether it was that."""
    from lakehouse.bronze.ingest import landing_of, stage_batch

    if spec.drift != "freeze":
        return False
    with _held(spec.bronze) as (lake, storage), lake.duckdb(landing=landing_of(storage, spec)) as session:
        batch = stage_batch(session, storage, spec, run_id="release")
        if not batch.stopped:
            if batch.candidate is not None:  # nothing stops it: that is for the next run
                batch.candidate.discard()
            return False
        batch = stage_batch(session, storage, spec, run_id="release", release=permission)
        _say(spec.bronze, batch.findings)
        if batch.candidate is None or any(finding.stops for finding in batch.findings):
            if batch.candidate is not None:
                batch.candidate.discard()
            raise RefusedWriteError(f"{spec.bronze} keeps version {batch.version}.", remedy="See the rules named above.")
        version = batch.candidate.commit({"run_id": "release", "asset": str(spec.bronze), **findings_info(batch.findings)})
        settle(session, storage, spec.bronze)
        print(f"{spec.bronze}: version {version}.")
    return True


def _silver(spec: TableSpec, mode: "Mode", permission: Release | None) -> int:
    """Stage, say what was found, commit and settle."""
    from lakehouse.silver.refresh import nothing_to_release, settle_quarantine, stage_refresh

    with _held(spec.silver) as (lake, storage), lake.session(engine=spec.engine) as session:
        refresh = stage_refresh(session, storage, spec, run_id=_run(mode, permission), mode=mode, release=permission)
        if refresh.stopped:
            for finding in refresh.findings:
                if finding.stops:
                    print(stopped(finding, spec.silver, refresh.version), file=sys.stderr)
            return 1
        if permission is not None and mode == "increment" and refresh.candidate is None:
            raise nothing_to_release(spec.silver)
        _say(spec.silver, refresh.findings)
        if refresh.candidate is None or refresh.entry is None:
            return _nothing(spec)
        info = {"run_id": _run(mode, permission), "asset": str(spec.silver)}
        version = refresh.candidate.commit({**info, **findings_info(refresh.findings)})
        committed = settle(session, storage, spec.silver)
        if committed is not None:
            settle_quarantine(session, storage, spec, committed)
    figures = {name: getattr(refresh.entry, name) for name in ("written", "deduplicated", "deleted", "quarantined")}
    places = ", ".join(f"{count:,} {name}" for name, count in figures.items() if count)
    print(f"{spec.silver}: version {version}, {refresh.entry.rows_after:,} rows. "
          f"{refresh.entry.records_in:,} records in: {places}.")  # fmt: skip
    return 0


def _run(mode: str, permission: Release | None) -> str:
    return "release" if permission is not None and mode == "increment" else mode


def _say(table: TableRef, findings: Iterable[Finding]) -> None:
    for finding in findings:
        if not finding.passed:
            print(f"{finding.action}: {table} {finding.rule}: {finding.failed:,} of {finding.judged:,}")


def _nothing(spec: TableSpec) -> int:
    print(f"Nothing of {spec.name} can leave the quarantine.")
    return 0


def _masked(spec: TableSpec, record: str | None) -> str:
    """What was delivered, without what is declared as personal."""
    personal = {column.bronze_name for column in spec.columns if column.personal}
    if record is None:
        return "(the file as a whole)"
    if not personal:
        return record
    try:
        fields = json.loads(record)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return "(not shown: it cannot be read, and the table has personal columns)"
    return json.dumps({n: _HIDDEN if column_name(n) in personal and v is not None else v for n, v in fields.items()},
                      ensure_ascii=False)  # fmt: skip
