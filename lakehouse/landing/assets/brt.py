"""The BRT feed: one capture a run, and a CSV in landing for every ten of them.

    LAKEHOUSE_BRT_URL ─▶ landing/brt_captura ─▶ <landing>/captures/brt/ ─▶ landing/brt_csv ─▶ <landing>/raw/brt_gps/**/*.csv

Run it alone: `make trigger JOB=brt_capture`. A capture that fails is recorded and fails the check `captura`, and its run is
over; the next minute's goes on. While fewer captures than `LAKEHOUSE_BRT_BUFFER` wait, `landing/brt_csv` and all that follows
are skipped.
Places and steps of the buffer are in `landing/sources/captures.py`, the HTTP call in `landing/sources/fetch.py`, the table in
`tables/brt.py`.
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

CAPTURE, CSV = dg.AssetKey(["landing", "brt_captura"]), dg.AssetKey(["landing", "brt_csv"])
#: A day's answers have 0.25 MB each.
CAP_BYTES = 16_000_000
#: Seconds. A capture is fresh as long as it takes five to be missed, clocks agree to a minute, and a run that was started by
#: hand waits for the minute's run to end.
FRESH, SKEW, WAIT = 300, 60, 120.0
_CHECKS = {
    "captura": "The feed gave a usable answer.",
    "captura_fresca": f"The newest capture is at most {FRESH // 60} minutes old.",
    "relogio": f"This machine's clock and the feed's differ by at most {SKEW} s.",
}
#: Where answers come from a folder.
RECORDED = "file://"


class BrtFeedResource(dg.ConfigurableResource):
    """Where positions are asked for, and how many captures make a CSV. One run at a time has it, from its start to its end."""

    url: str
    buffer: int
    landing: str

    @property
    def captures(self) -> Captures:
        return _captures(self.landing)

    @property
    def is_recorded(self) -> bool:
        """Whether answers come from a folder."""
        return self.url.startswith(RECORDED)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["BrtFeedResource"]:
        with lock(self.captures.folder, wait=WAIT):
            yield self

    def answer(self) -> Answer | None:
        """The next answer; None when it comes from a folder that has no other.

        Raises:
            SourceError: the feed gave none that can be used.
        """
        if self.is_recorded:
            return self.captures.recorded(self.url.removeprefix(RECORDED))
        return fetch(self.url, setting="LAKEHOUSE_BRT_URL", check=self.captures.check, cap=CAP_BYTES)


def is_busy(landing: str) -> bool:
    """Whether a run has the feed at this moment."""
    try:
        with lock(_captures(landing).folder, wait=0):
            return False
    except BusyError:
        return True


def due(landing: str, *, buffer: int) -> list[dg.AssetKey] | None:
    """The assets that the next capture has something to do for: itself, or None for all when a CSV is full with it."""
    return [CAPTURE] if len(_captures(landing).pending()) + 1 < buffer else None


def newest(landing: str, *, at: datetime) -> datetime | None:
    """The instant of the newest good capture; None when there is none of today or yesterday."""
    found = _captures(landing).newest(now=round(at.timestamp() * 1000))
    return datetime.fromtimestamp(found / 1000, tz=UTC) if found is not None else None


def _captures(landing: str) -> Captures:
    return Captures(landing=landing, source="brt", stream="brt_gps", field="veiculos")


_SHARED: dict[str, Any] = {
    "group_name": "landing",
    "owners": ["team:dados"],
    "tags": {"brt": ""},
    "retry_policy": RETRY,
    "output_required": False,
    "io_manager_key": None,
    "code_version": code_version("Airbyte's v2 columns, one row per record"),
}


@dg.asset(
    key=CAPTURE,
    description="One answer of the BRT feed, kept as it came.",
    kinds={"json"},
    check_specs=[dg.AssetCheckSpec(name, asset=CAPTURE, description=text) for name, text in _CHECKS.items()],
    **_SHARED,
)
def brt_captura(context: dg.AssetExecutionContext, brt_feed: BrtFeedResource) -> Iterator[Any]:
    captures = brt_feed.captures
    reason, where, at, answer = "", "", time.time_ns() // 1_000_000, None
    with failures():
        try:
            answer = brt_feed.answer()
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
    yield from _findings(answer, reason, where, at=at, newest=last, source=shown(brt_feed.url))
    if done:
        context.log.info("Every answer in %s is captured.", brt_feed.url)
    elif answer is not None and not reason:
        waiting = len(captures.pending())
        yield dg.MaterializeResult(metadata={"captured_at": at, "bytes": len(answer.body), "buffer": waiting})


@dg.asset(
    key=CSV,
    deps=[CAPTURE],
    description="The records of every ten captures as one CSV, under Airbyte's columns.",
    kinds={"csv"},
    **_SHARED,
)
def brt_csv(context: dg.AssetExecutionContext, brt_feed: BrtFeedResource) -> Iterator[Any]:
    captures = brt_feed.captures
    with failures():
        exports = captures.export(buffer=brt_feed.buffer)
        waiting = len(captures.pending())
    if not exports:
        context.log.info("%s of %s captures wait; the CSV and what follows are skipped.", waiting, brt_feed.buffer)
        return
    yield dg.MaterializeResult(
        metadata={
            "files": [export.uri for export in exports],
            "captures": sum(export.captures for export in exports),
            "records": sum(export.records for export in exports),
            "buffer": waiting,
        }
    )


def _findings(
    answer: Answer | None, reason: str, where: str, *, at: int, newest: int | None, source: str
) -> Iterator[dg.AssetCheckResult]:
    error, warn = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    details = {"reason": reason, "recorded": where} if reason else {}
    yield dg.AssetCheckResult(
        passed=not reason, asset_key=CAPTURE, check_name="captura", severity=error, metadata={"source": source, **details}
    )
    age = None if newest is None else round((at - newest) / 1000)
    fresh = age is not None and age <= FRESH
    yield dg.AssetCheckResult(
        passed=fresh, asset_key=CAPTURE, check_name="captura_fresca", severity=warn, metadata={"age_seconds": age}
    )
    skew = 0 if answer is None or answer.source_at is None else round((answer.at - answer.source_at) / 1000)
    yield dg.AssetCheckResult(
        passed=abs(skew) <= SKEW, asset_key=CAPTURE, check_name="relogio", severity=warn, metadata={"ahead_seconds": skew}
    )
