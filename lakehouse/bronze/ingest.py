"""Landing to bronze for one table: which files are new, what they hold, and the commit that takes them in once.

    list landing ─▶ plan (ops/landing_files) ─▶ stage ─▶ quarantine ─▶ transaction ─▶ [asset commits] ─▶ finalise (ops/ledger)
        a kill after any arrow leaves a state from which the next run goes on; see core/ledger.py

Pure: no dagster. Failure modes: a planned file vanished (rejected, with its name), was replaced since (left to the next
batch, under its new content), changes while it is read (the batch is staged again), cannot be read (rejected whole). What
vanished and comes back is new. What becomes of a file that was read before with other content is in `changed.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import narwhals as nw

from lakehouse.bronze import changed as changed_files
from lakehouse.bronze.changes import changes
from lakehouse.bronze.findings import DRIFT, Withdrawals, withdrawals
from lakehouse.bronze.findings import findings as collect
from lakehouse.core import ledger, quarantine
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.errors import ConflictError
from lakehouse.core.ledger import PlannedFile
from lakehouse.core.rules import Finding, Release
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.core.table.provenance import Entry, Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged, discard
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.landing.readers.files.forms import Reject
from lakehouse.landing.readers.files.reading import reading
from lakehouse.landing.readers.files.stage import Staged, stage
from lakehouse.landing.readers.here import Here
from lakehouse.landing.readers.registry import Landing, landing
from lakehouse.tables.spec import TableSpec

FILES = ledger.FILES_TABLE
LEDGER = ledger.LEDGER_TABLE


@dataclass
class Batch:
    """A bronze batch that is ready to be committed, or (`transaction` is None) the finding that nothing landed.

    `stopped` says that the drift policy `freeze` was violated: nothing may be committed. `changed` tells what was done with each
    file that was read before with other content. `listed` files are in landing, where nothing of them is new. `more` says that
    this is the batch of a killed run, and that other files have landed since: the next batch is theirs.
    """

    version: int
    transaction: Transaction | None = None
    entry: Entry | None = None
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    stopped: bool = False
    changed: list[str] = field(default_factory=list)
    listed: int = 0
    more: bool = False


def stage_batch(
    session: DuckDBSession, storage: Storage, spec: TableSpec, *, run_id: str, release: Release | None = None
) -> Batch:
    """Plan and stage the next batch of a table. The caller holds the table and commits the transaction.

    Args:
        release: lets the batch pass the drift policy `freeze`, and be of a table of another writer that was made again.

    Raises:
        ConflictError: another run took the batch, or a file changed while it was read; run again.
        BrokenTableError: table and ledger do not belong together.
    """
    app = ledger.ingest_app(spec.bronze)
    table, planned, known = _opened(session, storage, spec)
    done = table.watermark(app)
    spoken_for = {file.path: file.checksum for _, file in known}
    origin = landing(spec.origin, storage)
    # Asked before the files are listed: what is whole now is in the list.
    completed = origin.completed() if spec.sync == "overwrite" else 0
    listed = origin.anew if origin.anew is not None and release is not None else origin.landed
    landed = {file.path: file for file in listed(spoken_for)}
    batch, new = done + 1, new_files(origin.storage, list(landed.values()), [file for _, file in known])
    files = new if planned == done else [file for number, file in known if number == batch]
    if planned == done:
        if not files:
            return replace(_nothing_landed(table, _whole(spec, completed)), listed=len(landed))
        if not ledger.plan(session, storage.uri(FILES), table=spec.bronze, batch=batch, files=files, run_id=run_id):
            raise ConflictError(f"Another run took batch {batch} of {spec.bronze}.", remedy="Run it again.")
    present, vanished = _still_there(origin.storage, files, landed)
    before = [(number, file) for number, file in known if number <= done]
    frozen = _frozen_columns(spec, table, release)
    staged, grown, here = _read(session, storage, spec, table, present, origin=origin, batch=batch, before=before, frozen=frozen)
    drifted = [reject for reject in staged.rejects if reject.rule == DRIFT]
    if drifted and spec.drift == "freeze" and release is None:
        discard(table.uri, staged.files)
        return Batch(table.version, findings=[_frozen(spec, drifted, validated=len(present))], stopped=True)
    try:
        _check_unchanged(origin, spec, present)
        changed = changes(session, table.uri, staged.files, spec) if staged.changed else []
        taken = _taken(present, staged)
        withdrawn = withdrawals(spec, table, here, taken)
        whole = _whole(spec, completed or origin.generation(taken)) | _noted(spec, here, taken, withdrawn, batch=batch)
        staged.rejects += [*vanished, *grown.refused]
        refused = _quarantine(session, storage, spec, batch=batch, staged=staged, run_id=run_id) - len(staged.rejects)
        have = table.columns
        added = {name: kind for name, kind in staged.fields.items() if name not in have}
        own = {name: kind for name, kind in ENVELOPE.items() if name not in have}
        table = _with_columns(table, {**own, **added}, _new_names(table, staged), app=app, done=done)
    except BaseException:
        discard(table.uri, staged.files)
        raise
    absent = sorted({file.path for file in files} - {file.path for file in present})
    watermarks = {app: batch, **whole, **({ledger.absent_app(spec.bronze): batch} if absent else {})}
    types: dict[str, str] = json.loads(table.provenance.facts.get("types", "{}"))
    transaction, entry = _ready(
        table, staged, watermarks, batch=batch, landed=len(present), refused=refused, absent=absent, types=types, release=release
    )
    findings = collect(spec, staged, entry, added=added, types=types, changed=changed, grown=grown.notes, withdrawn=withdrawn)
    return Batch(table.version, transaction, entry, findings, len(files), changed=grown.notes, more=planned > done and bool(new))


def _read(
    session: DuckDBSession,
    storage: Storage,
    spec: TableSpec,
    table: Snapshot,
    files: Sequence[LandedFile],
    *,
    origin: Landing,
    batch: int,
    before: Sequence[tuple[int, PlannedFile]],
    frozen: frozenset[str] | None,
) -> tuple[Staged, changed_files.Changed, Here]:
    """The batch's files as staged data files, what became of those that were read before with other content, and where all are
    on this machine."""
    refused = _refused_whole(session, storage, spec) if origin.copied is not None else ()
    read = [file.path for number, file in before if (number, file.path) not in refused]
    here = origin.here(session, files, sync=spec.sync, known=read)
    before = [] if origin.fixed else before
    grown = _changed_files(session, storage, spec, files, before=before, landing=here.folder)
    staged = stage(
        session,
        grown.to_read(files),
        landing=here.folder,
        folder=table.uri,
        batch=batch,
        ingested_at=datetime.now(UTC),
        frozen=frozen,
        known=table.fields,
        reading=reading(spec),
        instead=grown.tails,
        streams=here.streams,
    )
    return staged, grown, here


def _changed_files(
    session: DuckDBSession,
    storage: Storage,
    spec: TableSpec,
    files: Sequence[LandedFile],
    *,
    before: Sequence[tuple[int, PlannedFile]],
    landing: str,
) -> changed_files.Changed:
    """What becomes of files whose path one of the batches before has read. One that was refused whole was not."""
    paths = {file.path for file in files} & {file.path for _, file in before}
    refused = set(_refused_whole(session, storage, spec)) if paths else set()
    earlier: dict[str, list[PlannedFile]] = {}
    for number, file in before:
        if file.path in paths and (number, file.path) not in refused:
            earlier.setdefault(file.path, []).append(file)
    if spec.sync != "append":
        return changed_files.again(files, earlier)
    return changed_files.tails(files, earlier, landing=landing, folder=f"{session.folder}/tails", layout=reading(spec).csv)


def _refused_whole(session: DuckDBSession, storage: Storage, spec: TableSpec) -> list[tuple[int, str]]:
    """Batch and path of the files that are in quarantine whole. Finalise it first."""
    table = open_existing(storage.uri(spec.quarantine))
    if table is None:
        return []
    whole = quarantine.waiting(session, table, layer="bronze").filter(nw.col("record").is_null())
    return [(batch, path) for batch, path in session.rows(whole.select("batch_id", "source_file").unique())]


def _ready(
    table: Snapshot,
    staged: Staged,
    watermarks: Mapping[str, int],
    *,
    batch: int,
    landed: int,
    refused: int,
    absent: Sequence[str],
    types: Mapping[str, str],
    release: Release | None,
) -> tuple[Transaction, Entry]:
    """The transaction with its figures and all that the commit reports. `landed` counts files, `refused` records.

    Args:
        types: those of delivered Parquet fields, as the newest batch knew them.
    """
    entry = Entry(
        batch_from=batch - 1,
        batch_to=batch,
        records_in=staged.delivered,
        written=staged.rows,
        quarantined=refused,
        rows_after=table.rows + staged.rows,
    )
    facts = {
        "landed_files": str(landed),
        **({"absent": json.dumps(absent)} if absent else {}),
        **({"types": json.dumps({**types, **staged.types})} if types or staged.types else {}),
    }
    made = Provenance(operation="append", reason=release.reason if release is not None else "", figures=entry, facts=facts)
    return Transaction(table=table, add=staged.files, watermarks=watermarks, provenance=made), entry


def _opened(session: DuckDBSession, storage: Storage, spec: TableSpec) -> tuple[Snapshot, int, list[tuple[int, PlannedFile]]]:
    """The table, the last planned batch and the planned files, after what killed runs have left is finished."""
    table = open_table(storage.uri(spec.bronze), ENVELOPE)
    finalise_quarantine(session, storage, spec)
    ledger.give_back(session, storage.uri(FILES), table=spec.bronze, snapshot=table)
    planned, known = ledger.planned_files(session, storage.uri(FILES), spec.bronze)
    ledger.check_numbers(spec.bronze, planned=planned, done=table.watermark(ledger.ingest_app(spec.bronze)))
    ledger.finalise(session, storage.uri(LEDGER), table=spec.bronze, snapshot=table)
    return table, planned, known


def _taken(files: Sequence[LandedFile], staged: Staged) -> list[LandedFile]:
    """Those of the files that were not refused as a whole."""
    refused = {reject.path for reject in staged.rejects if reject.record is None}
    return [file for file in files if file.path not in refused]


def _whole(spec: TableSpec, generation: int) -> dict[str, int]:
    """The watermark of the newest generation that is in bronze as a whole; none where nothing new is known of it."""
    return {ledger.complete_app(spec.bronze): generation} if spec.sync == "overwrite" and generation else {}


def _noted(spec: TableSpec, here: Here, taken: Sequence[LandedFile], withdrawn: Withdrawals, *, batch: int) -> dict[str, int]:
    """The watermarks of the first batch that counts, when this one holds all rows of a table whose withdrawals are followed, and
    of the one with which it was warned of rows that stay."""
    begun = {ledger.begin_app(spec.bronze): batch} if here.whole & {file.path for file in taken} else {}
    return begun | ({ledger.withdrawn_app(spec.bronze): batch} if withdrawn.lines else {})


def _nothing_landed(table: Snapshot, whole: Mapping[str, int]) -> Batch:
    """No batch; a generation that is complete by now is noted."""
    if any(number > table.watermark(name) for name, number in whole.items()):
        made = Provenance(maintenance="complete", operation="complete")
        done = commit_staged(Transaction(table=table, add=(), watermarks=whole, provenance=made))
        return Batch(done.version)
    return Batch(table.version)


def _frozen_columns(spec: TableSpec, table: Snapshot, release: Release | None) -> frozenset[str] | None:
    """The only fields that files may have; None where new ones join."""
    if spec.drift == "evolve" or (spec.drift == "freeze" and release is not None and release.accept):
        return None
    declared = frozenset(column.bronze_name for column in spec.of_record)
    return declared | (frozenset(table.columns) - frozenset(ENVELOPE))


def finalise_quarantine(session: DuckDBSession, storage: Storage, spec: TableSpec) -> None:
    """Make final which files have left the quarantine to be read again."""
    files = open_existing(storage.uri(FILES))
    done = files.watermark(_redrive_app(spec)) if files is not None else 0
    quarantine.finalise(session, storage.uri(spec.quarantine), layer="bronze", done=done)


def redrive_files(session: DuckDBSession, storage: Storage, spec: TableSpec, *, run_id: str) -> list[str]:
    """Let the next batch read again the files that are in quarantine whole. Returns their paths below landing."""
    finalise_quarantine(session, storage, spec)
    rows = _refused_whole(session, storage, spec)
    if not rows:
        return []
    app = _redrive_app(spec)
    number = open_table(storage.uri(FILES), ledger.FILES).watermark(app) + 1
    quarantine.mark_leaving(
        session, storage.uri(spec.quarantine), layer="bronze", number=number, where=nw.col("record").is_null()
    )
    ledger.give_back_files(session, storage.uri(FILES), table=spec.bronze, files=rows, app=app, number=number, run_id=run_id)
    finalise_quarantine(session, storage, spec)
    return sorted({path for _, path in rows})


def _redrive_app(spec: TableSpec) -> str:
    return f"redrive:{spec.bronze}"


def _frozen(spec: TableSpec, drifted: Sequence[Reject], *, validated: int) -> Finding:
    way = (
        f"Declare the field in lakehouse/tables/ or change the table's drift policy, and run again. Or make release "
        f"TABLE={spec.name} REASON='...' puts these files in quarantine; with ACTION=accept their new fields are taken in."
    )
    detail = {"files": [f"{reject.path}: {reject.reason}" for reject in drifted[:20]], "what_to_do": way}
    return Finding(DRIFT, False, "fail", len(drifted), validated, detail)


def landing_of(storage: Storage, spec: TableSpec) -> Storage:
    """The places of a lake, for reading the files of a table."""
    return landing(spec.origin, storage).storage


def _check_unchanged(origin: Landing, spec: TableSpec, files: Sequence[LandedFile]) -> None:
    if origin.fixed:
        return
    after = {file.path: file for file in origin.landed({file.path: file.checksum for file in files})}
    if any(after.get(file.path) != file for file in files):
        raise ConflictError(f"A file of {spec.landing} changed while it was read.", remedy="Run it again.")


def _new_names(table: Snapshot, staged: Staged) -> dict[str, list[str]]:
    """By column the delivered fields, where the table does not know them all. A column of an earlier release that has its
    field's own name needs none."""
    before, columns = table.fields, table.columns
    known = {column: before.get(column, (column,) if column in columns else ()) for column in staged.names}
    return {column: names for column, names in staged.names.items() if tuple(names) != known[column]}


def _with_columns(
    table: Snapshot, columns: dict[str, str], names: Mapping[str, Sequence[str]], *, app: str, done: int
) -> Snapshot:
    """The table with the columns and names that are new; still the one that the batch was planned for."""
    table = table.add_columns(columns, names)
    if table.watermark(app) != done:
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
        checksum = file.checksum or _checksum(storage.landed_path(file.path))
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
