"""Scan: the files of one form, opened together in the engine: their fields, their records, and what is no record.

files of one form ─▶ Part ─▶ Found: which fields occur in which file ─▶ bronze rows, records that are none
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession, literal, quoted, text
from lakehouse.core.engines.duckdb_texts import as_text
from lakehouse.core.names import column_name
from lakehouse.landing.readers.files.documents import Documents, look_sql, shape_sql
from lakehouse.landing.readers.files.fields import (
    DATA,
    ENVELOPE_NAMES,
    V1_NAMES,
    instant,
    instant_sql,
    sql,
)
from lakehouse.landing.readers.files.forms import MAX_FIELDS, Form, Prepared, TooMuchError, too_many
from lakehouse.landing.readers.files.refused import LONGEST_RECORD

#: The path that a row was read from; no delivered field has this process's own mark.
_OPENED = f"opened_{uuid.uuid4().hex}"
#: So many records are looked at before all of them.
_FIRST = 2_048
#: Characters of a field that are shown of a record which is none.
_SHOWN = 100
#: What DuckDB raises for a file's content, besides its plain `Error` (damaged Parquet pages). A binder or catalog
#: error is never the file's fault, a memory error only that of a file with long lines.
_UNREADABLE = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.ConversionException,
    duckdb.SerializationException,
)


def blames_file(error: BaseException) -> bool:
    return isinstance(error, (*_UNREADABLE, TooMuchError)) or type(error) is duckdb.Error


class Part:
    """A group of files of one form, opened in one of two shapes: JSON documents, or columns.

    Args:
        rows: those of the only file, of columns, which are not in it: a frame that can be computed once.
    """

    def __init__(self, session: DuckDBSession, files: Sequence[Prepared], rows: "nw.LazyFrame[Any] | None" = None) -> None:
        self.rows = rows
        self.session = session
        self.connection = session.connection
        self.files = files
        names = sorted({name for file in files for name in file.hive})
        self.hive = {name: f"hive_{position}_{_OPENED}" for position, name in enumerate(names)}
        self.sources = session.table(
            [
                {
                    _OPENED: file.path,
                    "_source_file": file.file.path,
                    "_fallback": instant(file.file),
                    **{position: file.hive.get(name) for name, position in self.hive.items()},
                }
                for file in files
            ],
            {
                _OPENED: "string",
                "_source_file": "string",
                "_fallback": "timestamp",
                **dict.fromkeys(self.hive.values(), "string"),
            },
        ).to_native()

    def open(self, form: Form) -> "Found":
        """Count the records per file, and have them ready; with the values of the files' paths."""
        found = self._opened(form)
        for name, position in self.hive.items():
            own = found.fields.get(name)
            found.fields[name] = sql(position) if own is None else duckdb.CoalesceOperator(own, sql(position))
        return found

    def _opened(self, form: Form) -> "Found":
        # Columns are read by position: their names may be anything, and DuckDB does not tell `id` from `Id`.
        locations = {name: f"c{position}" for position, name in enumerate(form.names)}
        if form.kind == "json":
            return self._lines(form)
        relation = self._csv(form, locations) if form.kind == "csv" else self._parquet(locations)
        envelope = {name: location for name, location in locations.items() if name in ENVELOPE_NAMES and name != DATA}
        if DATA in locations:
            beside = {name: location for name, location in locations.items() if name not in ENVELOPE_NAMES}
            relation = relation.select("*", sql(locations[DATA]).alias("_payload"))
            found = self._documents(relation, envelope, read=[*envelope.values(), *beside.values(), locations[DATA]])
            return found.with_beside(beside)
        fields = {name: sql(location) for name, location in locations.items() if name not in ENVELOPE_NAMES}
        if not fields:
            return self._envelopes(relation, envelope)
        if self.rows is not None:  # counted as they are written
            counts = [(self.files[0].path, 0, None)]
        else:
            counts = relation.aggregate(f"{_OPENED}, count(*) AS n, {_filled([*locations.values()])}").fetchall()
        shapes = [(path, tuple(fields), rows) for path, rows, _ in counts]
        return Found(self, relation, envelope, shapes, fields, content=[*locations.values()])

    def _envelopes(self, relation: duckdb.DuckDBPyRelation, envelope: Mapping[str, str]) -> "Found":
        """Records that have Airbyte's envelope and nothing else: they are none."""
        text = ", ".join(f"{quoted(name)} := {location}" for name, location in envelope.items())
        relation = relation.select(sql(_OPENED), sql(f"CAST(to_json(struct_pack({text})) AS VARCHAR)").alias("_payload"))
        counts = relation.aggregate(f"{_OPENED}, count(*) AS n, count(_payload) AS filled").fetchall()
        relation = relation.select("*", sql("CAST(NULL AS VARCHAR)").alias("_document"))
        shapes = [(path, None, rows) for path, rows, _ in counts]
        found = Found(self, relation, {}, shapes, {}, content=["_payload"], documents=True)
        found.problem = "It has Airbyte's envelope and no field of its own."
        return found

    def _lines(self, form: Form) -> "Found":
        options = {"delimiter": "\x1f", "quotechar": "", "escapechar": "", "strict_mode": False}
        relation = self._read_csv(form, {"line": "VARCHAR"}, header=False, **options)
        relation = relation.filter("line IS NOT NULL AND trim(line) <> ''")
        return self._documents(relation.select(sql(_OPENED), sql("line").alias("_payload")), {}, lines=True)

    def _csv(self, form: Form, locations: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
        columns = dict.fromkeys(locations.values(), "VARCHAR")
        columns |= {f"beyond{position}": "VARCHAR" for position in range(form.beyond)}
        return self._read_csv(form, columns, header=True, delimiter=form.delimiter, quotechar=form.quote, escapechar=form.quote)

    def _read_csv(self, form: Form, columns: Mapping[str, str], **options: Any) -> duckdb.DuckDBPyRelation:
        return self.connection.read_csv(
            [literal(file.path) for file in self.files],  # type: ignore[arg-type]  # the stub knows one path only
            columns=dict(columns),
            auto_detect=False,
            compression="gzip" if form.zipped else "none",  # DuckDB takes what follows a `?` for no part of the name
            filename=_OPENED,
            max_line_size=form.line,
            ignore_errors=True,
            **options,
        )

    def _parquet(self, aliases: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
        if self.rows is None:
            relation = self.connection.sql(
                "FROM read_parquet($1, filename = $2, hive_partitioning = false)",
                params=[[literal(file.path) for file in self.files], _OPENED],
            )
        else:
            path = duckdb.ConstantExpression(self.files[0].path).alias(_OPENED)
            relation = self.rows.to_native().select(duckdb.StarExpression(), path)
        found = zip(relation.columns, relation.types, [*aliases.values(), _OPENED], strict=True)
        return relation.select(*[sql(as_text(quoted(name), kind)).alias(location) for name, kind, location in found])

    def readable(self, form: Form) -> bool:
        """Whether these files can be read to their end."""
        try:
            found = self.open(form)
            self.session.rows(found.bronze({}).select(nw.all().count()))
        except duckdb.Error as error:
            if not blames_file(error):
                raise
            return False
        return True

    def _documents(
        self, relation: duckdb.DuckDBPyRelation, envelope: Mapping[str, str], *, lines: bool = False, read: Sequence[str] = ()
    ) -> "Found":
        """Records that are JSON: `_payload` has the text of each.

        Args:
            envelope: SQL of Airbyte's values by name, of those that are beside the text.
            lines: the text is a whole record, with its envelope; else it is the record's fields.
            read: SQL of what is read for the count too.
        """
        # Records that leave out what is null have as many shapes as there are records: those stay in the engine.
        look = look_sql("_payload", lines=lines)
        # Where the first records need care, all get it, and the others are not asked.
        if _step_by_step(relation.limit(_FIRST), look).aggregate("bool_or(altered)").fetchall() == [(True,)]:
            look["altered"] = "true"
        keys = _step_by_step(relation, look).aggregate(
            f"{_OPENED}, types, keys, own_keys, count(*) AS n, bool_or(altered) AS altered, {_filled(read)}"
        )
        shapes = _step_by_step(self.session.persist(nw.from_native(keys)).to_native(), shape_sql())
        given = shapes.select(f"{_OPENED}, unnest(k) AS name, generate_subscripts(k, 1) AS position")
        locations = given.aggregate(f"{_OPENED}, name, min(position) AS position").fetchall()
        by_file: dict[str, list[str]] = {}
        for path, name, _ in sorted(locations, key=lambda found: (found[0], found[2], found[1])):
            if name not in ENVELOPE_NAMES:
                by_file.setdefault(path, []).append(name)
        counts = shapes.aggregate(f"{_OPENED}, k IS NULL, kind, sum(n), bool_or(altered)").fetchall()
        found = [(path, None if broken else tuple(by_file.get(path, ())), int(rows)) for path, broken, _, rows, _ in counts]
        names = list(dict.fromkeys(name for given in by_file.values() for name in given))
        if len(names) > MAX_FIELDS:
            raise TooMuchError(too_many(len(names)))
        records = [(kind, altered) for _, broken, kind, _, altered in counts if not broken]
        documents = Documents(
            frozenset(kind for kind, _ in records),
            lines=lines,
            altered=any(altered for _, altered in records),
            broken=len(records) < len(counts),
        )
        outer = shapes.select("unnest(keys[1]) AS name").distinct().fetchall() if lines else []
        beside = sorted({name for (name,) in outer} & ENVELOPE_NAMES - {DATA})
        for step in documents.columns("_payload", names, beside):
            relation = relation.select("*", *[sql(value).alias(name) for name, value in step.items()])
        fields = {name: sql(documents.value(position)) for position, name in enumerate(names)}
        within = {name: documents.value(position) for position, name in enumerate(beside, start=len(names))}
        out = Found(self, relation, {**envelope, **within}, found, fields, content=[documents.content], documents=True)
        out.repeated = _repeated(shapes)
        return out


class Found:
    """What a scan of a group found out: which fields occur in which file, and how many records there are.

    Args:
        envelope: SQL of Airbyte's values by name; `content`: SQL of all that was delivered.
    """

    def __init__(
        self,
        part: Part,
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
        self.fields = dict(fields)
        #: Fields that occur twice in a record, with the number of such records.
        self.repeated: dict[str, int] = {}
        self.columns: dict[str, duckdb.Expression] = {}
        self.extra: dict[str, duckdb.Expression] = {}
        #: SQL of fields that are beside the documents.
        self.beside: dict[str, str] = {}
        #: Why records are none.
        self.problem = "It is not a JSON object."

    def with_beside(self, beside: Mapping[str, str]) -> "Found":
        """The same with fields that are beside the documents, by the SQL of each: what a document has of them counts first."""
        for name, location in beside.items():
            own = self.fields.get(name)
            self.fields[name] = sql(location) if own is None else duckdb.CoalesceOperator(own, sql(location))
        self.shapes = [
            (path, None if names is None else tuple(dict.fromkeys((*names, *beside))), rows) for path, names, rows in self.shapes
        ]
        self.beside = dict(beside)
        return self

    def assign(self, known: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Give each field its column, or `_extra`: a column has one field, and never another one's value.

        Args:
            known: by column the fields that have it for a name; the first is in the column.

        Returns:
            the same with the fields that are new; of several at once the one of exactly that name is first, then by name.
        """
        names: dict[str, list[str]] = {}
        for field in sorted(self.fields, key=lambda field: (field != column_name(field), field)):
            column = column_name(field)
            if column is not None:
                names.setdefault(column, list(known.get(column, ())))
                names[column] += [field] if field not in names[column] else []
        owners = {fields[0]: column for column, fields in names.items()}
        self.columns = {owners[field]: value for field, value in self.fields.items() if field in owners}
        self.extra = {field: value for field, value in sorted(self.fields.items()) if field not in owners}
        return names

    @property
    def records(self) -> int:
        """Records that the parser gives, those that are no documents included."""
        return sum(rows for _, _, rows in self.shapes)

    def wrote(self, records: int) -> None:
        """Note how many records the rows were that could not be counted before."""
        self.shapes = [(path, names, records) for path, names, _ in self.shapes]

    def records_of(self) -> dict[str, int]:
        """The same for each opened path that has some."""
        found: dict[str, int] = {}
        for opened, _, rows in self.shapes:
            found[opened] = found.get(opened, 0) + rows
        return found

    def names_of(self) -> dict[str, set[str]]:
        """The fields that records of each opened path have."""
        found: dict[str, set[str]] = {}
        for opened, names, _ in self.shapes:
            found.setdefault(opened, set()).update(names or ())
        return found

    def files_beyond(self, known: frozenset[str]) -> dict[str, set[str]]:
        """Landed paths that hold fields other than `known`, with those fields."""
        paths = {file.path: file.file.path for file in self.part.files}
        beyond: dict[str, set[str]] = {}
        for opened, fields, _ in self.shapes:
            new = {name for name in fields or () if column_name(name) not in known}
            if new:
                beyond.setdefault(paths[opened], set()).update(new)
        return beyond

    @property
    def _all_records(self) -> bool:
        return not self.documents or all(fields is not None for _, fields, _ in self.shapes)

    def bronze(self, stamp: Mapping[str, object]) -> "nw.LazyFrame[Any]":
        relation = self.relation if self._all_records else self.relation.filter("_document IS NOT NULL")
        relation = relation.set_alias("d").join(self.part.sources.set_alias("s"), f"d.{_OPENED} = s.{_OPENED}")
        extracted = self._envelope("_airbyte_extracted_at")
        raw_id = f"nullif({self._envelope('_airbyte_raw_id')}, '')"
        # A record without an id of its own gets one from where and what it is; only the other kind tells a repeated record.
        content = ", ".join(["_source_file", *self.content])
        fixed = {
            "_airbyte_raw_id": f"coalesce({raw_id}, md5(concat_ws(chr(31), {content})))",
            "_airbyte_extracted_at": f"coalesce({instant_sql(extracted)}, _fallback)",
            "_airbyte_meta": self._envelope("_airbyte_meta"),
            "_airbyte_generation_id": f"TRY_CAST({self._envelope('_airbyte_generation_id')} AS BIGINT)",
            "_source_file": "_source_file",
            "_raw_id_delivered": f"{raw_id} IS NOT NULL",
        }
        columns = [sql(text).alias(name) for name, text in fixed.items()]
        columns += [duckdb.ConstantExpression(value).alias(name) for name, value in stamp.items()]
        columns += [value.alias(column) for column, value in self.columns.items()]
        if not self.extra:
            return nw.from_native(relation.select(*columns, sql("CAST(NULL AS VARCHAR)").alias("_extra")))
        names = duckdb.FunctionExpression("list_value", *[duckdb.ConstantExpression(name) for name in self.extra])
        pairs = duckdb.FunctionExpression("list_zip", names, duckdb.FunctionExpression("list_value", *self.extra.values()))
        relation = relation.select(*columns, pairs.alias("_pairs"))
        given = "list_filter(_pairs, lambda _pair: _pair[2] IS NOT NULL)"
        text = f"CASE WHEN len({given}) > 0 THEN CAST(to_json(map_from_entries({given})) AS VARCHAR) END"
        return nw.from_native(relation.select(sql("* EXCLUDE (_pairs)"), sql(text).alias("_extra")))

    def broken(self) -> "list[nw.LazyFrame[Any]]":
        """The records of this group that are none, with what was delivered."""
        if self._all_records:
            return []
        sources = self.part.sources.set_alias("s")
        broken = self.relation.filter("_document IS NULL").set_alias("d").join(sources, f"d.{_OPENED} = s.{_OPENED}")
        return [self.part.session.persist(_rejected(broken, reason=self._reason()))]

    def _reason(self) -> str:
        """SQL of why a record is none: what its writer has noted, else what is wrong with it, and where it is from."""
        meta = self._envelope("_airbyte_meta")
        noted = f"CASE WHEN json_valid({meta}) THEN {meta} ->> '/refused' END"
        fields = [f"{text(name)} || ' ' || left({location}, {_SHOWN:d})" for name, location in self.beside.items()]
        where = f"concat(' It has ', concat_ws(', ', {', '.join(fields)}), '.')" if fields else "''"
        return f"coalesce({noted}, concat({text(self.problem)}, {where}))"

    def _envelope(self, name: str) -> str:
        present = [self.envelope[n] for n in (name, V1_NAMES.get(name, "")) if n in self.envelope]
        return f"coalesce({', '.join(present)})" if present else "CAST(NULL AS VARCHAR)"


def _step_by_step(relation: duckdb.DuckDBPyRelation, values: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
    """The relation with these columns more, each of which may read those before it."""
    for name, value in values.items():
        relation = relation.select("*", sql(value).alias(name))
    return relation


def _rejected(relation: duckdb.DuckDBPyRelation, *, reason: str) -> "nw.LazyFrame[Any]":
    """Rows of the quarantine; `reason` is SQL."""
    cut = f" Of its characters the first {LONGEST_RECORD:,} are kept."
    columns = {
        "rules": text("readable_record"),
        "reason": f"concat({reason}, CASE WHEN len(_payload) > {LONGEST_RECORD:d} THEN {text(cut)} END)",
        "record": f"left(coalesce(_payload, ''), {LONGEST_RECORD:d})",
        "source_file": "_source_file",
    }
    return nw.from_native(relation.select(*[sql(value).alias(name) for name, value in columns.items()]))


def _repeated(shapes: duckdb.DuckDBPyRelation) -> dict[str, int]:
    """Names that occur more than once among the keys (`k`) of a record, with the number of such records (`n`)."""
    several = shapes.filter("len(k) > len(list_distinct(k))")
    again = "list_distinct(list_filter(k, lambda one: len(list_filter(k, lambda other: other = one)) > 1))"
    return {
        name: int(records) for name, records in several.select(f"n, unnest({again}) AS name").aggregate("name, sum(n)").fetchall()
    }


def _filled(columns: Sequence[str]) -> str:
    """Reads every column that is written for the count too: a line is refused for what is in the columns that are read."""
    return f"list_sum([{', '.join(['0', *(f'count({column})' for column in columns)])}]) AS filled"
