"""Commands for one table when something is wrong with it: `rebuild`, `quarantine`, `redrive`, `release`.

Each locks the table, stages with the same pure functions as the assets, commits and finalises; the next run of the asset
repeats in Dagster what was found. 0 is success, 1 means that a rule stopped it or there was nothing to do.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lakehouse.commands.options import Reason, Table
from lakehouse.core.errors import DeclarationError, RefusedWriteError
from lakehouse.core.names import TableRef, column_name
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.settings import load_settings
from lakehouse.tables.spec import EXTRA, TableSpec, history_ref, with_histories

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession
    from lakehouse.core.rules import Finding, Release
    from lakehouse.core.table.snapshot import Snapshot
    from lakehouse.runtime.lake import LakeResource
    from lakehouse.silver.refresh import Mode, Refresh

app = typer.Typer()
Accept = Annotated[str, typer.Option(help="quarantine: put offenders there; accept: take in all of it")]

_HIDDEN = "***"
_LINE = 400


@app.command()
def rebuild(
    table: Table,
    reason: Annotated[str, typer.Option(help="why it may pass the rules with action fail; without it they hold")] = "",
    action: Accept = "quarantine",
) -> int:
    """Compute a silver table again from all of bronze."""
    return _silver(declared(table), "rebuild", _permission(reason, action) if reason else None)


@app.command()
def redrive(table: Table) -> int:
    """Validate again what is in quarantine, after a rule or a file was corrected."""
    from lakehouse.bronze.ingest import redrive_files

    spec, files = declared(table), []
    for part in spec.parts:
        with _locked(part.bronze) as (lake, storage), lake.duckdb() as session:
            files += redrive_files(session, storage, part, run_id="redrive")
    for path in files:
        print(f"{path}: the next run of medallion_etl reads it again")
    if open_existing(storage.uri(spec.silver)) is None:
        return 0 if files else _nothing(spec)
    return _silver(spec, "redrive", None)


@app.command()
def release(table: Table, reason: Reason, action: Accept = "quarantine") -> int:
    """Take in the batch that a rule with action fail stops: bronze's (drift policy freeze), then silver's."""
    spec, permission = declared(table), _permission(reason, action)
    if not any([_bronze(part, permission) for part in spec.parts]):  # each of them, not until the first
        return _silver(spec, "increment", permission)
    try:
        return _silver(spec, "increment", permission)
    except RefusedWriteError:  # bronze was all that was stopped
        return _silver(spec, "increment", None)


@app.command()
def quarantine(
    table: Table,
    limit: Annotated[int, typer.Option(min=0, help="how many records")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per record")] = False,
) -> int:
    """Print what is in quarantine: how much by rule, then records, the newest first. Personal columns are masked."""
    from lakehouse.resources import build_resources

    spec = declared(table)
    lake = build_resources(load_settings())["lake"]
    found = [(part, open_existing(lake.storage.uri(part.quarantine))) for part in spec.parts]
    filled = [(part, snapshot) for part, snapshot in found if snapshot is not None and snapshot.rows]
    if not filled:
        print(f"Nothing of {spec.name} is in quarantine.")
        return 0
    with lake.duckdb() as session:
        for part, snapshot in filled:
            _print_refused(session, part, snapshot, limit=limit, as_json=as_json)
    if not as_json:
        most = max(snapshot.rows for _, snapshot in filled)
        more = f"All of them: make quarantine TABLE={spec.name} LIMIT={most}. " if most > limit else ""
        print(f"\n{more}After fixing a rule or the source: make redrive TABLE={spec.name}")
    return 0


def _print_refused(session: "DuckDBSession", part: TableSpec, snapshot: "Snapshot", *, limit: int, as_json: bool) -> None:
    """What one bronze table and its silver table have in quarantine: counts by rule, then the newest records."""
    import narwhals as nw

    frame = session.read(snapshot.paths(), snapshot.columns)
    names = ("layer", "rules", "reason", "source_file", "batch_id", "quarantined_at", "record")
    newest = frame.sort("batch_id", "quarantined_at", "source_file", "record", descending=[True, True, False, False])
    rows = session.dicts(newest.head(limit), *names)
    if as_json:
        for row in rows:
            print(json.dumps({**row, "record": _masked(part, row["record"])}, default=str, ensure_ascii=False))
        return
    print(f"{part.quarantine}: {snapshot.rows:,} in all")
    counts = session.rows(frame.group_by("layer", "rules").agg(nw.len().alias("n")).sort("layer", "rules"))
    for layer, rules, count in counts:
        print(f"{count:>9,}  {layer}: {rules}")
    for row in rows:
        print(f"\n{row['source_file']} (batch {row['batch_id']}, {row['quarantined_at']:%Y-%m-%d %H:%M} UTC)")
        print(f"  {row['layer']}: {row['rules']}. {row['reason']}")
        print(f"  {_masked(part, row['record'])[:_LINE]}")


def declared(table: str, *, histories: bool = False) -> TableSpec:
    """The spec of a table by its bronze or silver name.

    Args:
        histories: a table's history counts as a table of its own.

    Raises:
        DeclarationError: there is none.
    """
    specs = load_settings().tables
    specs = with_histories(*specs) if histories else specs
    found = [spec for spec in specs if table in (spec.name, spec.silver_name)]
    if not found:
        names = ", ".join(dict.fromkeys(spec.name for spec in specs))
        raise DeclarationError(f"There is no table {table[:80]!r}.", remedy=f"Use one of {names}.")
    return found[0]


# --- what they share ---------------------------------------------------------------------------------------------------


def _permission(reason: str, action: str) -> "Release":
    from lakehouse.core.rules import Release

    if action not in ("quarantine", "accept"):
        raise DeclarationError(f"There is no action {action[:40]!r}.", remedy="Use ACTION=quarantine or ACTION=accept.")
    return Release(reason, accept=action == "accept")


@contextmanager
def _locked(table: TableRef) -> "Iterator[tuple[LakeResource, Storage]]":
    from lakehouse.resources import build_resources

    lake = build_resources(load_settings())["lake"]
    with lock(lake.storage.uri(table)):
        yield lake, lake.storage


def _bronze(spec: TableSpec, permission: "Release") -> bool:
    """Take in bronze's batch if the drift policy `freeze` stops it; whether it was that."""
    from lakehouse.bronze.ingest import landing_of, stage_batch
    from lakehouse.runtime.steps import finalise

    if spec.drift != "freeze":
        return False
    with _locked(spec.bronze) as (lake, storage), lake.duckdb(landing=landing_of(storage, spec)) as session:
        batch = stage_batch(session, storage, spec, run_id="release")
        if not batch.stopped:
            if batch.transaction is not None:  # nothing stops it: that is for the next run
                batch.transaction.abandon()
            return False
        batch = stage_batch(session, storage, spec, run_id="release", release=permission)
        _report(spec.bronze, batch.findings)
        if batch.transaction is None or any(finding.stops for finding in batch.findings):
            if batch.transaction is not None:
                batch.transaction.abandon()
            raise RefusedWriteError(f"{spec.bronze} keeps version {batch.version}.", remedy="See the rules named above.")
        version = _commit(spec.bronze, batch.transaction, batch.findings, run_id="release")
        finalise(session, storage, spec.bronze)
        print(f"{spec.bronze}: version {version}.")
    return True


def _silver(spec: TableSpec, mode: "Mode", permission: "Release | None") -> int:
    """Stage, print the findings, commit and finalise."""
    from lakehouse.runtime.steps import finalise, report
    from lakehouse.silver.refresh import finalise_quarantine, stage_refresh
    from lakehouse.silver.release import nothing_to_release

    with _locked(spec.silver) as (lake, storage), lake.session(engine=spec.engine) as session:
        refresh = stage_refresh(session, storage, spec, run_id=_run(mode, permission), mode=mode, release=permission)
        for note in refresh.notes:
            print(note)
        if refresh.stopped:
            report(refresh.findings, lambda line: print(line, file=sys.stderr))
            return _stopped(spec.silver, refresh)
        if permission is not None and mode == "increment" and refresh.transaction is None:
            raise nothing_to_release(spec.silver)
        _report(spec.silver, refresh.findings)
        if refresh.transaction is None or refresh.entry is None:
            return _nothing(spec)
        version = _commit(spec.silver, refresh.transaction, refresh.findings, run_id=_run(mode, permission))
        committed = finalise(session, storage, spec.silver)
        if committed is not None:
            finalise_quarantine(session, storage, spec, committed)
    figures = {name: getattr(refresh.entry, name) for name in ("written", "deduplicated", "deleted", "quarantined")}
    counted = ", ".join(f"{count:,} {name}" for name, count in figures.items() if count)
    print(f"{spec.silver}: version {version}, {refresh.entry.rows_after:,} rows. "
          f"{refresh.entry.records_in:,} records in: {counted}.")  # fmt: skip
    return _history(spec, "rebuild" if mode == "rebuild" else "increment") if spec.history else 0


def _history(spec: TableSpec, mode: "Literal['increment', 'rebuild']") -> int:
    """Let the history follow what silver is now."""
    from lakehouse.runtime.steps import finalise
    from lakehouse.silver.history import stage_history

    ref = history_ref(spec)
    with _locked(ref) as (lake, storage), lake.session(engine=spec.engine) as session:
        refresh = stage_history(session, storage, spec, run_id=mode, mode=mode)
        _report(ref, refresh.findings)
        if refresh.stopped:
            return _stopped(ref, refresh)
        if refresh.transaction is None or refresh.entry is None:
            return 0
        version = _commit(ref, refresh.transaction, refresh.findings, run_id=mode)
        finalise(session, storage, ref)
    print(f"{ref}: version {version}, {refresh.entry.rows_after:,} rows.")
    return 0


def _commit(table: TableRef, transaction: Transaction, findings: "Sequence[Finding]", *, run_id: str) -> int:
    """Commit what a command has staged; the version."""
    from lakehouse.runtime.steps import standings

    made = {"run_id": run_id, "asset": str(table), "findings": standings(findings)}
    return commit_staged(transaction.with_provenance(**made)).version


def _stopped(table: TableRef, refresh: "Refresh") -> int:
    """Print what stopped a table; exit code 1."""
    from lakehouse.runtime.steps import stopped

    for finding in refresh.findings:
        if finding.stops:
            print(stopped(finding, table, refresh.version), file=sys.stderr)
    return 1


def _run(mode: str, permission: "Release | None") -> str:
    return "release" if permission is not None and mode == "increment" else mode


def _report(table: TableRef, findings: "Iterable[Finding]") -> None:
    for finding in findings:
        if not finding.passed:
            print(f"{finding.action}: {table} {finding.rule}: {finding.failed:,} of {finding.validated:,}")
        for line in finding.lines:
            print(f"  {line}")


def _nothing(spec: TableSpec) -> int:
    print(f"Nothing of {spec.name} can leave the quarantine.")
    return 0


def _masked(spec: TableSpec, record: str | None) -> str:
    """What was delivered, without what is declared as personal."""
    personal = {name for c in spec.of_record if c.personal for name in (spec.text_of(c), c.bronze_name)} - {EXTRA}
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
    hidden = {name for name in fields if name in personal or column_name(name) in personal}
    return json.dumps({n: _HIDDEN if n in hidden and v is not None else v for n, v in fields.items()}, ensure_ascii=False)
