"""Foreign tables: a Delta table that another writer made, read as its protocol says, or refused in one sentence.

    open_foreign(uri, version) ─▶ ForeignTable: features, columns, live files ─▶ reading(): record batches of all of its rows

delta-rs' own scan reads them: it applies deletion vectors, mapped column names and the partition values of the log. What it
would read as something else is looked for before: features that it does not know, dates of the calendar before 1582, instants
of a partition without a time zone. What is wrong with a log is found by `recovery.py`. Nothing is ever written here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from lakehouse.core.errors import BrokenTableError, ForeignTableError, LakehouseError
from lakehouse.core.names import is_remote
from lakehouse.core.store import files as stored
from lakehouse.core.table.calendars import old_value
from lakehouse.core.table.recovery import damage, newest_action

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

#: Delta's types of nested values, and whether a member that is null is the same as one that is not there.
NESTED = {"struct": True, "array": True, "map": False, "variant": False}
#: The reader features that delta-rs' scan applies; each is tried on tables that Spark wrote.
_READ = frozenset(("columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "variantType", "variantType-preview"))
#: Writer features with which commits are elsewhere than in the log, or the log is not all of them.
_ELSEWHERE = frozenset(("catalogManaged", "catalogOwned", "catalogOwned-preview", "coordinatedCommits-preview"))
_NEWEST_READER = 3
_ZONE = re.compile(r".*([zZ]|[+-]\d{2}:?\d{2})")
_SCHEME = re.compile(r"[a-z][a-z0-9]*:/")
_ASK = "Have its writer put it right: here nothing of it was read, and nothing is ever written there."


@dataclass(frozen=True)
class ForeignTable:
    """A table of another writer at one version. `features` are the protocol's names of what a reader has to apply.

    Args:
        timezone: of instants in partition values that have none: the session's of whoever wrote them.
        origin: of a table that is some files of another one (`foreign_changes.py`): its URI, which messages name.
    """

    uri: str
    table: "DeltaTable" = field(repr=False)
    features: tuple[str, ...] = ()
    timezone: str = ""
    origin: str = ""

    @property
    def called(self) -> str:
        """The URI that messages name."""
        return self.origin or self.uri

    @property
    def version(self) -> int:
        return int(self.table.version())

    @property
    def id(self) -> str:
        """The table's own id: another one when it was removed and made again."""
        return str(self.table.metadata().id)

    @property
    def partition_columns(self) -> tuple[str, ...]:
        return tuple(self.table.metadata().partition_columns)

    @property
    def variants(self) -> bool:
        """Whether a column may hold variants, which the stream has as structs of bytes."""
        return any(feature.startswith("variantType") for feature in self.features)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """`{column: Delta type}`, nested types as `struct`, `array` and `map`."""
        return {column.name: str(getattr(column.type, "type", column.type)) for column in self.table.schema().fields}

    @cached_property
    def files(self) -> list[str]:
        """The live data files by URI; those of a shallow clone may be anywhere."""
        return [located(self.uri, path) for path in self.paths]

    @cached_property
    def paths(self) -> list[str]:
        """The live data files as the log has them."""
        return [str(path) for path in self.actions().column("path").to_pylist()]

    def actions(self) -> Any:
        """A row for each live data file, as delta-rs gives it: `path`, `size_bytes`, `num_records` and other statistics."""
        with _explained(self.uri, self.version, called=self.called):
            return self.table.get_add_actions(flatten=True)

    def check(self, files: Sequence[str] | None = None) -> None:
        """Look that files are there, and that no value in them would be read as another.

        Args:
            files: URIs; the live ones by default.

        Raises:
            BrokenTableError: one is missing, or is no Parquet.
            ForeignTableError: an old calendar, or an instant without a time zone.
        """
        files = [*self.files] if files is None else files
        there: dict[str, frozenset[str]] = {}
        for uri in files:
            if not _exists(uri, there):
                raise BrokenTableError(f"The data file {uri} of the Delta table {self.called} is missing.", remedy=_ASK)
        self._zones()
        found = old_value(files, dated=any(map(_dated, self.table.schema().fields)))
        if found:
            raise ForeignTableError(
                f"The Delta table {self.called} has dates of the calendar before 1582 (legacy rebase mode): {found}.",
                remedy="Have Spark write it again with spark.sql.parquet.datetimeRebaseModeInWrite=CORRECTED and "
                "spark.sql.parquet.int96RebaseModeInWrite=CORRECTED.",
                feature="legacyDateTime",
            )

    def _zones(self) -> dict[str, dict[datetime, datetime]]:
        """By partition column of instants: what the scan makes of those without a zone, and what they are."""
        columns = [name for name in self.partition_columns if self.kinds.get(name) == "timestamp"]
        values = self.table.partitions() if columns else []
        found: dict[str, dict[datetime, datetime]] = {}
        for name in columns:
            raw = {str(text) for row in values if (text := row.get(name))}  # '' is null, too
            without = sorted(text for text in raw if not _ZONE.fullmatch(text))
            if without and not self.timezone:
                raise ForeignTableError(
                    f"The Delta table {self.called} is partitioned by {name}, whose value {without[0]!r} has no time zone.",
                    remedy='Name the zone of the session that wrote it: DeltaSource(..., timezone="America/Sao_Paulo"), or '
                    "make compare ... TIMEZONE=America/Sao_Paulo.",
                    feature="partition instants without a time zone",
                )
            if without and self.timezone.upper() != "UTC" and len(without) < len(raw):
                raise ForeignTableError(
                    f"The Delta table {self.called} is partitioned by {name}: some of its values have a time zone, some none.",
                    remedy="Have Spark write it again with spark.databricks.delta.write.utcTimestampPartitionValues=true.",
                    feature="partition instants without a time zone",
                )
            zone = ZoneInfo(self.timezone or "UTC")
            found[name] = dict(self._instant(name, text, zone) for text in without)
        return found

    def _instant(self, column: str, text: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """What the scan makes of a partition value without a zone, and what it is."""
        try:
            at = datetime.fromisoformat(text)
            return at.replace(tzinfo=UTC), at.replace(tzinfo=zone).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ForeignTableError(
                f"The Delta table {self.called} is partitioned by {column}, whose value {text!r} is no instant of the years 1 to "
                f"9999 in the zone {zone.key}.",
                remedy="Have its writer put the value right, or adopt a copy that is not partitioned by it.",
                feature="partition instants out of range",
            ) from error

    @contextmanager
    def reading(self, columns: Sequence[str] | None = None, *, checked: bool = False) -> "Iterator[pa.RecordBatchReader]":
        """All rows of the version as a stream, checked first; the order is of no meaning. What goes wrong in the block while
        the stream is read is raised as what it is, whatever the reader of the stream made of it.

        Args:
            columns: all by default.
            checked: it was, just now.

        Raises:
            BrokenTableError: a live file is missing or damaged.
            ForeignTableError: something in it cannot be read exactly.
        """
        import pyarrow as pa

        if not checked:
            self.check()
        zones = {
            name: known
            for name, known in self._zones().items()
            if (columns is None or name in columns) and any(at != to for at, to in known.items())
        }
        failed: list[LakehouseError] = []
        with _explained(self.uri, self.version, called=self.called):
            scan = pa.RecordBatchReader.from_stream(self.table.scan(columns=None if columns is None else [*columns]))

        def batches() -> "Iterator[pa.RecordBatch]":
            try:
                with _explained(self.uri, self.version, called=self.called):
                    for batch in scan:
                        yield _zoned(batch, zones) if zones else batch
            except LakehouseError as error:
                failed.append(error)
                raise

        try:
            yield pa.RecordBatchReader.from_batches(scan.schema, batches())
        except Exception as error:
            if failed and error is not failed[0]:
                raise failed[0] from error
            raise


def open_foreign(uri: str, *, version: int | None = None, timezone: str = "") -> ForeignTable | None:
    """The table at `uri`, now or at a version; None when there is none.

    Raises:
        BrokenTableError: its log cannot be read (or not at this version), or there is a file in the place of its folder.
        ForeignTableError: it has a feature that is not read here.
    """
    from deltalake import DeltaTable

    if is_remote(uri):  # delta-rs would try for minutes
        stored.reach(stored.bucket(uri))
    elif Path(uri).is_file():
        raise BrokenTableError(f"{uri} is a file, and a Delta table is a folder.", remedy="Name the folder that has _delta_log.")
    options = stored.options(uri)
    with _explained(uri, version):
        if not DeltaTable.is_deltatable(uri, options):
            return None
        table = DeltaTable(uri, version=version, storage_options=options)
        protocol = table.protocol()
        settings = table.metadata().configuration
    described = {
        "minReaderVersion": protocol.min_reader_version,
        "readerFeatures": protocol.reader_features,
        "writerFeatures": protocol.writer_features,
    }
    return ForeignTable(uri, table, _features(uri, described, settings), timezone)


def require_foreign(uri: str, *, version: int | None = None, timezone: str = "", remedy: str) -> ForeignTable:
    """The table at `uri`, where it must exist.

    Raises:
        BrokenTableError: it does not, or cannot be read.
        ForeignTableError: it has a feature that is not read here.
    """
    found = open_foreign(uri, version=version, timezone=timezone)
    if found is None:
        raise BrokenTableError(f"There is no Delta table in {uri}.", remedy=remedy)
    return found


def located(uri: str, path: str) -> str:
    """The URI of a data file, of its path in the log: encoded like a URL, relative to the table or not."""
    plain = unquote(path)
    if not _SCHEME.match(path):
        return plain if path.startswith("/") else f"{uri}/{plain}"
    scheme, _, rest = plain.partition(":")
    rest = "/" + rest.lstrip("/") if scheme == "file" else rest
    return rest if scheme == "file" else f"{'s3' if scheme in ('s3a', 's3n') else scheme}:{rest}"


def _features(uri: str, protocol: Mapping[str, Any], settings: Mapping[str, str | None]) -> tuple[str, ...]:
    """What a reader has to apply.

    Raises:
        ForeignTableError: it includes what is not read here.
    """
    needed = list(protocol.get("readerFeatures") or ())
    if settings.get("delta.columnMapping.mode", "none") != "none" and "columnMapping" not in needed:
        needed.append("columnMapping")
    elsewhere = sorted(_ELSEWHERE & {*needed, *(protocol.get("writerFeatures") or ())})
    if elsewhere:
        raise ForeignTableError(
            f"The commits of the Delta table {uri} are managed by a catalog ({elsewhere[0]}): its log does not have them all.",
            remedy="Adopt a copy of it: CREATE TABLE ... USING delta LOCATION ... AS SELECT * FROM the table.",
            feature=elsewhere[0],
        )
    unknown = sorted({*needed} - _READ)
    if unknown:
        raise ForeignTableError(
            f"The Delta table {uri} has the feature {', '.join(unknown)}, which is not read here.",
            remedy=f"Have its writer drop it (ALTER TABLE ... DROP FEATURE '{unknown[0]}'), or adopt a copy without it.",
            feature=", ".join(unknown),
        )
    version = int(protocol.get("minReaderVersion") or 1)
    if version > _NEWEST_READER:
        raise ForeignTableError(
            f"The Delta table {uri} needs reader version {version}; {_NEWEST_READER} is the newest that is read here.",
            remedy="Adopt a copy of it that an older writer made.",
            feature=f"reader version {version}",
        )
    return tuple(needed)


@contextmanager
def _explained(uri: str, version: int | None, *, called: str = "") -> Iterator[None]:
    """Say what deltalake's errors mean, in one sentence and in none of its words where there are others."""
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        raise _meaning(uri, error, version, called=called or uri) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's; it is no Exception
            raise
        raise _meaning(uri, RuntimeError(str(error)), version, called=called or uri) from None


def _meaning(uri: str, error: Exception, version: int | None, *, called: str) -> LakehouseError:
    """Why a table cannot be read, found in its folder rather than in the error."""
    found = damage(uri, version=version)
    if found is not None:
        return BrokenTableError(found.what, remedy=_ASK)
    try:
        protocol, metadata = (newest_action(uri, kind, version=version) for kind in ("protocol", "metaData"))
        schema = (metadata or {}).get("schemaString")
        if protocol is None or metadata is None or schema is None:
            lacks = "protocol" if protocol is None else "metadata" if metadata is None else "schema"
            return BrokenTableError(f"The log of the Delta table {called} has no {lacks}, so nobody can read it.", remedy=_ASK)
        _features(called, protocol, metadata.get("configuration") or {})
    except LakehouseError as refusal:
        return refusal
    message = str(error)
    if kind := re.search(r"Unsupported Delta table type: '([^']+)'", message):
        return ForeignTableError(
            f"The Delta table {called} has a column of the type {kind[1]}, which is not read here.",
            remedy="Adopt a copy or a view of it that has the column as text.",
            feature=kind[1].partition("(")[0],
        )
    if name := re.search(r"(?:for file |File not found: |location )([^:]+?)(?: not found)?(?::|$)", message):
        lost = "is missing" if "not found" in message else "is damaged"
        return BrokenTableError(f"The file {name[1].strip()} of the Delta table {called} {lost}.", remedy=_ASK)
    return BrokenTableError(f"The Delta table {called} cannot be read: {_short(message)}.", remedy=_ASK)


def _short(message: str) -> str:
    """The last part of a library's chain of errors, on one line."""
    first = " ".join(re.split(r"\n|\s+0: <unknown>|ParsedLogPath", message)[0].split())
    return re.sub(r"^((\w+ )*error: )+", "", first, flags=re.IGNORECASE)[:300].rstrip(" .:")


def _exists(uri: str, listed: dict[str, frozenset[str]]) -> bool:
    """Whether a file is there; of an object store one listing tells that of all in a folder."""
    if not is_remote(uri):
        return Path(uri).is_file()
    folder, _, name = uri.rpartition("/")
    if folder not in listed:
        listed[folder] = frozenset(stored.names_in(folder))
    return name in listed[folder]


def _dated(column: Any) -> bool:
    """Whether a column, or what is nested in it, has dates or instants."""
    return bool(re.search(r'"(date|timestamp|timestamp_ntz)"', column.to_json()))


def _zoned(batch: "pa.RecordBatch", zones: Mapping[str, Mapping[datetime, datetime]]) -> "pa.RecordBatch":
    """A batch with the instants of partitions as they are in their zone. A column has few values, each many times."""
    import pyarrow as pa

    columns: Sequence[Any] = list(batch.columns)
    for name, known in zones.items():
        position = batch.schema.get_field_index(name)
        coded = columns[position].dictionary_encode()
        values = pa.array([known.get(at, at) for at in coded.dictionary.to_pylist()], columns[position].type)
        columns = [*columns[:position], values.take(coded.indices), *columns[position + 1 :]]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
