"""Commands about backups: `backup`, `prove`, `restore`, `restore-all`.

Each prints what it did. What changes a table is kept in `ops/audit` and told to Dagster as a materialisation. 0 is success, 1
means that something is not as it must be.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse.commands.options import AnyTable
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.settings import Settings, load_settings

if TYPE_CHECKING:
    from lakehouse.maintenance.backup import Backup, Vault
    from lakehouse.runtime.lake import LakeResource

app = typer.Typer()
At = Annotated[str, typer.Option(help="which backup: the beginning of its time, e.g. 20261121; the newest without it")]
Force = Annotated[int, typer.Option("--force", min=0, max=1, help="1 replaces what is there")]


@app.command()
def backup() -> int:
    """Back up every table and database, and prove it by restoring it to a scratch folder."""
    import dagster as dg

    from lakehouse.maintenance.assets import back_up

    settings, lake = settings_and_lake()
    with dg.DagsterInstance.get() as instance:
        home = instance.root_directory
    row, skipped, damaged = back_up(settings, lake, home=home, run_id="backup")
    print(
        f"backup {row['name']} in {settings.backups}: {row['tables']} tables, {row['databases']} databases, "
        f"{row['bytes'] / 1e6:,.1f} MB; {row['files_written']:,} files were new ({row['bytes_written'] / 1e6:,.1f} MB)"
    )
    print(f"proof: {row['proven']} restored and the same, {row['unchanged']} as proven before, {row['damaged']} damaged")
    return report([*skipped, *damaged])


@app.command()
def prove(at: At = "") -> int:
    """Restore all of a backup to a scratch folder, and compare."""
    from lakehouse.maintenance.assets import vault_of

    settings, lake = settings_and_lake()
    with vault_of(settings, lake) as vault:
        proof = vault.prove(vault.chosen(at), session=lake.duckdb)
    print(f"backup {proof.name}: {len(proof.proven)} restored and the same, {proof.files:,} files, {proof.bytes / 1e6:,.1f} MB")
    return report([f"{name}: {why}" for name, why in proof.damaged.items()])


@app.command()
def restore(table: AnyTable, at: At = "", force: Force = 0) -> int:
    """Put a table back as it was in a backup."""
    from lakehouse.maintenance import protect
    from lakehouse.maintenance.assets import vault_of

    settings, lake = settings_and_lake()
    with vault_of(settings, lake) as vault:
        found = vault.chosen(at)
        return _restore(
            lake, vault, found, protect.table_of(table, [*found.tables], where=f"backup {found.name}"), force=bool(force)
        )


@app.command()
def restore_all(at: At = "", force: Force = 0) -> int:
    """Put every table of a backup back, and the databases that are not there."""
    import dagster as dg

    from lakehouse.maintenance import audit
    from lakehouse.maintenance.assets import tell, vault_of
    from lakehouse.maintenance.backup import refuse_over

    settings, lake = settings_and_lake()
    with vault_of(settings, lake) as vault, dg.DagsterInstance.get() as instance:
        found = vault.chosen(at)
        refuse_over([lake.storage.uri(ref) for ref in found.tables], force=bool(force))
        for ref in found.tables:
            rows = vault.restore(found, ref, lake.storage, force=bool(force))
            print(f"{ref}: version {found.tables[ref].version}, {rows:,} rows")
        for ref in found.tables:
            tell(instance, lake, ref, "restore", f"from backup {found.name}, with all others")
        _restore_databases(settings, vault, found, instance.root_directory, force=bool(force))
        for ref in sorted({*lake.storage.tables()} - {*found.tables, audit.TABLE}, key=str):
            print(f"{ref}: is not in the backup, and left as it is")
    print(f"The lake is as it was in backup {found.name}. The next runs take in what landed since.")
    return 0


# --- what they share ---------------------------------------------------------------------------------------------------


def settings_and_lake() -> "tuple[Settings, LakeResource]":
    """The settings, and the lake that they name, once it has answered."""
    from lakehouse.resources import build_resources

    settings = load_settings()
    lake: LakeResource = build_resources(settings)["lake"]
    lake.storage.reach()
    return settings, lake


def report(found: list[str]) -> int:
    """Print what is not as it must be; 1 when there is any."""
    for line in found:
        print(f"WRONG  {line}")
    return int(bool(found))


def _restore(lake: "LakeResource", vault: "Vault", backup: "Backup", ref: TableRef, *, force: bool) -> int:
    import dagster as dg

    from lakehouse.core import ledger
    from lakehouse.maintenance.assets import tell
    from lakehouse.maintenance.rollback import OUT_OF_QUARANTINE

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


def _restore_databases(settings: Settings, vault: "Vault", backup: "Backup", home: str, *, force: bool) -> None:
    from lakehouse.maintenance.assets import databases
    from lakehouse.ml.registry import Registry

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
