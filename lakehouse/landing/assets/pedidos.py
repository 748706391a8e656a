"""The order sources: assets that ask the web shop's API and the branch's database, and land what they say.

    API, SQL database ─▶ landing/pedidos_api, landing/pedidos_db ─▶ bronze

Run it alone: `make trigger JOB=pedidos`. How records land exactly once is in `landing/sources/extract.py`; when another try is
made, and what happens when a channel stays down, is here.
"""

import importlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.errors import DeclarationError, LakehouseError, SourceDownError, SourceError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import failures, retry_policy
from lakehouse.settings import Settings
from lakehouse.settings.environments import Profile
from lakehouse.settings.retries import Retry

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession
    from lakehouse.landing.sources.extract import Landed

API, DATABASE = TableRef("landing", "pedidos_api"), TableRef("landing", "pedidos_db")
#: The check that says whether a channel was taken in; a run that went on without it is degraded.
EXTRACTED = "extracted"
CURSOR = "updated_at"


@dataclass(frozen=True, kw_only=True)
class OrderSources:
    """Where the channels are, and how they are treated. Secrets show in no text and in none of Dagster's configuration."""

    profile: Profile
    cache: str
    sample: str
    api_url: str = ""
    api_token: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: Settings) -> "OrderSources":
        return cls(
            profile=settings.profile,
            cache=f"{settings.cache}/{API.table}",
            sample=f"{settings.landing}/sources",
            api_url=settings.pedidos_api_url,
            api_token=settings.pedidos_api_token.get_secret_value(),
            database_url=settings.pedidos_db_url.get_secret_value(),
        )

    @contextmanager
    def api(self) -> Iterator[Any]:
        """The API to ask; for the block, when it is the sample's.

        Raises:
            DeclarationError: no URL is set and the environment has no sample sources.
        """
        from lakehouse.landing.sources.rest import Api

        request, cache = self.profile.request_seconds, self.profile.cache_seconds
        if self.api_url:
            yield Api(url=self.api_url, token=self.api_token, request_seconds=request, cache_seconds=cache)
            return
        sample = self._stand_in("LAKEHOUSE_PEDIDOS_API_URL")
        with sample.shop(f"{self.sample}/{sample.API_FILE}") as url:
            yield Api(url=url, name="sample", request_seconds=request, cache_seconds=cache)

    def database(self) -> Any:
        """The database to ask.

        Raises:
            DeclarationError: as `api`.
        """
        from lakehouse.landing.sources.database import Database

        if self.database_url:
            return Database(url=self.database_url)
        sample = self._stand_in("LAKEHOUSE_PEDIDOS_DB_URL")
        return Database(url=f"sqlite:///{self.sample}/{sample.DB_FILE}")

    def _stand_in(self, setting: str) -> Any:
        """The module with the sources of the sample. The profile names it: landing knows of no sample."""
        if not self.profile.sample_sources:
            raise DeclarationError(
                f"{setting} is not set.", remedy="In staging and prod each source is named; nothing stands in for it."
            )
        return importlib.import_module(self.profile.sample_sources)


def order_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`landing/pedidos_api` and `landing/pedidos_db`."""
    profile = settings.profile
    return [
        _asset(API, profile.api_retry, _from_api, kind="rest", description="Orders of the web shop, from its API."),
        _asset(
            DATABASE, profile.db_retry, _from_database, kind="sql", description="Orders of the branch, from its SQL database."
        ),
    ]


Take = Callable[[OrderSources, Storage, "DuckDBSession"], "tuple[Landed, dict[str, Any]]"]


def _asset(ref: TableRef, retry: Retry, take: Take, *, kind: str, description: str) -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec(
        EXTRACTED, asset=ref.key, description="The channel was asked and answered; a run without it is degraded.", blocking=False
    )

    @dg.asset(
        key=ref.key,
        group_name="landing",
        description=description,
        owners=["team:dados"],
        kinds={kind, "parquet"},
        tags={"pedidos": ""},
        check_specs=[check],
        retry_policy=retry_policy(retry),
        io_manager_key=None,
    )
    def landing(
        context: dg.AssetExecutionContext, lake: LakeResource, orders: dg.ResourceParam[OrderSources]
    ) -> dg.MaterializeResult:
        storage = lake.storage
        uri = f"{storage.landing}/raw/{ref.table}"
        begun = time.monotonic()
        tries = context.retry_number + 1
        with failures():
            try:
                with lock(uri, wait=orders.profile.step_seconds), lake.duckdb(landing=storage) as session:
                    landed, metadata = take(orders, storage, session)
            except SourceError as error:
                _try_again(context, error, retry)
                if orders.profile.channel_down == "fail":
                    raise dg.Failure(description=str(error), allow_retries=False) from error
                context.log.error(f"{ref} stays out of this run: {error}")  # noqa: TRY400 - the sentence says it all
                failed = {"error": str(error), "tries": tries}
                return dg.MaterializeResult(
                    metadata={"dagster/uri": uri, "degraded": True, **failed}, check_results=[_result(ref, False, failed)]
                )
        context.log.info("%s: %s records delivered, %s of them new.", ref, f"{landed.delivered:,}", f"{landed.new:,}")
        figures: dict[str, Any] = {
            "dagster/uri": uri,
            "delivered": landed.delivered,
            "new_records": landed.new,
            "new_files": list(landed.files),
            "cursor": landed.cursor.isoformat() if landed.cursor else "none yet",
            "seconds": round(time.monotonic() - begun, 3),
            **metadata,
        }
        answered = {"delivered": landed.delivered, "tries": tries}
        return dg.MaterializeResult(metadata=figures, check_results=[_result(ref, True, answered)])

    return landing


def _try_again(context: dg.AssetExecutionContext, error: LakehouseError, retry: Retry) -> None:
    """Leave the step to its retry policy, while that has tries left and another one can help."""
    if not isinstance(error, SourceDownError) or context.retry_number >= retry.times:
        return
    if error.after is not None and error.after > retry.seconds:
        context.log.warning("Trying again in %.0f s, as it asked: %s", error.after, error)
        raise dg.RetryRequested(max_retries=retry.times, seconds_to_wait=error.after) from error
    context.log.warning("Trying again: %s", error)
    raise error


def _result(ref: TableRef, passed: bool, metadata: dict[str, Any], /) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=dg.AssetKey(ref.key),
        check_name=EXTRACTED,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
    )


def _from_api(orders: OrderSources, storage: Storage, session: "DuckDBSession") -> "tuple[Landed, dict[str, Any]]":
    from lakehouse.landing.sources import rest
    from lakehouse.landing.sources.extract import cursor, land

    landed = storage.landed(API.table)
    asked = _asked(cursor(landed), orders.profile)
    with orders.api() as source:
        fetched = rest.fetch(source, Path(orders.cache), since=asked, deadline=time.monotonic() + orders.profile.step_seconds)
        location = source.location
    found = land(
        session,
        storage,
        API.table,
        [shutil.copy(path, session.folder) for path in fetched.paths],  # the cache is outside what a session may read
        cursor_field=CURSOR,
        started=fetched.started,
        landed=landed,
    )
    return found, {"source": location, "cache_hit": fetched.hit, "fetched_at": fetched.started.isoformat()}


def _from_database(orders: OrderSources, storage: Storage, session: "DuckDBSession") -> "tuple[Landed, dict[str, Any]]":
    from lakehouse.landing.sources import database
    from lakehouse.landing.sources.extract import cursor, land

    landed = storage.landed(DATABASE.table)
    asked = _asked(cursor(landed), orders.profile)
    source = orders.database()
    started = datetime.now(UTC)
    folder = Path(session.folder, "rows")
    folder.mkdir()
    staged = database.extract(source, folder, since=asked, deadline=time.monotonic() + orders.profile.step_seconds)
    found = land(session, storage, DATABASE.table, staged, cursor_field=CURSOR, started=started, landed=landed)
    return found, {"source": source.table}


def _asked(cursor: datetime | None, profile: Profile) -> datetime | None:
    """From when on to ask: the cursor and an overlap before it."""
    return None if cursor is None else cursor - timedelta(seconds=profile.overlap_seconds)
