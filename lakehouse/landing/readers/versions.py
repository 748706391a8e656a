"""Versions of another writer's Delta table, each taken in as if it were one landed file: `<table id>@<version>.parquet`.

    ops/landing_files ─▶ known versions ─▶ landed: the newest one that delivers data ─▶ copied: its rows as Parquet ─▶ stage

The first holds all rows of the table, each later one the rows that are new since the one before: what commits have added, and of
a commit that wrote files again (UPDATE, DELETE, MERGE, an overwrite, RESTORE) the rows that are in the new files and not in the
old ones. OPTIMIZE delivers nothing. With `sync="overwrite"` each version holds all rows, and is a generation: silver shows the
newest. With `withdrawals="delete"` a version also has the rows that are gone since, marked as withdrawn; where it cannot be known
what is new or gone, it holds all rows, and what came before no longer counts. The first one of a lake is `….whole.parquet`.

A version is named in the plan before it is read, so who continues after a kill reads the same one. Earlier releases planned data
files by their paths: such a lake goes on from the newest version of which every live file was read.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lakehouse.core.errors import BrokenTableError, LakehouseError
from lakehouse.core.store import files as stored
from lakehouse.core.store.storage import LandedFile
from lakehouse.core.table.foreign import NESTED, ForeignTable, open_foreign, require_foreign
from lakehouse.core.table.foreign_changes import Changes, changes, file_actions, table_of
from lakehouse.landing.readers.files.fields import ENVELOPE_NAMES, WITHDRAWN
from lakehouse.landing.readers.here import Here, Opened
from lakehouse.tables.spec import DeltaSource, Sync

if TYPE_CHECKING:
    import narwhals as nw

    from lakehouse.core.engines.duckdb import DuckDBSession

_NAME = re.compile(r"([\w-]+)@(\d{20})(\.whole)?\.parquet")
_GENERATION, _META = "_airbyte_generation_id", "_airbyte_meta"
#: Something was read, and which version it was cannot be known.
_UNKNOWN = -1


def state(source: DeltaSource) -> str:
    """A word that changes when the table has a new commit; empty when there is no table.

    Raises:
        BrokenTableError: it cannot be read.
        ForeignTableError: it has something that is not read here.
    """
    table = open_foreign(source.uri)
    return "" if table is None else json.dumps([table.id, table.version, *(["delete"] if _follows(source) else [])])


def landed(source: DeltaSource, *, known: Mapping[str, str], anew: bool = False) -> list[LandedFile]:
    """The newest version that delivers data, and the newest known one while it can be read.

    Args:
        known: paths that are planned, with their checksums.
        anew: a table that was made again is taken in as a new one.

    Raises:
        BrokenTableError: there is no such table, it cannot be read, has lost commits, or was made again since.
        ForeignTableError: it has something that is not read here.
    """
    table = _required(source)
    read, others = _read(known, table.id), any(map(_NAME.fullmatch, known))
    if read:
        _check_log(table, max(read), known)
    if others and not read and not anew and not (_follows(source) and _continues(table, known)):
        raise BrokenTableError(
            f"The Delta table {source.uri} was made again since it was read: its id is another.",
            remedy=f"To take its rows in {'instead of' if _follows(source) else 'beside'} those that are there: make release "
            "TABLE=... REASON='...'. To begin without them: declare it under another name.",
        )
    last = _since(source, known, table, table.version + 1)
    files = [_named(table, last, whole=whole) for whole in _wholes(known, table.id, last)] if last is not None else []
    if _follows(source) and not any(found[3] for path in known if (found := _NAME.fullmatch(path))):
        # What was withdrawn before this was declared is not known: silver begins with all rows.
        return [*(file for file in files if _is_readable(source, last)), _named(table, whole=True)]
    if last is not None and last != _UNKNOWN and not _delivers(source.uri, last, table.version, read=_followed(known)):
        return files
    return [*(file for file in files if _is_readable(source, last)), _named(table)]


def generation(files: Sequence[LandedFile]) -> int:
    """The newest generation among versions that are taken in; version 0 is the first."""
    return max((int(found[2]) + 1 for file in files if (found := _NAME.fullmatch(file.path))), default=0)


def copied(
    session: "DuckDBSession",
    source: DeltaSource,
    files: Sequence[LandedFile],
    *,
    folder: str,
    sync: Sync,
    known: Collection[str],
) -> Here:
    """What these versions deliver: Parquet files of their names, which hold the rows, or their types and a stream has the rows.

    Args:
        known: paths that were read before.

    Raises:
        BrokenTableError: a version can no longer be read; with `append` also: what is new in it cannot be known.
        ForeignTableError: it has something that is not read here.
    """
    whole, withdrawn, streams = set[str](), dict[str, int](), dict[str, Opened]()
    for file in files:
        found = _NAME.fullmatch(file.path)
        if found is None:  # planned by an earlier release, and not read
            continue
        version, path = int(found[2]), Path(folder, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        delivery = _Delivery(session, source, _required(source, version=version), sync, f"{folder}/logs", _followed(known))
        if sync == "overwrite":
            opened, gone = delivery.generation(path, again=version in _read(known, delivery.table.id)), None
        else:
            opened, gone = delivery.changes(None if found[3] else _since(source, known, delivery.table, version), path)
        if opened is not None:
            streams[file.path] = opened
        if gone is None and _follows(source) and sync != "overwrite":  # a generation says itself what counts
            whole.add(file.path)
        elif gone:
            withdrawn[file.path] = gone
    return Here(folder, frozenset(whole), withdrawn, streams)


@dataclass(frozen=True)
class _Delivery:
    """What one version of a table delivers.

    Args:
        followed: paths of data files that an earlier release read.
    """

    session: "DuckDBSession"
    source: DeltaSource
    table: ForeignTable
    sync: Sync
    folder: str
    followed: frozenset[str]

    def generation(self, path: Path, *, again: bool) -> Opened | None:
        """Deliver all rows of the version as a generation; none of them `again`, when it was read under another name."""
        if not again:
            return self._deliver(self.table, path)
        with self._rows(self.table) as frame:
            self.session.copy(frame.head(0), path)
        return None

    def changes(self, since: int | None, path: Path) -> tuple[Opened | None, int | None]:
        """Deliver the rows that are new since a version, all where None was read or what is new cannot be known.

        Returns what opens them (None: they are in the file), and how many rows are gone since (None: all were delivered).
        """
        try:
            compared = None if since is None or since == _UNKNOWN else self._compared(since)
        except BrokenTableError:  # a file is gone: then the whole older version is, too
            compared = None
        if compared is not None:
            try:
                return self._difference(*compared, path)
            except BrokenTableError:
                self.table.check()  # this version has to be whole
        if since is not None and self.sync == "append" and not _follows(self.source):
            raise self._unknown(since)
        return self._deliver(self.table, path), None

    def _deliver(self, table: ForeignTable, path: Path) -> Opened | None:
        """Let the file at `path` have all rows of a table: as a stream of its names and types, which spares a copy of them all.
        Records that are documents are read more than once, so these are written."""
        plain = "_airbyte_data" not in table.kinds and any(name not in ENVELOPE_NAMES for name in table.kinds)
        with self._rows(table) as frame:
            self.session.copy(frame.head(0) if plain else frame, path)
        return partial(self._rows, table, checked=True) if plain else None

    @contextmanager
    def _rows(self, table: ForeignTable, *, checked: bool = False) -> "Iterator[nw.LazyFrame[Any]]":
        import narwhals as nw

        with table.reading([name for name in self.table.kinds if name in table.kinds], checked=checked) as stream:
            frame = self._frame(table, stream)
            if self.sync == "overwrite":
                frame = frame.with_columns(nw.lit(self.table.version + 1).cast(nw.Int64).alias(_GENERATION))
            yield frame

    def _difference(self, table: ForeignTable, other: ForeignTable | None, path: Path) -> tuple[Opened | None, int]:
        """Deliver the rows of a table that another has not, or not as often; how many that one has beyond them."""
        import narwhals as nw

        if other is None:
            return self._deliver(table, path), 0
        columns = [nw.col(name) if name in other.kinds else nw.lit(None).alias(name) for name in table.kinds]
        came, went = self._persisted(table), self._persisted(other).select(*columns)
        if _follows(self.source):
            gone = self.session.persist(self.session.without(went, came))
            self._copy_marked(self.session.without(came, went), gone, path)
            return None, self.session.count(gone)
        new = self.session.persist(self.session.without(came, went))
        self.session.copy(new, path)
        return None, self.session.count(went) - self.session.count(came) + self.session.count(new)

    def _copy_marked(self, new: "nw.LazyFrame[Any]", gone: "nw.LazyFrame[Any]", path: Path) -> None:
        """Write new rows, and those that are gone with `WITHDRAWN` as their `_airbyte_meta`."""
        import narwhals as nw

        from lakehouse.core.engines.duckdb_texts import with_texts

        if _META in self.table.kinds:
            new = with_texts(new, {_META: _META}, variants=self.table.variants)
        else:
            new = new.with_columns(nw.lit(None).cast(nw.String).alias(_META))
        gone = gone.with_columns(nw.lit(WITHDRAWN).alias(_META)).select(*new.collect_schema().names())
        self.session.copy(nw.concat([new, gone], how="vertical"), path)

    def _compared(self, since: int) -> tuple[ForeignTable, ForeignTable | None] | None:
        """Tables whose difference is what is new: of the files that came and went, else this version and the older one; None
        where neither tells."""
        before = _required(self.source, version=since)
        if _follows(self.source) and _reshaped(before, self.table):  # bronze has those rows under other names or as other texts
            return None
        found = changes(self.source.uri, since, self.table.version, read=self.followed)
        parts = self._parts(found, before) if found is not None else None
        if parts is None and self.followed:  # of what came after `since` some was read
            return None
        if parts is None and _other_types(before, self.table):
            return None
        return parts or (self.table, before)

    def _unknown(self, since: int) -> BrokenTableError:
        """Why what is new cannot be known."""
        others: list[str] = []
        if since != _UNKNOWN:
            with suppress(BrokenTableError):  # a file is gone
                before = _required(self.source, version=since)
                before.check()
                others = _other_types(before, self.table)
        what = f"What is new in the Delta table {self.source.uri} since version {max(since, 0)} cannot be known:"
        if others:
            return BrokenTableError(
                f"{what} its schema has changed, and {', '.join(others)} has another type now.",
                remedy="To take all rows in anew, declare it under another name.",
            )
        return BrokenTableError(
            f"{what} its commits or files from then are gone.",
            remedy="Let its writer keep them for longer than a run of the job is away (VACUUM, "
            "delta.logRetentionDuration); to take all rows in anew, declare it under another name.",
        )

    def _parts(self, found: Changes, before: ForeignTable) -> tuple[ForeignTable, ForeignTable | None] | None:
        """Tables of the files that came, and of those that went."""
        again = {unquote(action["path"]) for action in found.added} - {unquote(action["path"]) for action in found.removed}
        if again & {unquote(path) for path in before.paths}:  # added once more: none of its rows is new
            return None
        came = table_of(self.table, found.added, self.folder)
        went = table_of(self.table, found.removed, self.folder) if found.removed else None
        return None if came is None or (found.removed and went is None) else (came, went)

    def _persisted(self, table: ForeignTable) -> "nw.LazyFrame[Any]":
        with self._rows(table) as frame:
            return self.session.persist(frame)

    def _frame(self, table: ForeignTable, stream: Any) -> "nw.LazyFrame[Any]":
        from lakehouse.core.engines.duckdb_texts import with_texts

        frame = self.session.stream(stream)
        if not table.variants:
            return frame
        # A Parquet file of ours would have their bytes, and bytes differ where values do not.
        return with_texts(frame, {name: name for name, kind in table.kinds.items() if kind in NESTED}, variants=True)


def _other_types(before: ForeignTable, now: ForeignTable) -> list[str]:
    """The columns of both versions that have another type in the newer one."""
    old, new = ({column.name: column.type for column in table.table.schema().fields} for table in (before, now))
    return [name for name, kind in new.items() if old.get(name, kind) != kind]


def _reshaped(before: ForeignTable, now: ForeignTable) -> bool:
    """Whether a column of the older version has another name or type in the newer one, or is not in it."""
    return bool({*before.kinds} - {*now.kinds} or _other_types(before, now))


def _follows(source: DeltaSource) -> bool:
    return source.withdrawals == "delete"


def _required(source: DeltaSource, *, version: int | None = None) -> ForeignTable:
    remedy = "Look at the DeltaSource of the table's spec."
    return require_foreign(source.uri, version=version, timezone=source.timezone, remedy=remedy)


def _check_log(table: ForeignTable, last: int, known: Mapping[str, str]) -> None:
    """Look that the commit of a planned version is the one that it was; one that was cleaned up since is not looked for."""
    what = ""
    if last > table.version:
        what = f"version {last} was read, its newest is {table.version}"
    else:
        name = _called(table, last)
        planned, _, digest = next(known[path] for path in known if path.startswith(f"{name}.")).partition(":")
        now = _digest(table, last)
        if planned == name and digest and now and digest != now:
            what = f"version {last} was read, and is another one now"
    if what:
        raise BrokenTableError(
            f"The Delta table {table.uri} has lost commits: {what}.",
            remedy="Have its writer put them back, or declare the table under another name.",
        )


def _continues(table: ForeignTable, known: Mapping[str, str]) -> bool:
    """Whether the log goes on from the newest planned version under another id, as with CREATE OR REPLACE TABLE."""
    newest = max((path for path in known if _NAME.fullmatch(path)), key=lambda path: path.partition("@")[2])
    digest = known[newest].partition(":")[2]
    return bool(digest) and digest == _digest(table, int(newest.partition("@")[2][:20]))


def _called(table: ForeignTable, version: int) -> str:
    return f"{table.id}@{version:020}"


def _commit(table: ForeignTable, version: int) -> str:
    return f"{table.uri}/_delta_log/{version:020}.json"


def _digest(table: ForeignTable, version: int) -> str:
    """Of the commit's content: a writer that puts an older log back uses the same numbers again. Empty when it was cleaned up."""
    try:
        return stored.digest(_commit(table, version))
    except FileNotFoundError:
        return ""


def _named(table: ForeignTable, version: int | None = None, *, whole: bool = False) -> LandedFile:
    number = table.version if version is None else version
    try:
        modified = stored.stat(_commit(table, number)).modified
    except FileNotFoundError:  # cleaned up: a checkpoint has what it did
        modified = 0.0
    name = _called(table, number)
    path = f"{name}{'.whole' if whole else ''}.parquet"
    return LandedFile(path, 0, "as of its version", modified, checksum=f"{name}:{_digest(table, number)}")


def _read(known: Collection[str], identity: str) -> list[int]:
    """The versions of a table with this id among paths of the plan."""
    return [int(found[2]) for path in known if (found := _NAME.fullmatch(path)) and found[1] == identity]


def _wholes(known: Collection[str], identity: str, version: int) -> list[bool]:
    """Of each path that a version has in the plan, whether it is that of all of its rows."""
    found = [found for path in known if (found := _NAME.fullmatch(path)) and found[1] == identity]
    return [found[3] is not None for found in found if int(found[2]) == version]


def _followed(known: Collection[str]) -> frozenset[str]:
    """The data files that an earlier release read by their paths; none once a version was read."""
    return frozenset() if any(map(_NAME.fullmatch, known)) else frozenset(known)


def _since(source: DeltaSource, known: Collection[str], table: ForeignTable, version: int) -> int | None:
    """The version before this one up to which the table was read; None where nothing was."""
    followed = _followed(known)
    if followed:
        return _followed_until(source, followed, table, version)
    return max((number for number in _read(known, table.id) if number < version), default=None)


def _followed_until(source: DeltaSource, followed: frozenset[str], table: ForeignTable, version: int) -> int:
    """The newest version before this one of which every live file was read by its path.

    A file that was refused is not among `followed`, so what it holds is still new. The commits are undone one by one.
    """
    live = {unquote(path) for path in table.paths}
    seen = bool(live & followed)
    for number in range(table.version, -1, -1):
        if number < version and seen and live <= followed:
            try:
                live = {unquote(path) for path in _required(source, version=number).paths}
            except BrokenTableError:
                return _UNKNOWN
            if live <= followed:
                return number
        try:
            actions = file_actions(source.uri, number)
        except FileNotFoundError:
            return _UNKNOWN
        came, went = ({unquote(action["path"]) for action in actions[kind]} for kind in ("add", "remove"))
        seen = seen or bool((came | went) & followed)
        live = (live - came) | went
    return _UNKNOWN


def _is_readable(source: DeltaSource, version: int | None) -> bool:
    """Whether a planned version still has its commits and files: a batch that waits for it continues without it."""
    try:
        _required(source, version=version).check()
    except LakehouseError:
        return False
    return True


def _delivers(uri: str, last: int, newest: int, *, read: Collection[str]) -> bool:
    """Whether a commit after `last` adds or removes rows; one whose log was cleaned up may have."""
    found = changes(uri, last, newest, read=read)
    return found is None or bool(found.added or found.removed)
