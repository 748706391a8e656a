"""Captured feeds (`CapturedFeed`): one capture a run, and a CSV in landing for every so many of them.

    url ─▶ landing/<feed>_captura ─▶ <landing>/captures/<feed>/ ─▶ landing/<feed>_csv ─▶ <landing>/raw/<lands>/**/*.csv

Run one alone: `make trigger JOB=<job>`. A capture that fails is recorded and fails the check `captura`, and its run is over; the
next minute's goes on. While fewer captures than the feed's buffer wait, `landing/<feed>_csv` and all that follows are skipped.
Places and steps of the buffer are in `landing/sources/captures.py`, the HTTP call in `landing/sources/fetch.py`, what an answer
is in `landing/sources/answers.py`, the feeds and their tables in `tables/`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.core.errors import BusyError, SourceError
from lakehouse.core.store.storage import lock
from lakehouse.landing.sources.captures import Captures
from lakehouse.landing.sources.fetch import Answer, fetch, shown
from lakehouse.runtime.steps import RETRY, code_version, failures
from lakehouse.settings import Settings
from lakehouse.tables import SOURCES
from lakehouse.tables.spec import CapturedFeed
from lakehouse.tables.spec.setting import plain

#: A day's answers have 0.25 MB each.
CAP_BYTES = 16_000_000
#: Seconds that a run which was started by hand waits for the minute's run to end.
WAIT = 120.0
#: Where answers come from a folder.
RECORDED = "file://"


def feeds() -> tuple[CapturedFeed, ...]:
    """Every declared feed."""
    return tuple(source for source in SOURCES if isinstance(source, CapturedFeed))


def capture_key(feed: CapturedFeed) -> dg.AssetKey:
    """The asset of a feed's captures."""
    return dg.AssetKey(["landing", f"{feed.name}_captura"])


def csv_key(feed: CapturedFeed) -> dg.AssetKey:
    """The asset of a feed's CSVs."""
    return dg.AssetKey(["landing", f"{feed.name}_csv"])


def resource_of(feed: CapturedFeed) -> str:
    """What the resource of a feed is called."""
    return f"{feed.name}_feed"


class FeedResource(dg.ConfigurableResource):
    """Where a feed is asked, and how many captures make a CSV. One run at a time has it, from its start to its end."""

    name: str
    url: str
    buffer: int
    landing: str

    @property
    def feed(self) -> CapturedFeed:
        return next(feed for feed in feeds() if feed.name == self.name)

    @property
    def captures(self) -> Captures:
        return captures_of(self.feed, self.landing)

    @property
    def is_recorded(self) -> bool:
        """Whether answers come from a folder."""
        return self.url.startswith(RECORDED)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["FeedResource"]:
        with lock(self.captures.folder, wait=WAIT):
            yield self

    def answer(self) -> Answer | None:
        """The next answer; None when it comes from a folder that has no other.

        Raises:
            SourceError: the feed gave none that can be used.
        """
        if self.is_recorded:
            return self.captures.recorded(self.url.removeprefix(RECORDED), setting=self.feed.address)
        return fetch(self.url, setting=self.feed.address, check=self.captures.check, cap=CAP_BYTES)


def feed_resources(settings: Settings) -> dict[str, FeedResource]:
    """The resource of every feed, by name."""
    found = [source for source in settings.sources if isinstance(source, CapturedFeed)]
    return {
        resource_of(feed): FeedResource(
            name=feed.name, url=plain(feed.url), buffer=int(plain(feed.buffer)), landing=settings.landing
        )
        for feed in found
    }


def captures_of(feed: CapturedFeed, landing: str) -> Captures:
    """The captures of a feed below a landing folder."""
    return Captures(landing=landing, source=feed.name, stream=feed.lands, field=feed.records, form=feed.answers)


def is_busy(feed: CapturedFeed, landing: str) -> bool:
    """Whether a run has the feed at this moment."""
    try:
        with lock(captures_of(feed, landing).folder, wait=0):
            return False
    except BusyError:
        return True


def due(feed: CapturedFeed, settings: Settings) -> list[dg.AssetKey] | None:
    """The assets that the next capture has something to do for: itself, or None for all when a CSV is full with it."""
    buffer = feed_resources(settings)[resource_of(feed)].buffer
    return [capture_key(feed)] if len(captures_of(feed, settings.landing).pending()) + 1 < buffer else None


def newest(feed: CapturedFeed, landing: str, *, at: datetime) -> datetime | None:
    """The instant of the newest good capture; None when there is none of today or yesterday."""
    found = captures_of(feed, landing).newest(now=round(at.timestamp() * 1000))
    return datetime.fromtimestamp(found / 1000, tz=UTC) if found is not None else None


def feed_assets() -> list[dg.AssetsDefinition]:
    """`landing/<feed>_captura` and `landing/<feed>_csv` of every feed."""
    return [asset for feed in feeds() for asset in (_captures(feed), _csv(feed))]


def _shared(feed: CapturedFeed) -> dict[str, Any]:
    return {
        "group_name": "landing",
        "owners": list(feed.owners),
        "tags": dict.fromkeys(feed.tags, ""),
        "retry_policy": RETRY,
        "output_required": False,
        "io_manager_key": None,
        "code_version": code_version("Airbyte's v2 columns, one row per record"),
        "required_resource_keys": {resource_of(feed)},
    }


def _captures(feed: CapturedFeed) -> dg.AssetsDefinition:
    key = capture_key(feed)
    checks = {
        "captura": "The feed gave a usable answer.",
        "captura_fresca": f"The newest capture is at most {feed.fresh.total_seconds() / 60:g} minutes old.",
        "relogio": f"This machine's clock and the feed's differ by at most {feed.skew.total_seconds():g} s.",
    }

    @dg.asset(
        key=key,
        description=f"One answer of the feed {feed.name}, kept as it came.",
        kinds={"json" if feed.answers == "json" else "protobuf"},
        check_specs=[dg.AssetCheckSpec(name, asset=key, description=text) for name, text in checks.items()],
        **_shared(feed),
    )
    def captura(context: dg.AssetExecutionContext) -> Iterator[Any]:
        asked: FeedResource = getattr(context.resources, resource_of(feed))
        captures = asked.captures
        reason, where, at, answer = "", "", time.time_ns() // 1_000_000, None
        with failures():
            try:
                answer = asked.answer()
                if answer is not None:
                    at = answer.at
                    captures.check(answer.body)
                    at = captures.persist(answer)
            except (SourceError, ValueError) as error:
                reason = str(error)
                where = captures.fail(at, reason=reason, body=answer.body if answer is not None else b"")
                context.log.error("The capture failed: %s", reason)  # noqa: TRY400 - the sentence says it
            done = answer is None and not reason  # then there is nothing that could be late
            last = at if done else captures.newest(now=at)
        yield from _findings(feed, answer, reason, where, at=at, newest=last, source=shown(asked.url))
        if done:
            context.log.info("Every answer in %s is captured.", asked.url)
        elif answer is not None and not reason:
            waiting = len(captures.pending())
            yield dg.MaterializeResult(metadata={"captured_at": at, "bytes": len(answer.body), "buffer": waiting})

    return captura


def _csv(feed: CapturedFeed) -> dg.AssetsDefinition:
    @dg.asset(
        key=csv_key(feed),
        deps=[capture_key(feed)],
        description=f"The records of several captures of {feed.name} as one CSV, under Airbyte's columns.",
        kinds={"csv"},
        **_shared(feed),
    )
    def csv(context: dg.AssetExecutionContext) -> Iterator[Any]:
        asked: FeedResource = getattr(context.resources, resource_of(feed))
        captures = asked.captures
        with failures():
            exports = captures.export(buffer=asked.buffer)
            waiting = len(captures.pending())
        if not exports:
            context.log.info("%s of %s captures wait; the CSV and what follows are skipped.", waiting, asked.buffer)
            return
        yield dg.MaterializeResult(
            metadata={
                "files": [export.uri for export in exports],
                "captures": sum(export.captures for export in exports),
                "records": sum(export.records for export in exports),
                "buffer": waiting,
            }
        )

    return csv


def _findings(
    feed: CapturedFeed, answer: Answer | None, reason: str, where: str, *, at: int, newest: int | None, source: str
) -> Iterator[dg.AssetCheckResult]:
    error, warn = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    key = capture_key(feed)
    details = {"reason": reason, "recorded": where} if reason else {}
    yield dg.AssetCheckResult(
        passed=not reason, asset_key=key, check_name="captura", severity=error, metadata={"source": source, **details}
    )
    age = None if newest is None else round((at - newest) / 1000)
    fresh = age is not None and age <= feed.fresh.total_seconds()
    yield dg.AssetCheckResult(
        passed=fresh, asset_key=key, check_name="captura_fresca", severity=warn, metadata={"age_seconds": age}
    )
    skew = 0 if answer is None or answer.source_at is None else round((answer.at - answer.source_at) / 1000)
    yield dg.AssetCheckResult(
        passed=abs(skew) <= feed.skew.total_seconds(),
        asset_key=key,
        check_name="relogio",
        severity=warn,
        metadata={"ahead_seconds": skew},
    )
