"""A small lake with something for every page: real bronze, silver, ledger, quarantine and measurements; marts of a few rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.transaction import commit_staged
from lakehouse.dashboard import reading
from lakehouse.observability import metrics, notifier, outbox, services, table_health, topics
from lakehouse.observability.alerts import Alert, raise_alerts
from lakehouse.observability.routing import Routing
from lakehouse.runtime.steps import finalise, standings
from lakehouse.silver.refresh import finalise_quarantine, stage_refresh
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = date(2026, 1, 5)
MEASURES = {"pedidos": "bigint", "clientes": "bigint", "linhas": "bigint", "quantidade": "bigint", "receita": "decimal(18,4)"}
#: Marked down as a link and a picture that must never be one.
HOSTILE = "![x](http://evil.example/x.png) <img src=x onerror=alert(1)>"


class Told:
    """A channel that keeps what it is told."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def send(self, message: Any) -> None:
        self.subjects.append(message.subject)


def put(storage: Storage, layer: str, table: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    outbox.record(storage, TableRef(layer, table), columns=columns, rows=rows)  # type: ignore[arg-type]


def _measured(n: int) -> dict[str, Any]:
    return {"pedidos": n, "clientes": n, "linhas": 2 * n, "quantidade": 3 * n, "receita": Decimal("10.50") * n}


def _sales(storage: Storage) -> None:
    days = [{"data": DAY + timedelta(n), **_measured(n + 1)} for n in range(3)]
    put(storage, "gold", "vendas_diarias", {"data": "date", **MEASURES}, days)
    put(storage, "gold", "vendas_mensais", {"mes": "string", **MEASURES}, [{"mes": "2026-01", **_measured(6)}])
    put(
        storage, "gold", "vendas_por_pais", {"pais": "string", **MEASURES}, [{"pais": p, **_measured(3)} for p in ("BR", HOSTILE)]
    )
    products = {"produto_id": "string", "nome": "string", "categoria": "string", **MEASURES}
    put(storage, "gold", "vendas_por_produto", products, [{"produto_id": "p1", "nome": HOSTILE, **_measured(6)}])
    customers = {"cliente_id": "bigint", "segmento_rfm": "string", "receita": "decimal(18,4)"}
    put(storage, "gold", "clientes_rfm", customers, [{"cliente_id": 1, "segmento_rfm": "Leais", "receita": Decimal("63.00")}])


def _fleet(storage: Storage) -> None:
    columns = {
        **dict.fromkeys(("id_veiculo", "placa", "servico", "sentido", "trajeto"), "string"),
        **dict.fromkeys(("latitude", "longitude", "velocidade", "direcao"), "double"),
        **dict.fromkeys(("timestamp_gps", "visto_em", "capturado_em"), "timestamp"),
        "idade_segundos": "bigint", "recente": "boolean", "em_movimento": "boolean",
    }  # fmt: skip
    common = {"servico": "10", "timestamp_gps": NOW, "visto_em": NOW, "capturado_em": NOW, "idade_segundos": 5, "recente": True}
    rows = [
        {**common, "id_veiculo": f"SIM{n}", "latitude": -22.9 - n / 100, "longitude": -43.3, "em_movimento": n > 0}
        for n in range(3)
    ]
    put(storage, "gold", "brt_frota_atual", columns, rows)


def _model(storage: Storage) -> None:
    from lakehouse.ml.backtest import FOLDS
    from lakehouse.ml.gate import DECISIONS
    from lakehouse.ml.scoring import ACCURACY, FORECAST

    fold = {"uso": "relato", "horizonte": 7, "origem": DAY, "wape": 0.1, "vies": 0.0, "cobertura": 0.8}
    put(storage, "ml", "evaluation", FOLDS, [{"modelo": name, **fold} for name in ("candidato", "ingenuo")])
    week = {"origem": DAY, "previsto": 30.0, "baixo": 20.0, "alto": 40.0, "versao": 4}
    ahead = [{**week, "data": DAY + timedelta(n), "horizonte": n} for n in range(1, 8)]
    put(storage, "ml", "previsao_vendas", FORECAST, ahead)
    came = {"origem": DAY, "data": DAY + timedelta(1), "horizonte": 1, "versao": 4, "previsto": 30.0, "real": 31.0, "erro": -1.0}
    put(storage, "ml", "acuracia_previsao", ACCURACY, [{**came, "no_intervalo": True}])
    made = {"receita_modelo": "hgb", "promovido": True, "motivo": "melhor", "decidido_em": NOW}
    put(storage, "ops", "model_decisions", DECISIONS, [{"id": "a", "versao": 4, **made}])


def _runs(storage: Storage) -> None:
    def run(n: int, job: str, outcome: str, *, met: bool | None = True) -> dict[str, Any]:
        end = NOW - timedelta(minutes=n)
        return {
            "event_id": n, "kind": "run", "run_id": f"run-{n:04}", "job": job, "outcome": outcome, "retries": 0, "rows": 10 * n,
            "requested_at": end, "started_at": end - timedelta(seconds=65), "finished_at": end, "duration_seconds": 65.0,
            "sla_met": met,
        }  # fmt: skip

    rows = [run(1, "pedidos", "failure", met=False), run(2, "medallion_etl", "success"), run(3, HOSTILE, "success", met=None)]
    old = {**run(4, "antigo", "success"), "finished_at": NOW - timedelta(days=3)}
    put(storage, "ops", "run_metrics", metrics.COLUMNS, [*rows, old, {**run(5, "pedidos", "failure"), "kind": "step"}])
    slo = dict.fromkeys(("success_rate", "p50_seconds", "p95_seconds", "p99_seconds", "error_budget_left"), "double")
    counts = dict.fromkeys(("runs", "successes", "failures", "retries", "sla_judged", "sla_misses"), "bigint")
    level = {"job": "pedidos", "as_of": NOW, "runs": 4, "successes": 3, "failures": 1, "success_rate": 0.75, "retries": 0,
             "p50_seconds": 61.0, "p95_seconds": 65.0, "p99_seconds": 65.4, "sla_judged": 4, "sla_misses": 1,
             "error_budget_left": -24.0}  # fmt: skip
    columns = {"job": "string", "time_window": "string", "as_of": "timestamp", **counts, **slo}
    put(storage, "gold", "slo_jobs", columns, [{**level, "time_window": window} for window in ("24h", "7d", "30d")])


def _watched(lake: Lake) -> None:
    storage = lake.storage
    for hours in (2, 1):
        at = NOW - timedelta(hours=hours)
        found = table_health.measure_all(table_health.targets(storage, [VENDAS], [TableRef("gold", "vendas_diarias")]), now=at)
        rows = [measured.row(at=at, run_id="run") for measured in found]
        outbox.record(storage, table_health.HEALTH_TABLE, columns=table_health.COLUMNS, rows=rows)
    down = services.Outcome("kafka", "127.0.0.1:9092", False, 12.0, "no broker answers")
    outbox.record(storage, services.SERVICES_TABLE, columns=services.COLUMNS, rows=[down.row(at=NOW, run_id="run")])
    measured = {"measured_at": NOW, "run_id": "run", "topic": "orders", "group": "loader"}
    sums = {"partitions": 1, "leaderless": 0, "end_offset": 12_500, "messages": 12_000, "since_last": 20, "committed": 0}
    put(storage, "ops", "kafka_health", topics.COLUMNS, [{**measured, **sums, "lag": 12_000, "newest_at": NOW, "error": ""}])
    part = {"partition": 0, "begin_offset": 500, "end_offset": 12_500, "committed": None, "lag": 12_000, "max_lag": 10_000}
    put(storage, "ops", "kafka_lag", topics.LAG_COLUMNS, [{**measured, **part}])
    raised = [
        Alert("run_failure", "error", "pedidos failed", HOSTILE, "run_failure:pedidos", "run-0001", "pedidos"),
        Alert("check_failed", "warning", f"silver/vendas: {HOSTILE}", key="check:silver/vendas:x", run_id="r"),
        Alert("sla_miss", "error", "mlops is late", key="sla:mlops", run_id="r2"),
        Alert("sla_miss", "info", "mlops is done", key="sla:mlops", run_id="r3", state="resolved"),
    ]
    raise_alerts(storage, raised)
    notifier.notify(storage, {"email": Told()}, routing=Routing())


def fill(lake: Lake) -> None:
    """Everything that the pages show."""
    good = {"pedido_id": "o", "produto_id": "p1", "descricao": "d", "quantidade": 1, "valor_unitario": "2.50", "pais": "BR",
            "status": "sold", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}  # fmt: skip
    lake.land("vendas", "2026_01_01_1_0", [{"id": n, **good} for n in range(8)] + [{"id": 9, **good, "pedido_id": None}])
    lake.ingest(VENDAS)
    with lake.session() as session:
        refresh = stage_refresh(session, lake.storage, VENDAS, run_id="run")
        assert refresh.transaction is not None
        commit_staged(refresh.transaction.with_provenance(run_id="run", findings=standings(refresh.findings)))
        silver = finalise(session, lake.storage, VENDAS.silver)
        assert silver is not None
        finalise_quarantine(session, lake.storage, VENDAS, silver)
    _sales(lake.storage)
    _fleet(lake.storage)
    _model(lake.storage)
    _runs(lake.storage)
    _watched(lake)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("dashboard"))
    fill(lake)
    return lake


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path | str], None]]:
    """Make the dashboard look at the lake below a folder."""

    def look_at(root: Path | str) -> None:
        monkeypatch.setenv("LAKEHOUSE_ROOT", str(root))
        monkeypatch.setenv("LAKEHOUSE_LANDING", "")
        reading.reader.cache_clear()

    yield look_at
    reading.reader.cache_clear()
