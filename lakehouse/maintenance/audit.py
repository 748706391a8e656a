"""Audit: what is promised of the tables, looked at over whole tables instead of batches; and what people did to them.

    rules      every row rule and every `unique` of a spec, over all rows of silver
    schema     columns and types are those of the spec
    files      every data file is there with its size, and none in the folder is in no version (left by a killed writer)
    protocol   readers of Delta protocol 1 can read it: no deletion vectors, no column mapping
    ledger     every entry ever written adds up, and what silver has read is what bronze has
    dbt        every test of every mart, over the published mart (`gold/published_tests.py`)

Kept in `ops/audit`, one row per table and promise; with them the acts of people: rollback, restore, pin. Pure: no dagster.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.core import ledger, rules
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import LakehouseError, StoreError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.recovery import commit_actions
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.text import one_line
from lakehouse.observability import outbox
from lakehouse.silver import standing
from lakehouse.silver.merge import silver_columns
from lakehouse.tables.spec import TableSpec, Unique, history_ref, with_histories

TABLE = TableRef("ops", "audit")
COLUMNS = {
    "at": "timestamp",
    "run_id": "string",
    "kind": "string",
    "layer": "string",
    "table": "string",
    "name": "string",
    "passed": "boolean",
    "failed": "bigint",
    "judged": "bigint",
    "said": "string",
}
#: What is looked at, and whether the audit fails when it is not so.
GUARANTEES: Mapping[str, str] = {
    "rules": "Every row of silver meets its rules, over whole tables.",
    "schema": "Columns and types are those of the specs.",
    "files": "Every data file is there, and no killed writer's is left over.",
    "protocol": "Delta protocol 1: no deletion vectors, no column mapping.",
    "ledger": "Every entry ever written adds up, and silver has read what bronze has.",
    "dbt": "Every dbt test holds for the marts as they are published.",
}
#: A writer may still be about to commit a file that is younger.
_YOUNG = timedelta(days=1)


def audit(
    storage: Storage,
    specs: Sequence[TableSpec],
    *,
    session: Callable[[], AbstractContextManager[Session]],
    now: datetime | None = None,
) -> Iterator[tuple[TableRef, str, Finding]]:
    """Look at every table: `(table, promise, finding)`. What cannot be read is a finding of `files`.

    Raises:
        StoreError: the store does not answer.
    """
    at = now or datetime.now(UTC)
    silver = {spec.silver: spec for spec in with_histories(*specs)}
    histories = {history_ref(spec): spec for spec in specs if spec.history}
    for ref in storage.tables():
        try:
            snapshot = open_existing(storage.uri(ref))
            if snapshot is None:
                continue
            yield ref, "files", _files(snapshot, now=at)
            yield ref, "protocol", _protocol(snapshot)
            if spec := silver.get(ref):
                yield ref, "schema", _schema(snapshot, silver_columns(spec))
                with session() as opened:
                    for finding in _rules(opened, snapshot, spec):
                        yield ref, "rules", finding
                    if of := histories.get(ref):
                        yield ref, "rules", standing.intervals(opened, of, snapshot)
                    if spec.sync == "dedup":
                        yield ref, "ledger", _read(opened, storage, snapshot, spec)
            if ref == ledger.LEDGER_TABLE:
                with session() as opened:
                    yield ref, "ledger", _balance(opened, snapshot)
        except StoreError:
            raise
        except LakehouseError as error:
            yield ref, "files", Finding("readable", False, "fail", 1, 1, {"message": one_line(str(error))})


def rows(found: Sequence[tuple[TableRef, str, Finding]], *, at: datetime, run_id: str) -> list[dict[str, Any]]:
    """Findings as rows of `ops/audit`."""
    return [
        {
            "at": at,
            "run_id": run_id,
            "kind": guarantee,
            "layer": ref.layer,
            "table": ref.table,
            "name": finding.rule,
            "passed": finding.passed,
            "failed": finding.failed,
            "judged": finding.validated,
            "said": str(finding.detail.get("message", "")),
        }
        for ref, guarantee, finding in found
    ]


def record_act(storage: Storage, ref: TableRef, act: str, message: str) -> None:
    """Keep what a person has done to a table."""
    act_row = {"kind": "act", "layer": ref.layer, "table": ref.table, "name": act, "passed": True, "said": message}
    outbox.record(storage, TABLE, columns=COLUMNS, rows=[{"at": datetime.now(UTC), **act_row}])


def _files(snapshot: Snapshot, *, now: datetime) -> Finding:
    snapshot.check()
    named = {file.path for file in snapshot.files}
    for version in range(snapshot.version, -1, -1):
        try:
            actions = commit_actions(f"{snapshot.uri}/_delta_log/{version:020}.json")
        except FileNotFoundError:
            break
        named |= {str(entry["path"]) for a in actions for kind in ("add", "remove") if isinstance(entry := a.get(kind), dict)}
    limit = (now - _YOUNG).timestamp()
    there = stored.listing(snapshot.uri, below=True)
    data = {path: file for path, file in there.items() if path.endswith(".parquet") and not path.startswith(("_", "."))}
    orphans = sorted(path for path, file in data.items() if path not in named and file.modified < limit)
    message = {"message": f"in no version: {', '.join(orphans[:5])}"} if orphans else {}
    return Finding("orphans", not orphans, "warn", len(orphans), len(data), message)


def _protocol(snapshot: Snapshot) -> Finding:
    found = snapshot.table.protocol()
    features = [*(found.reader_features or ()), *(found.writer_features or ())]
    plain = found.min_reader_version == 1 and not features
    message = {} if plain else {"message": f"reader version {found.min_reader_version}, features {', '.join(features) or 'none'}"}
    return Finding("protocol", plain, "warn", 0 if plain else 1, 1, message)


def _schema(snapshot: Snapshot, declared: Mapping[str, str]) -> Finding:
    other = sorted({*snapshot.columns.items()} ^ {*declared.items()})
    message = {"message": ", ".join(f"{name} {kind}" for name, kind in other)} if other else {}
    return Finding("columns", not other, "warn", len(other), len(declared), message)


def _rules(session: Session, snapshot: Snapshot, spec: TableSpec) -> Iterator[Finding]:
    """Row rules, the key and `unique` rules, over all rows. Other kinds of table rules are validated before a commit only."""
    frame = session.read(snapshot.paths(), snapshot.columns)
    conditions = {rule.name: spec.parsed(rule.condition) for rule in spec.row_rules}
    validated, counts = rules.count_violations(session, frame, conditions) if conditions else (snapshot.rows, {})
    for name, count in counts.items():
        yield Finding(name, not count, "warn", count, validated)
    declared = [rule.columns for rule in spec.table_rules if isinstance(rule, Unique)]
    wanted = {f"unique_{'_'.join(columns)}": columns for columns in (spec.key, *declared) if columns}
    for name, columns in wanted.items():
        distinct = session.count(frame.select(*columns).unique())
        yield Finding(name, distinct == snapshot.rows, "warn", snapshot.rows - distinct, snapshot.rows)


def _read(session: Session, storage: Storage, snapshot: Snapshot, spec: TableSpec) -> Finding:
    """What silver has read since its beginning against what bronze has, where it has read all of it."""
    tables = []
    for part in spec.parts:
        bronze = open_existing(storage.uri(part.bronze))
        if bronze is None or bronze.watermark(ledger.ingest_app(part.bronze)) != snapshot.watermark(ledger.read_app(part.bronze)):
            return Finding("read", True, "fail", 0, 0, {"message": "bronze has batches that silver has not read yet"})
        tables.append(bronze)
    there = ledger.delivered(tables, snapshot)
    read = ledger.total_read(session, storage.uri(ledger.LEDGER_TABLE), spec.silver)
    return Finding("read", read == there, "fail", abs(read - there), there)


def _balance(session: Session, snapshot: Snapshot) -> Finding:
    import narwhals as nw

    frame = session.read(snapshot.paths(), ledger.LEDGER)
    out = sum((nw.col(name).fill_null(0) for name in ("deduplicated", "deleted", "quarantined")), nw.col("written").fill_null(0))
    validated, wrong = session.rows(
        frame.select(nw.len().alias("n"), (nw.col("records_in") != out).cast(nw.Int64).sum().alias("wrong"))
    )[0]
    return Finding("balance", not wrong, "fail", wrong or 0, validated)
