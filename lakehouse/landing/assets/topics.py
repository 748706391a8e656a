"""The check `offsets` of Kafka topics: nothing expired before it was read. It looks at the names of landed files alone.

A loss fails it for a day after the file behind the loss has landed, in every run: whichever run found it may have been killed
before it could tell.
"""

import time
from collections.abc import Callable

import dagster as dg

from lakehouse.core.names import TableRef
from lakehouse.landing.sources.kafka_spans import REPORTED, Loss, Spans
from lakehouse.runtime.lake import LakeResource
from lakehouse.tables import SOURCES
from lakehouse.tables.spec import KafkaTopic

OFFSETS = "offsets"
_SHOWN = 20


def topic_checks(now: Callable[[], float] = time.time) -> list[dg.AssetChecksDefinition]:
    """The check of every declared topic."""
    return [_check(system, now) for system in SOURCES if isinstance(system, KafkaTopic)]


def _check(system: KafkaTopic, now: Callable[[], float]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=TableRef("landing", system.name).key,
        name=OFFSETS,
        description="No message expired before it was read, and the topic is the one that was read before.",
    )
    def offsets(lake: LakeResource) -> dg.AssetCheckResult:
        spans = Spans(lake.storage.landed(system.folder(system.streams[0])))
        since = now() - REPORTED.total_seconds()
        return result(spans.losses(since=since), remade=spans.remade(since=since))

    return offsets


def result(losses: list[Loss], *, remade: bool) -> dg.AssetCheckResult:
    """What the check reports."""
    lost = [
        f"Partition {loss.partition}: offsets {loss.first:,} to {loss.last:,}, {loss.offsets:,} in all, expired unread."
        for loss in losses
    ]
    anew = ["The topic was made again, or its log cut back: what it had after the last landed message is lost."] if remade else []
    count = sum(loss.offsets for loss in losses)
    way = "Run the source's job more often, or have the brokers retain the topic for longer (retention.ms)."
    return dg.AssetCheckResult(
        passed=not lost and not anew,
        severity=dg.AssetCheckSeverity.ERROR,
        description=" ".join([*anew, *lost[:_SHOWN], *([way] if lost else [])]) or None,
        metadata={"lost_offsets": count, **({"lost": lost[:_SHOWN]} if lost else {}), "made_again": remade},
    )
