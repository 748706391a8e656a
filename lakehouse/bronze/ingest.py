"""Landing to bronze for one table: which files are new, what they hold, and the commit that takes them in once.

    list landing ─▶ plan (ops/landing_files) ─▶ stage ─▶ quarantine ─▶ candidate ─▶ [asset commits] ─▶ settle (ops/ledger)
        a kill after any arrow leaves a state from which the next run goes on; see core/ledger.py

Pure: no dagster. Failure modes: a planned file vanished (rejected, with its name), was replaced since (left to the next
batch, under its new content), changes while it is read (the batch is staged again), cannot be read (rejected whole). What
vanished and comes back is new.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import narwhals as nw

from lakehouse.core import files as stored
from lakehouse.core import ledger, quarantine
from lakehouse.core.delta import Candidate, Snapshot, discard, open_existing, open_table
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import ConflictError
from lakehouse.core.landing import airbyte, delta
from lakehouse.core.landing.airbyte import Reject, Staged
from lakehouse.core.ledger import Entry, PlannedFile
from lakehouse.core.rules import Finding, Release
from lakehouse.core.storage import LandedFile, Storage
from lakehouse.tables.spec import DeltaSource, TableSpec

FILES = ledger.FILES_TABLE
LEDGER = ledger.LEDGER_TABLE
#: Rules that every bronze table has; each is an asset check.
READABLE_FILES, READABLE_RECORDS, DRIFT, BALANCE = "readable_files", "readable_records", "schema_drift", "ledger"
CHANGES = "changed_by_airbyte"
RULES = (READABLE_FILES, READABLE_RECORDS, DRIFT, CHANGES, BALANCE)


@dataclass
class Batch:
    """A bronze batch that is ready to be committed, or (`candidate` is None) the finding that nothing landed.

    `stopped` says that the drift policy `freeze` was violated: nothing may be committed.
    """

    version: int
    candidate: Candidate | None = None
    entry: Entry | None = None
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    stopped: bool = False


def stage_batch(
    session: DuckDBSession, storage: Storage, spec: TableSpec, *, run_id: str, release: Release | None = None
) -> Batch:
    """Plan and stage the next batch of a table. The caller holds the table and commits the candidate.

    Args:
        release: lets the batch pass the drift policy `freeze`.

    Raises:
        ConflictError: another run took the batch, or a file changed while it was read; run again.
        BrokenTableError: table and ledger do not belong together.
    """
    table = open_table(storage.uri(spec.bronze), airbyte.ENVELOPE)
    app = ledger.ingest_app(spec.bronze)
    done = table.transaction(app)
    settle_quarantine(session, storage, spec)
    ledger.give_back(session, storage.uri(FILES), table=spec.bronze, snapshot=table)
    planned, known = ledger.planned_files(session, storage.uri(FILES), spec.bronze)
    ledger.check_numbers(spec.bronze, planned=planned, done=done)
    ledger.settle(session, storage.uri(LEDGER), table=spec.bronze, snapshot=table)
    source = landing_of(storage, spec)
    # Asked before the files are listed: what is whole now is in the list.
    whole = {ledger.complete_app(spec.bronze): _completed(source, spec)} if spec.sync == "overwrite" else {}
    landed = {file.path: file for file in _landed(source, spec, known=[file for _, file in known])}
    batch = done + 1
    if planned == done:
        files = new_files(source, list(landed.values()), [file for _, file in known])
        if not files:
            if any(number > table.transaction(name) for name, number in whole.items()):
                Candidate(snapshot=table, add=(), transactions=whole, info={"operation": "complete"}).commit()
                return Batch(table.version + 1)
            return Batch(table.version)
        if not ledger.plan(session, storage.uri(FILES), table=spec.bronze, batch=batch, files=files, run_id=run_id):
            raise ConflictError(f"Another run took batch {batch} of {spec.bronze}.", remedy="Run it again.")
    else:
        files = [file for number, file in known if number == batch]

    present, vanished = _still_there(source, files, landed)
    new_columns: frozenset[str] | None = None
    if spec.drift != "evolve" and not (spec.drift == "freeze" and release is not None and release.accept):
        declared = frozenset(column.bronze_name for column in spec.delivered)
        new_columns = declared | (frozenset(table.columns) - frozenset(airbyte.ENVELOPE))
    staged = airbyte.stage(
        session,
        present,
        landing=source.landed_here(present, f"{session.folder}/landing"),
        folder=table.uri,
        batch=batch,
        ingested_at=datetime.now(UTC),
        frozen=new_columns,
    )
    drifted = [reject for reject in staged.rejects if reject.rule == DRIFT]
    if drifted and spec.drift == "freeze" and release is None:
        discard(table.uri, staged.files)
        return Batch(table.version, findings=[_frozen(spec, drifted, judged=len(present))], stopped=True)
    try:
        _check_unchanged(source, spec, present)
        staged.rejects += vanished
        stored = _quarantine(session, storage, spec, batch=batch, staged=staged, run_id=run_id)
        added = {name: kind for name, kind in staged.fields.items() if name not in table.columns}
        table = _with_columns(table, added, app=app, done=done)
    except BaseException:
        discard(table.uri, staged.files)
        raise
    types: dict[str, str] = json.loads(table.last_info().get("types", "{}"))
    absent = sorted({file.path for file in files} - {file.path for file in present})
    entry = Entry(
        batch_from=done,
        batch_to=batch,
        records_in=staged.delivered,
        written=staged.rows,
        quarantined=stored - len(staged.rejects),
        rows_after=table.rows + staged.rows,
    )
    candidate = Candidate(
        snapshot=table,
        add=staged.files,
        transactions={app: batch, **whole, **({ledger.absent_app(spec.bronze): batch} if absent else {})},
        info={
            "operation": "append",
            "landed_files": str(len(present)),
            **({"absent": json.dumps(absent)} if absent else {}),
            **({"reason": release.reason} if release is not None else {}),
            **({"types": json.dumps({**types, **staged.types})} if types or staged.types else {}),
            **entry.info(),
        },
    )
    return Batch(table.version, candidate, entry, _findings(spec, staged, entry, added=added, types=types), len(files))


def settle_quarantine(session: DuckDBSession, storage: Storage, spec: TableSpec) -> None:
    """Make final which files have left the quarantine to be read again."""
    files = open_existing(storage.uri(FILES))
    done = files.transaction(_redrive_app(spec)) if files is not None else 0
    quarantine.settle(session, storage.uri(spec.quarantine), layer="bronze", done=done)


def redrive_files(session: DuckDBSession, storage: Storage, spec: TableSpec, *, run_id: str) -> list[str]:
    """Let the next batch read again the files that are in quarantine whole. Returns their paths below landing."""
    settle_quarantine(session, storage, spec)
    table = open_existing(storage.uri(spec.quarantine))
    if table is None:
        return []
    whole = quarantine.waiting(session, table, layer="bronze").filter(nw.col("record").is_null())
    rows = session.rows(whole.select("batch_id", "source_file").unique())
    if not rows:
        return []
    app = _redrive_app(spec)
    number = open_table(storage.uri(FILES), ledger.FILES).transaction(app) + 1
    quarantine.mark_leaving(
        session, storage.uri(spec.quarantine), layer="bronze", number=number, where=nw.col("record").is_null()
    )
    ledger.give_back_files(session, storage.uri(FILES), table=spec.bronze, files=rows, app=app, number=number, run_id=run_id)
    settle_quarantine(session, storage, spec)
    return sorted({path for _, path in rows})


def _redrive_app(spec: TableSpec) -> str:
    return f"redrive:{spec.bronze}"


def _frozen(spec: TableSpec, drifted: Sequence[Reject], *, judged: int) -> Finding:
    way = (
        f"Declare the field in lakehouse/tables/ or change the table's drift policy, and run again. Or make release "
        f"TABLE={spec.name} REASON='...' puts these files in quarantine; with ACTION=accept their new fields are taken in."
    )
    detail = {"files": [f"{reject.path}: {reject.reason}" for reject in drifted[:20]], "what_to_do": way}
    return Finding(DRIFT, False, "fail", len(drifted), judged, detail)


def landing_of(storage: Storage, spec: TableSpec) -> Storage:
    """The same places, and landing where the table's files come from: another writer's table, when it is one."""
    return replace(storage, landing=spec.origin.uri) if isinstance(spec.origin, DeltaSource) else storage


def _landed(storage: Storage, spec: TableSpec, *, known: Sequence[PlannedFile]) -> list[LandedFile]:
    if isinstance(spec.origin, DeltaSource):
        return delta.brought(spec.origin.uri, known={file.path for file in known})
    return storage.landed(spec.origin.folder)


def _completed(storage: Storage, spec: TableSpec) -> int:
    return 0 if isinstance(spec.origin, DeltaSource) else storage.completed(spec.origin.folder)


def _check_unchanged(storage: Storage, spec: TableSpec, files: Sequence[LandedFile]) -> None:
    if isinstance(spec.origin, DeltaSource):  # a data file is never written again
        return
    after = {file.path: file for file in storage.landed(spec.origin.folder)}
    if any(after.get(file.path) != file for file in files):
        raise ConflictError(f"A file of {spec.landing} changed while it was read.", remedy="Run it again.")


def _with_columns(table: Snapshot, columns: dict[str, str], *, app: str, done: int) -> Snapshot:
    """The table with the columns that are new; still the one that the batch was planned for."""
    table = table.add_columns(columns)
    if table.transaction(app) != done:
        raise ConflictError(f"Another run committed a batch to {table.uri}.", remedy="Run it again.")
    return table


def new_files(storage: Storage, landed: Sequence[LandedFile], known: Sequence[PlannedFile]) -> list[PlannedFile]:
    """Landed files whose name, or content under that name, is not spoken for. A touched file is not new."""
    versions = {(file.path, file.size, file.version) for file in known}
    contents = {(file.path, file.checksum) for file in known}
    new = []
    for file in landed:
        if (file.path, file.size, file.version) in versions:
            continue
        checksum = _checksum(storage.landed_path(file.path))
        if checksum is not None and (file.path, checksum) not in contents:
            new.append(PlannedFile(file.path, file.size, file.version, checksum))
    return new


def _checksum(uri: str) -> str | None:
    """Of a file's content; None when it is gone since it was listed."""
    try:
        return stored.digest(uri)
    except FileNotFoundError:
        return None


def _still_there(
    storage: Storage, files: Sequence[PlannedFile], landed: "dict[str, LandedFile]"
) -> tuple[list[LandedFile], list[Reject]]:
    present, vanished = [], []
    for file in files:
        found = landed.get(file.path)
        if found is None:
            vanished.append(Reject(file.path, "readable_file", "It was listed in landing and is no longer there."))
        elif found.version == file.version or _checksum(storage.landed_path(file.path)) == file.checksum:
            present.append(found)  # the same, or the same content touched since
    return present, vanished


def _quarantine(session: DuckDBSession, storage: Storage, spec: TableSpec, *, batch: int, staged: Staged, run_id: str) -> int:
    files = [{"rules": r.rule, "reason": r.reason, "source_file": r.path} for r in staged.rejects]
    delivered = ("rules", "reason", "record", "source_file")
    found = [*staged.broken, *([session.table(files, dict.fromkeys(delivered, "string"))] if files else [])]
    stamp = {"layer": "bronze", "raw_id": None, "batch_id": batch, "run_id": run_id, "quarantined_at": datetime.now(UTC)}
    frame = None
    if found:
        frame = nw.concat(found).with_columns(*[nw.lit(value).alias(name) for name, value in stamp.items()])
    return quarantine.replace_after(
        session, storage.uri(spec.quarantine), layer="bronze", batch=batch - 1, until=batch, records=frame
    )


def _findings(spec: TableSpec, staged: Staged, entry: Entry, *, added: dict[str, str], types: dict[str, str]) -> list[Finding]:
    declared = {column.bronze_name for column in spec.delivered} - set(spec.values)
    bad_files = [r for r in staged.rejects if r.record is None and r.rule != "schema_drift"]
    bad_records = entry.quarantined
    refused = [r for r in staged.rejects if r.rule == "schema_drift"]
    beyond = sorted(set(added) - declared)
    missing = sorted(declared - set(staged.fields)) if staged.rows else []
    first = entry.batch_from == 0
    retyped = {n: _change(types[n], kind) for n, kind in staged.types.items() if types.get(n, kind) != kind}
    drift = {
        "new_columns": beyond,
        "missing_columns": missing,
        "perhaps_renamed": [*missing, *beyond] if len(missing) == len(beyond) == 1 and not first else [],
        "types": retyped,
        "refused_files": [r.path for r in refused],
    }
    return [
        Finding(
            READABLE_FILES,
            not bad_files,
            "quarantine",
            len(bad_files),
            entry.batch_to,
            {"files": [f"{r.path}: {r.reason}" for r in bad_files[:20]]},
        ),
        Finding(READABLE_RECORDS, not bad_records, "quarantine", bad_records, entry.records_in),
        Finding(
            DRIFT,
            not (refused or missing or retyped or (beyond and not first)),
            "warn",
            len(refused) + len(missing) + len(retyped) + len(beyond),
            len(staged.fields),
            drift,
        ),
        Finding(CHANGES, not staged.changed, "warn", staged.changed, entry.records_in),
        Finding(BALANCE, entry.balanced, "fail", 0 if entry.balanced else 1, entry.records_in, vars(entry)),
    ]


def _change(old: str, new: str) -> str:
    """How a Parquet field's type changed. Bronze holds text, so nothing is cut off either way."""
    sizes = ["int8", "int16", "int32", "int64", "float", "double", "string"]
    known = old in sizes and new in sizes
    word = ("widened" if sizes.index(new) > sizes.index(old) else "narrowed") if known else "changed"
    return f"{word} from {old} to {new}"
