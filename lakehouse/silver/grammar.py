"""What the lake's own grammar of casts changes in a table that was not computed again, all of it, since there is one.

    bronze texts ─▶ as they were cast then, and as they are now ─▶ per column: refused, changed, and what to declare

Here: the casts of then (DuckDB's own, which accept more), and the comparison. They live only for this. Not here: the grammar
(`core/engines/casts.py`), printing (`commands/doctor.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import narwhals as nw

from lakehouse.core.engines.casts import EPOCHS, GRAMMAR, INTEGERS, VERSION, Cast
from lakehouse.core.engines.duckdb import DuckDBSession, bounded, quoted, sql_type
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.recovery import undecodable
from lakehouse.core.table.snapshot import open_existing
from lakehouse.silver.hints import hint, unnamed
from lakehouse.silver.inputs import bronze_columns, delivered
from lakehouse.silver.validate import cast_of, text_of, texts
from lakehouse.tables.spec import Column, TableSpec

_SAMPLES, _TRIED = 3, 20


@dataclass(frozen=True)
class Affected:
    """A column of which bronze holds texts that the grammar refuses (`refused`) or reads as another value (`changed`).

    `samples` are some of the texts, none of a personal column; `remedy` is what to declare or to do.
    """

    table: str
    column: str
    refused: int
    changed: int
    samples: tuple[str, ...]
    remedy: str

    @property
    def message(self) -> str:
        """One line for a person."""
        counts = [f"{n:,} values {what}" for n, what in ((self.refused, "are refused"), (self.changed, "become another")) if n]
        shown = f" ({', '.join(map(repr, self.samples))})" if self.samples else ""
        return f"silver/{self.table} {self.column}: {' and '.join(counts)} under the grammar of casts{shown}. {self.remedy}"


def affected(session: DuckDBSession, storage: Storage, spec: TableSpec) -> Iterator[Affected]:
    """The columns of a table with values from before the grammar; nothing for one of which all was computed under it.

    Raises:
        BrokenTableError: silver or bronze cannot be read.
    """
    silver = open_existing(storage.uri(spec.silver))
    if silver is None or silver.watermark(GRAMMAR) >= VERSION:
        return
    for part in spec.parts:
        bronze = open_existing(storage.uri(part.bronze))
        if bronze is None or not bronze.files:
            continue
        typed = [c for c in part.delivered if c.type != "string" and (c in part.of_elements or c.field not in part.values)]
        try:
            frame = session.read(bronze.paths(), bronze_columns(part, bronze))
            frame = texts(session, part, delivered(session, part, bronze, frame))
            for column in typed:
                yield from _affected(session, frame.to_native(), part, column)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise undecodable(bronze.uri, error) from error


def _affected(session: DuckDBSession, delivered: duckdb.DuckDBPyRelation, part: TableSpec, column: Column) -> Iterator[Affected]:
    name, cast = text_of(part, column), cast_of(column)
    before = duckdb.SQLExpression(_then(quoted(name), cast)).alias("before")
    both = nw.from_native(delivered.select(duckdb.ColumnExpression(name).alias("text"), before))
    frame = session.cast(both, {"now": ("text", cast)})
    found = frame.filter(~nw.col("before").is_null() & (nw.col("now").is_null() | (nw.col("now") != nw.col("before"))))
    retained = session.persist(found.group_by("text").agg(n=nw.len(), refused=nw.col("now").max().is_null()))
    counts = dict(session.rows(retained.group_by("refused").agg(n=nw.col("n").sum())))
    if not counts:
        return
    first = retained.sort("refused", "n", "text", descending=[True, True, False]).select("text", "refused").head(_TRIED)
    some = session.rows(first)
    lost = [text for text, refused in some if refused]
    way = hint(session, column, lost).way if lost else "Nothing is refused; make rebuild computes the rows that are there again."
    if column.personal and column.type == "boolean" and lost:
        way = unnamed(column)
    samples = () if column.personal else tuple(text for text, _ in some[:_SAMPLES])
    yield Affected(part.silver_name, column.name, int(counts.get(True, 0)), int(counts.get(False, 0)), samples, way)


def _then(source: str, cast: Cast) -> str:
    """A text as it was cast before the grammar."""
    attempt = f"TRY_CAST({source} AS {sql_type(cast.type)})"
    if cast.form:
        each, low, high = EPOCHS[cast.form]
        number = _then(source, Cast("bigint"))
        return f"CASE WHEN {number} BETWEEN {low} AND {high} THEN make_timestamptz({number} * {each}) END"
    if cast.type in INTEGERS:
        number = rf"regexp_full_match({source}, '\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*')"
        return f"CASE WHEN {number} AND TRY_CAST({source} AS DECIMAL(38,18)) = {attempt} THEN {attempt} END"
    if cast.type.startswith("decimal"):
        return f"CASE WHEN NOT contains({source}, '_') THEN {attempt} END"
    if cast.type == "double":
        spelled = f"regexp_full_match({source}, '\\s*[+-]?inf(inity)?\\s*', 'i')"
        return f"CASE WHEN NOT contains({source}, '_') AND (NOT isinf({attempt}) OR {spelled}) THEN {attempt} END"
    return bounded(attempt, cast.type) if cast.type in ("date", "timestamp") else attempt
