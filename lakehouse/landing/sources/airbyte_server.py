"""One sync of a connection of an Airbyte server: started or attached to, waited for, and counted against what landed.

    jobs of the connection ─┬ one is in flight ───────────▶ attach ─┐
                            └ none ─▶ start ─┬ 409 ─▶ look again    ├▶ wait ─┬ succeeded ─▶ committed there = landed here?
                                             └ accepted ────────────┘        └ failed, cancelled, not over in time ─▶ an error

A job belongs to the server: who waits for it may be killed, and whoever comes next attaches to it. So a start whose answer was
lost starts nothing again: the job that is there since is the one. A question that is not answered is asked again, later each
time, and no sooner than the server wants.

What landed for a job are the records whose `_airbyte_meta.sync_id` is its number. That is what the platform puts there, while
its documentation promises a number that grows; where no record has this one (an older envelope, another platform), they are
those that were extracted since the job began. Both marks are in the records, so it does not matter who waited, or when.

Does not belong here: HTTP, credentials (`landing/sources/airbyte_client.py`), Dagster.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lakehouse.core.errors import SourceDownError, SourceError, SourceRefusedError
from lakehouse.core.store.storage import LandedFile, Storage
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.landing.readers.files.stage import stage

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession

#: States of a job that is not over. `incomplete` is the pause between two of its attempts.
IN_FLIGHT = ("pending", "running", "incomplete")
#: Jobs that bring records; the others (`reset`, `clear`) keep a connection busy.
_SYNCS = ("sync", "refresh")
#: How often one question is asked.
_TRIES = 5
#: A longer rest that the server asks for is not slept through here.
_REST = 60.0
#: A file of a job cannot be older than the job by more than clocks differ.
_CLOCKS = timedelta(hours=1)
_SHOWN = 300

Log = Callable[[str, str], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the server lists it. `rows` is what it says was synced, of all streams."""

    id: int
    status: str
    kind: str = "sync"
    started: datetime | None = None
    rows: int | None = None


class Server(Protocol):
    """What is asked of a server. Each is one question: SourceDownError when another try may help, else SourceRefusedError."""

    def connection(self, connection: str) -> Mapping[str, Any]:
        """What the server knows of a connection (`ConnectionResponse`)."""

    def jobs(self, connection: str) -> list[Job]:
        """The newest jobs of a connection."""

    def start(self, connection: str) -> Job:
        """Start a sync; SourceRefusedError with status 409 when one is in flight."""

    def job(self, number: int) -> Job:
        """A job as it is now."""

    def attempts(self, number: int) -> list[Mapping[str, Any]]:
        """The attempts of a job with their statistics and failures, as the configuration API tells them (`AttemptRead`)."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A sync that succeeded. `committed` are records by stream, None when the server does not tell."""

    job: Job
    attached: bool
    attempts: int
    committed: Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class Landed:
    """What landed of one stream for a job: records, and the newest generation among them. In files of its time there may be
    records that are none, and files that nobody can read: those have no mark that says for which job they landed."""

    records: int = 0
    generation: int = 0
    broken_records: int = 0
    broken_files: int = 0


def sync(
    server: Server, connection: str, *, max_runtime: timedelta, poll: float, log: Log, since: datetime | None = None
) -> Done:
    """Have a connection synced, once.

    Args:
        since: a sync that began since then is the one, also when it is over; for a try after others.
        max_runtime: for so long is it waited.
        poll: seconds between two looks at the job, and before the second try of a question.

    Raises:
        SourceDownError: the server does not answer; trying later attaches to the job if there is one.
        SourceRefusedError: credentials, the connection or the URL are wrong.
        SourceError: the sync failed, was cancelled, or is not over.
    """
    ends = time.monotonic() + max_runtime.total_seconds()
    job, attached = _take_up(server, connection, poll, log, since)
    while job.status in IN_FLIGHT:
        if time.monotonic() > ends:
            raise SourceError(
                f"Airbyte's job {job.id} is still {job.status} after {max_runtime}. It goes on there.",
                remedy="Run again to wait for it, cancel it in Airbyte, or raise max_runtime in lakehouse/tables/.",
            )
        time.sleep(poll)
        job = _patiently(lambda: server.job(job.id), poll)  # noqa: B023 - called at once
    attempts: list[Mapping[str, Any]] = []
    try:
        attempts = _patiently(lambda: server.attempts(job.id), poll)
    except SourceError as error:
        log("warning", f"Airbyte does not tell more of job {job.id}: {error.what}")
    if job.status != "succeeded":
        raise SourceError(
            f"Airbyte's job {job.id} {'was cancelled' if job.status == 'cancelled' else 'failed'}{_reason(attempts)}.",
            remedy="What it had committed is in landing. Look at the job in Airbyte, and run again.",
        )
    return Done(job=job, attached=attached, attempts=len(attempts), committed=_committed(attempts))


def _take_up(server: Server, connection: str, poll: float, log: Log, since: datetime | None) -> tuple[Job, bool]:
    """The job to wait for, and whether it was found there."""
    newest: int | None = None

    def is_ours(job: Job) -> bool:
        """Whether it is in flight, or there since a start was asked for: its answer was lost, or somebody was faster."""
        known = job.started is not None and since is not None and job.started >= since.replace(microsecond=0)
        return job.kind in _SYNCS and (job.status in IN_FLIGHT or known or (newest is not None and job.id > newest))

    down: SourceDownError | None = None
    for number in range(_TRIES):
        if down is not None:
            _rest(down, poll, number - 1)
        jobs = sorted(_patiently(lambda: server.jobs(connection), poll), key=lambda job: job.id, reverse=True)
        found = next((job for job in jobs if is_ours(job)), None)
        if found is not None:
            log("info", f"Attached to Airbyte's job {found.id}, which is {found.status}.")
            return found, True
        newest = jobs[0].id if jobs else 0
        busy = next((job for job in jobs if job.status in IN_FLIGHT), None)
        if busy is not None:
            what = f"Airbyte's job {busy.id} ({busy.kind}) keeps the connection busy."
            down = SourceDownError(what, remedy="Run again when it is over.")
            continue
        try:
            job = server.start(connection)
        except SourceDownError as error:
            down = error
        except SourceRefusedError as error:
            if error.status != 409:
                raise
            down = SourceDownError(f"{error.what} No job of it is in flight.", remedy="Look at the connection in Airbyte.")
        else:
            log("info", f"Airbyte's job {job.id} started.")
            return job, False
    assert down is not None
    raise down


def _patiently(ask: Callable[[], T], poll: float) -> T:
    """Ask until there is an answer.

    Raises:
        SourceDownError: there was none, or the server wants to be left alone for longer than can be waited here.
    """
    for number in range(_TRIES):
        try:
            return ask()
        except SourceDownError as error:
            if number == _TRIES - 1:
                raise
            _rest(error, poll, number)
    raise AssertionError


def _rest(error: SourceDownError, poll: float, number: int) -> None:
    if error.after is not None and error.after > _REST:
        raise error
    time.sleep(max(error.after or 0.0, min(poll * 2**number, _REST)))


# --- what the server tells ----------------------------------------------------------------------------------------------


def _reason(attempts: Iterable[Mapping[str, Any]]) -> str:
    """Airbyte's own words about the last attempt that failed."""
    reported = ""
    for attempt in attempts:
        failures = (attempt.get("failureSummary") or {}).get("failures") or []
        texts = [str(f.get("externalMessage") or f.get("internalMessage") or f.get("failureType") or "") for f in failures]
        origins = [str(failure.get("failureOrigin") or "") for failure in failures]
        told = dict.fromkeys(f"{o}: {t}" if o else t for o, t in zip(origins, texts, strict=True) if t)
        reported = "; ".join(told) or reported
    reported = " ".join(reported.split()).rstrip(".")
    return f" ({reported[:_SHOWN]})" if reported else ""


def _committed(attempts: list[Mapping[str, Any]]) -> dict[str, int] | None:
    """Records by stream that all attempts together committed: one that failed may have committed some, and the next goes on.

    A stream is there as `<name>` and, where it has a namespace, as `<namespace>.<name>`.
    """
    out: dict[str, int] = {}
    if not any("streamStats" in attempt for attempt in attempts):
        return None
    for attempt in attempts:
        for stream in attempt.get("streamStats") or []:
            stats = stream.get("stats") or {}
            # What an attempt that succeeded emitted is committed, also where the destination does not say so.
            other = stats.get("recordsEmitted") if attempt.get("status") == "succeeded" else 0
            records = stats.get("recordsCommitted", other) or 0
            name, namespace = str(stream.get("streamName", "")), stream.get("streamNamespace")
            for key in (name, *([f"{namespace}.{name}"] if namespace else [])):
                out[key] = out.get(key, 0) + int(records)
    return out


# --- what landed --------------------------------------------------------------------------------------------------------


def landed(session: "DuckDBSession", storage: Storage, folder: str, job: Job) -> Landed:
    """Count what landed for a job below `raw/<folder>/`. Every form that bronze reads is read."""
    since = (job.started - _CLOCKS).timestamp() if job.started else 0.0
    files: list[LandedFile] = [file for file in storage.landed(folder) if file.modified >= since]
    if not files:
        return Landed()
    staged = stage(
        session,
        files,
        landing=storage.landed_here(files, f"{session.folder}/landing"),
        folder=f"{session.folder}/counted/{folder}",
        batch=0,
        ingested_at=datetime.now(UTC),
    )
    columns = {name: ENVELOPE[name] for name in ("_airbyte_meta", "_airbyte_extracted_at", "_airbyte_generation_id")}
    paths = [f"{session.folder}/counted/{folder}/{file.path}" for file in staged.files]
    rows = session.read(paths, columns).to_native()
    own = f"TRY_CAST(_airbyte_meta ->> '$.sync_id' AS BIGINT) = {job.id:d}"
    new = f"_airbyte_extracted_at >= TIMESTAMPTZ '{job.started:%Y-%m-%d %H:%M:%S.%f%z}'" if job.started else "false"
    counts = [f"count(*) FILTER ({which}), max(_airbyte_generation_id) FILTER ({which})" for which in (own, new)]
    ((by_number, generation, by_time, newest),) = rows.aggregate(", ".join(counts)).fetchall()
    records, last = (by_number, generation) if by_number else (by_time, newest)
    broken = staged.delivered - staged.rows
    return Landed(records=records, generation=last or 0, broken_records=broken, broken_files=len(staged.rejects))
