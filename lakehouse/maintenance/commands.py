"""Commands for people: pin, unpin, vacuum (a dry run), backup, prove, restore, rollback. Make calls them.

Each prints what it did. What changes a table is kept in `ops/audit` and told to Dagster as a materialisation, so that all that
is downstream shows as stale. 0 is success, 1 that something is not as it must be.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from lakehouse.core import files as stored
from lakehouse.core import ledger
from lakehouse.core.delta import open_existing
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.lake import LakeResource
from lakehouse.maintenance import audit, protect, retention, vacuum
from lakehouse.maintenance.assets import back_up, databases, tell, vault_of
from lakehouse.maintenance.backup import Backup, Vault, refuse_over
from lakehouse.maintenance.rollback import OUT_OF_QUARANTINE, roll_back
from lakehouse.ml.registry import Registry
from lakehouse.resources import build_resources
from lakehouse.settings import Settings, load_settings


def pin(table: str, version: int, reason: str) -> int:
    """Keep a version of a table readable."""
    _, lake = _lake()
    ref = protect.table_of(table, lake.storage.tables())
    protect.pin(lake.storage, ref, version=version, reason=reason)
    audit.record_act(lake.storage, ref, "pin", f"version {version}: {reason}")
    print(f"{ref} version {version} is kept: {reason}")
    return 0


def unpin(table: str, version: int) -> int:
    """Let go of a pinned version."""
    _, lake = _lake()
    ref = protect.table_of(table, lake.storage.tables())
    protect.unpin(lake.storage, ref, version=version)
    audit.record_act(lake.storage, ref, "unpin", f"version {version}")
    print(f"{ref} version {version} is no longer pinned.")
    return 0


def show_vacuum(table: str = "") -> int:
    """Print what the next maintenance would remove, and what it keeps and why."""
    settings, lake = _lake()
    known = lake.storage.tables()
    with vault_of(settings, lake) as vault:
        protected = protect.protection(lake.storage, Registry(settings.model_registry), backups=vault.versions())
    for ref in [protect.table_of(table, known)] if table else known:
        snapshot = open_existing(lake.storage.uri(ref))
        if snapshot is None:
            continue
        floor = timedelta(hours=settings.vacuum_hours)
        planned = vacuum.plan(snapshot, kept=protected.of(ref, snapshot), floor=floor, now=datetime.now(UTC))
        print(f"{ref}: {len(planned.files):,} files, {planned.bytes / 1e6:,.1f} MB could go")
        for version, reason in sorted(planned.kept.items()):
            print(f"  keeps version {version}: {reason}")
        for version, why in planned.lost.items():
            print(f"  LOST version {version}: {why}")
        if why := protected.refuses(ref):
            print(f"  keeps everything: {why}")
    print("Nothing was removed: make trigger JOB=maintenance does it.")
    return 0


def show_retention(table: str = "") -> int:
    """Print what has expired, and would go with the next maintenance."""
    from lakehouse.bronze.ingest import landing_of

    settings, lake = _lake()
    specs = [spec for spec in retention.declared(settings.tables) if table in ("", spec.name, spec.silver_name)]
    measured = [ref for ref in retention.MEASURED if settings.measurement_days and table in ("", str(ref))]
    if not specs and not measured:
        print(
            f"Nothing of {table or 'any table'} expires: no Retention(...) in lakehouse/tables/, no LAKEHOUSE_MEASUREMENT_DAYS."
        )
        return 0
    for spec in specs:
        with lake.duckdb(landing=landing_of(lake.storage, spec.parts[0])) as session:
            for one in retention.expire(session, lake.storage, spec, now=datetime.now(UTC), dry=True):
                print(f"{one.ref}: {one}")
    before = datetime.now(UTC) - timedelta(days=settings.measurement_days)
    for ref in measured:
        with lake.duckdb() as session:
            print(f"{ref}: {retention.expire_measured(session, lake.storage, ref, before=before, dry=True)}")
    print("Nothing was removed: make trigger JOB=maintenance does it.")
    return 0


def backup() -> int:
    """Make a backup and prove it."""
    settings, lake = _lake()
    with dg.DagsterInstance.get() as instance:
        home = instance.root_directory
    row, skipped, damaged = back_up(settings, lake, home=home, run_id="backup")
    print(
        f"backup {row['name']} in {settings.backups}: {row['tables']} tables, {row['databases']} databases, "
        f"{row['bytes'] / 1e6:,.1f} MB; {row['files_written']:,} files were new ({row['bytes_written'] / 1e6:,.1f} MB)"
    )
    print(f"proof: {row['proven']} restored and the same, {row['unchanged']} as proven before, {row['damaged']} damaged")
    return _wrong([*skipped, *damaged])


def prove(at: str = "") -> int:
    """Restore a backup to a scratch folder, all of it, and compare."""
    settings, lake = _lake()
    with vault_of(settings, lake) as vault:
        proof = vault.prove(vault.chosen(at), session=lake.duckdb)
    print(f"backup {proof.name}: {len(proof.proven)} restored and the same, {proof.files:,} files, {proof.bytes / 1e6:,.1f} MB")
    return _wrong([f"{name}: {why}" for name, why in proof.damaged.items()])


def restore(table: str, *, at: str = "", force: bool = False) -> int:
    """Put a table back as it was in a backup."""
    settings, lake = _lake()
    with vault_of(settings, lake) as vault:
        found = vault.chosen(at)
        return _restore(lake, vault, found, protect.table_of(table, [*found.tables]), force=force)


def restore_all(*, at: str = "", force: bool = False) -> int:
    """Put every table of a backup back, and the databases that are not there."""
    settings, lake = _lake()
    with vault_of(settings, lake) as vault, dg.DagsterInstance.get() as instance:
        found = vault.chosen(at)
        refuse_over([lake.storage.uri(ref) for ref in found.tables], force=force)
        for ref in found.tables:
            rows = vault.restore(found, ref, lake.storage, force=force)
            print(f"{ref}: version {found.tables[ref].version}, {rows:,} rows")
        for ref in found.tables:
            tell(instance, lake, ref, "restore", f"from backup {found.name}, with all others")
        _restore_databases(settings, vault, found, instance.root_directory, force=force)
        for ref in sorted({*lake.storage.tables()} - {*found.tables, audit.TABLE}, key=str):
            print(f"{ref}: is not in the backup, and left as it is")
    print(f"The lake is as it was in backup {found.name}. The next runs take in what landed since.")
    return 0


def rollback(table: str, version: int, reason: str) -> int:
    """Let a silver or gold table be what it was at a version."""
    settings, lake = _lake()
    ref = protect.table_of(table, lake.storage.tables())
    with lake.duckdb() as session:
        after = roll_back(session, lake.storage, settings.tables, ref, version=version, reason=reason)
    with dg.DagsterInstance.get() as instance:
        tell(instance, lake, ref, "rollback", f"to version {version}: {reason}")
    print(f"{ref}: version {after.version} is what version {version} was, {after.rows:,} rows.")
    if ref.layer == "silver":
        print("The next run reads again what that version had not: mend its cause first.")
    else:
        print("The next run of its job computes it again from silver.")
    return 0


def forget(table: str, key: str, reason: str) -> int:
    """Erase all that is known of one subject, and search for what is left."""
    from lakehouse import runs
    from lakehouse.maintenance import forget as forgetting

    if not reason.strip():
        raise DeclarationError("Forgetting somebody needs a reason.", remedy="Give REASON='...'.")
    settings, lake = _lake()
    subject = forgetting.subject_of(settings.tables, table, key)
    with vault_of(settings, lake) as vault:
        protected = protect.protection(lake.storage, Registry(settings.model_registry), backups={})
        tables, derived = forgetting.places_of(lake.storage, subject)
        forgetting.refuse_kept(protected, [*tables, *derived])
        with lake.duckdb(landing=lake.storage) as session:
            found = forgetting.erase(session, lake.storage, subject)
        marts = [f'key:"{ref}"' for ref in lake.storage.tables() if ref.layer == "gold"]
        if marts and runs.materialize(" or ".join(marts)):
            return _wrong(["gold could not be computed again, and its old files stay: mend it, and run this command again."])
        for ref in (*tables, *derived):
            forgetting.drop_history(lake.storage.uri(ref))
        told = f"{subject.kind} {forgetting.fingerprint(subject)}: {reason}"
        with dg.DagsterInstance.get() as instance:
            for ref in tables:
                if count := found.get(str(ref)):
                    tell(instance, lake, ref, "forget", f"{count:,} records of {told}")
        wrong = _only_backup(lake, vault)
        left = forgetting.search(lake.storage, subject, vault)
    for place, count in found.items():
        print(f"{place}: {count:,} records")
    print(f"{len(tables) + len(derived)} tables have one version left; searched every file of lake, landing and backups")
    return _wrong([*wrong, *(f"{path} still names the {subject.kind}" for path in left)])


# --- what they share ---------------------------------------------------------------------------------------------------


def _only_backup(lake: LakeResource, vault: Vault) -> list[str]:
    """Where there are backups, make a new one, prove it, and remove all others; what stood in the way."""
    if not vault.names():
        return []
    backup = vault.take(lake.storage).backup
    proof = vault.prove(backup, session=lake.duckdb)
    wrong = [f"{name}: {why}" for name, why in {**backup.skipped, **proof.damaged}.items()]
    if not wrong:
        vault.expire(keep=1)
        stored.remove([f"{vault.root}/altered/{name}" for name in stored.names_in(f"{vault.root}/altered")])
    return [f"the backups from before stay: {said}" for said in wrong]


def _lake() -> tuple[Settings, LakeResource]:
    settings = load_settings()
    lake: LakeResource = build_resources(settings)["lake"]
    lake.storage.reach()
    return settings, lake


def _restore(lake: LakeResource, vault: Vault, backup: Backup, ref: TableRef, *, force: bool) -> int:
    rows = vault.restore(backup, ref, lake.storage, force=force)
    snapshot = open_existing(lake.storage.uri(ref))
    since: set[str] = set()
    if snapshot is not None and ref.layer in ("bronze", "silver"):
        with lake.duckdb() as session:
            uri = lake.storage.uri(ledger.LEDGER_TABLE)
            since = ledger.take_back(session, uri, table=ref, snapshot=snapshot)
    with dg.DagsterInstance.get() as instance:
        tell(instance, lake, ref, "restore", f"from backup {backup.name}")
    print(f"{ref}: version {backup.tables[ref].version} of backup {backup.name}, {rows:,} rows.")
    if ref.layer == "bronze":
        print("It belongs together with ops/landing_files: where that is newer, restore it from the same backup.")
    if since & OUT_OF_QUARANTINE:
        print(f"Records left the quarantine since that backup: run make rebuild TABLE={ref.table}.")
        return 1
    return 0


def _restore_databases(settings: Settings, vault: Vault, backup: Backup, home: str, *, force: bool) -> None:
    there = databases(settings, home)
    registry = Registry(settings.model_registry).file
    for name, file in backup.databases.items():
        folder, path = (Path(home), name.removeprefix("dagster/"))
        if name == "mlflow.db":
            if registry is None:  # a server has it now
                continue
            folder, path = registry.parent, registry.name
        if name in there and not force:
            print(f"{name}: left as it is; FORCE=1 replaces it")
            continue
        for left in ("-wal", "-shm"):  # of the one that is replaced
            Path(folder, path + left).unlink(missing_ok=True)
        vault.fetch({path: file}, str(folder))
        print(f"{name}: restored")


def _wrong(said: list[str]) -> int:
    for line in said:
        print(f"WRONG  {line}")
    return int(bool(said))
