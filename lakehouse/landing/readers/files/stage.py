"""Stage: landed files of Airbyte's S3 layout, flattened or not, envelope v1 or v2, and those of anyone.

    landed files ─▶ prepared ─▶ groups of one form ─▶ relation (envelope + text fields) ─▶ staged Parquet files of bronze
                                            └────▶ rejects: whole files that cannot be read, single records that are no record

Every field is stored as the text that was delivered (typing is silver's work), so one stream may change its form, and the
type of a field, from one file to the next. Files of one form are read together, streaming; when a group fails it is halved
until the file that fails stands alone, and that file is rejected whole. The engine's counts are compared with those of the
lines: our own reader reads a file of which the engine gives fewer. Memory does not grow with what was delivered, nor with how
much of it is no record.

Forms after https://docs.airbyte.com/integrations/destinations/s3 (v1: `_airbyte_ab_id`, `_airbyte_emitted_at`; v2:
`_airbyte_raw_id`, `_airbyte_extracted_at`, `_airbyte_meta`, `_airbyte_generation_id`; not flattened: `_airbyte_data`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.core.store.storage import LandedFile
from lakehouse.core.table.snapshot import DataFile
from lakehouse.core.table.transaction import discard
from lakehouse.landing.readers.files.fields import ENVELOPE, ENVELOPE_NAMES
from lakehouse.landing.readers.files.forms import Form, Prepared, Reject, TooMuchError, groups, sentence
from lakehouse.landing.readers.files.prepare import UNREADABLE, Preparation, is_files_fault
from lakehouse.landing.readers.files.reading import Reading
from lakehouse.landing.readers.files.scan import Found, Part, blames_file
from lakehouse.landing.readers.here import Opened

_BRONZE_FILE_MB = 64


@dataclass
class Staged:
    """What a batch of landed files became. `delivered` counts the records found in files that could be read; `types` has
    the fields of Parquet files with their types as delivered.

    `broken` holds the records that are none, kept in the engine: rules, reason, record, source_file. `changed` counts records of
    which Airbyte says that it changed a value (`_airbyte_meta.changes`).

    `names` has the delivered fields by the column that is named after them, those known before included: the first is in the
    column, the others are in `_extra`. `seen` are those of this batch, `repeated` those that a record has twice, with how many.
    """

    broken: "list[nw.LazyFrame[Any]]" = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    delivered: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    repeated: dict[str, int] = field(default_factory=dict)
    changed: int = 0

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def know(self, found: Found, form: Form, names: Mapping[str, list[str]]) -> None:
        """Remember which fields were delivered, by which names and of which types."""
        self.fields |= dict.fromkeys(found.columns, "string")
        self.names |= names
        self.seen |= set(found.fields)
        for name, records in found.repeated.items():
            self.repeated[name] = self.repeated.get(name, 0) + records
        self.types |= {name: kind for name, kind in zip(form.names, form.types, strict=False) if name not in ENVELOPE_NAMES}


def stage(
    session: DuckDBSession,
    files: Sequence[LandedFile],
    *,
    landing: str,
    folder: str,
    batch: int,
    ingested_at: datetime,
    frozen: frozenset[str] | None = None,
    reading: Reading | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
    instead: Mapping[str, str] | None = None,
    streams: Mapping[str, Opened] | None = None,
) -> Staged:
    """Read landed files and write them as data files below `folder`, uncommitted.

    Args:
        landing: absolute root that the files' paths are relative to.
        batch: number that the rows carry as `_batch_id`.
        frozen: the fields that may occur; None lets new ones in. A file with another field is rejected whole.
        reading: what is declared of the files; without it they are Airbyte's, and may have any fields.
        instead: by landed path, the file of this machine that is read in its place.
        known: by bronze column the delivered fields that are named after it, as the table knows them.
        streams: by landed path, what opens the rows of a Parquet file that has none itself; what fails there is raised.
    """
    out = Staged(names={column: list(fields) for column, fields in (known or {}).items()})
    preparation = Preparation(session, reading or Reading(), landing, out.rejects, instead)
    stamp = {"_batch_id": batch, "_ingested_at": ingested_at}
    work = _Work(session, preparation, out, folder=folder, stamp=stamp, frozen=frozen, streams=streams or {})
    try:
        for ready in preparation.batches(files):
            for form, group in groups(ready):
                work.stage(form, group)
        out.changed = _changed(session, folder, out.files)
    except BaseException:
        discard(folder, out.files)
        raise
    return out


def _changed(session: DuckDBSession, folder: str, files: Sequence[DataFile]) -> int:
    paths = [f"{folder}/{file.path}" for file in files if file.nulls.get("_airbyte_meta") != file.rows]
    meta = session.read(paths, {"_airbyte_meta": "string"}).to_native()
    message = meta.filter("contains(_airbyte_meta, 'changes') AND TRY(json_array_length(_airbyte_meta, '$.changes')) > 0")
    return session.count(nw.from_native(message))


class _Work:
    """Staging of groups. Whatever a file is refused for, the others of its group are staged without it."""

    def __init__(
        self,
        session: DuckDBSession,
        preparation: Preparation,
        out: Staged,
        *,
        folder: str,
        stamp: Mapping[str, object],
        frozen: frozenset[str] | None,
        streams: Mapping[str, Opened],
    ) -> None:
        self.streams = streams
        self.session, self.preparation, self.out = session, preparation, out
        self.folder, self.stamp, self.frozen = folder, stamp, frozen

    def stage(self, form: Form, group: Sequence[Prepared]) -> None:
        """Write the rows of files of one form."""
        streamed = [file for file in group if file.file.path in self.streams]
        for file in streamed:
            with self.streams[file.file.path]() as rows:
                self._stage(form, [file], Part(self.session, [file], rows))
        if others := [file for file in group if file not in streamed]:
            self._stage(form, others, Part(self.session, others))

    def _stage(self, form: Form, group: Sequence[Prepared], part: Part) -> None:
        staged: list[DataFile] = []
        try:
            found = part.open(form)
            again = self._checked(form, group, found)
            if again is None:
                names = found.assign(self.out.names)
                columns = {**ENVELOPE, **dict.fromkeys(found.columns, "string")}
                staged = self.session.write(found.bronze(self.stamp), self.folder, columns=columns, file_mb=_BRONZE_FILE_MB)
                broken = found.broken()
        except (duckdb.Error, TooMuchError) as error:
            discard(self.folder, staged)
            if part.rows is not None:
                raise
            self._failed(form, group, part, error)
            return
        if again is not None:
            for other, files in groups(again):
                self.stage(other, files)
            return
        if part.rows is not None:
            found.wrote(sum(file.rows for file in staged))
        self.out.know(found, form, names)
        self._take(group, found, staged=staged, broken=broken)

    def _take(
        self, group: Sequence[Prepared], found: Found, *, staged: list[DataFile], broken: "list[nw.LazyFrame[Any]]"
    ) -> None:
        out, apart = self.out, [refused for file in group for refused in file.refused if refused.count]
        out.files += staged
        out.broken += [*broken, *(refused.frame(self.session) for refused in apart)]
        out.delivered += found.records + sum(refused.count for refused in apart)

    def _checked(self, form: Form, group: Sequence[Prepared], found: Found) -> list[Prepared] | None:
        """The files to stage instead of this group; None when all of it can be staged as it is.

        Raises:
            TooMuchError: fewer records were read of a file than it has, whatever the engine's reader did with the others.
        """
        careful = self._read_again(form, group, found)
        if careful:
            return [careful.get(file.path, file) for file in group]
        refused: dict[str, tuple[str, str]] = {}
        if self.frozen is not None:
            for path, names in found.files_beyond(self.frozen).items():
                reason = f"It holds the new fields {', '.join(sorted(names))}, which the table's drift policy does not let in."
                refused[path] = "schema_drift", reason
        landed = {file.path: file.file.path for file in group}
        for opened, names in found.names_of().items() if found.documents else ():
            path = landed[opened]
            if self.preparation.reading.without_key(names, path):
                key = ", ".join(sorted(self.preparation.reading.key))
                shown = ", ".join(sorted(names)[:10])
                refused.setdefault(path, ("readable_file", f"None of its records has the key {key}; they have {shown}."))
        if not refused:
            return None
        self.out.rejects += [Reject(path, *why) for path, why in sorted(refused.items())]
        return [file for file in group if file.file.path not in refused]

    def _read_again(self, form: Form, group: Sequence[Prepared], found: Found) -> dict[str, Prepared]:
        """By path, the files of which our own reader has set aside what is no record: of text files that have more lines than
        the engine has given records."""
        if form.kind == "parquet" or found.records == sum(file.most for file in group):
            return {}
        counts, again = found.records_of(), {}
        for file in group:
            count = counts.get(file.path, 0)
            if count == file.most:
                continue
            made = self._careful(file) if file.records is None else None
            if made is not None and made.records == count and not any(refused.count for refused in made.refused):
                file.records = count  # its texts have line ends, or it has empty lines
                self.preparation.clear([made])
            elif made is not None:
                again[file.path] = made
            else:
                what = "lines" if form.kind == "json" else "records"
                raise TooMuchError(f"Of its {file.most:,} {what} {count:,} were read.")
        return again

    def _careful(self, file: Prepared) -> Prepared:
        try:
            return self.preparation.careful(file)
        except UNREADABLE as error:
            if not is_files_fault(error):
                raise
            raise TooMuchError(str(error)) from error

    def _failed(self, form: Form, group: Sequence[Prepared], part: Part, error: Exception) -> None:
        """Stage the halves of a group that cannot be read; of a file alone what our own reader makes of it, or nothing."""
        if isinstance(error, duckdb.OutOfMemoryException) and any(file.text.long for file in group):
            error = TooMuchError("Its lines are too long for the engine's memory limit.")
        if not blames_file(error):
            raise error
        if len(group) > 1:
            half = len(group) // 2
            self.stage(form, group[:half])
            self.stage(form, group[half:])
            return
        file = group[0]
        if form.kind == "csv" and file.records is None and isinstance(error, duckdb.InvalidInputException):
            try:
                made = self._careful(file)
            except TooMuchError as problem:
                error = problem
            else:
                self.stage(made.form, [made])
                return
        if not isinstance(error, TooMuchError) and part.readable(form):  # then it was not the file: a full disk, say
            raise error
        self.out.rejects.append(Reject(file.file.path, "readable_file", sentence(error)))
