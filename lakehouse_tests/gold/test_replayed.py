"""What a run made of marts, computed again from what it had read; and a branch that computes marts over another lake."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.commands import replay
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.dashboard.reading import Reader
from lakehouse.gold import project
from lakehouse.settings import Settings
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.gold.few_rows import Lake, base, copy_project, sale

__all__ = ["base"]

Made = tuple[Lake, replay.Run]


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of every file of a lake, what is computed in its spill folder aside."""
    found = (path for path in root.rglob("*") if path.is_file() and ".spill" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def made(base: Lake, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A lake, and a run that took in a sale of Peru; the lake has gone on since. Nobody changes it."""
    shutil.copytree(base.root, root := tmp_path_factory.mktemp("replay") / "lake")
    lake = Lake(root)
    lake.silver(VENDAS, [sale(4, pais="Peru")], mode="append")
    with dg.DagsterInstance.ephemeral() as instance:
        result = lake.run("vendas_por_pais", "vendas_mensais", instance=instance)
        run = instance.get_run_by_id(result.run_id)
    lake.silver(VENDAS, [sale(5, pais="Bolivia")], mode="append")
    assert run is not None and result.success and lake.run("vendas_por_pais").success
    return lake, replay.run_of(Settings(root=str(lake.root)).storage, run)


def replayed(made: Made, asset: str = "") -> list[replay.Replayed]:
    lake, run = made
    before = files(lake.root)
    found = list(replay.computed_again(Settings(root=str(lake.root)), run, replay._asked(run, asset)))
    assert files(lake.root) == before, "nothing of the lake is written"
    return found


def test_marts_are_equal_though_silver_has_moved_on_since(made: Made) -> None:
    found = replayed(made)
    assert sorted((one.asset.table, one.outcome) for one in found) == [("vendas_mensais", "equal"), ("vendas_por_pais", "equal")]
    assert all("silver/vendas is read at version 2, and is at 3 now" in one.notes for one in found)


def test_another_sql_is_told_with_the_rows_and_columns_that_differ(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(project.project_dir(), "models/marts/vendas_por_pais.sql").read_text()
    assert "select * from per_country" in model
    more = "select * replace (pedidos + (pais = 'Peru')::int as pedidos) from per_country"
    dbt = copy_project(tmp_path / "dbt", {"models/marts/vendas_por_pais.sql": model.replace("select * from per_country", more)})
    monkeypatch.setattr(project, "project_dir", lambda: dbt)
    (found,) = replayed(made, "gold/vendas_por_pais")
    assert found.outcome == "differs" and any(note.startswith("its code has changed") for note in found.notes)
    assert found.comparison is not None and found.comparison.key == ("pais",)
    (difference,) = found.comparison.differences
    (example,) = difference.examples
    assert (difference.column, difference.rows, example.row, example.here, example.there) == ("pedidos", 1, "Peru", "1", "2")


def test_a_run_without_a_view_and_an_asset_that_it_did_not_make_are_named(made: Made) -> None:
    lake, run = made
    with pytest.raises(DeclarationError, match="has no view of tables"):
        replay.run_of(Settings(root=str(lake.root)).storage, dg.DagsterRun(job_name="x"))
    with pytest.raises(DeclarationError, match=r"made no 'gold/clientes_rfm'. It made gold/vendas_mensais, gold/vendas_por_pais"):
        replay._asked(run, "gold/clientes_rfm")


def test_a_branch_computes_marts_over_a_lake_that_it_only_reads(base: Lake, tmp_path: Path) -> None:
    settings, before = Settings(root=str(tmp_path / "branch"), base_root=str(base.root)), files(base.root)
    branch = Lake(tmp_path / "branch", base=base.root)
    assert branch.run("vendas_por_pais", "vendas_mensais").success
    assert files(base.root) == before
    assert set(branch.versions()) == {"vendas_por_pais", "vendas_mensais"}
    assert branch.rows("vendas_por_pais") == base.rows("vendas_por_pais")
    lacking = TableRef("gold", "vendas_diarias")
    assert Reader(settings).ask(lambda asked: len(asked.rows(lacking))) == 2, "what it lacks is read from there"
    assert open_existing(settings.storage.uri(lacking)) is None
