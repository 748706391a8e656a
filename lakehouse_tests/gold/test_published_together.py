"""The marts of a run become visible to readers together, those that failed aside; a run that died shows them nothing."""

from pathlib import Path

import pytest
import yaml

from lakehouse.core import publications
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.dashboard.reading import Reader
from lakehouse.gold import assets
from lakehouse.observability.outbox import small_session
from lakehouse.runtime.io_manager import DeltaIOManager
from lakehouse.settings import Settings
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.gold.few_rows import FAILS, MARTS, Lake, base, copy_project, lake, sale
from lakehouse_tests.gold.test_gold_asset import error, published, unpassed

__all__ = ["base", "lake"]

DAILY, PER_COUNTRY = TableRef("gold", "vendas_diarias"), TableRef("gold", "vendas_por_pais")


def seen(lake: Lake) -> dict[str, int]:
    """By mart the version that readers see."""
    storage = Settings(root=str(lake.root)).storage
    found = {mart: publications.published(storage, TableRef("gold", mart)) for mart in sorted(MARTS)}
    return {mart: table.version for mart, table in found.items() if table is not None}


def of_dashboard(lake: Lake, ref: TableRef) -> int:
    """The rows of a mart as pages see it."""
    return Reader(Settings(root=str(lake.root))).ask(lambda asked: len(asked.rows(ref)))


def test_a_run_publishes_once_and_one_that_finds_nothing_new_does_not(lake: Lake) -> None:
    storage = Settings(root=str(lake.root)).storage
    assert publications.newest(storage).number == 1
    assert set(publications.newest(storage).tables) == {TableRef("gold", mart) for mart in MARTS}
    assert lake.run().success and publications.newest(storage).number == 1
    lake.silver(VENDAS, [sale(4, pais="Peru")], mode="append")
    result = lake.run("vendas_por_pais")
    assert result.success and publications.newest(storage).number == 2, "a run of one mart publishes, too"
    assert publications.newest(storage).run_id == result.run_id
    assert seen(lake) == lake.versions()


def test_a_run_that_dies_between_two_marts_shows_readers_neither(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before, countries = seen(lake), of_dashboard(lake, PER_COUNTRY)
    lake.silver(VENDAS, [sale(4, pais="Peru", created_date="2024-03-03")], mode="append")
    handle, done = DeltaIOManager.handle_output, []

    def dies(self, context, obj):
        if len(done) == 2:
            raise RuntimeError("out of power")
        handle(self, context, obj)
        done.append(context.asset_key.path[-1])

    with monkeypatch.context() as patch:
        patch.setattr(DeltaIOManager, "handle_output", dies)
        patch.setattr(assets, "RETRY", None)
        assert "out of power" in error(lake.run())
    assert len(done) == 2 and {mart for mart, version in lake.versions().items() if version > before[mart]} == set(done)
    assert seen(lake) == before and of_dashboard(lake, PER_COUNTRY) == countries
    assert lake.run().success
    assert all(version > before[mart] for mart, version in seen(lake).items() if mart != "clientes_rfm")
    assert seen(lake) == lake.versions() and of_dashboard(lake, PER_COUNTRY) == countries + 1


def test_a_mart_that_fails_its_test_stays_as_it_was_and_the_publication_names_that(lake: Lake, tmp_path: Path) -> None:
    strict = copy_project(tmp_path / "dbt", {"tests/sells_nothing.sql": FAILS})
    before = seen(lake)
    lake.silver(VENDAS, [sale(4)], mode="append")
    result = lake.run(dbt=strict)
    assert not result.success and set(unpassed(result)) == {"sells_nothing"}
    storage = Settings(root=str(lake.root)).storage
    last = publications.newest(storage)
    assert last.number == 2 and last.tables[DAILY].version == before["vendas_diarias"]
    assert {mart for mart, version in seen(lake).items() if version > before[mart]} == published(result)


def test_a_slower_run_takes_nothing_back(lake: Lake) -> None:
    """Its view of silver is older than what another run has made the marts of meanwhile."""
    lake.silver(VENDAS, [sale(4, pais="Peru")], mode="append")
    begun = _views(lake)
    lake.silver(VENDAS, [sale(5, pais="Bolivia")], mode="append")
    assert lake.run().success
    before = lake.versions()
    assert lake.run(tags={"lakehouse/view": begun}).success
    assert lake.versions() == before == seen(lake)


def _views(lake: Lake) -> str:
    table = open_existing(Settings(root=str(lake.root)).storage.uri(VENDAS.silver))
    assert table is not None
    return f'{{"silver/vendas": {table.version}}}'


def test_a_rollback_is_what_readers_see_and_compaction_changes_nothing_for_them(lake: Lake) -> None:
    from lakehouse.maintenance.rollback import roll_back

    storage = Settings(root=str(lake.root)).storage
    lake.silver(VENDAS, [sale(4, pais="Peru")], mode="append")
    assert lake.run().success and of_dashboard(lake, PER_COUNTRY) == 3
    with small_session(storage) as session:
        after = roll_back(session, storage, (), PER_COUNTRY, version=1, reason="trial")
    assert seen(lake)["vendas_por_pais"] == after.version and of_dashboard(lake, PER_COUNTRY) == 2


# --- models with faults ----------------------------------------------------------------------------------------------

SQL = "select pais, cast(sum(total) as decimal(38, 2)) as receita from {{ source('silver', 'vendas') }} group by pais"
AVERAGE = "select pais, avg(cast(id as decimal(38, 0))) as receita from {{ source('silver', 'vendas') }} group by pais"
TEXT, MONEY, DOUBLE = "string", "decimal(38,2)", "double"


def model(name: str, sql: str, kind: str, *tests: object) -> dict[str, str]:
    """The two files of a mart over sales by country; `tests` are those of its column `pais`."""
    meta = {"dagster": {"asset_key": ["gold", name], "group": "gold", "owners": ["team:dados"]}}
    columns = [
        {"name": "pais", "data_type": TEXT, "description": "x", **({"data_tests": list(tests)} if tests else {})},
        {"name": "receita", "data_type": kind, "description": "x"},
    ]
    declared = {
        "name": name,
        "description": "trial",
        "config": {"contract": {"enforced": True}, "meta": meta},
        "columns": columns,
    }
    folder = "models/marts"
    return {
        f"{folder}/{name}.sql": sql,
        f"{folder}/{name}.yml": yaml.safe_dump({"version": 2, "models": [declared]}, allow_unicode=True),
    }


def accepted(*values: str, **config: str) -> dict[str, object]:
    return {"accepted_values": {"arguments": {"values": list(values)}, **({"config": config} if config else {})}}


def test_each_fault_of_a_mart_is_named_and_the_others_are_published(lake: Lake, tmp_path: Path) -> None:
    files = {
        **model("t_good", SQL, MONEY, "not_null", "unique"),
        **model("t_quote", SQL, MONEY, accepted("Brasil", "Chile", "Santa Bárbara d'Oeste", "Côte d'Ivoire")),
        **model("t_average", AVERAGE, DOUBLE, "not_null"),
        **model("t_refused", SQL, MONEY, accepted("Peru")),
        **model("t_twice", SQL, MONEY, "not_null", accepted("Brasil"), accepted("Brasil", "Chile")),
        **model("t_warned", SQL, MONEY, accepted("Peru", severity="warn")),
        **model("t_untyped", SQL, DOUBLE, "not_null"),
    }
    dbt = copy_project(tmp_path / "dbt", files)
    result = lake.run(*sorted({Path(name).stem for name in files}), dbt=dbt)
    assert not result.success
    assert published(result) == {"t_good", "t_average", "t_warned"}
    named = {check.asset_key.path[-1]: check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
    assert named.keys() == {"t_quote", "t_refused", "t_twice", "t_untyped", "t_warned"}, (
        "dbt quotes no apostrophe in a test's values"
    )
    assert "gold/t_untyped was not built" in error(result) and "data type mismatch" in error(result)
    assert "in macro" not in error(result), "what dbt went through is of no use to whoever wrote the model"
    last = publications.newest(Settings(root=str(lake.root)).storage).tables
    assert {ref.table for ref in last} - MARTS == published(result)
