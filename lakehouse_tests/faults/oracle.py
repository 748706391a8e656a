"""What the lake must hold, computed from the landed files in plain Python, and what of it is lost or there twice.

Everything is compared as a multiset of rows, never as a count: bronze by `_airbyte_raw_id`, its quarantine by file and line,
silver by whole rows, its quarantine by `_airbyte_raw_id`, the plan by file, the ledger by the records that came in per layer.
"""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from lakehouse.tables.spec import TableSpec
from lakehouse.tables.vendas import CLIENTES, PRODUTOS, VENDAS
from lakehouse_tests.conftest import LANDING_FILES, Lake, Row, plain
from lakehouse_tests.faults.driver import ITENS
from lakehouse_tests.silver.model import newest

Multiset = Counter[tuple[Any, ...]]
_CENTS = Decimal("0.0001")


@dataclass(frozen=True)
class Table:
    """A table, and in Python what its spec says in SQL."""

    spec: TableSpec
    deleted: Callable[[Row], bool] = lambda row: False
    refused: Callable[[Row], bool] = lambda row: False
    calculated: Mapping[str, Callable[[Row], Any]] = field(default_factory=dict)


LAYERS = (Table(ITENS, deleted=lambda row: row["situacao"] == "apagado", refused=lambda row: row["id"] < 0),)
JOB = (
    Table(PRODUTOS),
    Table(CLIENTES),
    Table(
        VENDAS,
        deleted=lambda row: row["status"] == "deleted",
        calculated={
            "created_date": lambda row: row["created_at"].date(),
            "total": lambda row: row["quantidade"] * row["valor_unitario"],
        },
    ),
)


@dataclass(frozen=True)
class Losses:
    """Rows that are not there, rows that are there once too often, and in which table."""

    lost: int = 0
    doubled: int = 0
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """The multisets of one table: by name, each of the same kind of row."""

    parts: Mapping[str, Multiset]

    def compare(self, wanted: "State") -> list[tuple[str, Multiset, Multiset]]:
        """Per part that differs: what is missing, and what is too much."""
        pairs = [(name, self.parts[name], rows) for name, rows in wanted.parts.items()]
        return [(name, rows - found, found - rows) for name, found, rows in pairs if found != rows]


def validate(lake: Lake, tables: Iterable[Table]) -> Losses:
    """Compare the lake with what landed."""
    lost = doubled = 0
    where = []
    for table in tables:
        for name, missing, extra in found(lake, table).compare(expected(lake, table)):
            lost += missing.total()
            doubled += extra.total()
            where.append(f"{name}: lost {list(missing)[:3]}, too much {list(extra)[:3]}")
    return Losses(lost, doubled, tuple(where))


# --- found -----------------------------------------------------------------------------------------------------------


def found(lake: Lake, table: Table) -> State:
    """What the lake holds of a table."""
    spec = table.spec
    quarantined = lake.rows(spec.quarantine, "layer", "raw_id", "source_file", "record")
    refused = [(Path(row["source_file"]).name, row["record"]) for row in quarantined if row["layer"] == "bronze"]
    entries = [row for row in lake.ledger() if row["table"] in (spec.bronze.table, spec.silver.table)]
    files = [row for row in lake.rows(LANDING_FILES, "table", "path") if row["table"] == str(spec.bronze)]
    return State(
        {
            str(spec.bronze): _bronze(lake, spec),
            f"{spec.bronze} quarantine": Counter(refused),
            str(spec.silver): _silver(lake, spec),
            f"{spec.silver} quarantine": Counter((row["raw_id"],) for row in quarantined if row["layer"] == "silver"),
            f"{spec.name} in ops/ledger": _accounts(entries),
            f"{spec.name} in ops/landing_files": Counter((Path(row["path"]).name,) for row in files),
        }
    )


def readable(lake: Lake, tables: Iterable[Table]) -> list[Multiset]:
    """What a reader sees of bronze and silver now."""
    return [rows for table in tables for rows in (_bronze(lake, table.spec), _silver(lake, table.spec))]


def _bronze(lake: Lake, spec: TableSpec) -> Multiset:
    return Counter((row["_airbyte_raw_id"],) for row in lake.rows(spec.bronze, "_airbyte_raw_id"))


def _silver(lake: Lake, spec: TableSpec) -> Multiset:
    return Counter(tuple(plain(row).items()) for row in lake.rows(spec.silver))


def _accounts(entries: Iterable[Row]) -> Multiset:
    """Records that came in, per layer, and those that have their place."""
    out: Multiset = Counter()
    for entry in entries:
        out[entry["layer"], "in"] += entry["records_in"]
        outcomes = ("written", "deduplicated", "deleted", "quarantined")
        out[entry["layer"], "accounted for"] += sum(entry[outcome] for outcome in outcomes)
    return out


# --- expected --------------------------------------------------------------------------------------------------------


def expected(lake: Lake, table: Table) -> State:
    """What follows from all files of a table's stream."""
    spec = table.spec
    paths = sorted((lake.folder / "landing" / "raw" / spec.source.stream).glob("*.*"))
    records = [record for path in paths for record in _records(path)]
    lines = [(path.name, line) for path in paths for line in _broken(path)]
    typed = [(raw_id, _row(table, at, fields)) for raw_id, at, fields in records]
    columns = [*(column.name for column in spec.columns), "_extracted_at"]
    accepted = [row for _, row in typed if not table.refused(row)]
    rows = newest(accepted, key=spec.key, order=spec.order, columns=columns)
    return State(
        {
            str(spec.bronze): Counter((raw_id,) for raw_id, _ in typed),
            f"{spec.bronze} quarantine": Counter(lines),
            str(spec.silver): Counter(tuple(plain(row).items()) for row in rows),
            f"{spec.silver} quarantine": Counter((raw_id,) for raw_id, row in typed if table.refused(row)),
            f"{spec.name} in ops/ledger": Counter(
                {
                    ("bronze", "in"): len(typed) + len(lines),
                    ("bronze", "accounted for"): len(typed) + len(lines),
                    ("silver", "in"): len(typed),
                    ("silver", "accounted for"): len(typed),
                }
            ),
            f"{spec.name} in ops/landing_files": Counter((path.name,) for path in paths),
        }
    )


def to_be_read(lake: Lake, tables: Iterable[Table]) -> list[Multiset]:
    """What `readable` must come to."""
    states = [(table, expected(lake, table)) for table in tables]
    return [state.parts[str(ref)] for table, state in states for ref in (table.spec.bronze, table.spec.silver)]


def _row(table: Table, at: Any, fields: Row) -> Row:
    row = {c.name: _value(c.type, fields.get(c.bronze_name)) for c in table.spec.delivered}
    row |= {name: calculate(row) for name, calculate in table.calculated.items()}
    return {**row, "_extracted_at": _instant(at), "_deleted": table.deleted(row)}


def _value(kind: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if kind == "timestamp":
        return _instant(value)
    if kind.startswith("decimal"):
        return Decimal(str(value)).quantize(_CENTS)
    return int(value) if kind == "bigint" else str(value)


def _instant(value: Any) -> datetime:
    """Of epoch milliseconds, an ISO text or an instant."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, int) or str(value).isdigit():
        return datetime.fromtimestamp(int(value) / 1000, tz=UTC)
    return datetime.fromisoformat(value).astimezone(UTC)


@lru_cache(maxsize=2_000)
def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@lru_cache(maxsize=2_000)
def _records(path: Path) -> list[tuple[str, Any, Row]]:
    """Raw id, extraction time and fields of every record of a landed file."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    content = _content(path)
    if kind == "parquet":
        import pyarrow.parquet as pq

        lines = pq.read_table(io.BytesIO(content)).to_pylist()
    elif kind == "csv":
        lines = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    else:
        lines = [json.loads(line, parse_float=Decimal) for line in content.decode().splitlines() if line not in _broken(path)]
    out = []
    for line in lines:
        data = line.get("_airbyte_data", line)
        raw_id = line.get("_airbyte_raw_id") or line["_airbyte_ab_id"]
        at = line.get("_airbyte_extracted_at") or line["_airbyte_emitted_at"]
        out.append((raw_id, at, json.loads(data, parse_float=Decimal) if isinstance(data, str) else data))
    return out


@lru_cache(maxsize=2_000)
def _broken(path: Path) -> list[str]:
    """The lines of a JSONL file that are no JSON."""
    if "jsonl" not in path.name:
        return []
    return [line for line in _content(path).decode().splitlines() if not line.endswith("}")]
