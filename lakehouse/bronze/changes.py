"""Values that Airbyte changed on the way (`_airbyte_meta.changes`): which field, how often, why, and of which records.

Here: what the check `changed_by_airbyte` and the console say of a batch. Not here: the count of records (`landing/readers`). That
is taken of every batch; this reads the staged files again, and only where the count is not zero.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lakehouse.core.engines.duckdb import DuckDBSession, quoted
from lakehouse.core.table.snapshot import DataFile
from lakehouse.tables.spec import TableSpec

_SAMPLES = 3
_CHANGES = "TRY(json_extract(_airbyte_meta, '$.changes[*]'))"
#: What helps, by the beginning of the reason that Airbyte gives.
_REMEDIES = {
    "SOURCE_": "The source could not give it: correct it there and sync these records again.",
    "DESTINATION_FIELD_SIZE": "It is larger than the destination lets a field be: shorten it at the source, or leave it out.",
    "DESTINATION_RECORD_SIZE": "The record is larger than the destination lets it be: leave large fields out of the connection.",
}
_REMEDY = "It did not fit the type that the connection has for the field: correct that type or the value, and sync again."


@dataclass(frozen=True)
class Changed:
    """One field, in one way, for one reason. `records` are some of those it happened to: key and raw id, nothing personal."""

    field: str
    change: str
    reason: str
    count: int
    records: tuple[str, ...]

    def line(self, table: object) -> str:
        """For the console: table, field, count, records, cause and what helps."""
        way = next((text for start, text in _REMEDIES.items() if self.reason.startswith(start)), _REMEDY)
        done = f"{self.change}, {self.reason}" if self.reason else self.change
        return f"{table} {self.field}: {self.count:,} values were changed by Airbyte ({done}): {'; '.join(self.records)}. {way}"


def changes(session: DuckDBSession, folder: str, files: Sequence[DataFile], spec: TableSpec) -> list[Changed]:
    """What Airbyte says that it changed in staged files, the most frequent first."""
    key = {column.name: column for column in spec.columns if column.name in spec.record_key and column.delivered}
    personal = {column.bronze_name for column in spec.of_record if column.personal}
    fields = {name: column.bronze_name for name, column in key.items() if column.bronze_name not in {*personal, *spec.values}}
    columns = {"_airbyte_meta": "string", "_airbyte_raw_id": "string", **dict.fromkeys(fields.values(), "string")}
    paths = [f"{folder}/{file.path}" for file in files if file.nulls.get("_airbyte_meta") != file.rows]
    frame = session.read(paths, columns).to_native().filter("contains(_airbyte_meta, 'changes') AND json_valid(_airbyte_meta)")
    names = ", ".join(quoted(name) for name in dict.fromkeys(("_airbyte_raw_id", *fields.values())))
    each = frame.project(f"unnest({_CHANGES}) AS one, {names}")
    parts = ", ".join(f"coalesce(json_extract_string(one, '$.{part}'), '') AS _{part}" for part in ("field", "change", "reason"))
    retained = session.persist(nw.from_native(each.project(f"{parts}, {names}")))
    by = ("_field", "_change", "_reason")
    counts = session.rows(retained.group_by(*by).agg(n=nw.len()).sort("n", *by, descending=[True, False, False, False]))
    return list(_described(session, retained, counts, fields))


def _described(
    session: DuckDBSession, retained: "nw.LazyFrame[Any]", counts: Sequence[tuple[Any, ...]], fields: dict[str, str]
) -> Iterator[Changed]:
    for field, change, reason, count in counts:
        same = (nw.col("_field") == field) & (nw.col("_change") == change) & (nw.col("_reason") == reason)
        some = retained.filter(same).sort("_airbyte_raw_id").head(_SAMPLES)
        records = []
        for row in session.dicts(some, "_airbyte_raw_id", *dict.fromkeys(fields.values())):
            named = [f"{name} {json.dumps(row[of], ensure_ascii=False)[:80]}" for name, of in fields.items()]
            records.append(", ".join([*named, f"raw id {row['_airbyte_raw_id']}"]))
        yield Changed(str(field), str(change).lower(), str(reason), int(count), tuple(records))
