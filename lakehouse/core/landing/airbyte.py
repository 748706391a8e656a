"""Reader for Airbyte's S3 layout: JSONL, CSV and Parquet; plain or gzip; flattened or not; envelope v1 or v2.

    landed files ─▶ groups of one form ─▶ relation (envelope + text fields) ─▶ staged Parquet files of the bronze table
                                   └────▶ rejects: whole files that cannot be read, single records that are no record

Every field is kept as the text that was delivered (typing is silver's work), so one stream may change its form, and the
type of a field, from one file to the next. Files of one form are read together, streaming; when a group fails it is halved
until the file that fails stands alone, and that file is rejected whole. Numbers in JSON are read as 64-bit integers or
doubles, as Airbyte's own typed formats do.

Forms after https://docs.airbyte.com/integrations/destinations/s3 (v1: `_airbyte_ab_id`, `_airbyte_emitted_at`; v2:
`_airbyte_raw_id`, `_airbyte_extracted_at`, `_airbyte_meta`, `_airbyte_generation_id`; not flattened: `_airbyte_data`).
"""

import csv
import gzip
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import narwhals as nw

from lakehouse.core.delta import DataFile, discard
from lakehouse.core.engines.duckdb import DuckDBSession, quoted
from lakehouse.core.names import column_name
from lakehouse.core.storage import LandedFile

#: Bronze's own columns, before the delivered fields.
ENVELOPE = {
    "_airbyte_raw_id": "string",
    "_airbyte_extracted_at": "timestamp",
    "_airbyte_meta": "string",
    "_airbyte_generation_id": "bigint",
    "_source_file": "string",
    "_batch_id": "bigint",
    "_ingested_at": "timestamp",
    "_extra": "string",
}
_V1_NAMES = {"_airbyte_raw_id": "_airbyte_ab_id", "_airbyte_extracted_at": "_airbyte_emitted_at"}
_DATA = "_airbyte_data"
#: What DuckDB raises for a file's content. A binder, catalog or memory error is never the file's fault.
_UNREADABLE = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.ConversionException,
    duckdb.SerializationException,
)
_GROUP = 1_000
_BRONZE_FILE_MB = 64
#: The longest line that is read, in bytes. DuckDB sizes its buffers by it.
_MAX_LINE = 32_000_000
#: `YYYY_MM_DD_<epoch ms>_<part>` is the destination's default file name.
_SYNC_INSTANT = re.compile(r"\d{4}_\d{2}_\d{2}_(\d{13})_\d+")


@dataclass(frozen=True)
class Reject:
    """Something delivered that did not become a bronze row: one record, or (`record` is None) a file as a whole."""

    path: str
    rule: str
    reason: str
    record: str | None = None


@dataclass
class Staged:
    """What a batch of landed files became. `delivered` counts the records found in files that could be read."""

    files: list[DataFile] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    delivered: int = 0
    fields: dict[str, str] = field(default_factory=dict)

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
    try:
        for form, group in _groups(files, landing, out):
            _stage_group(session, form, group, out, landing=landing, folder=folder, stamp=stamp, frozen=frozen)
    except BaseException:
        discard(folder, out.files)
        raise
    return out


# --- forms -----------------------------------------------------------------------------------------------------------


def _groups(files: Sequence[LandedFile], landing: str, out: Staged) -> Iterator[tuple[str, list[LandedFile]]]:
    """Files that one scan can read: the same format and, for CSV and Parquet, the same columns."""
    groups: dict[str, list[LandedFile]] = {}
    for file in files:
        try:
            form = _form(f"{landing}/{file.path}")
        except (OSError, EOFError, ValueError, csv.Error) as error:
            out.rejects.append(Reject(file.path, "readable_file", _sentence(error)))
            continue
        if form is None:
            reason = "Its name ends in none of .jsonl, .json, .csv, .parquet (with or without .gz)."
            out.rejects.append(Reject(file.path, "readable_file", reason))
            continue
        groups.setdefault(form, []).append(file)
    for form, members in groups.items():
        for start in range(0, len(members), _GROUP):
            yield form, members[start : start + _GROUP]


def _form(path: str) -> str | None:
    """`json`, `csv:<header>` or `parquet:<schema>`; None for a name that says nothing."""
    name = path.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".json", ".ndjson")):
        return "json"
    if name.endswith(".csv"):
        opener = gzip.open if path.lower().endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            header = next(csv.reader(lines), [])
        if not header or len(set(header)) != len(header):
            raise ValueError("The first line is not a header with distinct names.")
        return "csv:" + "\x1f".join(header)
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return "parquet:" + str(pq.read_schema(path).remove_metadata())
    return None


def _stage_group(
    session: DuckDBSession,
    form: str,
    group: Sequence[LandedFile],
    out: Staged,
    *,
    landing: str,
    folder: str,
    stamp: Mapping[str, object],
    frozen: frozenset[str] | None,
) -> None:
    staged: list[DataFile] = []
    part = _Part(session, [(f"{landing}/{file.path}", file) for file in group])
    try:
        found = part.open(form)
        refused = {} if frozen is None else found.files_beyond(frozen)
        if refused:
            names = ", ".join(sorted({name for fields in refused.values() for name in fields}))
            reason = f"It holds the new fields {names}, and the table's drift policy is freeze."
            out.rejects += [Reject(file.path, "schema_drift", reason) for file in group if file.path in refused]
            rest = [file for file in group if file.path not in refused]
            if rest:
                _stage_group(session, form, rest, out, landing=landing, folder=folder, stamp=stamp, frozen=frozen)
            return
        columns = {**ENVELOPE, **dict.fromkeys(found.columns, "string")}
        staged = session.write(found.bronze(stamp), folder, columns=columns, file_mb=_BRONZE_FILE_MB)
        rejects = found.rejects()
    except _UNREADABLE as error:
        discard(folder, staged)
        if len(group) == 1:
            if part.readable(form):  # then it was not the file: the disk is full, say
                raise
            out.rejects.append(Reject(group[0].path, "readable_file", _sentence(error)))
            return
        half = len(group) // 2
        for part_group in (group[:half], group[half:]):
            _stage_group(session, form, part_group, out, landing=landing, folder=folder, stamp=stamp, frozen=frozen)
        return
    out.files += staged
    out.rejects += rejects
    out.delivered += found.delivered
    out.fields |= dict.fromkeys(found.columns, "string")


# --- one group -------------------------------------------------------------------------------------------------------


class _Part:
    """A group of files of one form, opened in one of two shapes: JSON documents, or columns."""

    def __init__(self, session: DuckDBSession, files: Sequence[tuple[str, LandedFile]]) -> None:
        self.session = session
        self.connection = session.connection
        self.files = files
        self.rejects_table = f"rejects_{uuid.uuid4().hex}"
        self.sources = session.table(
            [{"_opened": path, "_source_file": file.path, "_fallback": _instant(file)} for path, file in files],
            {"_opened": "string", "_source_file": "string", "_fallback": "timestamp"},
        ).to_native()

    def open(self, form: str) -> "_Found":
        paths = [path for path, _ in self.files]
        kind, _, header = form.partition(":")
        tolerant: dict[str, Any] = {
            "ignore_errors": True,
            "store_rejects": True,
            "rejects_table": self.rejects_table,
            "rejects_scan": f"{self.rejects_table}_scan",
        }
        if kind == "json":
            relation = self.connection.read_csv(
                paths,  # type: ignore[arg-type]  # the stub knows one path only
                header=False,
                columns={"line": "VARCHAR"},
                auto_detect=False,
                delimiter="\x1f",
                quotechar="",
                escapechar="",
                strict_mode=False,
                filename="_opened",
                max_line_size=_MAX_LINE,
                **tolerant,
            )
            relation = relation.filter("line IS NOT NULL AND trim(line) <> ''")
            relation = relation.select(_sql("_opened"), _sql("line").alias("_payload"), _document("line").alias("_line"))
            nested = _sql(f"json_type(_line, '/{_DATA}') = 'OBJECT'")
            data = duckdb.CaseExpression(nested, _sql(f"_line -> '/{_DATA}'")).otherwise(_sql("_line"))
            envelope = {name: f"_line ->> '/{name}'" for name in (*ENVELOPE, *_V1_NAMES.values()) if "airbyte" in name}
            return self._documents(relation.select("*", data.alias("_document")), envelope)
        if kind == "csv":
            names = header.split("\x1f")
            relation = self.connection.read_csv(
                paths,  # type: ignore[arg-type]  # the stub knows one path only
                header=True,
                columns=dict.fromkeys(names, "VARCHAR"),
                auto_detect=False,
                delimiter=",",
                quotechar='"',
                escapechar='"',
                filename="_opened",
                max_line_size=_MAX_LINE,
                **tolerant,
            )
        else:
            relation = self.connection.sql(
                "FROM read_parquet($1, filename = '_opened', hive_partitioning = false)", params=[paths]
            )
            relation = relation.select(*[_as_text(n, t) for n, t in zip(relation.columns, relation.types, strict=True)])
        if _DATA in relation.columns:
            envelope = {name: quoted(name) for name in relation.columns if name.startswith("_airbyte_") and name != _DATA}
            relation = relation.select("*", _sql(_DATA).alias("_payload"), _document(_DATA).alias("_document"))
            return self._documents(relation, envelope)
        fields = [name for name in relation.columns if not name.startswith("_airbyte_") and name != "_opened"]
        counts = relation.aggregate("_opened, count(*) AS n").fetchall()
        shapes = [(path, tuple(fields), rows) for path, rows in counts]
        envelope = {name: quoted(name) for name in relation.columns if name.startswith("_airbyte_")}
        # duckdb's columns are case-insensitive; Parquet and CSV readers suffix the second of two such names.
        return _Found(self, relation, envelope, shapes, {name: _sql(quoted(name)) for name in fields})

    def readable(self, form: str) -> bool:
        """Whether these files can be read to their end."""
        try:
            self.session.rows(self.open(form).bronze({}).select(nw.all().count()))
        except _UNREADABLE:
            return False
        return True

    def _documents(self, relation: duckdb.DuckDBPyRelation, envelope: Mapping[str, str]) -> "_Found":
        shapes = (
            relation.select(_sql("_opened"), _sql("json_keys(_document)").alias("k"))
            .aggregate("_opened, k, count(*) AS n")
            .fetchall()
        )
        found = [
            (path, None if keys is None else tuple(k for k in keys if not k.startswith("_airbyte_")), rows)
            for path, keys, rows in shapes
        ]
        names = list(dict.fromkeys(name for _, keys, _ in sorted(found, key=_shape_order) for name in keys or ()))
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
        return _Found(self, relation, envelope, found, fields, documents=True)


class _Found:
    """What a scan of a group found out: which fields occur in which file, and how many records there are."""

    def __init__(
        self,
        part: _Part,
        relation: duckdb.DuckDBPyRelation,
        envelope: Mapping[str, str],
        shapes: Sequence[tuple[str, tuple[str, ...] | None, int]],
        fields: Mapping[str, duckdb.Expression],
        *,
        documents: bool = False,
    ) -> None:
        self.part, self.relation, self.envelope = part, relation, envelope
        self.shapes, self.fields, self.documents = shapes, fields, documents
        self.columns: dict[str, str] = {}
        self.others: list[str] = []
        # Of several fields that would share a column the one of exactly that name gets it; the rest go to _extra.
        for name in sorted(fields, key=lambda n: n != column_name(n)):
            column = column_name(name)
            if column is None or column in self.columns:
                self.others.append(name)
            else:
                self.columns[column] = name
        self.columns = {c: n for n in fields for c in [column_name(n)] if c is not None and self.columns.get(c) == n}
        self._malformed: list[Reject] | None = None

    @property
    def delivered(self) -> int:
        return sum(rows for _, _, rows in self.shapes) + len(self._unparsed())

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
        relation = relation.set_alias("d").join(self.part.sources.set_alias("s"), "d._opened = s._opened")
        extracted = self._envelope("_airbyte_extracted_at")
        raw_id = self._envelope("_airbyte_raw_id")
        # A record without an id of its own gets one from where and what it is.
        content = ", ".join(["_source_file", *self._content()])
        fixed = {
            "_airbyte_raw_id": f"coalesce({raw_id}, md5(concat_ws(chr(31), {content})))",
            "_airbyte_extracted_at": f"coalesce({_instant_sql(extracted)}, _fallback)",
            "_airbyte_meta": self._envelope("_airbyte_meta"),
            "_airbyte_generation_id": f"TRY_CAST({self._envelope('_airbyte_generation_id')} AS BIGINT)",
            "_source_file": "_source_file",
        }
        columns = [_sql(text).alias(name) for name, text in fixed.items()]
        columns += [duckdb.ConstantExpression(value).alias(name) for name, value in stamp.items()]
        columns.append(self._extra().alias("_extra"))
        columns += [self.fields[name].alias(column) for column, name in self.columns.items()]
        return nw.from_native(relation.select(*columns))

    def rejects(self) -> list[Reject]:
        """The records of this group that are no records, with what was delivered."""
        out = self._unparsed()
        if self.documents and any(fields is None for _, fields, _ in self.shapes):
            paths = {opened: file.path for opened, file in self.part.files}
            broken = self.relation.filter("_document IS NULL").select("_opened", "_payload").fetchall()
            out = out + [Reject(paths[o], "readable_record", "It is not a JSON object.", line) for o, line in broken]
        return out

    def _unparsed(self) -> list[Reject]:
        """Lines that the CSV parser itself refused (bad encoding, too few or too many fields)."""
        if self._malformed is None:
            self._malformed = []
            known = self.part.connection.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [self.part.rejects_table]
            ).fetchall()
            if known[0][0]:
                errors = self.part.connection.table(self.part.rejects_table)
                scans = self.part.connection.table(f"{self.part.rejects_table}_scan")
                joined = errors.join(scans.select("scan_id", "file_id", "file_path"), "scan_id, file_id")
                rows = joined.select("file_path", "line", "csv_line", "error_message").distinct().fetchall()
                paths = {opened: file.path for opened, file in self.part.files}
                lines = {(path, line): (record, message) for path, line, record, message in rows}
                self._malformed = [
                    Reject(paths[path], "readable_record", f"Line {line}: {message}", record or "")
                    for (path, line), (record, message) in sorted(lines.items())
                ]
        return self._malformed

    def _envelope(self, name: str) -> str:
        present = [self.envelope[n] for n in (name, _V1_NAMES.get(name, "")) if n in self.envelope]
        return f"coalesce({', '.join(present)})" if present else "CAST(NULL AS VARCHAR)"

    def _content(self) -> list[str]:
        return ["CAST(_document AS VARCHAR)"] if self.documents else [quoted(name) for name in self.fields]

    def _extra(self) -> duckdb.Expression:
        if not self.others:
            return _sql("CAST(NULL AS VARCHAR)")
        constant, call = duckdb.ConstantExpression, duckdb.FunctionExpression
        keys = call("list_value", *[constant(name) for name in self.others])
        values = call("list_value", *[self.fields[name] for name in self.others])
        return call("to_json", call("map", keys, values)).cast("VARCHAR")


def _sql(text: str) -> duckdb.Expression:
    return duckdb.SQLExpression(text)


def _document(column: str) -> duckdb.Expression:
    """The column as a JSON object, null when it is not one."""
    return _sql(f"CASE WHEN json_valid({column}) AND json_type({column}) = 'OBJECT' THEN CAST({column} AS JSON) END")


def _as_text(name: str, kind: object) -> duckdb.Expression:
    nested = str(kind).startswith(("STRUCT", "MAP", "UNION")) or str(kind).endswith("]")
    text = f"CAST(to_json({quoted(name)}) AS VARCHAR)" if nested else f"CAST({quoted(name)} AS VARCHAR)"
    return _sql(text).alias(name)


def _instant_sql(text: str) -> str:
    """Epoch milliseconds (JSON, CSV) or a timestamp (Parquet, flattened JSON of some versions)."""
    millis = f"make_timestamptz(CAST({text} AS BIGINT) * 1000)"
    return f"CASE WHEN regexp_full_match({text}, '\\d+') THEN {millis} ELSE TRY_CAST({text} AS TIMESTAMPTZ) END"


def _instant(file: LandedFile) -> datetime:
    """When a file without extraction times was extracted: the instant in its name, else its own."""
    named = _SYNC_INSTANT.search(Path(file.path).name)
    return datetime.fromtimestamp(int(named.group(1)) / 1000 if named else file.modified, tz=UTC)


def _shape_order(shape: tuple[str, tuple[str, ...] | None, int]) -> tuple[str, tuple[str, ...]]:
    return shape[0], shape[1] or ()


def _sentence(error: BaseException) -> str:
    """The first line of an error, without this machine's folders."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"(/[^\s\"':]+)+/", "", first)[:300]
