"""Orders over the real parts: an API in a process of its own, a branch's PostgreSQL, and a warehouse in PostgreSQL."""

import json
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from benchmarks.sinks import slack_server
from lakehouse.definitions import build_defs
from lakehouse.observability.sensors import send
from lakehouse.observability.watch import look
from lakehouse.settings import Settings, project_folder
from lakehouse_tests.conftest import Lake
from lakehouse_tests.faults import KILLS
from lakehouse_tests.faults.driver import KILLED, Driver

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
TABLE = "CREATE TABLE pedidos (id bigint, nome text, valor numeric(12,2), quantidade bigint, updated_at timestamptz)"


def _connect(url: str) -> Any:
    import psycopg2

    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    return connection


@dataclass
class Server:
    """Databases of their own in the stack's PostgreSQL."""

    url: str

    def database(self) -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        with self.session(self.url) as sql:
            sql(f"CREATE DATABASE {name}")
        return f"{self.url.rpartition('/')[0]}/{name}"

    @staticmethod
    @contextmanager
    def session(url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
        connection = _connect(url)

        def sql(query: str, *values: Any) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(query, values or None)
                return cursor.fetchall() if cursor.description else []

        try:
            yield sql
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(postgres: str) -> Server:
    return Server(postgres)


@dataclass
class Orders:
    """A lake, its two sources and its warehouse."""

    lake: Lake
    api: str
    branch: str
    warehouse: str
    options: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> Settings:
        given = {
            "root": str(self.lake.folder / "lake"),
            "landing_dir": str(self.lake.folder / "landing"),
            "pedidos_api_url": self.api,
            "pedidos_db_url": self.branch,
            "pedidos_api_retry_seconds": 0.0,
            "warehouse_url": self.warehouse,
            "warehouse_schema": "mart",
            "warehouse_lock_seconds": 1.0,
        }
        return Settings(**{**given, **self.options})

    def run(self, *, only: list[str] | None = None, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
        job = build_defs(self.settings()).resolve_job_def("pedidos")
        with nullcontext(instance) if instance else dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config=QUIET,
                asset_selection=[dg.AssetKey(key.split("/")) for key in only] if only else None,
            )

    def rows(self, layer: str, table: str) -> int:
        from lakehouse.core.names import TableRef

        return len(self.lake.rows(TableRef(layer, table), "_batch_id" if layer == "bronze" else "id"))


@pytest.fixture(scope="module")
def api(real_data: Path) -> Iterator[str]:
    records = real_data / "pedidos" / "pedidos_api.json"
    with _shop(records) as url:
        yield url


@contextmanager
def _shop(records: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "lakehouse_tests.landing.shop", str(records)]
    with subprocess.Popen(command, cwd=project_folder(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(20)


@pytest.fixture
def orders(server: Server, api: str, real_data: Path, lake: Lake) -> Orders:
    branch = server.database()
    connection = _connect(branch)
    with connection.cursor() as cursor, (real_data / "pedidos" / "pedidos_db.csv").open() as rows:
        cursor.execute(TABLE)
        cursor.copy_expert("COPY pedidos FROM STDIN (FORMAT csv, HEADER)", rows)
    connection.close()
    return Orders(lake, api, branch, server.database())


def expected(real_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((real_data / "pedidos" / "EXPECTED.json").read_text())
    return found


def stored_orders(server: Server, orders: Orders) -> tuple[int, Decimal | None]:
    with server.session(orders.warehouse) as sql:
        return sql("SELECT count(*), sum(total) FROM mart.pedidos")[0]  # type: ignore[return-value]


def why(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(e.event_specific_data.error.to_string() for e in result.all_events if e.is_step_failure)  # type: ignore[union-attr]


def told(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    events = result.get_asset_materialization_events()
    return {e.asset_key.to_user_string(): {k: v.value for k, v in e.materialization.metadata.items()} for e in events}


def failed(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    checks = [check for check in result.get_asset_check_evaluations() if not check.passed]
    return {
        f"{c.asset_key.to_user_string()}:{c.check_name}": {name: value.value for name, value in c.metadata.items()}
        for c in checks
    }


def state(orders: Orders) -> tuple[Any, ...]:
    """All that a run could change, but for the alert that it was there."""
    landed = [(path, path.stat().st_mtime_ns) for path in sorted((orders.lake.folder / "landing").rglob("*.parquet"))]
    versions = {name: version for name, version in orders.lake.versions().items() if name != "ops/alerts"}
    with Server.session(orders.warehouse) as sql:
        rows = sql("SELECT xmin::text, id FROM mart.pedidos ORDER BY id")
        published = sql("SELECT * FROM mart.lakehouse_published ORDER BY name")
    return landed, versions, rows, published


# --- the figures -----------------------------------------------------------------------------------------------------


def test_the_real_orders_come_to_their_figures_everywhere_and_three_more_runs_change_nothing(orders, server, real_data):
    truth = expected(real_data)
    result = orders.run()
    assert result.success, why(result)
    assert set(failed(result)) == {"silver/pedidos:not_null_id"}
    assert failed(result)["silver/pedidos:not_null_id"]["failed"] == truth["null_ids"] == 20
    assert orders.rows("bronze", "pedidos_api") == truth["api_records"] == 3070
    assert orders.rows("bronze", "pedidos_db") == truth["db_records"] == 2030
    assert orders.rows("silver", "pedidos") == truth["clean_rows"] == 5000
    from lakehouse.core.names import TableRef

    silver = orders.lake.rows(TableRef("silver", "pedidos"))
    assert sum(row["total"] for row in silver) == Decimal(truth["total"]) == Decimal("132726.29")
    assert stored_orders(server, orders) == (5000, Decimal("132726.29"))
    with server.session(orders.warehouse) as sql:
        by_channel = sql("SELECT canal, pedidos, receita FROM mart.pedidos_por_canal ORDER BY canal")
        assert [row[0] for row in by_channel] == ["api", "db"]
        assert sum(row[2] for row in by_channel) == Decimal("132726.29")
        condition = "(table_schema, table_name) = ('mart', 'pedidos')"
        kinds = dict(sql(f"SELECT column_name, data_type FROM information_schema.columns WHERE {condition}"))
    assert kinds == {
        "id": "bigint", "nome": "text", "valor": "numeric", "quantidade": "bigint", "total": "numeric", "canal": "text",
        "updated_at": "timestamp with time zone",
    }  # fmt: skip
    ledger = [row for row in orders.lake.ledger() if row["layer"] == "silver"]
    for row in orders.lake.ledger():
        assert row["records_in"] == row["written"] + row["deduplicated"] + row["deleted"] + row["quarantined"]
    assert sum(row["records_in"] for row in ledger) == 5100
    assert sum(row["deduplicated"] for row in ledger) == truth["duplicates"] == 80
    assert sum(row["quarantined"] for row in ledger) == 20
    assert len(orders.lake.rows(TableRef("quarantine", "pedidos_api"), "record")) == 20

    before = state(orders)
    for seconds in (3600.0, 0.0, 0.0):
        orders.options["pedidos_api_cache_seconds"] = seconds
        again = orders.run()
        assert again.success, why(again)
        assert told(again)["landing/pedidos_api"]["cache_hit"] is (seconds > 0)
        assert told(again)["landing/pedidos_api"]["new_records"] == told(again)["landing/pedidos_db"]["new_records"] == 0
        assert state(orders) == before
    assert told(again)["ops/pedidos_notice"]["subject"] == "pedidos: 5,000 orders of 132,726.29 in all"


def test_99_clean_rows_are_refused_neither_silver_nor_the_warehouse_has_any_and_who_is_told_why(
    orders, server, tmp_path, real_data
):
    records = [row for row in json.loads((real_data / "pedidos" / "pedidos_api.json").read_text()) if row["id"]][:99]
    (tmp_path / "few.json").write_text(json.dumps(records))
    with server.session(orders.branch) as sql:
        sql("TRUNCATE pedidos")
    with _shop(tmp_path / "few.json") as url, dg.DagsterInstance.ephemeral() as instance, slack_server() as slack:
        orders.api = url
        orders.options |= {"slack_token": "xoxb-test", "slack_channel": "#data", "slack_url": slack.url}
        result = orders.run(instance=instance)
        look(instance, orders.lake.storage, cursor=None)
        send(orders.settings())
    assert failed(result)["silver/pedidos:min_rows_100"]["action"] == "fail"
    told_of = " ".join(message["text"] for message in slack.messages)
    assert "Check min_rows_100 of silver/pedidos failed" in told_of and "judged 99" in told_of, told_of
    assert orders.rows("bronze", "pedidos_api") == 99
    assert orders.rows("silver", "pedidos") == 0
    assert "warehouse/pedidos" not in told(result)
    with server.session(orders.warehouse) as sql:
        assert sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'mart'") == [(0,)]


def test_a_channel_that_is_down_leaves_the_run_degraded_or_fails_it_as_set_and_is_made_up_for(orders, server):
    good, orders.branch = orders.branch, orders.branch.replace(":", ":", 1).replace("@", "wrong@", 1)
    result = orders.run()
    error = failed(result)["landing/pedidos_db:extracted"]["error"]
    assert "password authentication failed" in error and "LAKEHOUSE_PEDIDOS_DB_URL" in error
    assert orders.branch.rpartition("@")[0].rpartition(":")[2] not in error
    assert result.success, why(result)
    assert stored_orders(server, orders)[0] == 3000
    assert "without pedidos_db" in told(result)["ops/pedidos_notice"]["subject"]
    assert not [event for event in result.all_events if event.is_step_up_for_retry]  # no retry fixes a password

    orders.options["pedidos_channel_down"] = "fail"
    result = orders.run()
    assert not result.success
    assert "landing__pedidos_db" in [event.step_key for event in result.all_events if event.is_step_failure]

    orders.branch = good
    assert orders.run().success
    assert stored_orders(server, orders) == (5000, Decimal("132726.29"))


# --- a database that fails -------------------------------------------------------------------------------------------


def _take(orders: Orders, **changes: Any) -> list[str]:
    from lakehouse.landing.sources import database

    source = database.SqlTable(**{"table": "pedidos", "url": orders.branch, **changes})
    folder = orders.lake.folder / f"rows-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    return database.extract(source, folder, since=None, deadline=time.monotonic() + changes.get("seconds", 30))


def test_a_missing_table_is_refused_by_name(orders):
    from lakehouse.core.errors import SourceRefusedError

    with pytest.raises(SourceRefusedError, match='relation "nope" does not exist'):
        _take(orders, table="nope")


def test_a_connection_cut_in_mid_stream_lands_nothing_and_the_next_run_has_it_all(orders, server):
    with server.session(orders.branch) as sql:
        sql("ALTER TABLE pedidos RENAME TO kept")
        sql("CREATE VIEW pedidos AS SELECT kept.* FROM kept, LATERAL (SELECT pg_sleep(0.002 + 0 * kept.id)) AS slow")
        orders.options["pedidos_channel_down"] = "fail"

        def cut() -> None:
            for _ in range(200):
                time.sleep(0.05)
                busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%%' AND datname = current_database()"
                if found := sql(busy):
                    time.sleep(0.3)
                    sql("SELECT pg_terminate_backend(%s)", found[0][0])
                    return

        cutter = threading.Thread(target=cut)
        cutter.start()
        from lakehouse.core.errors import SourceDownError

        with pytest.raises(SourceDownError, match="could not be read"):
            _take(orders)
        cutter.join()
        sql("DROP VIEW pedidos")
        sql("ALTER TABLE kept RENAME TO pedidos")
    assert orders.lake.storage.landed("pedidos_db") == []
    assert orders.run().success
    assert stored_orders(server, orders)[0] == 5000


def test_a_server_that_falls_silent_is_left_at_the_deadline(orders, server):
    from lakehouse.core import sql as module
    from lakehouse.core.errors import SourceDownError

    engine = module.open_engine(orders.branch, setting="X", statement_seconds=60)
    begun = time.monotonic()
    with (
        pytest.raises(SourceDownError),
        module.explained("It", setting="X"),
        engine.connect() as connection,
        module.bounded(connection, seconds=0.5),
    ):
        connection.exec_driver_sql("SELECT pg_sleep(20)")
    assert time.monotonic() - begun < 5


def test_a_lock_on_the_target_is_a_retried_error_that_names_it_and_the_rows_stay(orders, server):
    assert orders.run().success
    with server.session(orders.branch) as sql:
        sql("INSERT INTO pedidos VALUES (9000001, 'novo', 1.00, 1, '2024-01-01')")
    from lakehouse.core.errors import SourceDownError
    from lakehouse.core.names import TableRef
    from lakehouse.tables.pedidos import PEDIDOS
    from lakehouse.warehouse.assets import warehouse_of
    from lakehouse.warehouse.publish import Target, publish

    other = _connect(orders.warehouse)
    other.autocommit = False
    with other.cursor() as cursor:
        assert orders.run(only=["landing/pedidos_db", "bronze/pedidos_db", "silver/pedidos"]).success
        cursor.execute("LOCK TABLE mart.pedidos IN SHARE MODE")
        target = Target(PEDIDOS.silver, {c.name: c.type for c in PEDIDOS.columns}, PEDIDOS.key)
        from lakehouse.core.table.snapshot import open_existing

        snapshot = open_existing(orders.lake.storage.uri(TableRef("silver", "pedidos")))
        with orders.lake.session() as session:
            with pytest.raises(SourceDownError, match="another session holds a lock on it"):
                publish(session, warehouse_of(orders.settings()), target, snapshot)
            other.rollback()
            assert stored_orders(server, orders)[0] == 5000
            patient = replace(warehouse_of(orders.settings()), lock_seconds=20)
            assert publish(session, patient, target, snapshot).rows == 5001
    other.close()
    assert stored_orders(server, orders)[0] == 5001


# --- kills -----------------------------------------------------------------------------------------------------------


class Reader(threading.Thread):
    """Polls the warehouse as a SQL user does: one statement, its own connection; keeps what it saw."""

    QUERY = "SELECT (SELECT version FROM mart.lakehouse_published WHERE name = 'pedidos'), count(*), sum(total) FROM mart.pedidos"

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.ended, self.polls = url, threading.Event(), 0
        self.seen: set[tuple[int, Decimal]] = set()
        self.versions: dict[int, set[tuple[int, Decimal]]] = {}

    def run(self) -> None:
        import psycopg2

        connection = _connect(self.url)
        while not self.ended.wait(0.003):
            with connection.cursor() as cursor, suppress(psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
                cursor.execute(self.QUERY)
                version, count, total = cursor.fetchone()
                self.polls += 1
                if version >= 0:
                    self.seen.add((count, total))
                    self.versions.setdefault(version, set()).add((count, total))
        connection.close()


@pytest.mark.faults
def test_kills_at_random_moments_lose_and_double_nothing_and_a_reader_sees_whole_states_only(orders, server, real_data, capsys):
    folder = orders.lake.folder
    folder.mkdir(exist_ok=True)
    settings = {
        "root": str(folder / "lake"),
        "landing_dir": str(folder / "landing"),
        "pedidos_api_url": orders.api,
        "pedidos_api_cache_seconds": 0,
        "pedidos_db_url": orders.branch,
        "warehouse_url": orders.warehouse,
        "warehouse_schema": "mart",
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    chance = random.Random(8)
    reader = Reader(orders.warehouse)
    reader.start()
    rows, total, allowed = 5000, Decimal("132726.29"), {(5000, Decimal("132726.29"))}
    kills, whole = 0, 8.0
    with Driver() as driver, server.session(orders.branch) as sql:
        for number in range(1, 4 * KILLS):
            if number > 1:
                sql(
                    "INSERT INTO pedidos SELECT 2000000 + %s * 10 + n, 'novo', 1.10, n, now() FROM generate_series(1, 7) AS n",
                    number,
                )
                rows, total = rows + 7, total + Decimal("30.80")
                allowed.add((rows, total))
            end = driver.run(folder, "pedidos", after=chance.uniform(0.05, whole))
            kills += end.code == KILLED
            end = driver.run(folder, "pedidos")
            assert end.code == 0, end.output[-3000:]
            whole = end.seconds
            assert stored_orders(server, orders) == (rows, total), number
            assert orders.rows("silver", "pedidos") == rows
            assert orders.rows("bronze", "pedidos_api") == 3070
            assert orders.rows("bronze", "pedidos_db") == 2030 + rows - 5000
            if kills >= KILLS:
                break
    reader.ended.set()
    reader.join(10)
    assert kills == KILLS
    assert reader.seen <= allowed, sorted(reader.seen - allowed)
    assert all(len(states) == 1 for states in reader.versions.values())
    assert all(
        row["records_in"] == row["written"] + row["deduplicated"] + row["deleted"] + row["quarantined"]
        for row in orders.lake.ledger()
    )
    with capsys.disabled():
        print(f"\n{kills} kills, {number} rounds, {reader.polls} polls saw {len(reader.seen)} whole states, none else")
