"""Landing assets that ask source systems (`SOURCES` of `tables/`): one for each, and what it delivers lands once.

    API, SQL database ─▶ landing/<source> ─▶ bronze

Run one alone: `make materialize SELECT='key:"landing/<source>"'`. How each kind is asked is in `landing/sources/registry.py`;
when another try is made, and what happens when a system stays down, is here.
"""

import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.errors import DeclarationError, LakehouseError, SourceDownError, SourceError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import lock
from lakehouse.landing.request import ExtractionRequest
from lakehouse.landing.sources.override import Override, claim
from lakehouse.landing.sources.window import Window
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import failures, retry_policy
from lakehouse.settings import Settings
from lakehouse.tables import SOURCES
from lakehouse.tables.spec import CapturedFeed, Retry, SourceSystem
from lakehouse.tables.spec.setting import plain

if TYPE_CHECKING:
    from lakehouse.landing.sources.extract import Landed
    from lakehouse.landing.sources.registry import Extraction

#: The check that says whether a system was taken in; a run that went on without it is degraded.
EXTRACTED = "extracted"
#: Of the engine that tells new records from others, which goes to disk beyond it: a process is below 500 MB, whatever it reads.
_MEMORY_MB = 200


@dataclass(frozen=True, kw_only=True)
class Systems:
    """The source systems with the values of their settings, which show in no text and in none of Dagster's configuration.

    Args:
        samples: a system without a URL is its sample.
        landing: the folder that samples are in.
        cache: the folder of this machine for what was fetched.
    """

    found: Mapping[str, SourceSystem] = field(repr=False)
    samples: bool
    landing: str
    cache: str

    @classmethod
    def of(cls, settings: Settings) -> "Systems":
        found = {system.name: system for system in settings.sources}
        return cls(found=found, samples=settings.profile.samples, landing=settings.landing, cache=settings.cache)

    @contextmanager
    def opened(self, declared: SourceSystem) -> Iterator[tuple[SourceSystem, bool]]:
        """A system that can be asked, for the block, and whether its sample stands in for it.

        Raises:
            DeclarationError: no URL is set and the environment has no samples.
        """
        system = self.found[declared.name]
        if plain(system.url):
            yield system, False
            return
        if not self.samples or not system.sample:
            raise DeclarationError(
                f"{declared.address} is not set.", remedy="In staging and prod each source is named; nothing stands in for it."
            )
        module, _, function = system.sample.partition(":")
        with getattr(importlib.import_module(module), function)(self.landing) as url:
            yield replace(system, url=url), True


def system_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset `landing/<name>` of every declared source system."""
    both = zip(SOURCES, settings.sources, strict=True)
    return [_asset(declared, found) for declared, found in both if not isinstance(declared, CapturedFeed)]


def _asset(declared: SourceSystem, found: SourceSystem) -> dg.AssetsDefinition:
    ref, retry = TableRef("landing", declared.name), found.retry
    check = dg.AssetCheckSpec(
        EXTRACTED, asset=ref.key, description="The source was asked and answered; a run without it is degraded.", blocking=False
    )

    @dg.asset(
        key=ref.key,
        group_name="landing",
        description=declared.description or f"What {declared.name} has that is new.",
        owners=list(declared.owners),
        kinds={declared.kind, "parquet"},
        tags=dict.fromkeys(declared.tags, ""),
        check_specs=[check],
        retry_policy=retry_policy(retry),
        io_manager_key=None,
        output_required=False,
    )
    def landing(
        context: dg.AssetExecutionContext,
        lake: LakeResource,
        systems: dg.ResourceParam[Systems],
        extraction: ExtractionRequest,
    ) -> Iterator[Any]:
        begun = time.monotonic()
        tries = context.retry_number + 1
        with failures():
            window, asked = extraction.window, _own(declared, extraction.override)
            uri = f"{lake.storage.landing}/raw/{_folder(declared, asked)}"
            try:
                done = _extracted(declared, lake, systems, window, asked)
            except SourceError as error:
                _try_again(context, error, retry)
                if found.when_down == "fail" or asked is not None:
                    raise dg.Failure(description=str(error), allow_retries=False) from error
                context.log.error(f"{ref} stays out of this run: {error}")  # noqa: TRY400 - the sentence says it all
                failed = {"error": str(error), "tries": tries}
                yield _result(ref, False, failed)
                yield dg.MaterializeResult(metadata={"dagster/uri": uri, "degraded": True, **failed})
                return
        for name, landed in done.streams.items():
            own = f"{ref} {name}" if len(done.streams) > 1 else f"{ref}"
            context.log.info("%s: %s records delivered, %s of them new.", own, f"{landed.delivered:,}", f"{landed.new:,}")
        delivered = sum(landed.delivered for landed in done.streams.values())
        yield _result(ref, True, {"delivered": delivered, "tries": tries})
        metadata = {"dagster/uri": uri, **_figures(done), "seconds": round(time.monotonic() - begun, 3), **done.metadata}
        if window:
            metadata["window"] = str(window)
        if asked is not None:
            metadata["asked"] = str(asked)
        if asked is None or not asked.target:
            yield dg.MaterializeResult(metadata=metadata)
        else:  # what follows the declared stream has nothing new
            context.log.info("It landed in %s, which no table reads.", uri)
            yield dg.AssetMaterialization(["landing", asked.target], metadata=metadata)

    return landing


def _own(declared: SourceSystem, asked: Override | None) -> Override | None:
    """What a run asks a system for instead of what is declared.

    Raises:
        DeclarationError: it asks that of another system.
    """
    if asked is not None and asked.system.name != declared.name:
        raise DeclarationError(
            f"This run's source or target is for {asked.name}, and landing/{declared.name} is part of it.",
            remedy=f"Choose landing/{asked.system.name} alone in the Launchpad, or use make trigger, which does.",
        )
    return asked


def _folder(declared: SourceSystem, asked: Override | None) -> str:
    """The folder below `raw/` in which everything of a run lands."""
    if asked is not None:
        return asked.folder
    return declared.folder(declared.streams[0]) if len(declared.streams) == 1 else declared.name


def _extracted(
    declared: SourceSystem, lake: LakeResource, systems: Systems, window: Window, asked: Override | None
) -> "Extraction":
    """Ask the system with the folders of all streams that it is asked for locked."""
    from lakehouse.landing.sources.registry import Work, extract

    storage = lake.storage
    seconds = declared.timeout.total_seconds()
    folders = [asked.folder] if asked is not None else [declared.folder(stream) for stream in declared.streams]
    with ExitStack() as stack:
        for folder in sorted(folders):
            stack.enter_context(lock(f"{storage.landing}/raw/{folder}", wait=seconds))
        if asked is not None and asked.target:
            claim(storage, asked)
        session = stack.enter_context(lake.duckdb(landing=storage, at_most=_MEMORY_MB))
        deadline = time.monotonic() + seconds
        system, sample = stack.enter_context(systems.opened(declared))
        work = Work(
            storage=storage,
            session=session,
            declared=declared,
            sample=sample,
            # What was fetched of another source is not good for the declared one.
            cache=f"{systems.cache}/{declared.name}" if asked is None else f"{session.folder}/fetched",
            deadline=deadline,
            window=replace(window, aside=asked is not None and not asked.target),
            target=asked.target if asked is not None else "",
        )
        return extract(asked.of(system) if asked is not None else system, work)


def _figures(done: "Extraction") -> dict[str, Any]:
    """What the asset's page shows: in all, and by stream where there is more than one."""
    streams = done.streams
    cursors = {name: _cursor(landed) for name, landed in streams.items()}
    found: dict[str, Any] = {
        "delivered": sum(landed.delivered for landed in streams.values()),
        "new_records": sum(landed.new for landed in streams.values()),
        "new_files": [path for landed in streams.values() for path in landed.files],
        "cursor": next(iter(cursors.values())) if len(cursors) == 1 else cursors,
    }
    if len(streams) > 1:
        found["streams"] = {name: {"delivered": one.delivered, "new": one.new} for name, one in streams.items()}
    return found


def _cursor(landed: "Landed") -> str:
    """How far a stream has come: an instant, a number, or the generation of one that lands whole."""
    if landed.generation:
        return f"generation {landed.generation}"
    point = landed.cursor
    return "none yet" if point is None else str(point) if isinstance(point, int) else point.isoformat()


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
