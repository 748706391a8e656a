"""Every page over a lake with something in it, over an empty one, and over one that does not answer."""

import re
import socket
import subprocess
import sys
from datetime import timedelta

import pytest

from lakehouse.core.store import files
from lakehouse.dashboard import business, executions, markup, overview, quality, reading, tables, words
from lakehouse.dashboard.pages.app import PAGES
from lakehouse.reports import page
from lakehouse.settings import Settings, project_folder
from lakehouse_tests.dashboard.conftest import HOSTILE, NOW

NAMES = [body.__module__.rpartition(".")[2] for body, *_ in PAGES]
#: What each page says of the small lake, from a figure that was put there.
SHOWN = {
    "visao_geral": ["Falhas em 24 horas", "medallion_etl", "silver/vendas", "kafka", "no broker answers", "fecha"],
    "execucoes": ["75,0 %", "1 min 05 s", "run-0001", "1 de 4", "falha"],
    "qualidade": ["not_null_pedido_id", "It violates not_null_pedido_id.", "põe em quarentena", "11,111 %"],
    "tabelas": ["silver/vendas", "fora do limite", "em quarentena; o limite é 5.0%", "Versões de silver/vendas", "8 gravados"],
    "vendas": ["63,00", "Receita por dia", "Receita por país", "Produtos de maior receita"],
    "brt": ["Onde está a frota", "2 em movimento", "simulados"],
    "modelos": ["versão 4", "Previsão da receita diária", "Erro por origem, 7 dias", "melhor"],
    "filas": ["orders", "loader", "nunca leu", "12.000", "10.000", "1 fora do limite"],
    "alertas": ["run_failure:pedidos", "pedidos failed", "[RESOLVED] mlops is late", "Entregas"],
}


def look(name):
    from streamlit.testing.v1 import AppTest

    return AppTest.from_string(f"from lakehouse.dashboard.pages import {name}\n{name}.body()", default_timeout=60).run()


def output(app) -> str:
    """All texts of a page, without the pictures' content."""
    assert not app.exception, app.exception
    values = [element.value for kind in ("title", "header", "markdown", "caption", "info", "warning", "error", "success")
              for element in getattr(app, kind)]  # fmt: skip
    text = "\n".join(map(str, [*values, *(element.value for element in app.get("html"))]))
    return re.sub(r'src="data:[^"]*"|<style>.*?</style>', "", text, flags=re.DOTALL).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_what_the_lake_has(name, filled, use):
    use(filled.storage.root)
    text = output(look(name))
    for expected in SHOWN[name]:
        assert expected in text, expected
    assert "<img src=x" not in text  # what came from outside is text
    assert not re.search(r"(?<!\\)!\[x\]\(http", re.sub(r"<[^>]*>[^<]*", "", text))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_an_empty_lake_states_what_would_fill_it(name, tmp_path, use):
    use(tmp_path / "none")
    text = output(look(name))
    assert "make " in text or "Nenhum incidente aberto." in text
    assert not (tmp_path / "none").exists()  # looking makes nothing


@pytest.mark.parametrize("name", ["visao_geral", "execucoes", "alertas"])  # the others ask as the first does
def test_a_page_reports_that_the_store_is_down_and_stays_up(name, use, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    for variable, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_ALLOW_HTTP", "true")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(files, "_FIRST", timedelta(seconds=0.2))
    use("s3://bucket/lake")
    app = look(name)
    assert "does not answer" in output(app).replace("\\", "")
    assert app.title[0].value


def test_a_table_that_is_broken_is_named_and_the_page_shows_it_when_it_is_fixed(use, tmp_path):
    use(tmp_path)
    table = tmp_path / "ops" / "run_metrics" / "_delta_log"
    table.mkdir(parents=True)
    (table / f"{0:020}.json").write_text("{")
    assert "run\\_metrics" in look("execucoes").error[0].value
    (table / f"{0:020}.json").unlink()
    table.rmdir()
    assert "Nenhuma execução foi medida" in output(look("execucoes"))


def test_the_app_begins_with_the_overview_and_lists_every_page():
    assert [title for _, title, *_ in PAGES] == [
        "Visão geral", "Execuções", "Qualidade", "Tabelas", "Vendas", "BRT", "Modelos", "Filas", "Alertas",
    ]  # fmt: skip
    assert [path for *_, path in PAGES].count("") == 1


# --- the command -------------------------------------------------------------------------------------------------------


def test_the_server_listens_here_only_and_tells_nobody():
    from streamlit import config

    from lakehouse.dashboard.server import options

    given = options(8502)
    names = {name.replace(".", "_") for name in config.get_config_options()}
    assert set(given) <= names  # Streamlit passes over what it does not know
    assert (given["server_address"], given["server_port"]) == ("127.0.0.1", 8502)
    assert (given["browser_gatherUsageStats"], given["server_headless"]) == (False, True)


def test_make_passes_the_port_on():
    command = ["make", "-n", "--assume-old=.venv/.base", "dashboard", "PORT=8502"]
    done = subprocess.run(command, cwd=project_folder(), capture_output=True, text=True, check=True)
    assert '-m lakehouse dashboard --port "$PORT"' in done.stdout  # which Make gives it in the environment


@pytest.mark.parametrize(
    ("broken", "remedy"),
    [({"LAKEHOUSE_ENV": "moon"}, "LAKEHOUSE_ENV"), ({"DAGSTER_HOME": "/nowhere"}, "DAGSTER_HOME"), ({}, "[dashboard]")],
)
def test_what_prevents_its_start_is_one_sentence_with_the_remedy(broken, remedy, monkeypatch, tmp_path, capsys):
    from lakehouse import __main__ as command

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "streamlit.web", None)
    for name, value in broken.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["lakehouse", "dashboard"])
    assert command.main() == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ") and output.count("\n") == 1
    assert remedy in output


def test_a_port_that_is_taken_is_named_before_anything_is_started(monkeypatch, tmp_path, capsys):
    from lakehouse import __main__ as command

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["lakehouse", "dashboard", "--port", str(port)])
        assert command.main() == 2
    output = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1" in output and "make dashboard PORT=" in output


# --- queries, without Streamlit ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ask(filled):
    return reading.Reader(Settings(root=filled.storage.root), fresh=600).ask


def test_the_overview_has_the_newest_run_of_each_job_and_what_failed(ask):
    found = ask(overview.read)
    assert {row["job"]: row["outcome"] for row in found.last_runs} == {
        "pedidos": "failure", "medallion_etl": "success", HOSTILE: "success", "antigo": "success",
    }  # fmt: skip
    assert [row["run_id"] for row in found.day.runs] == ["run-0001"]
    assert (found.day.until, found.day.failures) == (NOW, 1)
    assert sorted(found.incidents) == ["check:silver/vendas:x", "run_failure:pedidos"]
    assert all(row["balanced"] for row in found.ledger)


def test_runs_are_those_of_the_window_of_the_jobs_and_with_the_outcome(ask):
    assert ask(executions.read, "24h").total == 3
    assert ask(executions.read, "7d").total == 4
    chosen = ask(executions.read, "7d", ("pedidos",), ("failed",))
    assert [row["run_id"] for row in chosen.runs] == ["run-0001"]
    assert chosen.jobs == sorted(["antigo", "medallion_etl", "pedidos", HOSTILE])
    assert ask(executions.read, "7d", ("medallion_etl",)).levels == []


def test_growth_is_every_measurement_and_versions_are_the_commits(ask, filled):
    story = ask(tables.story, "silver", "vendas")
    assert [row["rows"] for row in story.growth] == [8, 8]
    assert story.growth[0]["measured_at"] < story.growth[1]["measured_at"] < NOW
    assert [version.number for version in story.versions] == [1, 0]
    assert tables.lineage("http://ui:3000/", "silver", "vendas") == "http://ui:3000/assets/silver/vendas?view=lineage"


def test_quarantine_is_counted_by_rule_and_shows_no_record(ask):
    found = ask(quality.read)
    assert [(row["table"], row["rules"], row["records"]) for row in found.quarantined] == [("vendas", "not_null_pedido_id", 1)]
    assert "record" not in found.newest[0]


def test_an_answer_is_cached_and_charts_are_drawn_again_only_when_a_table_has_changed(filled, monkeypatch):
    settings = Settings(root=filled.storage.root)
    reader, drawn = reading.Reader(settings, fresh=0), []
    from lakehouse.reports import vendas_page

    monkeypatch.setattr(vendas_page, "sales", lambda figures: drawn.append(1) or {"lines": len(figures.daily)})
    assert reader.ask(business.sales) == reader.ask(business.sales)
    assert len(drawn) == 1
    patient, asked = reading.Reader(settings, fresh=60), []

    def query(lake: reading.Lake) -> int:
        asked.append(lake)
        return len(asked)

    assert (patient.ask(query), patient.ask(query)) == (1, 1)
    patient.forget()
    assert patient.ask(query) == 2


def test_pictures_have_the_colours_of_the_theme_and_a_text_for_who_cannot_see_them(ask):
    import base64

    figure = ask(business.sales)["daily"]
    for dark in (False, True):
        html = markup.figure(figure, dark=dark)
        pictures = [base64.b64decode(found).decode() for found in re.findall(r"base64,([^\"]+)", html)]
        assert len(pictures) == 2
        own, other = (page.PALETTE["daily"][variant] for variant in (dark, not dark))
        assert all(own in picture and other not in picture and "font-family" in picture for picture in pictures)
        assert html.count(f'alt="{figure.description}"') == 2


@pytest.mark.parametrize(
    ("english", "portuguese"),
    [
        ("the newest updated_at is 3,247 days old, allowed are 50 h", "o updated_at mais novo tem 3.247 dias; o limite é 50 h"),
        ("600 commits since the last checkpoint, allowed are 500", "600 commits desde o último checkpoint; o limite é 500"),
        ("something else", "something else"),
    ],
)
def test_what_is_wrong_with_a_table_is_reported_in_portuguese(english, portuguese):
    assert words.problems(english) == portuguese


def test_every_problem_that_is_measured_has_portuguese_words():
    from lakehouse.observability.table_health import OVERDUE, Measured, _assess
    from lakehouse.tables.spec import Health

    bounds = Health(event_time="em", max_event_age=timedelta(hours=1), max_commit_age=timedelta(hours=1))
    base = {"layer": "silver", "table": "t", "outcome": "ok", "rows": 1, "quarantine_share": 0.5, "log_length": 900}
    many = {**base, "files": 100, "small_files": 99, "event_age_seconds": 9e6, "commit_age_seconds": 9e6}
    ahead = {**base, "files": 9000, "small_files": 9, "event_age_seconds": -9e3, "commit_age_seconds": -9e3}
    assert words.problems(OVERDUE) != OVERDUE
    for figures in (many, ahead, {**base, "event_age_seconds": None}):
        text = words.problems(_assess(Measured(**figures), bounds).problems)
        assert not re.search(r"\b(the|of|are|is|old|ago|allowed)\b", text), text


def test_what_the_dashboard_reads_is_where_the_project_has_it():
    from lakehouse.observability import metrics

    assert executions.METRICS_TABLE == metrics.METRICS_TABLE
    assert set(executions.RUN) <= set(metrics.COLUMNS)
