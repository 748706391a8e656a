"""Reader for Airbyte's S3 layout: JSONL, CSV and Parquet; plain or gzip; flattened or not; envelope v1 or v2.

    landed files ─▶ groups of one form ─▶ relation (envelope + text fields) ─▶ staged Parquet files of the bronze table
                                   └────▶ rejects: whole files that cannot be read, single records that are no record

Every field is kept as the text that was delivered (typing is silver's work), so one stream may change its form, and the
type of a field, from one file to the next. Files of one form are read together, streaming; when a group fails it is halved
until the file that fails stands alone, and that file is rejected whole. Numbers in JSON are read as 64-bit integers or
doubles, as Airbyte's own typed formats do. Memory does not grow with what was delivered, nor with how much of it is no record.

Forms after https://docs.airbyte.com/integrations/destinations/s3 (v1: `_airbyte_ab_id`, `_airbyte_emitted_at`; v2:
`_airbyte_raw_id`, `_airbyte_extracted_at`, `_airbyte_meta`, `_airbyte_generation_id`; not flattened: `_airbyte_data`).
"""

import csv
import errno
import gzip
import re
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal, cast

import duckdb
import narwhals as nw

from lakehouse.core.delta import DataFile, discard
from lakehouse.core.engines.duckdb import DuckDBSession, bounded, literal, quoted
from lakehouse.core.landing import avro
from lakehouse.core.names import AIRBYTE, column_name
from lakehouse.core.storage import LandedFile

#: Bronze's own columns, before the delivered fields.
ENVELOPE = {
    **dict(zip(AIRBYTE, ("string", "timestamp", "string", "bigint"), strict=True)),
    "_source_file": "string",
    "_batch_id": "bigint",
    "_ingested_at": "timestamp",
    "_extra": "string",
}
_V1_NAMES = {"_airbyte_raw_id": "_airbyte_ab_id", "_airbyte_extracted_at": "_airbyte_emitted_at"}
_DATA = "_airbyte_data"
#: What Airbyte adds to a record. Everything else that was delivered is a field, whatever it is called.
_ENVELOPE_NAMES = frozenset((*AIRBYTE, *_V1_NAMES.values(), _DATA))
#: The path that a row was read from; no delivered field has this process's own mark.
_OPENED = f"opened_{uuid.uuid4().hex}"
#: What DuckDB raises for a file's content, besides its plain `Error` (damaged Parquet pages). A binder or catalog
#: error is never the file's fault, a memory error only that of a file with long lines.
_UNREADABLE = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.ConversionException,
    duckdb.SerializationException,
)
_GROUP = 1_000
_BRONZE_FILE_MB = 64
#: The longest line that is read, in bytes: the first that holds a file's longest, else the last. DuckDB takes two buffers of
#: 16 such lines for a compressed file; with smaller buffers, and beyond a line that fills one, it loses records without a word.
_LINES = (1 << 21, 1 << 22, 1 << 23, 1 << 24, 32_000_000)
_BUFFER = 16 * _LINES[-1]
_CHUNK = 1 << 20
#: DuckDB keeps the lines that its parser refuses in memory while it reads, at a kilobyte beside each: a file may have so many
#: bytes of them.
_REFUSED, _REFUSED_EACH = 200_000_000, 1_000
#: Fewer line ends than this in a chunk are long lines: DuckDB reads 2,048 at once, each several times over.
_FEW_LINES = 64
#: More are no columns: an object used as a map, or values taken for a header.
_FIELDS = 2_000
#: `YYYY_MM_DD_<epoch ms>_<part>` is the destination's default file name.
_SYNC_INSTANT = re.compile(r"\d{4}_\d{2}_\d{2}_(\d{13})_\d+")


@dataclass(frozen=True)
class Reject:
    """A delivered file of which nothing became a bronze row. Single records are in `Staged.broken`."""

    path: str
    rule: str
    reason: str
    record: str | None = None


@dataclass(frozen=True)
class _Form:
    """What one scan can read: the same format and, for CSV and Parquet, the same columns of the same types."""

    kind: Literal["json", "csv", "parquet"]
    zipped: bool = False
    line: int = _LINES[0]
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Text:
    """What a look at the bytes of a text file tells: upper bounds of its longest line, in bytes, and of its lines.

    `long` is whether many lines of a stretch of it may not fit into memory together.
    """

    longest: int = 0
    lines: int = 0
    size: int = 0
    long: bool = False


@dataclass
class Staged:
    """What a batch of landed files became. `delivered` counts the records found in files that could be read; `types` has
    the fields of Parquet files with their types as delivered.

    `broken` holds the records that are none, kept in the engine: rules, reason, record, source_file. `changed` counts records of
    which Airbyte says that it changed a value (`_airbyte_meta.changes`).
    """

    broken: "list[nw.LazyFrame[Any]]" = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    delivered: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    changed: int = 0

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def stage(
    session: DuckDBSession,
    files: Sequence[LandedFile],
    *,
    landing: str,
    folder: str,
    batch: int,
    ingested_at: datetime,
    frozen: frozenset[str] | None = None,
) -> Staged:
    """Read landed files and write them as data files below `folder`, uncommitted.

    Args:
        landing: absolute root that the files' paths are relative to.
        batch: number that the rows carry as `_batch_id`.
        frozen: the fields that may occur; None lets new ones in. A file with another field is rejected whole.
    """
    out = Staged()
    stamp = {"_batch_id": batch, "_ingested_at": ingested_at}
    texts: dict[str, _Text] = {}
    places = {file.path: f"{landing.rstrip('/')}/{file.path}" for file in files}
    try:
        files = _unpacked(session, files, places, out)
        for form, group in _groups(files, places, out, texts):
            _stage_group(session, form, group, out, places=places, folder=folder, stamp=stamp, texts=texts, frozen=frozen)
        out.changed = _changed(session, folder, out.files)
    except BaseException:
        discard(folder, out.files)
        raise
    return out


def _changed(session: DuckDBSession, folder: str, files: Sequence[DataFile]) -> int:
    paths = [f"{folder}/{file.path}" for file in files if file.nulls.get("_airbyte_meta") != file.rows]
    meta = session.read(paths, {"_airbyte_meta": "string"}).to_native()
    said = meta.filter("contains(_airbyte_meta, 'changes') AND TRY(json_array_length(_airbyte_meta, '$.changes')) > 0")
    return int(session.rows(nw.from_native(said).select(nw.len().alias("n")))[0][0])


def _unpacked(session: DuckDBSession, files: Sequence[LandedFile], places: dict[str, str], out: Staged) -> Sequence[LandedFile]:
    """Files that can be read, Avro from then on as JSON lines in a place of this session."""
    readable: list[LandedFile] = []
    for file in files:
        if file.path.lower().endswith(".avro"):
            target = Path(session.folder, "avro", f"{len(readable)}.jsonl")
            try:
                avro.to_json_lines(places[file.path], target)
            except (ValueError, FileNotFoundError) as error:
                out.rejects.append(Reject(file.path, "readable_file", _sentence(error)))
                continue
            places[file.path] = str(target)
        readable.append(file)
    return readable


# --- forms -----------------------------------------------------------------------------------------------------------


def _groups(
    files: Sequence[LandedFile], places: Mapping[str, str], out: Staged, texts: dict[str, _Text]
) -> Iterator[tuple[_Form, list[LandedFile]]]:
    """Files that one scan can read, at most so many at once; `texts` receives what was seen of each."""
    groups: dict[_Form, list[LandedFile]] = {}
    for file in files:
        try:
            form, texts[file.path] = _form(places[file.path])
        except (OSError, EOFError, ValueError, NotImplementedError, zlib.error, csv.Error) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.EISDIR):
                raise  # the disk or the mount, not the file: read again, it may be whole
            out.rejects.append(Reject(file.path, "readable_file", _sentence(error)))
            continue
        if form is None:
            reason = "Its name ends in none of .jsonl, .json, .csv (each with or without .gz), .parquet, .avro."
            out.rejects.append(Reject(file.path, "readable_file", reason))
            continue
        groups.setdefault(form, []).append(file)
    for form, members in groups.items():
        for start in range(0, len(members), _GROUP):
            yield form, members[start : start + _GROUP]


def _form(path: str) -> tuple[_Form | None, _Text]:
    """The form of a file, None for a name that says nothing. A file that cannot be read raises what Python's readers do."""
    name = path.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        schema = pq.read_schema(path).remove_metadata()
        return _Form("parquet", names=_columns(schema.names), types=tuple(map(str, schema.types))), _Text()
    if not name.endswith((".jsonl", ".json", ".ndjson", ".csv")):
        return None, _Text()
    zipped = path.lower().endswith(".gz")
    text = _look(path, zipped=zipped, quoted=name.endswith(".csv"))
    if text.longest > _BUFFER:
        raise ValueError(f"A line in it is longer than {_BUFFER:,} bytes.")
    line = next((size for size in _LINES if text.longest <= size), _LINES[-1])
    if not name.endswith(".csv"):
        return _Form("json", zipped, line), text
    # Only the names are read here: a bad byte further on is the matter of its record.
    with _content(path, zipped=zipped) as content:
        header = next(csv.reader(TextIOWrapper(content, "utf-8-sig", errors="replace", newline="")), [])
    if not header or "\ufffd" in "".join(header):
        raise ValueError("The first line is not a header.")
    return _Form("csv", zipped, line, _columns(header)), text


def _columns(names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("Two of its columns have the same name.")
    if len(names) > _FIELDS:
        raise ValueError(_too_many(len(names)))
    return tuple(names)


def _too_many(count: int) -> str:
    return f"It has {count:,} fields, more than {_FIELDS:,}."


def _content(path: str, *, zipped: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if zipped else Path(path).open("rb")


def _look(path: str, *, zipped: bool, quoted: bool) -> _Text:
    """See a text file's bytes; a line end between quotes ends no line of a CSV file. Gives up at a line that nothing reads.

    Reads to the end, which gzip's checksum needs: DuckDB ignores it, and would take a flipped bit for data.
    """
    longest = without = lines = size = 0
    inside = long = False
    with _content(path, zipped=zipped) as content:
        chunk = content.read(_CHUNK)
        if chunk[:2] == b"\x1f\x8b":
            raise ValueError("Its content is gzip, and its name does not say so." if not zipped else "It is gzip within gzip.")
        while chunk and longest * _CHUNK <= _BUFFER:
            ends = _ends_line(chunk[: 1 << 16], inside) or _ends_line(chunk, inside) if quoted else b"\n" in chunk
            without = 0 if ends else without + 1
            longest = max(longest, without)
            inside ^= quoted and chunk.count(b'"') % 2 == 1
            returns = chunk.count(b"\r")
            found = chunk.count(b"\n") + returns - (chunk.count(b"\r\n") if returns else 0)
            lines += found
            long |= found < _FEW_LINES and len(chunk) == _CHUNK
            size += len(chunk)
            last, chunk = chunk[-1:], content.read(_CHUNK)
        if size and last not in (b"\n", b"\r"):
            lines += 1
    return _Text((longest + 2) * _CHUNK, lines, size, long)


def _refused_bytes(path: str, form: _Form) -> int:
    """What the parser will keep of the lines that it refuses, in bytes; once that is too much, how much does not matter."""
    found = 0
    with _content(path, zipped=form.zipped) as content:
        if form.kind == "json":
            refused: Iterator[int] = (len(line) for line in content if not _is_text(line, form.line))
        else:
            refused = _refused_rows(content, len(form.names))
        for size in refused:
            found += size + _REFUSED_EACH
            if found > _REFUSED:
                break
    return found


def _filled_lines(path: str, form: _Form) -> int:
    with _content(path, zipped=form.zipped) as content:
        return sum(bool(part.strip(b" ")) for line in content for part in line.rstrip(b"\r\n").split(b"\r"))


def _is_text(line: bytes, longest: int) -> bool:
    if len(line) > longest or b"\x1f" in line:
        return False
    try:
        return line.isascii() or bool(line.decode())
    except UnicodeDecodeError:
        return False


def _refused_rows(content: IO[bytes], columns: int) -> Iterator[int]:
    before = csv.field_size_limit(_BUFFER)
    try:
        for row in csv.reader(TextIOWrapper(content, "utf-8-sig", errors="replace", newline="")):
            if row and (len(row) != columns or "\ufffd" in "".join(row)):
                yield sum(map(len, row)) + columns
    finally:
        csv.field_size_limit(before)


def _ends_line(chunk: bytes, inside: bool) -> bool:
    return any(b"\n" in part for number, part in enumerate(chunk.split(b'"')) if (number % 2 == 1) == inside)


def _stage_group(
    session: DuckDBSession,
    form: _Form,
    group: Sequence[LandedFile],
    out: Staged,
    *,
    places: Mapping[str, str],
    folder: str,
    stamp: Mapping[str, object],
    texts: Mapping[str, _Text],
    frozen: frozenset[str] | None,
) -> None:
    again = partial(_stage_group, session, form, out=out, places=places, folder=folder, stamp=stamp, texts=texts, frozen=frozen)
    staged: list[DataFile] = []
    part = _Part(session, [(places[file.path], file) for file in group])
    try:
        found = part.open(form)
        if part.lines(form, texts) > found.records:
            part.check_refusals(form, texts, found.records)
            found = part.open(form, refusals=True)
        refused = {} if frozen is None else found.files_beyond(frozen)
        if not refused:
            columns = {**ENVELOPE, **dict.fromkeys(found.columns, "string")}
            staged = session.write(found.bronze(stamp), folder, columns=columns, file_mb=_BRONZE_FILE_MB)
            broken, refused_lines = found.broken()
            part.check_complete(form, texts, found.records + refused_lines)
    except (duckdb.Error, _TooMuchError) as error:
        discard(folder, staged)
        if isinstance(error, duckdb.OutOfMemoryException) and any(texts[file.path].long for file in group):
            error = _TooMuchError("Its lines are too long for the engine's memory limit.")
        if not _blames_file(error):
            raise
        if len(group) == 1:
            if not isinstance(error, _TooMuchError) and part.readable(form):  # then it was not the file: a full disk, say
                raise
            out.rejects.append(Reject(group[0].path, "readable_file", _sentence(error)))
            return
        half = len(group) // 2
        again(group[:half])
        again(group[half:])
        return
    if refused:
        names = ", ".join(sorted({name for fields in refused.values() for name in fields}))
        reason = f"It holds the new fields {names}, which the table's drift policy does not let in."
        out.rejects += [Reject(file.path, "schema_drift", reason) for file in group if file.path in refused]
        rest = [file for file in group if file.path not in refused]
        if rest:
            again(rest)
        return
    out.files += staged
    out.broken += broken
    out.delivered += found.records + refused_lines
    out.fields |= dict.fromkeys(found.columns, "string")
    out.types |= {name: kind for name, kind in zip(form.names, form.types, strict=False) if name not in _ENVELOPE_NAMES}


class _TooMuchError(Exception):
    """Files hold more than can be read from them; a file that does so alone is rejected."""


def _blames_file(error: BaseException) -> bool:
    return isinstance(error, (*_UNREADABLE, _TooMuchError)) or type(error) is duckdb.Error


# --- one group -------------------------------------------------------------------------------------------------------


class _Part:
    """A group of files of one form, opened in one of two shapes: JSON documents, or columns."""

    def __init__(self, session: DuckDBSession, files: Sequence[tuple[str, LandedFile]]) -> None:
        self.session = session
        self.connection = session.connection
        self.files = files
        self.refusals = False
        self.rejects_table = f"rejects_{uuid.uuid4().hex}"
        self.sources = session.table(
            [{_OPENED: path, "_source_file": file.path, "_fallback": _instant(file)} for path, file in files],
            {_OPENED: "string", "_source_file": "string", "_fallback": "timestamp"},
        ).to_native()

    def lines(self, form: _Form, texts: Mapping[str, _Text]) -> int:
        """An upper bound of the records of these text files; 0 for others."""
        return sum(texts[file.path].lines - (form.kind == "csv") for _, file in self.files)

    def check_refusals(self, form: _Form, texts: Mapping[str, _Text], records: int) -> None:
        """Raise when the lines that the parser will refuse are more than it can keep."""
        size = sum(texts[file.path].size for _, file in self.files)
        most = size + _REFUSED_EACH * (self.lines(form, texts) - records)
        if most > _REFUSED and (len(self.files) > 1 or self._again(_refused_bytes, form) > _REFUSED):
            raise _TooMuchError("More of its lines are no records than can be kept one by one.")

    def check_complete(self, form: _Form, texts: Mapping[str, _Text], records: int) -> None:
        """Raise when fewer records were read than there are lines of JSON: whatever the engine's reader did with the others."""
        if form.kind == "json" and records != self.lines(form, texts):
            filled = self._again(_filled_lines, form)
            if records != filled:
                raise _TooMuchError(f"Of its {filled:,} lines {records:,} were read.")

    def _again(self, count: Callable[[str, _Form], int], form: _Form) -> int:
        """The sum over the files, which were read before: one that cannot be read now has changed."""
        try:
            return sum(count(path, form) for path, _ in self.files)
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise _TooMuchError(str(error)) from error

    def open(self, form: _Form, *, refusals: bool = False) -> "_Found":
        """Count the records per file, and have them ready; with the lines that the parser refuses if they are asked for."""
        self.refusals = refusals
        # Columns are read by position: their names may be anything, and DuckDB does not tell `id` from `Id`.
        places = {name: f"c{position}" for position, name in enumerate(form.names)}
        if form.kind == "json":
            return self._lines(form)
        relation = self._csv(form, places) if form.kind == "csv" else self._parquet(places)
        envelope = {name: place for name, place in places.items() if name in _ENVELOPE_NAMES and name != _DATA}
        if _DATA in places:
            data = places[_DATA]
            relation = relation.select("*", _sql(data).alias("_payload"), _document(data).alias("_document"))
            return self._documents(relation, envelope, read=[*envelope.values(), data])
        fields = {name: _sql(place) for name, place in places.items() if name not in _ENVELOPE_NAMES}
        counts = relation.aggregate(f"{_OPENED}, count(*) AS n, {_filled([*places.values()])}").fetchall()
        shapes = [(path, tuple(fields), rows) for path, rows, _ in counts]
        return _Found(self, relation, envelope, shapes, fields, content=[*places.values()])

    def _lines(self, form: _Form) -> "_Found":
        options = {"delimiter": "\x1f", "quotechar": "", "escapechar": "", "strict_mode": False}
        relation = self._read_csv(form, {"line": "VARCHAR"}, header=False, **options)
        relation = relation.filter("line IS NOT NULL AND trim(line) <> ''")
        relation = relation.select(_sql(_OPENED), _sql("line").alias("_payload"), _document("line").alias("_line"))
        kind = f"json_type(_line, '/{_DATA}')"
        text = f"(_line ->> '/{_DATA}')"
        data = f"CASE {kind} WHEN 'OBJECT' THEN _line -> '/{_DATA}' ELSE {_document_sql(text)} END"
        relation = relation.select("*", _sql(f"CASE WHEN {kind} IS NULL THEN _line ELSE {data} END").alias("_document"))
        return self._documents(relation, {name: f"(_line ->> '/{name}')" for name in _ENVELOPE_NAMES})

    def _csv(self, form: _Form, places: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
        columns = dict.fromkeys(places.values(), "VARCHAR")
        return self._read_csv(form, columns, header=True, delimiter=",", quotechar='"', escapechar='"')

    def _read_csv(self, form: _Form, columns: Mapping[str, str], **options: Any) -> duckdb.DuckDBPyRelation:
        kept: dict[str, Any] = {}
        if self.refusals:
            kept = {"store_rejects": True, "rejects_table": self.rejects_table, "rejects_scan": f"{self.rejects_table}_scan"}
        return self.connection.read_csv(
            [literal(path) for path, _ in self.files],  # type: ignore[arg-type]  # the stub knows one path only
            columns=dict(columns),
            auto_detect=False,
            compression="gzip" if form.zipped else "none",  # DuckDB takes what follows a `?` for no part of the name
            filename=_OPENED,
            max_line_size=form.line,
            ignore_errors=True,
            **kept,
            **options,
        )

    def _parquet(self, places: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
        relation = self.connection.sql(
            "FROM read_parquet($1, filename = $2, hive_partitioning = false)",
            params=[[literal(path) for path, _ in self.files], _OPENED],
        )
        found = zip(relation.columns, relation.types, [*places.values(), _OPENED], strict=True)
        return relation.select(*[_as_text(name, kind).alias(place) for name, kind, place in found])

    def readable(self, form: _Form) -> bool:
        """Whether these files can be read to their end."""
        try:
            found = self.open(form, refusals=self.refusals)
            self.session.rows(found.bronze({}).select(nw.all().count()))
        except duckdb.Error as error:
            if not _blames_file(error):
                raise
            return False
        return True

    def _documents(self, relation: duckdb.DuckDBPyRelation, envelope: Mapping[str, str], *, read: Sequence[str] = ()) -> "_Found":
        # Records that leave out what is null have as many shapes as there are records: those stay in the engine.
        keyed = relation.select("*", _sql("json_keys(_document)").alias("k"))
        keys = keyed.aggregate(f"{_OPENED}, k, count(*) AS n, {_filled(read)}")
        shapes = self.session.keep(nw.from_native(keys)).to_native()
        given = shapes.select(f"{_OPENED}, unnest(k) AS name, generate_subscripts(k, 1) AS place")
        places = given.aggregate(f"{_OPENED}, name, min(place) AS place").fetchall()
        by_file: dict[str, list[str]] = {}
        for path, name, _ in sorted(places, key=lambda found: (found[0], found[2], found[1])):
            if name not in _ENVELOPE_NAMES:
                by_file.setdefault(path, []).append(name)
        counts = shapes.aggregate(f"{_OPENED}, k IS NULL, sum(n)").fetchall()
        found = [(path, None if broken else tuple(by_file.get(path, ())), int(rows)) for path, broken, rows in counts]
        names = list(dict.fromkeys(name for given in by_file.values() for name in given))
        if len(names) > _FIELDS:
            raise _TooMuchError(_too_many(len(names)))
        pointers = [duckdb.ConstantExpression("/" + n.replace("~", "~0").replace("/", "~1")) for n in names]
        if pointers:  # one parse for all fields of a record
            paths = duckdb.FunctionExpression("list_value", *pointers)
            values = duckdb.FunctionExpression("json_extract_string", duckdb.ColumnExpression("_document"), paths)
            relation = relation.select("*", values.alias("_values"))
        fields = {
            name: duckdb.FunctionExpression(
                "list_extract", duckdb.ColumnExpression("_values"), duckdb.ConstantExpression(position)
            )
            for position, name in enumerate(names, start=1)
        }
        return _Found(self, relation, envelope, found, fields, content=["CAST(_document AS VARCHAR)"], documents=True)


class _Found:
    """What a scan of a group found out: which fields occur in which file, and how many records there are.

    Args:
        envelope: SQL of Airbyte's values by name; `content`: SQL of all that was delivered.
    """

    def __init__(
        self,
        part: _Part,
        relation: duckdb.DuckDBPyRelation,
        envelope: Mapping[str, str],
        shapes: Sequence[tuple[str, tuple[str, ...] | None, int]],
        fields: Mapping[str, duckdb.Expression],
        *,
        content: Sequence[str],
        documents: bool = False,
    ) -> None:
        self.part, self.relation, self.envelope = part, relation, envelope
        self.shapes, self.content, self.documents = shapes, content, documents
        rivals: dict[str, list[str]] = {}
        extra = {name: value for name, value in fields.items() if column_name(name) is None}
        for name in fields:
            rivals.setdefault(column_name(name) or "", []).append(name)
        rivals.pop("", None)
        # Of several fields that share a column, a record's first that has a value gets it: the one of exactly that name,
        # then by name. The rest go to _extra. Decided by the record alone, never by which files are read together.
        self.columns: dict[str, duckdb.Expression] = {}
        for column, names in rivals.items():
            names.sort(key=lambda name: (name != column_name(name), name))
            values = [fields[name] for name in names]
            self.columns[column] = duckdb.CoalesceOperator(*values)
            for position, name in enumerate(names[1:], start=1):
                taken = duckdb.CoalesceOperator(*values[:position]).isnotnull()
                extra[name] = duckdb.CaseExpression(taken, values[position])
        self.extra = dict(sorted(extra.items()))
        self._malformed: list[Reject] | None = None

    @property
    def records(self) -> int:
        """Records that the parser gives, those that are no documents included."""
        return sum(rows for _, _, rows in self.shapes)

    def files_beyond(self, known: frozenset[str]) -> dict[str, set[str]]:
        """Landed paths that hold fields other than `known`, with those fields."""
        paths = {opened: file.path for opened, file in self.part.files}
        beyond: dict[str, set[str]] = {}
        for opened, fields, _ in self.shapes:
            new = {name for name in fields or () if column_name(name) not in known}
            if new:
                beyond.setdefault(paths[opened], set()).update(new)
        return beyond

    def bronze(self, stamp: Mapping[str, object]) -> "nw.LazyFrame[Any]":
        relation = self.relation.filter("_document IS NOT NULL") if self.documents else self.relation
        relation = relation.set_alias("d").join(self.part.sources.set_alias("s"), f"d.{_OPENED} = s.{_OPENED}")
        extracted = self._envelope("_airbyte_extracted_at")
        raw_id = self._envelope("_airbyte_raw_id")
        # A record without an id of its own gets one from where and what it is.
        content = ", ".join(["_source_file", *self.content])
        fixed = {
            "_airbyte_raw_id": f"coalesce({raw_id}, md5(concat_ws(chr(31), {content})))",
            "_airbyte_extracted_at": f"coalesce({_instant_sql(extracted)}, _fallback)",
            "_airbyte_meta": self._envelope("_airbyte_meta"),
            "_airbyte_generation_id": f"TRY_CAST({self._envelope('_airbyte_generation_id')} AS BIGINT)",
            "_source_file": "_source_file",
        }
        columns = [_sql(text).alias(name) for name, text in fixed.items()]
        columns += [duckdb.ConstantExpression(value).alias(name) for name, value in stamp.items()]
        columns += [value.alias(column) for column, value in self.columns.items()]
        if not self.extra:
            return nw.from_native(relation.select(*columns, _sql("CAST(NULL AS VARCHAR)").alias("_extra")))
        names = duckdb.FunctionExpression("list_value", *[duckdb.ConstantExpression(name) for name in self.extra])
        pairs = duckdb.FunctionExpression("list_zip", names, duckdb.FunctionExpression("list_value", *self.extra.values()))
        relation = relation.select(*columns, pairs.alias("_pairs"))
        given = "list_filter(_pairs, lambda _pair: _pair[2] IS NOT NULL)"
        text = f"CASE WHEN len({given}) > 0 THEN CAST(to_json(map_from_entries({given})) AS VARCHAR) END"
        return nw.from_native(relation.select(_sql("* EXCLUDE (_pairs)"), _sql(text).alias("_extra")))

    def broken(self) -> "tuple[list[nw.LazyFrame[Any]], int]":
        """The records of this group that are none, with what was delivered; and how many of them the parser refused."""
        session, kept, count = self.part.session, [], 0
        sources = self.part.sources.set_alias("s")
        if self.part.refusals:
            count, refused = self._refused(sources)
            kept += [refused] if count else []
        if self.documents and any(fields is None for _, fields, _ in self.shapes):
            broken = self.relation.filter("_document IS NULL").set_alias("d").join(sources, f"d.{_OPENED} = s.{_OPENED}")
            reason = "'It is not a JSON object.'"
            kept.append(session.keep(_rejected(broken, reason=reason, record="coalesce(_payload, '')")))
        return kept, count

    def _refused(self, sources: duckdb.DuckDBPyRelation) -> "tuple[int, nw.LazyFrame[Any]]":
        """Lines that the CSV parser itself refused (bad encoding, too few or too many fields)."""
        connection, errors = self.part.connection, self.part.rejects_table
        joined = connection.table(errors).join(
            connection.table(f"{errors}_scan").select("scan_id", "file_id", "file_path"), "scan_id, file_id"
        )
        joined = joined.set_alias("e").join(sources, f"e.file_path = s.{_OPENED}")
        # A line may be refused for several reasons, and is by each scan.
        once = joined.aggregate("_source_file, line, min(error_message) AS message, min(csv_line) AS record")
        frame = _rejected(once, reason="concat('Line ', line, ': ', message)", record="coalesce(record, '')")
        kept = self.part.session.keep(frame)
        for table in (errors, f"{errors}_scan"):
            connection.execute(f"DROP TABLE {table}")
        return self.part.session.rows(kept.select(nw.len()))[0][0], kept

    def _envelope(self, name: str) -> str:
        present = [self.envelope[n] for n in (name, _V1_NAMES.get(name, "")) if n in self.envelope]
        return f"coalesce({', '.join(present)})" if present else "CAST(NULL AS VARCHAR)"


def _rejected(relation: duckdb.DuckDBPyRelation, *, reason: str, record: str) -> "nw.LazyFrame[Any]":
    columns = {"rules": "'readable_record'", "reason": reason, "record": record, "source_file": "_source_file"}
    return nw.from_native(relation.select(*[_sql(text).alias(name) for name, text in columns.items()]))


def _filled(columns: Sequence[str]) -> str:
    """Reads every column that is written for the count too: a line is refused for what is in the columns that are read."""
    return f"list_sum([{', '.join(['0', *(f'count({column})' for column in columns)])}]) AS filled"


def _sql(text: str) -> duckdb.Expression:
    return duckdb.SQLExpression(text)


def _document(text: str) -> duckdb.Expression:
    return _sql(_document_sql(text))


def _document_sql(text: str) -> str:
    """A text as a JSON object, null when it is not one."""
    return f"CASE WHEN json_valid({text}) AND json_type({text}) = 'OBJECT' THEN CAST({text} AS JSON) END"


def _as_text(name: str, kind: object) -> duckdb.Expression:
    nested = str(kind).startswith(("STRUCT", "MAP", "UNION")) or str(kind).endswith("]")
    return _sql(f"CAST(to_json({quoted(name)}) AS VARCHAR)" if nested else f"CAST({quoted(name)} AS VARCHAR)")


def _instant_sql(text: str) -> str:
    """Epoch milliseconds (JSON, CSV) or a timestamp (Parquet, flattened JSON of some versions); null for anything else."""
    millis = f"TRY(make_timestamptz(CAST({text} AS BIGINT) * 1000))"
    instant = f"CASE WHEN regexp_full_match({text}, '\\d+(\\.0*)?') THEN {millis} ELSE TRY_CAST({text} AS TIMESTAMPTZ) END"
    return bounded(f"({instant})", "timestamp")


def _instant(file: LandedFile) -> datetime:
    """When a file without extraction times was extracted: the instant in its name, else its own."""
    named = _SYNC_INSTANT.search(Path(file.path).name)
    return datetime.fromtimestamp(int(named.group(1)) / 1000 if named else file.modified, tz=UTC)


def _sentence(error: BaseException) -> str:
    """The first line of an error, without this machine's folders."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"(/[^\s\"':]+)+/", "", first)[:300]
