"""Upkeep, backup, restore and rollback of a lake in a bucket, into another bucket's prefix: as on a folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import RefusedWriteError
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.maintenance import forget, vacuum
from lakehouse.maintenance.backup import Vault
from lakehouse.maintenance.protect import Protection, pin, pins
from lakehouse.maintenance.retention import expire
from lakehouse.maintenance.rollback import roll_back
from lakehouse.maintenance.upkeep import maintain, tasks
from lakehouse.tables.spec import Retention
from lakehouse_tests.conftest import Lake, file_content
from lakehouse_tests.maintenance.test_forget import KEY, VENDA, sale
from lakehouse_tests.maintenance.test_retention import DAY, NOW
from lakehouse_tests.maintenance.test_upkeep import HOUR, SPEC, item, later
from lakehouse_tests.stack import test_s3

pytestmark = pytest.mark.stack
environment = test_s3.environment


@dataclass(frozen=True)
class Remote(Lake):
    location: str = ""

    @property
    def storage(self) -> Storage:
        return Storage(root=self.location, landing=str(self.folder / "landing"))


@dataclass(frozen=True)
class InBucket(Remote):
    """Landing is in the bucket as well."""

    @property
    def storage(self) -> Storage:
        return Storage(root=self.location, landing=f"{self.location}/landing")


def rows(lake: Lake, ref: TableRef) -> list[Any]:
    found = open_existing(lake.storage.uri(ref))
    assert found is not None
    with lake.session() as session:
        return sorted(map(str, session.rows(session.read(found.paths(), found.columns))))


def test_a_lake_in_a_bucket_is_compacted_backed_up_and_restored(environment, bucket, tmp_path: Path) -> None:
    lake = Remote(tmp_path, location=f"s3://{bucket}/lake")
    vault = Vault(f"s3://{bucket}/backup", str(tmp_path / "scratch"))
    for n in range(1, 5):
        lake.land("itens", f"f{n}", [item(n, f"v{n}"), item(100, f"v{n}", day=n), {**item(n), "id": "no number"}])
        lake.run(SPEC)
    refs = lake.storage.tables()
    before = {ref: rows(lake, ref) for ref in refs}
    assert len(refs) == 6
    pin(lake.storage, SPEC.silver, version=2, reason="kept")
    assert [row["version"] for row in pins(lake.storage)] == [2]

    silver = open_existing(lake.storage.uri(SPEC.silver))
    assert silver is not None
    guard = Protection({(SPEC.silver, silver.id): {2: "kept"}})
    found = {
        str(one.ref): one
        for one in maintain(
            tasks(lake.storage, [SPEC]),
            storage=lake.storage,
            protected=guard,
            session=lake.session,
            floor=HOUR,
            now=later(hours=2),
        )
    }
    assert {one.outcome for one in found.values()} <= {"done", "nothing"}, found
    assert found["bronze/itens"].files_after == 1 and found["silver/itens"].vacuumed_files
    assert vacuum.readable(silver.uri, 2) == 3
    assert {ref: rows(lake, ref) for ref in refs} == before | {
        ledger: rows(lake, ledger) for ledger in refs if ledger.layer == "ops"
    }

    backup = vault.take(lake.storage).backup
    proof = vault.prove(backup, session=lake.session)
    assert not proof.damaged and len(proof.proven) == 7
    again = vault.take(lake.storage)
    assert (again.read, again.written) == (0, 0)

    lake.land("itens", "f9", [item(9)])
    lake.run(SPEC)
    after = rows(lake, SPEC.silver)
    with lake.session() as session:
        roll_back(session, lake.storage, [SPEC], SPEC.silver, version=silver.version, reason="a bad delivery")
    assert len(rows(lake, SPEC.silver)) == len(after) - 1
    assert not lake.refresh(SPEC).stopped and rows(lake, SPEC.silver) == after

    with pytest.raises(RefusedWriteError, match="FORCE=1"):
        vault.restore(backup, SPEC.silver, lake.storage)
    files.remove([f"{lake.location}/{path}" for path in files.listing(lake.location, below=True)])
    for ref in backup.tables:
        vault.restore(backup, ref, lake.storage)
    assert {ref: rows(lake, ref) for ref in refs if ref.layer != "ops"} == {r: v for r, v in before.items() if r.layer != "ops"}
    assert not lake.run(SPEC).stopped and rows(lake, SPEC.silver) == after

    table = backup.tables[SPEC.bronze]
    sha = next(file.sha for path, file in table.files.items() if path.endswith(".parquet"))
    content = bytearray(files.read(vault.location(sha)))
    content[len(content) // 2] ^= 1
    files.put(vault.location(sha), bytes(content))
    assert "is not what was backed up" in vault.prove(backup, session=lake.session).damaged["bronze/itens"]
    assert len(vault.names()) == 2


def test_what_expires_and_who_is_forgotten_in_a_bucket(environment, bucket, tmp_path: Path) -> None:
    lake = InBucket(tmp_path, location=f"s3://{bucket}/lake")
    vault = Vault(f"s3://{bucket}/backup", str(tmp_path / "scratch"))
    folder = "landing/raw/venda"
    for n, some in enumerate(([sale(1, KEY), sale(2, "b"), sale(3, KEY, age=40)], [sale(4, "b", age=40)], [sale(5, "b")])):
        content = file_content(some, "v2-csv.gz" if n else "v2-jsonl")
        files.put(f"{lake.location}/{folder}/f{n}.{'csv.gz' if n else 'jsonl'}", content)
        lake.run(VENDA)
    spec = replace(VENDA, retention=Retention(event="criado", landing=20 * DAY, bronze=20 * DAY))
    with lake.session() as session:
        gone = {str(one.ref): one.rows for one in expire(session, lake.storage, spec, now=NOW)}
    assert gone == {"landing/venda": 1, "bronze/venda": 2}
    silver = rows(lake, VENDA.silver)
    assert len(silver) == 5 and not lake.refresh(spec, rebuild=True).stopped and rows(lake, VENDA.silver) == silver
    vault.take(lake.storage)

    subject = forget.subject_of([spec], "venda", KEY)
    with lake.session() as session:
        found = forget.erase(session, lake.storage, subject)
    assert (found["landing/venda"], found["bronze/venda"], found["silver/venda"]) == (2, 1, 2)
    for ref in forget.tables_of(lake.storage, subject)[0]:
        forget.drop_history(lake.storage.uri(ref))
    assert forget.search(lake.storage, subject, vault), "the backup has it still"
    assert not vault.prove(vault.take(lake.storage).backup, session=lake.session).damaged
    vault.expire(retain=1)
    assert forget.search(lake.storage, subject, vault) == []
    assert lake.ingest(spec).transaction is None, "the file that was rewritten is known"
    after = rows(lake, VENDA.silver)
    assert len(after) == 3 and not lake.refresh(spec, rebuild=True).stopped and rows(lake, VENDA.silver) == after
