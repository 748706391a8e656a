"""Empty sources: whether a table's source has ever delivered anything, and where it was looked for.

A table that does not know any batch has never had a file. A lake that has, and whose landing folder holds nothing at all any
more, looks in the wrong folder. Pure: no dagster.
"""

from lakehouse.core import ledger
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.landing.readers.registry import landing
from lakehouse.tables import JOBS, SOURCES
from lakehouse.tables.spec import AirbyteStream, CapturedFeed, DeltaSource, TableSpec, job_of, with_histories


def looked_in(storage: Storage, spec: TableSpec, *, listed: int) -> str:
    """The folder in which nothing of a source is; "" when it has delivered.

    Args:
        listed: how many of its files are in landing now.

    Raises:
        StoreError: the store does not answer.
    """
    origin = landing(spec.origin, storage)
    if not has_delivered(storage, spec):
        return origin.location
    if listed or not spec.origin.owned:
        return ""
    raw = f"{storage.landing}/raw"
    return "" if files.listing(raw, below=True) else raw


def has_delivered(storage: Storage, spec: TableSpec) -> bool:
    """Whether bronze has ever taken in a batch of this source, or has rows."""
    bronze = open_existing(storage.uri(spec.bronze))
    return bronze is not None and bool(bronze.rows or bronze.watermark(ledger.ingest_app(spec.bronze)))


def without_data(storage: Storage, ref: TableRef, snapshot: Snapshot | None, specs: tuple[TableSpec, ...]) -> bool:
    """Whether a table of bronze or silver has no rows because none of its sources has ever delivered.

    Args:
        snapshot: the table; None where it does not exist yet.
        specs: every declared table, once for each of its bronze tables.
    """
    own = [spec for spec in with_histories(*specs) if ref in (spec.silver, spec.bronze)]
    if not own or (snapshot is not None and snapshot.rows):
        return False
    return not any(has_delivered(storage, spec) for spec in own)


def warning(spec: TableSpec, folder: str, *, version: int) -> str:
    """What a person reads of an empty source.

    Args:
        folder: as of `looked_in`.
    """
    what = f"{spec.landing} delivers nothing: no file is in {folder}. {spec.bronze} stays at version {version}."
    return f"{what} {_remedy(spec, folder)}"


def _remedy(spec: TableSpec, folder: str) -> str:
    origin = spec.origin
    if isinstance(origin, DeltaSource):
        return "Have its writer commit rows, or correct the location that lakehouse/tables/ declares."
    if not isinstance(origin, AirbyteStream) or not origin.made_by:
        return "Land its files there, or correct LAKEHOUSE_LANDING or the folder that lakehouse/tables/ declares."
    if not folder.endswith(f"/raw/{origin.folder}"):  # what was asked for had landed: asked again it would land elsewhere
        return "Files had landed before: correct LAKEHOUSE_LANDING."
    command = f"make trigger JOB={_job(origin)}"
    if isinstance(origin.connector, CapturedFeed):
        return f"Ask its source: {command}, with as many TIMES as its buffer takes captures."
    return f"Ask its source: {command}. If that has run, the source has no records yet, or LAKEHOUSE_LANDING is another folder."


def _job(origin: AirbyteStream) -> str:
    """The job that asks a stream's source: that of its tag, or the one of all that have none of their own."""
    name = getattr(origin.connector, "name", origin.made_by)
    tags = {tag for system in SOURCES if system.name == name for tag in system.tags}
    job = job_of(tags, JOBS)
    return job.name if job is not None else "medallion_etl"
