"""The assets of job `monitoring`: each measures, appends to its Delta table, and says in checks and alerts what is wrong.

    ops/table_health     every table's log                 a check per table, bounds from its spec
    ops/kafka_health     topics and consumer groups        a check that every partition has a leader
    ops/service_health   every configured service          an alert per service that does not answer, and its recovery
    ops/run_metrics      Dagster's event log               read by gold/slo_jobs, gold/slo_assets every hour

None of them fails because of what it finds, and none waits for what hangs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.names import TableRef
from lakehouse.observability.outcome import JobSla
from lakehouse.runtime.dagster_private import overdue
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import RETRY, failures
from lakehouse.settings import Settings
from lakehouse.tables.spec import TableSpec

if TYPE_CHECKING:
    from lakehouse.observability.table_health import Measured

GROUP = "ops"
_ARGUMENTS: dict[str, Any] = {
    "group_name": GROUP,
    "owners": ["team:dados"],
    "kinds": {"deltalake"},
    "tags": {"monitoring": ""},
    "io_manager_key": None,
    "retry_policy": RETRY,
    "freshness_policy": dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=30)),
}
#: Topics of our own, looked at besides those that are configured.
_OWN_TOPICS = ("lakehouse.events", "lakehouse.alerts")
_KAFKA_SECONDS = 10.0
_ERROR = dg.AssetCheckSeverity.ERROR
_TABLE_HEALTH = dg.AssetKey(["ops", "table_health"])
#: A check that passes is reported once a day, so that Dagster's page of it is no older; so many of them in one run.
_REPEAT_AFTER, _REPEATED = timedelta(days=1), 8


@dataclass(frozen=True)
class Surroundings:
    """What the definitions know and monitoring needs: tables besides those with a spec, what jobs promise, and how often
    sensors (seconds) and schedules (cron, time zone) tick."""

    tables: Sequence[TableRef]
    job_slas: Sequence[JobSla]
    cadence: Callable[[], dict[str, Any]]


def monitoring_assets(settings: Settings, specs: Sequence[TableSpec], *, surroundings: Surroundings) -> list[dg.AssetsDefinition]:
    """The four assets for one set of settings. Secrets stay in closures: what is a resource's config, the UI shows."""
    return [
        _table_health(settings, specs, surroundings),
        _kafka_health(settings),
        _service_health(settings, surroundings),
        _run_metrics(surroundings),
    ]


def monitored() -> dg.AssetSelection:
    """What job `monitoring` runs: its four assets, and of their checks those of topics. The step of `ops/table_health` reports
    on tables by itself (`_worth_reporting`); by hand its checks are run like any others, with the asset or alone."""
    return dg.AssetSelection.tag("monitoring", "") - dg.AssetSelection.checks_for_assets(_TABLE_HEALTH)


def _table_health(settings: Settings, specs: Sequence[TableSpec], surroundings: Surroundings) -> dg.AssetsDefinition:
    from lakehouse.observability.table_health import targets

    wanted = targets(settings.storage, specs, surroundings.tables)
    table_checks = [
        dg.AssetCheckSpec(target.check, asset=_TABLE_HEALTH, description=f"{target.ref} can be read and is within its bounds.")
        for target in wanted
    ]
    own = {name: value for name, value in _ARGUMENTS.items() if name not in ("io_manager_key", "retry_policy")}
    description = "Every table's version, age, size, files, log, freshness by event time and share in quarantine."

    @dg.multi_asset(
        name="ops__table_health",
        specs=[dg.AssetSpec(_TABLE_HEALTH, description=description, skippable=True, **own)],
        check_specs=table_checks,
        can_subset=True,
        retry_policy=RETRY,
    )
    def table_health(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        from lakehouse.observability import outbox, routing, table_health, thresholds

        at = datetime.now(UTC)
        wanted = table_health.targets(lake.storage, specs, surroundings.tables)
        found = table_health.measure_all(thresholds.bounded(wanted, routing.in_force(lake.storage)), now=at)
        late = overdue(context.instance, [target.ref.key for target in wanted])
        found = [table_health.with_policy(one, late.get(f"{one.layer}/{one.table}")) for one in found]
        if context.selected_asset_keys:
            rows = [measured.row(at=at, run_id=context.run.run_id) for measured in found]
            with failures():
                version = outbox.record(lake.storage, table_health.HEALTH_TABLE, columns=table_health.COLUMNS, rows=rows)
            yield dg.MaterializeResult(metadata={"delta_version": version, "tables": len(found)})
        results = [_result_of(measured) for measured in found]
        chosen = {key.name for key in context.selected_asset_check_keys}
        yield from (result for result in results if result.check_name in chosen)
        if not chosen:
            yield from _worth_reporting(context.instance, results, now=at)

    return table_health


def _result_of(measured: "Measured") -> dg.AssetCheckResult:
    from lakehouse.observability.table_health import OVERDUE

    return dg.AssetCheckResult(
        check_name=f"{measured.layer}_{measured.table}",
        passed=measured.outcome in ("ok", "absent"),
        severity=_ERROR if measured.outcome in ("broken", "unknown") else dg.AssetCheckSeverity.WARN,
        description=measured.problems or None,
        metadata={"stale": True} if measured.stale and OVERDUE not in measured.problems else None,
    )


def _worth_reporting(
    instance: dg.DagsterInstance, results: Sequence[dg.AssetCheckResult], *, now: datetime
) -> Iterator[dg.AssetCheckEvaluation]:
    """The results that a person needs: what is wrong, what has passed again or was never reported, and, some at a time, what was
    reported a day ago. A check that is part of a run is 6 KB of events whatever it finds, and there is one a table."""
    repeated = 0
    for result in results:
        key = dg.AssetCheckKey(_TABLE_HEALTH, str(result.check_name))
        last = instance.get_latest_asset_check_evaluation_record(key) if result.passed else None
        if last is not None and last.status.value == "SUCCEEDED":
            if repeated == _REPEATED or now.timestamp() - last.create_timestamp < _REPEAT_AFTER.total_seconds():
                continue
            repeated += 1
        yield dg.AssetCheckEvaluation(
            asset_key=_TABLE_HEALTH,
            check_name=key.name,
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=result.metadata,
            blocking=False,
        )


def _kafka_health(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ops", "kafka_health"],
        description="Per topic and consumer group: offsets, lag, messages since the last look, age of the newest, leaders.",
        check_specs=[
            dg.AssetCheckSpec("leaders", asset=["ops", "kafka_health"], description="Every partition has a leader."),
            dg.AssetCheckSpec(
                "lag", asset=["ops", "kafka_health"], description="No group has more unread messages than its bound allows."
            ),
        ],
        **_ARGUMENTS,
    )
    def kafka_health(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from lakehouse.observability import outbox, topics

        at = datetime.now(UTC)
        wanted = topics.by_brokers(settings, _OWN_TOPICS)
        with failures():
            found = topics.look_at_all(lake.storage, wanted, at=at, run_id=context.run.run_id, patience=_KAFKA_SECONDS)
            version = outbox.record(lake.storage, topics.KAFKA_TABLE, columns=topics.COLUMNS, rows=found.topics)
            if found.lags:
                outbox.record(lake.storage, topics.LAG_TABLE, columns=topics.LAG_COLUMNS, rows=found.lags)
        lost = sorted({row["topic"] for row in found.topics if row["leaderless"] or row["error"]})
        led = dg.AssetCheckResult(
            check_name="leaders",
            passed=not lost,
            severity=_ERROR,
            description=f"Without a leader, or no answer: {', '.join(lost)}" if lost else None,
        )
        behind = found.behind
        read = dg.AssetCheckResult(
            check_name="lag", passed=not behind, severity=_ERROR, description=f"{'; '.join(behind)}." if behind else None
        )
        metadata = {"delta_version": version, "topics": len(found.topics)}
        return dg.MaterializeResult(metadata=metadata, check_results=[led, read])

    return kafka_health


def _service_health(settings: Settings, surroundings: Surroundings) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ops", "service_health"],
        description="Every configured service, really called: latency and outcome; Dagster's daemons, schedules and sensors.",
        **_ARGUMENTS,
    )
    def service_health(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from lakehouse.observability import outbox, services, watch
        from lakehouse.observability.alerts import raise_alerts

        at, run_id = datetime.now(UTC), context.run.run_id
        asked = services.of_settings(settings)
        asked += services.dagster_parts(context.instance, cadence=surroundings.cadence(), now=at)
        found = services.examine(asked)
        down = [outcome for outcome in found if not outcome.healthy]
        for outcome in down:
            context.log.warning("%s (%s) is not healthy: %s", outcome.service, outcome.target, outcome.error)
        link = f"{settings.ui_url.rstrip('/')}/runs/{run_id}" if settings.ui_url else ""
        with failures():
            # Where the lake's own store is down this fails, and so does the run; its log says why.
            rows = [outcome.row(at=at, run_id=run_id) for outcome in found]
            version = outbox.record(lake.storage, services.SERVICES_TABLE, columns=services.COLUMNS, rows=rows)
            standing = watch.open_keys(lake.storage)
            raise_alerts(lake.storage, services.alerts(found, standing=standing, run_id=run_id, link=link, at=at))
        return dg.MaterializeResult(metadata={"delta_version": version, "services": len(found), "unhealthy": len(down)})

    return service_health


def _run_metrics(surroundings: Surroundings) -> dg.AssetsDefinition:
    @dg.asset(
        key=["ops", "run_metrics"],
        description="A row per finished run and step: job, asset, start, duration, outcome, retries, rows, SLA.",
        **_ARGUMENTS,
    )
    def run_metrics(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from lakehouse.observability import metrics, routing, thresholds

        with failures():
            job_slas = thresholds.slas_in_force(surroundings.job_slas, routing.in_force(lake.storage))
            taken = metrics.take_up(context.instance, lake.storage, job_slas=job_slas)
        return dg.MaterializeResult(metadata={"runs": taken})

    return run_metrics
