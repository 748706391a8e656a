"""The BRT feed through the job: ten captures make a CSV and the tables that the real answers must come to, a feed that fails
fails visibly and costs nothing else, and no two runs work at once."""

import hashlib
import json
import shutil
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from deltalake import DeltaTable

from lakehouse.automation import JOBS, _unless_under_way
from lakehouse.core.store.storage import lock
from lakehouse.definitions import build_defs
from lakehouse.landing.assets.feeds import capture_key, feed_assets, feed_resources, feeds, is_busy
from lakehouse.landing.sources.captures import Captures
from lakehouse.sample.brt import serve
from lakehouse.settings import Settings
from lakehouse.tables.brt import BRT_GPS

(BRT,) = feeds()
CAPTURE = capture_key(BRT)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
LANDING = ["landing/brt_captura", "landing/brt_csv"]
MARTS = ("brt_frota_atual", "brt_frota_por_minuto", "brt_servicos_por_hora")
LOADS = [*(f"warehouse__{mart}" for mart in MARTS), "warehouse_equals_lake"]
FOLLOWS = ["bronze__brt_gps", "silver__brt_gps", "gold", "reports__brt", *LOADS]


@dataclass(frozen=True)
class Feed:
    """A lake in a folder and a feed, driven through the job or through its two landing assets."""

    root: Path
    url: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def captures(self) -> Captures:
        return Captures(landing=str(self.root / "landing"), source="brt", stream="brt_gps", field="veiculos")

    def job(self, times: int) -> list[dg.ExecuteInProcessResult]:
        settings = Settings(root=str(self.root), brt_url=self.url, **self.settings)
        with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
            warnings.simplefilter("ignore")
            job = build_defs(settings).resolve_job_def("brt_capture")
            return [job.execute_in_process(instance=instance, raise_on_error=False, run_config=QUIET) for _ in range(times)]

    def capture(self) -> dg.ExecuteInProcessResult:
        """The landing assets alone."""
        settings = Settings(root=str(self.root), brt_url=self.url, **self.settings)
        resources = feed_resources(settings)
        with dg.DagsterInstance.ephemeral() as instance:
            return dg.materialize(feed_assets(), resources=resources, instance=instance, raise_on_error=False)

    def sql(self, table: str, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("t", DeltaTable(str(self.root / table)).to_pyarrow_table())
            return connection.execute(query).fetchall()

    def versions(self) -> dict[str, int]:
        logs = sorted(self.root.rglob("_delta_log"))
        return {str(log.parent.relative_to(self.root)): DeltaTable(str(log.parent)).version() for log in logs}


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    return sorted(e.asset_key.to_user_string() for e in result.get_asset_materialization_events())


def skipped(result: dg.ExecuteInProcessResult) -> list[str]:
    return [event.step_key for event in result.all_events if event.is_step_skipped]


def failed(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        check.check_name: {name: value.value for name, value in check.metadata.items()}
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }


@pytest.fixture(scope="module")
def ten(real_data, tmp_path_factory) -> tuple[Feed, list[dg.ExecuteInProcessResult]]:
    """Eleven runs over the ten real captures of 2025-10-28. Nobody changes the lake."""
    folder = tmp_path_factory.mktemp("ten")
    recorded = folder / "recorded"
    recorded.mkdir()
    for path in (real_data / "brt" / "payloads").glob("17616*.json"):
        shutil.copy2(path, recorded)
    feed = Feed(folder / "lake", f"file://{recorded}")
    return feed, feed.job(11)


def test_nine_runs_capture_and_the_tenth_goes_on_to_the_report(ten):
    _, runs = ten
    assert all(run.success for run in runs)
    for run in runs[:9]:
        assert made(run) == ["landing/brt_captura"]
        assert skipped(run) == FOLLOWS, "the CSV is not there, and what follows is shown as skipped"
    marts = [f"{layer}/{mart}" for layer in ("gold", "warehouse") for mart in MARTS]
    assert made(runs[9]) == sorted([*LANDING, "bronze/brt_gps", "silver/brt_gps", *marts, "reports/brt"])
    assert made(runs[10]) == [], "nothing is left"
    assert runs[10].success


def test_the_real_captures_come_to_their_known_figures(ten, real_data):
    feed, runs = ten
    expected = json.loads((real_data / "brt" / "EXPECTED.json").read_text())["ten_minute_buffer"]
    assert len(list((feed.root / "landing" / "raw").rglob("*.csv"))) == 1
    assert feed.sql("bronze/brt_gps", "SELECT count(*), count(DISTINCT _airbyte_raw_id) FROM t") == [(7_310, 7_310)]
    assert feed.sql("silver/brt_gps", "SELECT count(*), sum(capturas) FROM t")[0][0] == expected["distinct_codigo_dataHora"]
    assert failed(runs[9])["conflicts"]["failed"] == expected["conflicting_keys"]
    ((late, capturas, minutes),) = feed.sql(
        "gold/brt_frota_por_minuto", "SELECT sum(atrasados), sum(registros), count(DISTINCT minuto) FROM t"
    )
    assert (late, capturas, minutes) == (expected["records_more_than_300_s_old_at_capture"], 7_310, 10)
    assert feed.sql("gold/brt_frota_atual", "SELECT count(*) FROM t") == [(expected["vehicles"],)]


def test_a_second_replay_of_the_same_folder_changes_nothing(ten):
    feed, _ = ten
    before = feed.versions()
    again = feed.job(2)
    assert [made(run) for run in again] == [[], []]
    assert feed.versions() == before


def test_the_distance_of_a_bus_is_the_sum_of_its_steps(ten):
    """The mart's kilometres again, from silver, by another formula."""
    feed, _ = ten
    query = """
        WITH step AS (
            SELECT servico, timestamp_gps, epoch(timestamp_gps) - epoch(lag(timestamp_gps) OVER v) AS s,
                acos(least(1, sin(radians(latitude)) * sin(radians(lag(latitude) OVER v))
                    + cos(radians(latitude)) * cos(radians(lag(latitude) OVER v))
                    * cos(radians(longitude - lag(longitude) OVER v)))) * 6371.0088 AS km
            FROM t WINDOW v AS (PARTITION BY id_veiculo ORDER BY timestamp_gps)
        )
        SELECT sum(km) FROM step WHERE s <= 600 AND km <= s / 30 AND servico IS NOT NULL
    """
    ((again,),) = feed.sql("silver/brt_gps", query)
    ((km,),) = feed.sql("gold/brt_servicos_por_hora", "SELECT sum(km) FROM t")
    assert float(km) == pytest.approx(again, rel=1e-3)
    assert 1_000 < again < 4_000


@pytest.mark.parametrize(
    "order",
    [
        pytest.param("shuffled", marks=pytest.mark.slow),
        pytest.param("13", marks=pytest.mark.stack),
        pytest.param("3", marks=pytest.mark.stack),
        pytest.param("1", marks=pytest.mark.slow),
    ],
)
def test_every_buffer_and_every_order_gives_the_same_table(order, lake, real_data, tmp_path):
    captures = Captures(landing=str(tmp_path / "feed"), source="brt", stream="brt_gps", field="veiculos")
    folder = str(real_data / "brt" / "payloads")
    while (answer := captures.recorded(folder)) is not None:
        captures.persist(answer)
    captures.export(buffer=3 if order == "shuffled" else int(order))
    captures.export(buffer=1)
    raw = tmp_path / "feed" / "raw" / "brt_gps"
    paths = sorted(raw.rglob("*.csv"))
    if order == "shuffled":
        paths = [paths[n] for n in (3, 0, 4, 2, 1)]
    for path in paths:
        lake.put("brt_gps", str(path.relative_to(raw)), path.read_bytes())
        lake.run(BRT_GPS)
    expected = json.loads((real_data / "brt" / "EXPECTED.json").read_text())["all_files"]
    rows = lake.rows(BRT_GPS.silver)
    assert len(rows) == expected["silver_rows"]
    waiting = {(json.loads(row["record"])["codigo"], json.loads(row["record"])["datahora"]) for row in lake.quarantined(BRT_GPS)}
    assert len(waiting) == expected["outside_box_keys"]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == TABLE, "the table depends on how it came"
    assert len(lake.rows(BRT_GPS.bronze, "_airbyte_raw_id")) == expected["records"]


#: Digest of the silver table of all thirteen answers.
TABLE = "735375c7a708bf61"


# --- bad input ---------------------------------------------------------------------------------------------------------


GOOD = json.dumps({"veiculos": [{"codigo": "1", "dataHora": 1, "latitude": -22.9, "longitude": -43.3}]}).encode()
BAD = {"empty": b"", "html": b"<html>", "null": b'{"veiculos": null}', "cut": GOOD[:-9], "list": b"[1]"}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_recorded_seen_and_costs_nothing_else(kind, tmp_path):
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for number, body in enumerate([GOOD, BAD[kind], GOOD]):
        (recorded / f"{1_761_685_251_776 + number * 60_000}.json").write_bytes(body)
    feed = Feed(tmp_path / "lake", f"file://{recorded}", {"brt_buffer": 2})
    runs = [feed.capture() for _ in range(4)]
    assert [run.success for run in runs] == [True] * 4
    assert [made(run) for run in runs] == [LANDING[:1], [], LANDING, []]
    assert failed(runs[1])["captura"]["reason"]
    output = json.loads(Path(failed(runs[1])["captura"]["recorded"]).read_text())
    assert output["reason"] == failed(runs[1])["captura"]["reason"]
    (csv,) = (feed.root / "landing" / "raw").rglob("*.csv")
    assert csv.read_text().count("\n") == 3
    errors = [c for c in runs[1].get_asset_check_evaluations() if not c.passed and c.severity == dg.AssetCheckSeverity.ERROR]
    assert [c.check_name for c in errors] == ["captura"], "make trigger ends with 1"


def test_a_feed_that_does_not_answer_is_a_failed_check_and_not_a_failed_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lakehouse.landing.sources.fetch.TRIES", 1)
    feed = Feed(tmp_path / "lake", "http://127.0.0.1:9/gps/brt")
    run = feed.capture()
    assert run.success
    assert {"captura", "captura_fresca"} <= set(failed(run))
    assert skipped(run) == ["landing__brt_csv"]


def test_a_feed_over_http_is_captured_with_the_time_of_its_answer(tmp_path):
    with serve(0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        feed = Feed(tmp_path / "lake", f"http://127.0.0.1:{server.server_address[1]}/gps/brt", {"brt_buffer": 1})
        before = time.time_ns() // 1_000_000
        run = feed.capture()
        server.shutdown()
    assert made(run) == LANDING
    assert failed(run) == {}
    (csv,) = (feed.root / "landing" / "raw").rglob("*.csv")
    assert before <= int(csv.name[:13]) <= time.time_ns() // 1_000_000


def test_a_machine_whose_clock_is_ahead_is_told(tmp_path, monkeypatch):
    from lakehouse.landing.sources import fetch

    real = fetch._milliseconds
    monkeypatch.setattr(fetch, "_milliseconds", lambda date: real(date) - 3_600_000)
    with serve(0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run = Feed(tmp_path / "lake", f"http://127.0.0.1:{server.server_address[1]}/gps/brt").capture()
        server.shutdown()
    assert failed(run)["relogio"]["ahead_seconds"] == pytest.approx(3_600, abs=5)
    assert made(run) == ["landing/brt_captura"]


def test_vehicles_with_impossible_values_go_to_quarantine_and_the_rest_goes_on(lake):
    at = 1_761_685_251_776
    good = {"codigo": "1", "dataHora": at - 5_000, "latitude": -22.9, "longitude": -43.3, "velocidade": 10.5, "linha": "10"}
    bad = [
        {**good, "codigo": "2", "latitude": 0, "longitude": 0},
        {**good, "codigo": "3", "dataHora": at + 3_600_000},
        {**good, "codigo": "4", "dataHora": "yesterday"},
        {**good, "codigo": "6", "dataHora": at // 1000},
        {**good, "codigo": "7", "dataHora": 946_684_800_000},
        {**good, "codigo": "8", "latitude": "-22,9"},
        {**good, "codigo": None},
        "no vehicle",
    ]
    old = {**good, "codigo": "5", "dataHora": at - 90 * 86_400_000, "linha": "0", "direcao": " ", "placa": ""}
    captures = Captures(landing=str(lake.folder / "landing"), source="brt", stream="brt_gps", field="veiculos")
    from lakehouse.landing.sources.fetch import Answer

    texts = {**good, "codigo": "9", "dataHora": str(at - 5_000), "latitude": "-22.9", "longitude": "-43.3"}
    odd = {**good, "codigo": "10", "velocidade": "10,5", "ignicao": "sim", "hodometro": "?", "direcao": "N"}
    captures.persist(Answer(json.dumps({"veiculos": [good, *bad, old, texts, odd, good]}).encode(), at))
    captures.export(buffer=1)
    refresh = lake.run(BRT_GPS)
    rows = {row["id_veiculo"]: row for row in lake.rows(BRT_GPS.silver)}
    assert set(rows) == {"1", "5", "9", "10"}, "an old position stays, and a bad field costs no position"
    assert rows["9"]["latitude"] == rows["1"]["latitude"] == -22.9
    assert [rows["10"][name] for name in ("velocidade", "ignicao", "hodometro", "direcao")] == [None] * 4
    castable = next(finding for finding in refresh.findings if finding.rule == "castable")
    assert {name: n for name, n in castable.detail.items() if name.startswith("invalid_")} == {
        "invalid_velocidade": 1, "invalid_ignicao": 1, "invalid_hodometro": 1, "invalid_direcao": 1,
    }  # fmt: skip
    assert rows["5"]["servico"] is rows["5"]["direcao"] is rows["5"]["placa"] is None
    assert str(rows["5"]["data"]) == "2025-07-30"
    assert (rows["1"]["capturas"], rows["1"]["hora"]) == (1, 18)
    assert len(lake.quarantined(BRT_GPS)) == len(bad)
    assert refresh.entry.balanced


# --- one run at a time -------------------------------------------------------------------------------------------------


def test_a_second_run_waits_until_the_first_is_over(tmp_path):
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    (recorded / "1761685251776.json").write_bytes(GOOD)
    feed = Feed(tmp_path / "lake", f"file://{recorded}")
    ended: list[float] = []

    def second() -> None:
        feed.capture()
        ended.append(time.monotonic())

    with lock(feed.captures.folder):
        assert is_busy(BRT, str(feed.root / "landing"))
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(1)
        assert not ended
        assert feed.captures.pending() == []
        released = time.monotonic()
    thread.join(60)
    assert ended[0] > released
    assert len(feed.captures.pending()) == 1
    assert not is_busy(BRT, str(feed.root / "landing"))


def test_the_schedule_leaves_a_minute_out_while_a_run_is_under_way_and_only_then(tmp_path):
    settings = Settings(root=str(tmp_path))
    (job,) = [job for job in JOBS if job.name == "brt_capture"]
    defs = build_defs(settings)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, dg.build_schedule_context(instance=instance) as context:
        assert isinstance(_unless_under_way(job, settings, context), dg.RunRequest)
        run = instance.create_run_for_job(defs.resolve_job_def(job.name), status=dg.DagsterRunStatus.STARTED)
        assert isinstance(_unless_under_way(job, settings, context), dg.SkipReason)
        instance.delete_run(run.run_id)
        assert isinstance(_unless_under_way(job, settings, context), dg.RunRequest)


def test_the_schedule_asks_for_the_capture_alone_until_a_csv_is_full_with_it(tmp_path):
    settings = Settings(root=str(tmp_path), brt_buffer=3)
    (job,) = [job for job in JOBS if job.name == "brt_capture"]
    pending = Path(settings.landing, "captures", "brt", "pending")
    pending.mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, dg.build_schedule_context(instance=instance) as context:
        for waiting, expected in enumerate(([CAPTURE], [CAPTURE], None, None)):
            assert len(Captures(landing=settings.landing, source="brt", stream="brt_gps", field="veiculos").pending()) == waiting
            request = _unless_under_way(job, settings, context)
            assert isinstance(request, dg.RunRequest) and request.asset_selection == expected
            (pending / f"{1_700_000_000_000 + waiting}.json.gz").write_bytes(b"")


def test_a_run_that_was_killed_does_not_delay_those_of_the_next_minutes(tmp_path, monkeypatch):
    settings = Settings(root=str(tmp_path))
    (job,) = [job for job in JOBS if job.name == "brt_capture"]
    monkeypatch.setattr("lakehouse.automation._BEGINS", -job.max_runtime)  # it was started long ago
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, dg.build_schedule_context(instance=instance) as context:
        instance.create_run_for_job(build_defs(settings).resolve_job_def(job.name), status=dg.DagsterRunStatus.STARTED)
        assert isinstance(_unless_under_way(job, settings, context), dg.RunRequest), "nobody holds the feed"
        with lock(Captures(landing=settings.landing, source="brt", stream="brt_gps", field="veiculos").folder):
            assert isinstance(_unless_under_way(job, settings, context), dg.SkipReason)


# --- another feed ------------------------------------------------------------------------------------------------------


def test_the_feed_of_gtfs_realtime_that_the_docs_declare_becomes_a_table(lake):
    """The block of docs/brt.md, as a file of tables/ has it."""
    from types import ModuleType

    from lakehouse.landing.assets.feeds import captures_of
    from lakehouse.landing.sources.fetch import Answer
    from lakehouse.settings import project_folder
    from lakehouse.tables.spec.collect import collected
    from lakehouse_tests.landing.sources.test_answers import AT, feed

    page = (project_folder() / "docs" / "brt.md").read_text()
    module = ModuleType("onibus")
    names = "from datetime import timedelta\nfrom lakehouse.tables.spec import *\n"
    exec(compile(names + page.split("```python")[1].split("```")[0], "docs/brt.md", "exec"), module.__dict__)
    found = collected([module])
    (spec,), (source,) = found.tables, found.sources
    assert [job.name for job in found.jobs] == [*spec.tags] == [*source.tags] == ["onibus"]
    captures = captures_of(source, f"{lake.folder}/landing")
    for minute in range(2):
        body = feed({"id": "a", "at": (-22.9068, -43.1729), "line": "10", "timestamp": AT + minute}, {"id": "b", "at": (1.5, 2)})
        captures.persist(Answer(body, (AT + 60 * minute) * 1000))
    captures.export(buffer=2)
    lake.run(spec)
    rows = sorted((row["id_veiculo"], row["timestamp_gps"].timestamp(), row["latitude"]) for row in lake.rows(spec.silver))
    assert rows == [("a", AT, -22.9068), ("a", AT + 1, -22.9068), ("b", AT, 1.5)]
