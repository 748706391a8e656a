"""Landing assets that have an Airbyte server sync: one for each connection that a table declares (`AirbyteServer`).

    LAKEHOUSE_AIRBYTE_URL ─▶ landing/<name> ─▶ the server writes <landing>/raw/<stream>/ ─▶ bronze

dagster asset materialize --select 'key:"landing/loja"'   one sync

Which connections there are is declared in lakehouse/tables/, and the server is asked for nothing while definitions load. A server
that does not answer, or lacks the connection, is a failed check `answers`, which monitoring looks at every five minutes; a sync
that did not come to its end is a failed check `synced`, records that did not land `reconciled`. How a sync is started, attached
to and counted is in `landing/sources/airbyte_server.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.core.errors import DeclarationError, LakehouseError, SourceDownError, install
from lakehouse.landing.sources.airbyte_server import Done, Landed, Server, landed, sync
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import RETRY, failures
from lakehouse.settings import Settings
from lakehouse.tables.spec import AirbyteServer

ANSWERS, SYNCED, RECONCILED = "answers", "synced", "reconciled"
_CHECKS = {
    SYNCED: "The server answered, and the sync succeeded.",
    RECONCILED: "As many records landed as the server says it committed.",
}


@dataclass(frozen=True, kw_only=True)
class AirbyteApi:
    """Where the Airbyte server is, and who asks it. Secrets show in no text and in none of Dagster's configuration."""

    url: str = ""
    rest: str = ""
    configuration: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    poll_seconds: float = 10

    @classmethod
    def of(cls, settings: Settings) -> "AirbyteApi":
        rest, configuration = settings.airbyte_apis
        return cls(
            url=settings.airbyte_url,
            rest=rest,
            configuration=configuration,
            client_id=settings.airbyte_client_id,
            client_secret=settings.airbyte_client_secret.get_secret_value(),
            user=settings.airbyte_user,
            password=settings.airbyte_password.get_secret_value(),
            poll_seconds=settings.airbyte_poll_seconds,
        )

    def server(self) -> Server:
        """The server to ask.

        Raises:
            DeclarationError: no URL is set, half of the credentials are, or dagster-airbyte is not installed.
        """
        if not self.url:
            raise DeclarationError("A connection is declared, but no server.", remedy="Set LAKEHOUSE_AIRBYTE_URL.")
        for name, first, second in (("CLIENT_", self.client_id, self.client_secret), ("", self.user, self.password)):
            if bool(first) != bool(second):
                pair = f"LAKEHOUSE_AIRBYTE_{name}{'ID' if name else 'USER'} and {name}{'SECRET' if name else 'PASSWORD'}"
                raise DeclarationError(f"One of {pair} is set, and the other is not.", remedy="Set both.")
        if self.client_id and self.user:
            raise DeclarationError("There are two ways to ask Airbyte.", remedy="Set LAKEHOUSE_AIRBYTE_CLIENT_ID or _USER.")
        try:
            from lakehouse.landing.sources.airbyte_client import Client
        except ModuleNotFoundError as error:
            raise DeclarationError("dagster-airbyte is not installed.", remedy=install("ingest")) from error
        return Client(
            rest_api_base_url=self.rest,
            configuration_api_base_url=self.configuration,
            workspace_id="",  # connections have ids of their own
            client_id=self.client_id or None,
            client_secret=self.client_secret or None,
            username=self.user or None,
            password=self.password or None,
            request_max_retries=0,
            request_retry_delay=0,
            request_timeout=15,
        )


def server_asset(declared: AirbyteServer) -> dg.AssetsDefinition:
    """`landing/<name>`: one sync of a connection."""
    key = dg.AssetKey(["landing", declared.name])

    def result(check: str, passed: bool, metadata: Mapping[str, Any], *, warn: bool = False) -> dg.AssetCheckResult:
        severity = dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR
        return dg.AssetCheckResult(passed=passed, asset_key=key, check_name=check, severity=severity, metadata=dict(metadata))

    @dg.asset(
        key=key,
        group_name="landing",
        description=f"One sync of the Airbyte connection {declared.connection}: {', '.join(declared.streams)}.",
        kinds={"airbyte"},
        check_specs=[dg.AssetCheckSpec(name, asset=key, description=text) for name, text in _CHECKS.items()],
        retry_policy=RETRY,
    )
    def landing(
        context: dg.AssetExecutionContext, lake: LakeResource, airbyte: dg.ResourceParam[AirbyteApi]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        def log(level: str, line: str) -> None:
            getattr(context.log, level)(line)

        with failures():
            try:
                done = sync(
                    airbyte.server(),
                    declared.connection,
                    max_runtime=declared.max_runtime,
                    poll=airbyte.poll_seconds,
                    log=log,
                    since=_begun(context) if context.retry_number else None,
                )
            except LakehouseError as error:
                yield result(SYNCED, False, {"error": str(error)})
                if isinstance(error, SourceDownError) and error.after is not None:
                    raise dg.RetryRequested(max_retries=RETRY.max_retries, seconds_to_wait=error.after) from error
                raise
            found: dict[str, Landed] = {}
            storage = lake.storage
            with lake.duckdb(landing=storage) as session:
                for stream in declared.streams:
                    found[stream] = landed(session, storage, declared.stream(stream).folder, done.job)
            short, differs, figures = reconcile(done, found)
            for stream, here in found.items():
                if here.generation and stream not in short:
                    storage.complete(declared.stream(stream).folder, here.generation)
        yield dg.MaterializeResult(metadata={"records": sum(here.records for here in found.values()), **figures})
        yield result(SYNCED, True, {"job": done.job.id, "attached": done.attached})
        yield result(RECONCILED, not short and not differs, figures, warn=not short)

    return landing


def server_check(declared: AirbyteServer) -> dg.AssetChecksDefinition:
    """`answers`, of `landing/<name>`: asks once, and starts nothing."""

    @dg.asset_check(
        asset=dg.AssetKey(["landing", declared.name]),
        name=ANSWERS,
        description="The Airbyte server answers, and has this connection, switched on.",
    )
    def answers(airbyte: dg.ResourceParam[AirbyteApi]) -> dg.AssetCheckResult:
        try:
            known = airbyte.server().connection(declared.connection)
        except LakehouseError as error:
            return dg.AssetCheckResult(passed=False, metadata={"error": str(error)})
        told = {name: str(known.get(name, "")) for name in ("name", "status")}
        return dg.AssetCheckResult(passed=told["status"] == "active", metadata=told)

    return answers


def _begun(context: dg.AssetExecutionContext) -> datetime | None:
    """When this run began; a sync that its tries before this one started is no older."""
    record = context.instance.get_run_record_by_id(context.run.run_id)
    return datetime.fromtimestamp(record.start_time, UTC) if record and record.start_time else None


def reconcile(done: Done, found: Mapping[str, Landed]) -> tuple[list[str], list[str], dict[str, Any]]:
    """Streams of which fewer records landed than the server committed; those that differ otherwise; and all figures.

    More may land than was committed where the server tried more than once: what an attempt left that was not acknowledged is
    delivered again by the next. With one attempt it differs. Where the server tells no numbers by stream, its total is
    compared, under the name `all streams`.
    """
    committed, total = done.committed, sum(here.records for here in found.values())
    if committed is not None:
        pairs = {stream: (committed.get(stream, 0), here.records) for stream, here in found.items()}
    else:
        pairs = {"all streams": (done.job.rows, total)} if done.job.rows is not None else {}
    short = [stream for stream, (there, here) in pairs.items() if here < there]
    differs = [stream for stream, (there, here) in pairs.items() if here > there and done.attempts < 2]
    if not pairs:
        differs.append("the server tells no numbers")
    figures: dict[str, Any] = {
        "job": done.job.id,
        "attempts": done.attempts,
        **{f"committed_{stream}": there for stream, (there, _) in pairs.items()},
        **{f"landed_{stream}": here.records for stream, here in found.items()},
        "unreadable_records": sum(here.broken_records for here in found.values()),
        "unreadable_files": sum(here.broken_files for here in found.values()),
    }
    undeclared = sorted(stream for stream in committed or () if "." not in stream and stream not in found)
    if undeclared:
        figures["streams_without_a_table"] = ", ".join(undeclared)
    if short or differs:
        figures["differ"] = ", ".join([*short, *differs])
    return ([*found] if short == ["all streams"] else short), differs, figures
