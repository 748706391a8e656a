"""Commands about the versions, the age and the subjects of tables: `pin`, `unpin`, `vacuum`, `retention`, `rollback`, `forget`.

Each prints what it did. What changes a table is kept in `ops/audit` and told to Dagster as a materialisation, so that all that
is downstream shows as stale. 0 is success, 1 means that something is not as it must be.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse.commands.backups import report, settings_and_lake
from lakehouse.commands.options import AnyTable, OnlyTable, Reason, Table, Version
from lakehouse.core.errors import DeclarationError
from lakehouse.core.store import files as stored
from lakehouse.core.table.snapshot import open_existing

if TYPE_CHECKING:
    from lakehouse.maintenance.backup import Vault
    from lakehouse.runtime.lake import LakeResource

app = typer.Typer()


@app.command()
def pin(table: AnyTable, reason: Annotated[str, typer.Argument(help="why it is kept")], version: Version = -1) -> int:
    """Keep a version of a table readable."""
    from lakehouse.maintenance import audit, protect

    _, lake = settings_and_lake()
    ref = protect.table_of(table, lake.storage.tables())
    protect.pin(lake.storage, ref, version=version, reason=reason)
    audit.record_act(lake.storage, ref, "pin", f"version {version}: {reason}")
    print(f"{ref} version {version} is kept: {reason}")
    return 0


@app.command()
def unpin(table: AnyTable, version: Version = -1) -> int:
    """Let go of a pinned version."""
    from lakehouse.maintenance import audit, protect

    _, lake = settings_and_lake()
    ref = protect.table_of(table, lake.storage.tables())
    protect.unpin(lake.storage, ref, version=version)
    audit.record_act(lake.storage, ref, "unpin", f"version {version}")
    print(f"{ref} version {version} is no longer pinned.")
    return 0


@app.command()
def vacuum(table: OnlyTable = "") -> int:
    """Print what the next maintenance would remove, and what it keeps and why."""
    from lakehouse.maintenance import protect
    from lakehouse.maintenance.assets import vault_of
    from lakehouse.maintenance.replays import replayable
    from lakehouse.maintenance.vacuum import plan
    from lakehouse.ml.registry import Registry

    settings, lake = settings_and_lake()
    known = lake.storage.tables()
    with vault_of(settings, lake) as vault:
        replays = replayable(lake.storage, settings.tables, days=settings.replay_days, now=datetime.now(UTC))
        registry = Registry(settings.model_registry)
        protected = protect.protection(lake.storage, registry, backups=vault.versions(), replays=replays)
    for ref in [protect.table_of(table, known)] if table else known:
        snapshot = open_existing(lake.storage.uri(ref))
        if snapshot is None:
            continue
        floor = timedelta(hours=settings.vacuum_hours)
        planned = plan(snapshot, retained=protected.of(ref, snapshot), floor=floor, now=datetime.now(UTC))
        print(f"{ref}: {len(planned.files):,} files, {planned.bytes / 1e6:,.1f} MB could go")
        for version, reason in sorted(planned.retained.items()):
            print(f"  keeps version {version}: {reason}")
        for version, why in planned.lost.items():
            print(f"  LOST version {version}: {why}")
        if why := protected.refuses(ref):
            print(f"  keeps everything: {why}")
    print("Nothing was removed: make trigger JOB=maintenance does it.")
    return 0


@app.command()
def retention(table: OnlyTable = "") -> int:
    """Print what is older than its table declares, and would go with the next maintenance."""
    from lakehouse.bronze.ingest import landing_of
    from lakehouse.maintenance.retention import MEASURED, declared, expire, expire_measured

    settings, lake = settings_and_lake()
    specs = [spec for spec in declared(settings.tables) if table in ("", spec.name, spec.silver_name)]
    measured = [ref for ref in MEASURED if settings.measurement_days and table in ("", str(ref))]
    if not specs and not measured:
        print(
            f"Nothing of {table or 'any table'} expires: no Retention(...) in lakehouse/tables/, no LAKEHOUSE_MEASUREMENT_DAYS."
        )
        return 0
    for spec in specs:
        with lake.duckdb(landing=landing_of(lake.storage, spec.parts[0])) as session:
            for one in expire(session, lake.storage, spec, now=datetime.now(UTC), beside=settings.tables, dry=True):
                print(f"{one.ref}: {one}")
    before = datetime.now(UTC) - timedelta(days=settings.measurement_days)
    for ref in measured:
        with lake.duckdb() as session:
            print(f"{ref}: {expire_measured(session, lake.storage, ref, before=before, dry=True)}")
    print("Nothing was removed: make trigger JOB=maintenance does it.")
    return 0


@app.command()
def rollback(table: AnyTable, reason: Reason, version: Version = -1) -> int:
    """Let a silver or gold table be what it was at a version."""
    import dagster as dg

    from lakehouse.maintenance import protect
    from lakehouse.maintenance.assets import tell
    from lakehouse.maintenance.rollback import roll_back

    settings, lake = settings_and_lake()
    ref = protect.table_of(table, lake.storage.tables())
    with lake.duckdb() as session:
        after = roll_back(session, lake.storage, settings.tables, ref, version=version, reason=reason)
    with dg.DagsterInstance.get() as instance:
        tell(instance, lake, ref, "rollback", f"to version {version}: {reason}")
    print(f"{ref}: version {after.version} is what version {version} was, {after.rows:,} rows.")
    if ref.layer == "silver":
        print("The next run reads again what that version had not: fix its cause first.")
    else:
        print("The next run of its job computes it again from silver.")
    return 0


@app.command()
def forget(
    table: Table,
    key: Annotated[str, typer.Argument(help="the subject's key")],
    reason: Annotated[str, typer.Argument(help="why; kept in ops/audit, without the key")],
) -> int:
    """Erase all that the lake, landing and backups say of one subject, and search for what is left."""
    import dagster as dg

    from lakehouse.commands import foreground
    from lakehouse.maintenance import forget as forgetting
    from lakehouse.maintenance import protect
    from lakehouse.maintenance.assets import tell, vault_of
    from lakehouse.ml.registry import Registry

    if not reason.strip():
        raise DeclarationError("Forgetting somebody needs a reason.", remedy="Give REASON='...'.")
    settings, lake = settings_and_lake()
    subject = forgetting.subject_of(settings.tables, table, key)
    with vault_of(settings, lake) as vault:
        protected = protect.protection(lake.storage, Registry(settings.model_registry), backups={})
        tables, derived = forgetting.tables_of(lake.storage, subject)
        forgetting.refuse_protected(protected, [*tables, *derived])
        with lake.duckdb(landing=lake.storage) as session:
            found = forgetting.erase(session, lake.storage, subject)
        marts = [f'key:"{ref}"' for ref in lake.storage.tables() if ref.layer == "gold"]
        if marts and foreground.materialize(" or ".join(marts)):
            return report(["gold could not be computed again, and its old files stay: fix it, and run this command again."])
        for ref in (*tables, *derived):
            forgetting.drop_history(lake.storage.uri(ref))
        told = f"{subject.kind} {forgetting.fingerprint(subject)}: {reason}"
        with dg.DagsterInstance.get() as instance:
            for ref in tables:
                if count := found.get(str(ref)):
                    tell(instance, lake, ref, "forget", f"{count:,} records of {told}")
        problems = _only_backup(lake, vault)
        left = forgetting.search(lake.storage, subject, vault)
    for name, count in found.items():
        print(f"{name}: {count:,} records")
    print(f"{len(tables) + len(derived)} tables have one version left; searched every file of lake, landing and backups")
    return report([*problems, *(f"{path} still names the {subject.kind}" for path in left)])


def _only_backup(lake: "LakeResource", vault: "Vault") -> list[str]:
    """Where there are backups, make a new one, prove it, and remove all others; what stood in the way."""
    if not vault.names():
        return []
    backup = vault.take(lake.storage).backup
    proof = vault.prove(backup, session=lake.duckdb)
    wrong = [f"{name}: {why}" for name, why in {**backup.skipped, **proof.damaged}.items()]
    if not wrong:
        vault.expire(retain=1)
        stored.remove([f"{vault.root}/altered/{name}" for name in stored.names_in(f"{vault.root}/altered")])
    return [f"the backups from before stay: {problem}" for problem in wrong]
