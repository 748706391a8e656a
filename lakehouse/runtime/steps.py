"""Steps: what the assets of all layers share between a pure function and Dagster.

Findings become asset check results, own errors become failures that say whether a retry can help, and a table is held while
a step works on it. What one layer alone needs is in that layer.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import dagster as dg

from lakehouse.core import ledger
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding, Severity
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Standing
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.table.staging import Write
from lakehouse.runtime.dagster_private import interrupt_again, is_interrupt
from lakehouse.tables import JOBS
from lakehouse.tables.spec import Retry, TableSpec, descriptions

#: A run that is not over.
ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
#: A run's tag: how many runs in a row were asked for by the landing sensor, with this one, since the last that succeeded.
ATTEMPT_TAG = "lakehouse/attempt"
#: A conflict or a busy table is over in seconds; three tries within about half a minute.
RETRY = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


def retry_policy(retry: Retry) -> dg.RetryPolicy:
    """A declared retry as Dagster's, with a random part so that two steps do not come back at the same moment."""
    return dg.RetryPolicy(max_retries=retry.times, delay=retry.seconds, jitter=dg.Jitter.PLUS_MINUS)


def table_retry(tags: Iterable[str], layer: str) -> dg.RetryPolicy:
    """The policy of a table's step: what its job declares, else everyone's."""
    own = [retry for job in JOBS if job.tag in tags for of, retry in job.retries.items() if of == layer]
    return retry_policy(own[0]) if own else RETRY


def code_version(*parts: object) -> str:
    """A short hash of what decides an asset's content: declarations and the version of the code that reads them."""
    return hashlib.sha256("\x1f".join(repr(part) for part in parts).encode()).hexdigest()[:12]


def check_specs(key: Iterable[str], rules: Iterable[tuple[str, str]]) -> list[dg.AssetCheckSpec]:
    """One blocking check per `(rule, description)`; whether a result blocks is decided by its severity."""
    asset = dg.AssetKey(list(key))
    return [dg.AssetCheckSpec(name, asset=asset, description=text, blocking=True) for name, text in rules]


def check_results(
    key: Iterable[str],
    findings: Iterable[Finding],
    *,
    counted: bool = True,
    selected: Collection[dg.AssetCheckKey] | None = None,
) -> Iterator[Any]:
    """Findings as results: `fail` is an error, everything else a warning. A rule that validated nothing has none: Dagster shows
    its check as skipped, and what waits for it goes on.

    Args:
        counted: whether findings report how much they validated.
        selected: the checks that the run is for, of an asset that can be made without some. A rule that stops the batch stops it
            all the same.
    """
    asset = dg.AssetKey(list(key))
    for finding in findings:
        if selected is not None and not finding.stops and dg.AssetCheckKey(asset, finding.rule) not in selected:
            continue
        if counted and finding.passed and not finding.validated:
            # The check's own output, which Dagster requires; a result is what it shows.
            yield dg.Output(None, output_name=dg.AssetCheckSpec(finding.rule, asset=asset).get_python_identifier())
            continue
        yield dg.AssetCheckResult(
            passed=finding.passed,
            asset_key=asset,
            check_name=finding.rule,
            severity=dg.AssetCheckSeverity.ERROR if finding.action == "fail" else dg.AssetCheckSeverity.WARN,
            metadata={
                "failed": finding.failed,
                "judged": finding.validated,
                "action": finding.action,
                **{name: value for name, value in finding.detail.items() if value not in ({}, [])},
                **({"lines": list(finding.lines)} if finding.lines else {}),
            },
        )


def report(findings: Iterable[Finding], log: Callable[[str], None]) -> None:
    """Log the lines that findings have for the console."""
    for finding in findings:
        for line in finding.lines:
            log(line)


def standings(findings: Iterable[Finding]) -> dict[str, Standing]:
    """Findings as a commit carries them, so that a later run without new records can repeat what holds for the table."""
    return {f.rule: Standing(f.passed, f.action, f.failed, f.validated) for f in findings}


def standing_findings(uri: str, rules: Iterable[str]) -> list[Finding]:
    """What the newest commit of a table reports of its rules. A rule that it does not know has validated nothing yet."""
    snapshot = open_existing(uri)
    stored = snapshot.provenance.findings if snapshot is not None else {}
    as_of = {"standing": "no new records; as of the last commit"}
    found = {rule: stored.get(rule, Standing(True, "warn", 0, 0)) for rule in rules}
    return [
        Finding(rule, each.passed, cast("Severity", each.action), each.failed, each.validated, as_of)
        for rule, each in found.items()
    ]


def stopped(finding: Finding, table: TableRef, version: int) -> str:
    """The message when a rule with action `fail` has stopped a batch: what happened, and what to type."""
    counted = f"{finding.failed:,} of {finding.validated:,}" if finding.validated else "violated"
    way = finding.detail.get("what_to_do", "Fix the source or the rule in lakehouse/tables/ and run again.")
    return f"{finding.rule} ({counted}) stopped the batch: {table} keeps version {version}. {way}"


def finalise(session: Session, storage: Storage, table: TableRef, *, log: Callable[..., None] | None = None) -> Snapshot | None:
    """Copy the figures of a table's new commits to the ledger, say them, and return the table as it is now."""
    snapshot = open_existing(storage.uri(table))
    if snapshot is None:
        return None
    for row in ledger.finalise(session, storage.uri(ledger.LEDGER_TABLE), table=table, snapshot=snapshot):
        if log is not None:
            parts = ("written", "deduplicated", "deleted", "quarantined")
            locations = ", ".join(f"{row[part]:,} {part}" for part in parts if row[part])
            log(f"{table} version {row['version']}: {row['records_in']:,} records in, {locations or 'none taken'}.")
    return snapshot


@contextmanager
def failures() -> Iterator[None]:
    """Turn own errors that no retry can fix, and the wish to end the run, into failures that are not retried."""
    try:
        yield
    except LakehouseError as error:
        if error.retryable:
            raise
        raise dg.Failure(description=str(error), allow_retries=False) from error
    except BaseException as error:
        if not _interrupted(error):
            raise
        # A retry policy answers ^C and Terminate with another try. Noted again here, the interrupt ends the run instead.
        interrupt_again()
        raise dg.Failure(description="The run was interrupted.", allow_retries=False) from error


def _interrupted(error: BaseException) -> bool:
    """Whether somebody wants the run to end; during a query DuckDB puts an error of its own in the interrupt's place."""
    return is_interrupt(error) or (isinstance(error, RuntimeError) and str(error) == "Query interrupted")


def own_step(
    table: TableRef,
    description: str,
    *,
    reads: Mapping[str, TableRef],
    checks: Mapping[str, str],
    code: object,
    group: str,
    engine: str = "",
) -> dict[str, Any]:
    """Arguments of `@dg.asset` for a step that no spec declares: key, inputs, checks, retries, code version.

    Args:
        reads: the tables by the name of the argument that gets their frame.
        checks: the rules by name, each with its description; the step gives their findings to `checked`.
        code: what decides the content, such as columns and a number that a change of the function raises.
        engine: `duckdb` or `spark`, where the step needs that one whatever LAKEHOUSE_ENGINE is.
    """
    chosen = {"engine": engine} if engine else {}
    return {
        "key": table.key,
        "description": description,
        "ins": {name: dg.AssetIn(ref.key, metadata=chosen) for name, ref in reads.items()},
        "check_specs": check_specs(table.key, checks.items()),
        "code_version": code_version(code),
        "retry_policy": RETRY,
        "output_required": False,
        "group_name": group,
        "owners": ["team:dados"],
        "kinds": {"deltalake"},
        "metadata": chosen,
    }


def checked(table: TableRef, write: Write, findings: Iterable[Finding]) -> Iterator[Any]:
    """The check results of a step, then its rows. A finding that stops them leaves the table at its version. Findings need not
    count what they validated.
    """
    found = list(findings)
    yield from check_results(table.key, found, counted=False)
    if not any(finding.stops for finding in found):
        yield dg.Output(replace(write, provenance=replace(write.provenance, findings=standings(found))))


def asset_arguments(spec: TableSpec, layer: str) -> dict[str, Any]:
    """Arguments of `@dg.asset` that follow from a spec."""
    return {
        "group_name": layer,
        "description": spec.description,
        "owners": list(spec.owners),
        "tags": dict.fromkeys(spec.tags, ""),
        "kinds": {"deltalake", "pyspark" if layer == "silver" and spec.engine == "spark" else "duckdb"},
        "output_required": False,
        "retry_policy": table_retry(spec.tags, layer),
        "metadata": {"primary_key": ", ".join(spec.key), "dagster/column_schema": _declared(spec, layer)},
    }


def _declared(spec: TableSpec, layer: str) -> dg.TableSchema:
    """The columns as they are declared; bronze has more when more is delivered."""
    described = descriptions.of_silver(spec) if layer == "silver" else descriptions.of_bronze(spec)
    return dg.TableSchema([dg.TableColumn(name, kind, description=text) for name, (kind, text) in described.items()])
