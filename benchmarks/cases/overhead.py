"""Cases of what everything costs before there is work to do: `startup`, `cli`, `sql`, `warm`, `monitoring`, `alerts`, `year`."""

from collections.abc import Iterator

from benchmarks.cases.common import GB, KB, Bench, Figure, fresh_home, prepared_home, ratio_figure, same_text
from benchmarks.cases.graph import SMALL
from benchmarks.measure import Run, alternate, run

STARTUP_RATIO, SQL_RATIO = 1.5, 2
WARM_SECONDS = 0.1
#: Of a run, to note the versions that it reads and to publish its marts.
TOGETHER_SECONDS = 0.1
#: Of a minute that captures and exports nothing; the size of files to that of a period before.
MINUTE_EVENTS, STEADY, _DAY = 60, 1.1, 24 * 60
#: Of a monitoring run that finds all in order, in its own log and in the index.
EVENTS = 100
FAILURES, ALERT_SECONDS = 20, 30.0
HEAVY = ("pandas", "pyspark", "mlflow", "boto3", "dlt", "sklearn", "streamlit")


def startup(bench: Bench) -> Iterator[Figure]:
    """Building the definitions, the dbt manifest parsed before."""
    home = fresh_home(bench, "startup")
    load = "from lakehouse.definitions import defs; defs()"

    def ours() -> Run:
        return run(["-c", load], env=home)

    def bare() -> Run:
        return run(["-c", "import dagster, dagster_dbt"], env=home)

    ours(), bare()  # parses the manifest and fills the byte code cache
    found = bench.persist("startup", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    yield ratio_figure("startup", "process that builds the definitions", found, STARTUP_RATIO)
    seen = run(
        ["-c", f"import json, sys; {load}; print(json.dumps(dict(m=[m for m in {HEAVY!r} if m in sys.modules])))"], env=home
    )
    loaded = seen.output["m"]
    what = f"heavy modules loaded{': ' + ', '.join(loaded) if loaded else ''}"
    yield Figure("startup", what, len(loaded), unit="modules", limit=0, bound="0")


def cli(bench: Bench) -> Iterator[Figure]:
    """One small asset by Dagster's own command, on a lake where there is nothing new."""
    home = prepared_home(bench, "cli")
    small = ["-m", "dagster", "asset", "materialize", "-m", "lakehouse.definitions", "--select", SMALL.select]
    nothing = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.trivial", "--select", "trivial_1"]

    def ours() -> Run:
        return run(small, env=home)

    def bare() -> Run:
        return run(nothing, env=home)

    ours(), bare()
    found = bench.persist("cli", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    yield ratio_figure("cli", "dagster asset materialize silver/produtos", found, None)


def sql(bench: Bench) -> Iterator[Figure]:
    """One question to the lake of the sample in a process of its own, from the folder and as make asks it."""
    home = prepared_home(bench, "sql")
    question = "SELECT segmento, count(*) AS clientes FROM silver.clientes GROUP BY ALL ORDER BY ALL"
    words = ["-m", "lakehouse", "sql", "--query", question, "--format", "csv"]
    script = ["-m", "benchmarks.asked", f"{home['LAKEHOUSE_ROOT']}/silver/clientes", question]

    def ours() -> Run:
        return run(words, env=home)

    def bare() -> Run:
        return run(script, env=home)

    ours(), bare()  # what follows from the declarations is stored, the byte code cached
    same_text(words, script, env=home)
    found = bench.persist("sql", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    yield ratio_figure("sql", "process that answers one question", found, SQL_RATIO)


def warm(bench: Bench) -> Iterator[Figure]:
    """Seconds per asset of a run that has nothing to do, in a process that is warm."""
    home = prepared_home(bench, "warm")

    size: dict[str, str] = {}
    together: list[float] = []

    def ours() -> Run:
        found = run(["-m", "benchmarks.warm", "lakehouse"], env=home)
        together.append(found.output["together"])
        size.update({name: str(found.output[name]) for name in ("assets", "checks")})
        return found

    def bare() -> Run:
        return run(["-m", "benchmarks.warm", "trivial", size["assets"], size["checks"]], env=home)

    found = bench.persist("warm", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    what = f"per unchanged asset ({size['assets']}, {size['checks']} checks)"
    total, dagster = found["ours"].seconds, found["bare"].seconds
    yield Figure("warm", what, total, dagster)
    what = "of that, the lakehouse's own"  # the rest is Dagster's event log, which no asset of ours can make faster
    yield Figure("warm", what, total - dagster, limit=WARM_SECONDS, bound=f"<= {WARM_SECONDS} s")
    what = "a run's view and publication"
    yield Figure("warm", what, min(together), limit=TOGETHER_SECONDS, bound=f"<= {TOGETHER_SECONDS} s")


def monitoring(bench: Bench) -> Iterator[Figure]:
    """One monitoring run over 30 tables; 1,000 new runs taken up beside 100,000 past ones."""
    one = min((run(["-m", "benchmarks.monitoring", "run", str(bench.fresh("monitoring"))]) for _ in range(bench.rounds)),
              key=lambda done: done.seconds)  # fmt: skip
    yield Figure("monitoring", "one run over 30 tables", one.seconds, None, limit=5, bound="<= 5 s")
    yield Figure("monitoring", "its CPU", one.output["cpu"], None)
    yield Figure("monitoring", "its peak memory", one.peak / GB, None, unit="GB", limit=0.3, bound="<= 0.3 GB")
    written = (one.output["event_bytes"] + one.output["index_bytes"]) / KB
    yield Figure("monitoring", "events of the run after it, in order", written, unit="KB", limit=EVENTS, bound=f"<= {EVENTS} KB")
    past = run(["-m", "benchmarks.monitoring", "history", str(bench.fresh("history"))])
    yield Figure("monitoring", "1,000 new runs beside 100,000", past.seconds, None, limit=10, bound="<= 10 s")
    yield Figure("monitoring", "its CPU", past.output["cpu"], None)


def alerts(bench: Bench) -> Iterator[Figure]:
    """From a run's failure to Slack and a mailbox, both stubs, through the real daemon."""
    home = fresh_home(bench, "alerts")
    done = run(["-m", "benchmarks.alerts", str(bench.work / "alerts"), "--failures", str(FAILURES)], env=home)
    bench.raw["alerts"] = dict(done.output)
    for channel in ("slack", "mail"):
        for share, seconds in done.output[channel].items():
            what = f"{FAILURES} failures to {channel}, {share}"
            if share == "p95":
                yield Figure("alerts", what, seconds, limit=ALERT_SECONDS, bound=f"<= {ALERT_SECONDS:.0f} s")
            else:
                yield Figure("alerts", what, seconds)


def year(bench: Bench) -> Iterator[Figure]:
    """Dagster's files over a year of minutes, extrapolated from some real ones (`benchmarks/year.py`)."""
    home = fresh_home(bench, "year")
    feed = {"LAKEHOUSE_BRT_URL": f"file://{bench.work}/year/answers"}
    done = run(["-m", "benchmarks.year", str(bench.work / "year")], env={**home, **feed})
    found = dict(done.output)
    bench.raw["year"] = found
    minute, days = found["bytes_per_minute"], found["history_days"]
    minutes = f"from {len(found['periods']) * found['minutes']} minutes"
    yield Figure("year", "events of a minute that captures", found["minute_events"] / KB, unit="KB", limit=MINUTE_EVENTS,
                 bound=f"<= {MINUTE_EVENTS} KB")  # fmt: skip
    yield Figure("year", "events of one that exports, every tenth", found["export_events"] / KB, unit="KB")
    yield Figure("year", "events of a monitoring run", found["monitoring_events"] / KB, unit="KB", limit=EVENTS,
                 bound=f"<= {EVENTS} KB")  # fmt: skip
    yield Figure("year", f"on disk a day, {minutes}", minute * _DAY / GB, unit="GB")
    yield Figure("year", f"on disk with {days} days of history", minute * _DAY * days / GB, unit="GB")
    yield Figure("year", "on disk after a year without retention", minute * _DAY * 365 / GB, unit="GB")
    *_, before, after = found["periods"]
    yield Figure("year", "files after a period more, with retention", after / KB, before / KB, unit="KB", value=after / before,
                 limit=STEADY, bound=f"<= {STEADY} x")  # fmt: skip
