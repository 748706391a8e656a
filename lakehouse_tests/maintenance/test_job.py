"""The job as a user starts it: over a lake with a table in trouble, and its commands."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.commands import backups, maintenance
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.definitions import build_defs
from lakehouse.maintenance import audit, protect
from lakehouse.maintenance.assets import expire_all
from lakehouse.observability import outbox, table_health
from lakehouse.reports.manutencao_page import ManutencaoFigures, render
from lakehouse.resources import build_resources
from lakehouse.settings import load_settings
from lakehouse.tables.spec import Retention
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake


def sale(number: int, *, day: int = 1, **fields: Any) -> dict[str, Any]:
    at = f"2026-01-{day:02}T00:00:00Z"
    row = {
        "id": number,
        "pedido_id": f"p{number}",
        "produto_id": "x",
        "descricao": "d",
        "quantidade": 1,
        "valor_unitario": "2.50",
    }
    return {**row, "cliente_id": 1, "pais": "BR", "status": "paid", "created_at": at, "updated_at": at, **fields}


@pytest.fixture
def sales(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Two deliveries of sales, in a lake that the environment names."""
    home = lake.folder / "home"
    home.mkdir()
    for name, value in {
        "LAKEHOUSE_ROOT": lake.storage.root,
        "LAKEHOUSE_LANDING": lake.storage.landing,
        "LAKEHOUSE_BACKUP_ROOT": str(lake.folder / "backup"),
        "LAKEHOUSE_MEMORY_LIMIT": "1GB",
        "MLFLOW_TRACKING_URI": f"sqlite:///{lake.folder}/mlflow.db",
        "DAGSTER_HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    for n in (1, 2):
        lake.land("vendas", f"f{n}", [sale(n, day=n), sale(9, day=n, quantidade=n)])
        lake.run(VENDAS)
    return lake


def job(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    found = build_defs(load_settings()).resolve_job_def("maintenance")
    return found.execute_in_process(instance=instance, raise_on_error=False)


def failed(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {c.check_name: str(c.description) for c in result.get_asset_check_evaluations() if not c.passed}


def test_the_job_looks_after_a_lake_names_what_is_damaged_and_reports_it(sales: Lake) -> None:
    plan = open_existing(sales.storage.uri(TableRef("ops", "landing_files")))
    assert plan is not None
    Path(plan.uri, plan.files[0].path).unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job(instance)
    assert result.success, "what is damaged is reported, and the rest is looked after"
    assert {*failed(result)} == {"upkeep_done", "audit_files", "backup_complete"}
    assert all("ops/landing_files" in output and "is missing" in output for output in failed(result).values())
    page = Path(result.asset_materializations_for_node("reports__manutencao")[0].metadata["report"].value)  # type: ignore[arg-type]
    assert "danificada" in page.read_text() and "silver/vendas" in page.read_text()
    backup = sales.rows(TableRef("ops", "backups"))[0]
    assert (backup["skipped"], backup["damaged"]) == (1, 0) and backup["proven"] == backup["tables"] > 5


def test_pin_rollback_backup_and_restore_by_command(sales: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    silver = sales.storage.uri(VENDAS.silver)
    assert maintenance.pin("vendas", "before the correction", 1) == 0
    assert maintenance.vacuum("vendas") == 0
    assert backups.backup() == 0 and backups.prove() == 0
    rows = sales.rows(VENDAS.silver)
    assert maintenance.rollback("vendas", "a wrong correction", 1) == 0
    assert len(sales.rows(VENDAS.silver)) == 2
    assert backups.restore("vendas", force=1) == 0
    assert sales.rows(VENDAS.silver) == rows
    refresh = sales.refresh(VENDAS)
    assert refresh.transaction is None and not refresh.stopped
    acts = [(row["layer"], row["table"], row["name"]) for row in sales.rows(audit.TABLE) if row["kind"] == "act"]
    assert sorted(acts) == [("silver", "vendas", name) for name in ("pin", "restore", "rollback")]
    with dg.DagsterInstance.get() as instance:
        told = instance.get_latest_materialization_event(dg.AssetKey(["silver", "vendas"]))
        assert told is not None and told.asset_materialization is not None
        assert told.asset_materialization.metadata["act"].value == "restore", "so what is downstream shows as stale"
    assert maintenance.unpin("vendas", 1) == 0 and not protect.pins(sales.storage)
    assert open_existing(silver) is not None
    assert backups.restore_all(force=1) == 0
    assert sales.rows(VENDAS.silver) == rows


def test_a_name_that_several_tables_have_is_asked_about() -> None:
    known = [TableRef("silver", "vendas"), TableRef("bronze", "vendas"), TableRef("gold", "a"), TableRef("ml", "a")]
    assert protect.table_of("vendas", known) == known[0]
    assert protect.table_of("bronze/vendas", known) == known[1]
    for name, output in (("a", "several"), ("../x", "no table"), ("nada", "no table")):
        with pytest.raises(protect.DeclarationError, match=output):
            protect.table_of(name, known)


@pytest.mark.parametrize(
    ("known", "name", "told"),
    [
        ([], "vendas", "silver/vendas is declared, and there is nothing of it in backup B yet. make run writes it"),
        ([], "nada", "There is no table 'nada' in backup B. There is no table at all in backup B: make run."),
        ([TableRef("gold", "a")], "nada", "There is no table 'nada' in backup B. Name layer and table: one of gold/a."),
        ([TableRef("gold", "a")], "vendas", "yet. make run writes it; backup B has gold/a."),
    ],
)
def test_a_table_that_is_not_there_is_told_from_one_that_nobody_declares(known, name, told) -> None:
    with pytest.raises(protect.DeclarationError) as refused:
        protect.table_of(name, known, where="backup B")
    assert told in str(refused.value)


def test_the_audit_finds_what_batches_cannot(sales: Lake, make_lake: Callable[[], Lake]) -> None:
    """A row that was put in from outside, an orphan, a column that the spec has not, a forged ledger."""
    import os

    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    def found(spec: Any = VENDAS) -> set[tuple[str, str]]:
        seen = audit.audit(sales.storage, [spec], session=sales.session)
        return {(guarantee, finding.rule) for _, guarantee, finding in seen if not finding.passed}

    assert found() == set()
    silver = sales.storage.uri(VENDAS.silver)
    rows = DeltaTable(silver).to_pyarrow_table()
    broken = rows.slice(0, 1).set_column(rows.column_names.index("pedido_id"), "pedido_id", pa.array([None], pa.string()))
    write_deltalake(silver, broken, mode="append")
    assert found() == {("rules", "not_null_pedido_id"), ("rules", "unique_id")}
    orphan = Path(silver, "part-left.parquet")
    orphan.write_bytes(b"x")
    os.utime(orphan, (1, 1))
    assert ("files", "orphans") in found()
    assert ("schema", "columns") in found(replace(VENDAS, columns=VENDAS.columns[:-1]))
    ledger = sales.storage.uri(TableRef("ops", "ledger"))
    entry = DeltaTable(ledger).to_pyarrow_table().slice(0, 1)
    forged = entry.set_column(entry.column_names.index("written"), "written", pa.array([77], pa.int64()))
    write_deltalake(ledger, forged, mode="append")
    assert ("ledger", "balance") in found()


def test_a_page_is_the_same_for_the_same_figures_and_escapes_what_it_shows() -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 1, 3, 6, tzinfo=UTC)
    row = dict.fromkeys(("rows", "files_before", "files_after", "bytes_before", "bytes_after"), 1)
    row |= dict.fromkeys(("stored_files_before", "stored_bytes_before"), 3) | dict.fromkeys(
        ("stored_files_after", "compacted"), 2
    )
    table = {
        "layer": "silver",
        "table": "vendas",
        "outcome": "broken",
        "said": "<script>",
        "kept_versions": "1: pinned: <b>; 2: current",
    }
    rest = {"measured_at": at, "stored_bytes_after": 2, "vacuumed_files": 1, "vacuumed_bytes": 4, "milliseconds": 12.0}
    figures = ManutencaoFigures(environment="dev", upkeep=[{**row, **table, **rest}], audit=[], acts=[], backups=[], tables=[])
    text = render(figures)
    assert text == render(figures) and "<script>" not in text and "<b>" not in text
    assert "3 → 2" not in text and "3 B → 2 B" in text and "fixada: &lt;b&gt;" in text and "03/01/2026 03:00" in text
    assert "Nenhuma cópia foi feita ainda." in text


def test_the_job_removes_what_has_expired_and_reports_it(
    sales: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC).isoformat()
    sales.land("vendas", "new", [sale(20, created_at=now, updated_at=now)])
    sales.run(VENDAS)
    day = timedelta(days=1)
    spec = replace(VENDAS, retention=Retention(event="created_date", landing=day, bronze=day, silver=day))
    monkeypatch.setattr("lakehouse.settings.settings.ALL", (spec,))
    assert maintenance.retention("vendas") == 0
    assert "silver/vendas: 3 rows with created_date before" in capsys.readouterr().out and len(sales.rows(VENDAS.silver)) == 4
    with dg.DagsterInstance.ephemeral() as instance:
        result = job(instance)
        assert result.success and not failed(result)
        told = instance.get_latest_materialization_event(dg.AssetKey(["silver", "vendas"]))
        assert told is not None and told.asset_materialization is not None
        assert told.asset_materialization.metadata["act"].value == "retention"
    assert [row["id"] for row in sales.rows(VENDAS.silver)] == [20] == [int(row["id"]) for row in sales.rows(VENDAS.bronze)]
    acts = {f"{row['layer']}/{row['table']}": row["said"] for row in sales.rows(audit.TABLE) if row["name"] == "retention"}
    assert set(acts) == {"landing/vendas", "bronze/vendas", "silver/vendas"} and acts["landing/vendas"].startswith("2 files")
    assert not sales.refresh(spec, rebuild=True).stopped and [row["id"] for row in sales.rows(VENDAS.silver)] == [20]


@pytest.mark.slow
def test_somebody_is_forgotten_by_command(sales: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    sales.land("vendas", "f3", [sale(3, cliente_id=987654321), sale(4, cliente_id=2)])
    sales.run(VENDAS)
    assert backups.backup() == 0
    maintenance.pin("vendas", "a test", 1)
    with pytest.raises(protect.LakehouseError, match="make unpin TABLE=silver/vendas VERSION=1"):
        maintenance.forget("clientes", "987654321", "a request")
    maintenance.unpin("vendas", 1)
    assert maintenance.forget("clientes", "987654321", "a request") == 0
    assert "silver/vendas: 1 records" in capsys.readouterr().out
    assert [row["id"] for row in sales.rows(VENDAS.silver)] == [1, 2, 4, 9]
    acts = [row["said"] for row in sales.rows(audit.TABLE) if row["name"] == "forget"]
    assert acts and all("a request" in output and "987654321" not in output for output in acts)
    assert backups.prove() == 0 and backups.restore("vendas", force=1) == 0
    assert not sales.refresh(VENDAS, rebuild=True).stopped
    from lakehouse_tests.maintenance.test_forget import containing

    assert containing(sales, "987654321") == []


@pytest.mark.slow
def test_gold_is_computed_without_who_was_forgotten(sales: Lake) -> None:
    from lakehouse.commands import runs
    from lakehouse.tables.vendas import CLIENTES, PRODUTOS
    from lakehouse_tests.maintenance.test_forget import containing

    at = "2026-01-01T00:00:00Z"
    people = [{"id": n, "pais": "BR", "segmento": "A", "created_at": at, "updated_at": at} for n in (1, 2, 987654321)]
    sales.land("clientes", "a", people)
    sales.land("produtos", "a", [{"id": "x", "nome": "X", "categoria": "c", "updated_at": at}])
    sales.land("vendas", "f3", [sale(3, cliente_id=987654321), sale(4, cliente_id=2)])
    for spec in (CLIENTES, PRODUTOS, VENDAS):
        sales.run(spec)
    gold = TableRef("gold", "clientes_rfm")
    assert runs.materialize('key:"gold/clientes_rfm"') == 0
    assert {row["cliente_id"] for row in sales.rows(gold, "cliente_id")} == {1, 2, 987654321}
    assert maintenance.forget("vendas", "987654321", "a request") == 0
    assert {row["cliente_id"] for row in sales.rows(gold, "cliente_id")} == {1, 2}
    lake = sales.folder / "lake"
    assert [path for path in containing(sales, "987654321") if path.startswith((str(lake), str(sales.folder / "landing")))] == []


def test_old_measurements_are_removed_when_a_setting_asks_for_it(sales: Lake, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = datetime.now(UTC)
    ages = [timedelta(days=days) for days in (1, 31, 32, 400)]
    rows = [{"measured_at": now - age, "layer": "silver", "table": "vendas", "outcome": "ok"} for age in ages]
    outbox.record(sales.storage, table_health.HEALTH_TABLE, columns=table_health.COLUMNS, rows=rows)
    assert maintenance.retention() == 0 and "expires" in capsys.readouterr().out
    monkeypatch.setenv("LAKEHOUSE_MEASUREMENT_DAYS", "30")
    assert maintenance.retention("ops/table_health") == 0 and "3 rows with measured_at before" in capsys.readouterr().out
    assert len(sales.rows(table_health.HEALTH_TABLE)) == 4, "a dry run"
    with dg.DagsterInstance.ephemeral() as instance:
        lake = build_resources(load_settings())["lake"]
        went, left = expire_all(load_settings(), lake, instance, now=now)
        again, _ = expire_all(load_settings(), lake, instance, now=now)
    assert [(one.ref, one.rows) for one in went] == [(table_health.HEALTH_TABLE, 3)] and not left and not again
    assert [row["measured_at"] for row in sales.rows(table_health.HEALTH_TABLE)] == [rows[0]["measured_at"]]
    assert "retention" in {row["name"] for row in sales.rows(audit.TABLE)}
