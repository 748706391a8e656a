"""The forms of *Alertas*: each writes the declared record, whole and validated, and what was written takes effect."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from lakehouse.core.clock import zone
from lakehouse.core.errors import ConflictError, DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import open_existing
from lakehouse.dashboard import alerts, reading
from lakehouse.observability import routing, table_health, thresholds
from lakehouse.observability.alerts import Alert, raise_alert
from lakehouse.observability.assets import Surroundings, monitoring_assets
from lakehouse.observability.notifier import notify
from lakehouse.observability.outcome import JobSla
from lakehouse.observability.routing import Routing, TableBounds
from lakehouse.observability.sensors import send
from lakehouse.runtime.lake import LakeResource
from lakehouse.settings import Settings, load_settings
from lakehouse.tables.vendas import PRODUTOS, VENDAS
from lakehouse_tests.dashboard.conftest import Told
from lakehouse_tests.dashboard.test_pages import look, output

BY_MAIL = {"channels": ["email"], "minimum": "info", "kinds": [], "keys": "*"}


@pytest.fixture
def lake_of_page(lake, use):
    use(lake.storage.root)
    return lake


@pytest.fixture
def reader(lake_of_page):
    return reading.reader()


def press(app, label: str):
    (button,) = [button for button in app.button if button.label == label]
    return button.click().run()


def part(app, name: str):
    return app.segmented_control[0].set_value(name).run()


def alert(storage, key: str, n: int) -> None:
    raise_alert(storage, Alert("run_failure", "error", f"{key} failed", key=key, run_id=f"r{n}"))


# --- what is typed takes effect ------------------------------------------------------------------------------------------


def test_a_silence_typed_into_the_page_silences_what_it_names_and_nothing_else(lake_of_page):
    storage, told = lake_of_page.storage, Told()
    app = look("alertas")
    app.text_input(key="silence_keys").set_value("run_failure:pedidos*")
    app.text_input(key="silence_reason").set_value("recarga")
    until = datetime.now(zone()).replace(tzinfo=None, second=0, microsecond=0) + timedelta(hours=3)
    app.datetime_input(key="silence_until").set_value(until)
    app = press(app, "Silenciar")
    assert "Silêncio de run" in output(app)
    assert "recarga" in output(app)
    (silence,) = routing.load(storage).silences
    assert (silence.keys, silence.reason) == ("run_failure:pedidos*", "recarga")
    assert silence.until == until.replace(tzinfo=zone())

    alert(storage, "run_failure:pedidos", 1)
    alert(storage, "run_failure:mlops", 2)
    notify(storage, {"email": told}, routing=routing.load(storage))
    assert told.subjects == ["[ERROR] run_failure:mlops failed"]
    assert "em silêncio" in output(look("alertas"))
    notify(storage, {"email": told}, routing=routing.load(storage), now=silence.until.astimezone(UTC) + timedelta(seconds=1))
    assert told.subjects[1:] == ["[ERROR] run_failure:pedidos failed"]


def test_a_silence_that_is_ended_on_the_page_is_over(lake_of_page):
    storage, told = lake_of_page.storage, Told()
    until = datetime.now(UTC) + timedelta(hours=1)
    document = alerts.with_silence(routing.document(Routing()), keys="*", until=until, reason="teste")
    routing.save(storage, document, seen=None)
    alert(storage, "run_failure:pedidos", 1)
    assert notify(storage, {"email": told}, routing=routing.load(storage)).sent == 0
    press(look("alertas"), "Encerrar")
    assert notify(storage, {"email": told}, routing=routing.load(storage)).sent == 1


def test_a_route_and_the_limit_of_messages_are_what_the_forms_state(lake_of_page):
    app = part(look("alertas"), "Rotas")
    app.multiselect(key="route_channels_new").set_value(["slack", "email"])
    app.selectbox(key="route_minimum_new").set_value("critical")
    app.multiselect(key="route_kinds_new").set_value(["sla_miss"])
    app.text_input(key="route_keys_new").set_value("sla:pedidos")
    app = [b for b in app.button if b.label == "Gravar rota"][-1].click().run()
    assert not app.exception
    stored = routing.load(lake_of_page.storage)
    assert len(stored.routes) == len(Routing().routes) + 1
    new = stored.routes[-1]
    assert (set(new.channels), new.minimum, new.kinds, new.keys) == ({"slack", "email"}, "critical", ("sla_miss",), "sla:pedidos")
    app = part(look("alertas"), "Mensagens")
    app.number_input(key="messages_window").set_value(90.0)
    app.number_input(key="messages_limit").set_value(5)
    press(app, "Gravar")
    stored = routing.load(lake_of_page.storage)
    assert (stored.window, stored.limit, len(stored.routes)) == (timedelta(minutes=90), 5, len(Routing().routes) + 1)


def test_limits_of_a_table_and_a_job_are_stored_where_they_differ_from_the_declaration(lake_of_page):
    app = part(look("alertas"), "Limites")
    app.number_input(key="event_silver/vendas").set_value(24.0)
    app = press(app, "Gravar limites")
    assert routing.load(lake_of_page.storage).tables == {"silver/vendas": TableBounds(max_event_age=timedelta(hours=24))}
    job = app.selectbox(key="limits_job").value
    app.number_input(key=f"sla_{job}").set_value(7.0)
    app = press(app, "Gravar SLA")
    assert routing.load(lake_of_page.storage).jobs == {job: timedelta(minutes=7)}
    app.number_input(key="event_silver/vendas").set_value(50.0)
    press(app, "Gravar limites")
    assert routing.load(lake_of_page.storage).tables == {}


def test_what_is_wrong_is_refused_on_the_page_and_changes_nothing(lake_of_page):
    app = look("alertas")
    app.text_input(key="silence_keys").set_value("x")
    app = press(app, "Silenciar")
    assert "A silence needs keys, a reason" in output(app).replace("\\", "")
    app.text_input(key="silence_reason").set_value("motivo")
    app.datetime_input(key="silence_until").set_value(datetime(2020, 1, 1))
    assert "over before it begins" in output(press(app, "Silenciar")).replace("\\", "")
    assert routing.stored(lake_of_page.storage) is None


def test_a_file_that_is_wrong_is_shown_and_not_written_over(lake_of_page):
    lake_of_page.storage.put(TableRef("ops", "routing"), "routing.json", b'{"limit": "many"}')
    app = look("alertas")
    assert "errado e não é usado" in output(app)
    assert not [button for button in app.button if button.label == "Silenciar"]


def test_two_who_edit_at_once_do_not_write_over_each_other(reader):
    page = reader.ask(alerts.read)
    until = datetime.now(UTC) + timedelta(hours=1)
    alerts.change(reader, alerts.with_silence(page.document, keys="a", until=until, reason="um"), seen=page.seen, message="um")
    with pytest.raises(ConflictError, match="somebody else"):
        alerts.change(
            reader, alerts.with_silence(page.document, keys="b", until=until, reason="dois"), seen=page.seen, message="dois"
        )
    assert [silence.keys for silence in routing.load(reader.storage).silences] == ["a"]


def test_a_change_is_an_act_in_the_audit(reader, lake):
    page = reader.ask(alerts.read)
    alerts.change(
        reader, alerts.with_messages(page.document, window_minutes=30, limit=4), seen=page.seen, message="menos mensagens"
    )
    (act,) = lake.rows(TableRef("ops", "audit"), "kind", "name", "said")
    assert act == {"kind": "act", "name": "routing", "said": "menos mensagens"}


# --- the record --------------------------------------------------------------------------------------------------------


def test_a_routing_is_what_its_document_declares():
    bounds = TableBounds(max_event_age=timedelta(hours=3), max_commit_age=timedelta(minutes=90), max_quarantine=0.25)
    silence = routing.Silence(keys="*", until=datetime(2026, 1, 1, tzinfo=UTC), reason="x")
    whole = Routing(limit=7, silences=(silence,), tables={"silver/vendas": bounds}, jobs={"pedidos": timedelta(minutes=5)})
    assert routing.parse(json.loads(json.dumps(routing.document(whole)))) == whole


@pytest.mark.parametrize(
    "document",
    [
        {"tables": {"silver/../x": {}}},
        {"tables": {"silver/vendas": {"max_quarantine": 2}}},
        {"tables": {"silver/vendas": {"max_event_age_hours": 0}}},
        {"tables": {"silver/vendas": {"max_age": 1}}},
        {"tables": []},
        {"jobs": {"pedidos": {"sla_minutes": "soon"}}},
        {"jobs": {"pedidos": {"sla_minutes": -1}}},
        {"jobs": {"pedidos": 5}},
    ],
)
def test_a_bound_that_cannot_be_is_refused(document, storage):
    with pytest.raises(DeclarationError):
        routing.save(storage, document, seen=None)
    assert routing.stored(storage) is None


def test_the_monitoring_job_validates_by_the_bounds_and_slas_of_the_file(lake, tmp_path):
    row = {"pedido_id": "o", "produto_id": "p", "descricao": "d", "quantidade": 1, "valor_unitario": "1", "pais": "BR",
           "status": "sold", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}  # fmt: skip
    lake.land("vendas", "2026_01_01_1_0", [{"id": 1, **row}])
    lake.run(VENDAS)
    storage = lake.storage
    resource = LakeResource(
        root=storage.root, landing=storage.landing, layers={}, engine="duckdb", memory_limit="256MB", environment="dev",
        spill=str(tmp_path / "spill"),
    )  # fmt: skip
    settings, job_sla = Settings(root=storage.root), JobSla("medida", timedelta(hours=1))
    assets = monitoring_assets(settings, [VENDAS], surroundings=Surroundings([], [job_sla], lambda: {}))
    jobs = [dg.define_asset_job("medida", [assets[0]]), dg.define_asset_job("metricas", [assets[3]])]
    definitions = dg.Definitions(assets=assets, jobs=jobs, resources={"lake": resource})

    def stale(instance) -> bool:
        result = definitions.resolve_job_def("medida").execute_in_process(instance=instance)
        return not {e.check_name: e.passed for e in result.get_asset_check_evaluations()}["silver_vendas"]

    with dg.DagsterInstance.ephemeral() as instance:
        assert stale(instance)  # of January 2026, and 50 hours are allowed
        document = {"tables": {"silver/vendas": {"max_event_age_hours": 87_000}}, "jobs": {"medida": {"sla_minutes": 90}}}
        routing.save(storage, document, seen=None)
        assert not stale(instance)
        assert definitions.resolve_job_def("metricas").execute_in_process(instance=instance).success
    slas = lake.rows(TableRef("ops", "run_metrics"), "kind", "job", "sla_seconds")
    assert {row["sla_seconds"] for row in slas if (row["kind"], row["job"]) == ("run", "medida")} == {5400.0}


def test_a_bound_of_what_does_not_exist_is_reported_and_the_rest_applies(tmp_path):
    settings = Settings(root=str(tmp_path))
    rules = Routing(
        tables={"silver/venda": TableBounds(max_quarantine=0.1), "bronze/vendas": TableBounds(max_event_age=timedelta(hours=1))},
        jobs={"pedido": timedelta(minutes=1)},
    )
    wanted = table_health.targets(settings.storage, [VENDAS, PRODUTOS], [])
    wrong = thresholds.unknown(rules, targets=wanted, job_slas=[JobSla("pedidos", timedelta(hours=1))])
    for name in ("no table silver/venda,", "no job pedido with an SLA", "no column of events in bronze/vendas"):
        assert name in wrong
    assert [target.health for target in thresholds.bounded(wanted, rules)] == [target.health for target in wanted]
    routing.save(settings.storage, {"limit": 9}, seen=None)
    assert send(settings, validate=lambda rules: wrong if rules.limit == 9 else "")[1] == wrong
    assert open_existing(settings.storage.uri(TableRef("ops", "alerts"))).rows == 1


def test_a_file_that_is_wrong_leaves_the_declared_bounds_in_force(storage):
    storage.put(TableRef("ops", "routing"), "routing.json", b"{")
    assert routing.in_force(storage) == Routing()


def test_settings_name_the_channels_that_the_page_lists(lake_of_page, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_SMTP_URL", "smtp://localhost:2525")
    monkeypatch.setenv("LAKEHOUSE_ALERT_EMAILS", "a@example.org")
    assert reading.Reader(load_settings()).ask(alerts.read).configured == ("email",)
