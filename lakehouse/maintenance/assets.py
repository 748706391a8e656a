"""The assets of job `maintenance`, one after the other; each measures, appends to its Delta table and says what is wrong.

ops/maintenance ─▶ ops/audit ─▶ ops/backups ─▶ reports/manutencao
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.store.scratch import scratch
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance.upkeep import FailedError
from lakehouse.ml.resource import MlResource
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import RETRY, failures
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from lakehouse.maintenance.backup import Vault
    from lakehouse.maintenance.protect import Protection
    from lakehouse.maintenance.retention import Expired
    from lakehouse.maintenance.upkeep import Maintained

_ARGUMENTS: dict[str, Any] = {
    "group_name": "ops",
    "owners": ["team:dados"],
    "kinds": {"deltalake"},
    "tags": {"upkeep": ""},
    "io_manager_key": None,
    "retry_policy": RETRY,
}
#: Megabytes that a session of the maintenance takes; the process comes to twice that at most.
MEMORY = 1000
_ERROR, _WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
BACKUPS = TableRef("ops", "backups")
BACKUP_COLUMNS = {
    "made_at": "timestamp",
    "run_id": "string",
    "name": "string",
    "tables": "bigint",
    "databases": "bigint",
    "skipped": "bigint",
    "bytes": "bigint",
    "files_read": "bigint",
    "files_written": "bigint",
    "bytes_written": "bigint",
    "proven": "bigint",
    "unchanged": "bigint",
    "damaged": "bigint",
    "proof_files": "bigint",
    "proof_bytes": "bigint",
    "said": "string",
    "expired": "string",
    "milliseconds": "double",
}


def _check(asset: str, name: str, text: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=["ops", asset], description=text)


def maintenance_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The three assets for one set of settings."""
    return [_maintenance(settings), _audit(settings), _backups(settings)]


def _maintenance(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ops", "maintenance"],
        description="What has expired goes; then per table: what was compacted and vacuumed, which versions were kept and why.",
        check_specs=[
            _check("maintenance", "retention_done", "What is older than its table declares is gone."),
            _check("maintenance", "upkeep_done", "Every table could be read, rewritten and vacuumed."),
            _check("maintenance", "upkeep_whole", "No table was left out: no writer had locked it, MLflow answered."),
        ],
        **_ARGUMENTS,
    )
    def maintenance(
        context: dg.AssetExecutionContext, lake: LakeResource, ml: dg.ResourceParam[MlResource]
    ) -> dg.MaterializeResult:
        from lakehouse.maintenance import upkeep
        from lakehouse.maintenance.protect import protection
        from lakehouse.maintenance.replays import replayable
        from lakehouse.maintenance.run_history import prune
        from lakehouse.observability import outbox

        at, run_id = datetime.now(UTC), context.run.run_id
        with failures():
            expired, not_expired = expire_all(settings, lake, context.instance, now=at)
            pruned = prune(context.instance, lake.storage, age=timedelta(days=settings.history_days), now=at)
            freed = _shrink_history(context, now=at)
        for one in expired:
            context.log.info("%s: %s", one.ref, one)
        with failures(), vault_of(settings, lake) as vault:
            replays = replayable(lake.storage, settings.tables, days=settings.replay_days, now=datetime.now(UTC))
            protected = protection(lake.storage, ml.registry, backups=vault.versions(), replays=replays)
            found = list(_maintained(context, settings, lake, protected))
            version = outbox.record(
                lake.storage,
                upkeep.TABLE,
                columns=upkeep.COLUMNS,
                rows=[maintained.row(at=at, run_id=run_id) for maintained in found],
            )
        wrong = [f"{maintained.ref}: {maintained.message}" for maintained in found if maintained.outcome in ("broken", "failed")]
        left = [f"{maintained.ref}: {maintained.message}" for maintained in found if maintained.outcome in ("busy", "refused")]
        return dg.MaterializeResult(
            metadata={
                "delta_version": version,
                "tables": len(found),
                "pruned_runs": pruned,
                "history_bytes_freed": freed,
                "expired": sum(one.rows for one in expired),
                "compacted_files": sum(maintained.compacted for maintained in found),
                "vacuumed_files": sum(maintained.vacuumed_files for maintained in found),
                "vacuumed_bytes": sum(maintained.vacuumed_bytes for maintained in found),
            },
            check_results=[
                _result("retention_done", not_expired, _ERROR),
                _result("upkeep_done", wrong, _ERROR),
                _result("upkeep_whole", left, _WARN),
            ],
        )

    return maintenance


def _shrink_history(context: dg.AssetExecutionContext, *, now: datetime) -> int:
    """Give the disk back what deleted runs took in Dagster's SQLite files; the bytes. The log names what stays as it is."""
    from lakehouse.maintenance import sqlite_files
    from lakehouse.observability.eventlog import run_files

    if context.instance.is_ephemeral:
        return 0
    freed = sqlite_files.forget_runs(context.instance, now=now)
    found = sqlite_files.vacuum_all(Path(context.instance.root_directory), logs=run_files(context.instance))
    for file in found:
        if file.left:
            context.log.warning("%s is not vacuumed, %s. The next maintenance tries again.", file.path, file.left)
    return freed + sum(file.freed for file in found)


def _maintained(
    context: dg.AssetExecutionContext, settings: Settings, lake: LakeResource, protected: "Protection"
) -> "Iterator[Maintained]":
    """What was done to one table after the other; the run's log has those to which something was."""
    from lakehouse.maintenance import upkeep

    for maintained in upkeep.maintain(
        upkeep.tasks(lake.storage, settings.tables),
        storage=lake.storage,
        protected=protected,
        session=lambda: lake.duckdb(at_most=MEMORY),
        floor=timedelta(hours=settings.vacuum_hours),
    ):
        if maintained.outcome != "nothing":
            context.log.info("%s: %s %s", maintained.ref, maintained.outcome, maintained.message)
        yield maintained


def _audit(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ops", "audit"],
        deps=[["ops", "maintenance"]],
        description="Rules and dbt tests over whole tables, schemas, files, protocol, the ledger since its beginning; acts.",
        check_specs=[_check("audit", f"audit_{name}", text) for name, text in _guarantees().items()],
        **_ARGUMENTS,
    )
    def audit(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from lakehouse.gold import published_tests as gold
        from lakehouse.gold.project import ensure_manifest
        from lakehouse.maintenance import audit as auditing
        from lakehouse.observability import outbox

        at = datetime.now(UTC)
        with failures():
            found = list(auditing.audit(lake.storage, settings.tables, session=lambda: lake.duckdb(at_most=MEMORY), now=at))
            found += [(ref, "dbt", finding) for ref, finding in gold.audit(lake, ensure_manifest())]
            rows = auditing.rows(found, at=at, run_id=context.run.run_id)
            version = outbox.record(lake.storage, auditing.TABLE, columns=auditing.COLUMNS, rows=rows)
        results = []
        for guarantee in auditing.GUARANTEES:
            broken = [(ref, finding) for ref, kind, finding in found if kind == guarantee and not finding.passed]
            message = [
                f"{ref} {f.rule}: {f.failed:,} of {f.validated:,} {f.detail.get('message', '')}".strip() for ref, f in broken
            ]
            severity = _ERROR if any(finding.action == "fail" for _, finding in broken) else _WARN
            results.append(_result(f"audit_{guarantee}", message, severity))
        return dg.MaterializeResult(metadata={"delta_version": version, "findings": len(found)}, check_results=results)

    return audit


def _backups(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ops", "backups"],
        deps=[["ops", "audit"]],
        description="Every backup: what it holds, what was new in it, and what restoring it to a scratch folder has shown.",
        check_specs=[
            _check("backups", "backup_complete", "Every table is in the newest backup."),
            _check("backups", "backup_proven", "Restored to a scratch folder, it is what was backed up."),
        ],
        **_ARGUMENTS,
    )
    def backups(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        home = None if context.instance.is_ephemeral else context.instance.root_directory
        with failures():
            row, skipped, damaged = back_up(settings, lake, home=home, run_id=context.run.run_id)
        return dg.MaterializeResult(
            metadata={name: value for name, value in row.items() if name not in ("made_at", "run_id") and value is not None},
            check_results=[_result("backup_complete", skipped, _ERROR), _result("backup_proven", damaged, _ERROR)],
        )

    return backups


def expire_all(
    settings: Settings, lake: LakeResource, instance: dg.DagsterInstance, *, now: datetime
) -> tuple[list["Expired"], list[str]]:
    """Let go of what has expired, table by table: what went, and which table could not be done for what reason.

    Each that lost something has a row of `ops/audit`, and is told to Dagster so that all downstream shows as stale.
    """
    from lakehouse.bronze.ingest import landing_of
    from lakehouse.maintenance import retention
    from lakehouse.maintenance.upkeep import table_errors

    went, left = [], []
    for spec in retention.declared(settings.tables):
        landing = landing_of(lake.storage, spec.parts[0])
        try:
            with table_errors(), lake.duckdb(landing=landing, at_most=MEMORY) as session:
                found = retention.expire(session, lake.storage, spec, now=now, beside=settings.tables)
        except (LakehouseError, FailedError) as error:
            left.append(f"{spec.silver}: {error}")
            continue
        went += [one for one in found if one.rows]
    if settings.measurement_days:
        before = now - timedelta(days=settings.measurement_days)
        for ref in retention.MEASURED:
            try:
                with table_errors(), lake.duckdb(at_most=MEMORY) as session:
                    went += [one for one in [retention.expire_measured(session, lake.storage, ref, before=before)] if one.rows]
            except (LakehouseError, FailedError) as error:
                left.append(f"{ref}: {error}")
    for one in went:
        tell(instance, lake, one.ref, "retention", str(one))
    return went, left


def tell(instance: dg.DagsterInstance, lake: LakeResource, ref: TableRef, act: str, message: str) -> None:
    """Keep what was done to a table, and show all that is downstream as stale."""
    from lakehouse.maintenance.audit import record_act

    record_act(lake.storage, ref, act, message)
    if ref.layer == "landing":
        return
    snapshot = open_existing(lake.storage.uri(ref))
    version = snapshot.version if snapshot is not None else -1
    at = datetime.now(UTC).timestamp()
    metadata: dict[str, Any] = {"act": act, "said": message, "delta_version": version}
    told = dg.AssetMaterialization(ref.key, metadata=metadata, tags={"dagster/data_version": f"{act}-{version}-{at:.0f}"})
    instance.report_runless_asset_event(told)


def back_up(
    settings: Settings, lake: LakeResource, *, home: str | None, run_id: str
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Make a backup, prove it, let old ones go; its row of `ops/backups`, what was skipped and what was damaged.

    Args:
        home: Dagster's folder, whose SQLite databases are backed up too; None where it has none.
    """
    from lakehouse.observability import outbox

    began = datetime.now(UTC)
    with vault_of(settings, lake) as vault:
        taken = vault.take(lake.storage, databases=databases(settings, home))
        backup = taken.backup
        proof = vault.prove(backup, session=lambda: lake.duckdb(at_most=MEMORY), whole=settings.backup_proof == "whole")
        expired = [] if proof.damaged else vault.expire(retain=settings.backup_keep)
    sizes = [file.size for table in backup.tables.values() for file in table.files.values()]
    skipped = [f"{name}: {why}" for name, why in backup.skipped.items()]
    damaged = [f"{name}: {why}" for name, why in proof.damaged.items()]
    row = {
        "made_at": began,
        "run_id": run_id,
        "name": backup.name,
        "tables": len(backup.tables),
        "databases": len(backup.databases),
        "skipped": len(skipped),
        "bytes": sum(sizes) + sum(file.size for file in backup.databases.values()),
        "files_read": taken.read,
        "files_written": taken.written,
        "bytes_written": taken.written_bytes,
        "proven": len(proof.proven),
        "unchanged": len(proof.unchanged),
        "damaged": len(damaged),
        "proof_files": proof.files,
        "proof_bytes": proof.bytes,
        "said": "; ".join([*skipped, *damaged])[:1000],
        "expired": ", ".join(expired),
        "milliseconds": round((datetime.now(UTC) - began).total_seconds() * 1000, 1),
    }
    outbox.record(lake.storage, BACKUPS, columns=BACKUP_COLUMNS, rows=[row])
    return row, skipped, damaged


@contextmanager
def vault_of(settings: Settings, lake: LakeResource) -> "Iterator[Vault]":
    """The backups' place, with a scratch folder that goes with the block."""
    from lakehouse.maintenance.backup import Vault

    with scratch(lake.spill) as folder:
        yield Vault(settings.backups, folder)


def databases(settings: Settings, home: str | None) -> dict[str, Path]:
    """The SQLite databases of Dagster and MLflow on this machine, by the name that they have in a backup."""
    from lakehouse.ml.registry import Registry

    folder = Path(home) if home else None
    found = sorted(folder.rglob("*.db")) if folder is not None else []
    out = {f"dagster/{path.relative_to(folder)}": path for path in found if folder is not None and _is_sqlite(path)}
    registry = Registry(settings.model_registry).file
    return {**out, **({"mlflow.db": registry} if registry is not None and _is_sqlite(registry) else {})}


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _guarantees() -> dict[str, str]:
    from lakehouse.maintenance.audit import GUARANTEES

    return dict(GUARANTEES)


def _result(name: str, wrong: list[str], severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=not wrong,
        severity=severity,
        description="; ".join(wrong)[:2000] or None,
        metadata={"failed": len(wrong)},
    )
