"""Marts by days: increments give the mart of a full computation, write what is new only, and are not fooled by what is late."""

import shutil
import warnings
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from deltalake import DeltaTable

from lakehouse.core import ledger
from lakehouse.core.ledger import PlannedFile
from lakehouse.core.names import TableRef
from lakehouse.definitions import build_defs
from lakehouse.landing.sources.captures import Captures
from lakehouse.landing.sources.fetch import Answer
from lakehouse.sample.brt import answer
from lakehouse.settings import Settings

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
MARTS = ("brt_frota_atual", "brt_frota_por_minuto", "brt_servicos_por_hora")
#: 2025-10-28 23:52 in America/Sao_Paulo: captures fall on both sides of midnight.
START = 1_761_706_320_000
MINUTE = 60_000


def run(root: Path) -> dg.ExecuteInProcessResult:
    """Everything from bronze to gold."""
    with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
        warnings.simplefilter("ignore")
        job = build_defs(Settings(root=str(root))).resolve_implicit_global_asset_job_def()
        keys = [["bronze", "brt_gps"], ["silver", "brt_gps"], *[["gold", mart] for mart in MARTS]]
        result = job.execute_in_process(instance=instance, run_config=QUIET, asset_selection=[dg.AssetKey(k) for k in keys])
    assert result.success
    return result


def export(root: Path, minutes: range) -> None:
    captures = Captures(landing=str(root / "landing"), source="brt", stream="brt_gps", field="veiculos")
    for minute in minutes:
        captures.persist(Answer(answer(START + minute * MINUTE, vehicles=60), START + minute * MINUTE))
    captures.export(buffer=len(minutes))


def rows(root: Path, mart: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        connection.register("t", DeltaTable(str(root / "gold" / mart)).to_pyarrow_table())
        return connection.execute("FROM t ORDER BY ALL").fetchall()


def days(root: Path, mart: str) -> dict[str, set[str]]:
    """The data files of a mart by day."""
    found: dict[str, set[str]] = {}
    for path in DeltaTable(str(root / "gold" / mart)).file_uris():
        found.setdefault(path.split("data=")[1][:10], set()).add(path)
    return found


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> tuple[Path, list[dict[str, set[str]]]]:
    """Three exports, the last of them late: it is of the time before the others. And the minute mart's files after each."""
    root = tmp_path_factory.mktemp("grown") / "lake"
    seen = []
    for minutes in (range(5), range(5, 13), range(-4, 0)):
        export(root, minutes)
        run(root)
        seen.append(days(root, "brt_frota_por_minuto"))
    return root, seen


def test_increments_give_the_marts_of_a_full_computation(grown, tmp_path):
    root, _ = grown
    shutil.copytree(root, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / "gold")
    run(tmp_path / "lake")
    for mart in MARTS:
        assert rows(root, mart) == rows(tmp_path / "lake", mart), mart
        assert rows(root, mart)


def test_only_the_days_that_have_something_new_are_written(grown):
    _, (first, second, third) = grown
    assert set(first) == {"2025-10-28"}
    assert set(second) == {"2025-10-28", "2025-10-29"}
    assert third["2025-10-29"] == second["2025-10-29"], "the late captures are of the day before"
    assert third["2025-10-28"] != second["2025-10-28"]


def test_a_second_run_changes_nothing(grown):
    root, _ = grown
    before = {mart: DeltaTable(str(root / "gold" / mart)).version() for mart in MARTS}
    run(root)
    assert {mart: DeltaTable(str(root / "gold" / mart)).version() for mart in MARTS} == before


def test_the_batches_before_cost_the_next_one_little(lake):
    """What bronze reads before it plans is in few files, and every planned file is still known."""
    uri, ref = lake.storage.uri(ledger.FILES_TABLE), TableRef("bronze", "itens")
    with lake.session() as session:
        for number in range(1, 151):
            file = PlannedFile(f"raw/itens/{number}.jsonl", 1, "v", "0" * 64)
            assert ledger.plan(session, uri, table=ref, batch=number, files=[file], run_id="run")
        batch, known = ledger.planned_files(session, uri, ref)
    assert batch == 150
    assert sorted(number for number, _ in known) == list(range(1, 151))
    assert len(DeltaTable(uri).file_uris()) <= ledger._MANY
