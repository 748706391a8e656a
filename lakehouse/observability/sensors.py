"""The two sensors: `watch` keeps what happened, `deliver` sends it. Neither requests a run.

They are two so that a mail server that hangs does not delay what is noticed, and their work is in the tick: a run each would
write more to the event log than all that they watch.
"""

import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from lakehouse.core.errors import DeclarationError, LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.text import one_line
from lakehouse.observability.outcome import JobSla
from lakehouse.observability.services import ProbeError, http
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from lakehouse.observability.routing import Routing

#: Seconds between ticks. The daemon looks every five for what is due, and what is due a moment later waits for five more: at ten,
#: half of the ticks came after fifteen. Both sensors begin together, so a failure waits for a tick of `watch` and then for the
#: next of `deliver`: 20 s of the 30 that are promised.
INTERVAL = 9
MONITORING = "monitoring"
_LOG = logging.getLogger("lakehouse.alerts")


def sensors(settings: Settings, *, job_slas: Sequence[JobSla], tables: Sequence[TableRef]) -> list[dg.SensorDefinition]:
    """The sensors of this installation; in `dev` they are there, stopped.

    Args:
        job_slas: the SLAs that jobs declare; tables: those without a spec. The routing's file may set thresholds for both.
    """
    status = dg.DefaultSensorStatus.STOPPED if settings.env == "dev" else dg.DefaultSensorStatus.RUNNING

    @dg.sensor(
        name="watch",
        minimum_interval_seconds=INTERVAL,
        default_status=status,
        description="Keeps failed runs and checks, missed SLAs, published tables and landed files as alerts and events.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from lakehouse.observability import routing, thresholds
        from lakehouse.observability.watch import look

        slas = thresholds.slas_in_force(job_slas, routing.in_force(settings.storage))
        found = look(context.instance, settings.storage, cursor=context.cursor, job_slas=slas, ui=settings.ui_url)
        context.update_cursor(found.cursor)
        beat = ""
        if MONITORING in found.succeeded and settings.heartbeat_url.get_secret_value():
            beat = f" {heartbeat(settings)}"
        return dg.SkipReason(f"{found.entries} entries: {found.alerts} alerts and {found.events} events kept.{beat}")

    @dg.sensor(
        name="deliver",
        minimum_interval_seconds=INTERVAL,
        default_status=status,
        description="Sends alerts to the configured channels, and events to Kafka.",
    )
    def deliver(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from lakehouse.observability import thresholds
        from lakehouse.observability.table_health import targets

        before = json.loads(context.cursor) if context.cursor else {}
        wanted = targets(settings.storage, settings.tables, tables)
        reported, routing_error = send(
            settings,
            routing_error=before.get("routing", ""),
            validate=lambda rules: thresholds.unknown(rules, targets=wanted, job_slas=job_slas),
        )
        context.update_cursor(json.dumps({"routing": routing_error}))
        return dg.SkipReason(reported)

    return [watch, deliver]


def send(
    settings: Settings, *, routing_error: str = "", validate: "Callable[[Routing], str]" = lambda rules: ""
) -> tuple[str, str]:
    """Send what is due: alerts, then events. What was done in a sentence, and what is wrong with the routing file.

    Args:
        routing_error: what was wrong with it the last time; it is reported once.
        validate: what is wrong with a routing although it can be read; empty when nothing is.
    """
    from lakehouse.observability import channels, routing
    from lakehouse.observability.alerts import Alert, raise_alert
    from lakehouse.observability.notifier import notify
    from lakehouse.observability.sender import send_events

    storage, wrong = settings.storage, ""
    try:
        rules = routing.load(storage)
        wrong = validate(rules)
    except DeclarationError as error:
        rules, wrong = routing.Routing(), one_line(str(error))
    key = "automation:routing"
    if wrong and wrong != routing_error:
        raise_alert(storage, Alert("automation", "error", "The routing of alerts is wrong", wrong, key))
    elif routing_error and not wrong:
        raise_alert(storage, Alert("automation", "info", "The routing of alerts is right again", key=key, state="resolved"))
    configured = channels.of_settings(settings)
    step = notify(storage, configured, routing=rules)
    reported = f"{step.sent} messages sent, {step.failed} failed, {step.waiting} wait."
    if settings.kafka_bootstrap:
        try:
            reported += f" {send_events(storage, settings.kafka_bootstrap)} events sent."
        except LakehouseError as error:  # the outbox keeps them; service_health says that Kafka is down
            _LOG.warning("%s", error)
            reported += f" No events sent: {one_line(error.what)}"
    return reported, wrong


def heartbeat(settings: Settings) -> str:
    """Call the heartbeat's URL; what came of it. Whoever waits for it is alarmed by its silence; that it could not be sent is an
    alert of our own, over the channels that work."""
    from lakehouse.observability.alerts import Alert, raise_alert
    from lakehouse.observability.watch import open_keys

    key = "automation:heartbeat"
    try:
        http(settings.heartbeat_url.get_secret_value(), shown="The URL of LAKEHOUSE_HEARTBEAT_URL")
    except ProbeError as error:
        remedy = "Whoever waits for it takes the lakehouse for dead: check LAKEHOUSE_HEARTBEAT_URL and the network."
        raise_alert(settings.storage, Alert("automation", "error", "The heartbeat cannot be sent", f"{error.what} {remedy}", key))
        return f"The heartbeat failed. {error.what}"
    if key in open_keys(settings.storage):
        raise_alert(settings.storage, Alert("automation", "info", "The heartbeat is sent again", key=key, state="resolved"))
    return "The heartbeat was sent."
