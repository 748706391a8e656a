"""The Delta kernel's golden tables: each is read exactly, or refused by the name of what it has, in one sentence.

`LAKEHOUSE_GOLDEN_TABLES` is a folder with them (CONTRIBUTING.md says how to get it). The oracle is the Parquet beside a table
(`expected`); where there is none, a reader in ten lines that knows commits and plain Parquet files.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from lakehouse.core.errors import BrokenTableError, ForeignTableError, LakehouseError
from lakehouse.core.table.foreign import require_foreign

GOLDEN = os.environ.get("LAKEHOUSE_GOLDEN_TABLES", "")
#: The zones of the sessions that wrote partition values without one.
ZONES = {"data-reader-partition-values": "America/Los_Angeles"} | {
    f"kernel-timestamp-{form}": "UTC" for form in ("int96", "pst", "timestamp_micros", "timestamp_millis")
}
pytestmark = pytest.mark.skipif(not GOLDEN, reason="LAKEHOUSE_GOLDEN_TABLES is not set: 95 golden tables are not read")


def tables() -> list[Path]:
    return sorted({log.parent for log in Path(GOLDEN).rglob("_delta_log")}) if GOLDEN else []


def read(uri: Path) -> pa.Table:
    name = str(uri.relative_to(GOLDEN)).partition("/")[0]
    table = require_foreign(str(uri), timezone=ZONES.get(name, ""), remedy="")
    with table.reading() as rows:
        return rows.read_all()


def multiset(table: pa.Table) -> tuple[list[str], Counter[Any]]:
    names = sorted(table.column_names)
    columns = [[comparable(value) for value in table.column(name).to_pylist()] for name in names]
    return names, Counter(zip(*columns, strict=True))


def comparable(value: Any) -> Any:
    """A value with its type, that can be counted; instants of any zone as the instant."""
    if isinstance(value, dict):
        return "struct", tuple(sorted((name, comparable(part)) for name, part in value.items()))
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(comparable(part) for part in value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return "instant", value.timestamp()
    return type(value).__name__, repr(value)


def oracle(uri: Path, schema: pa.Schema) -> pa.Table:
    """The rows beside the table; else those of its live files with the partition values of their commits."""
    beside = uri.parent / "expected"
    if beside.is_dir():
        return ds.dataset(str(beside), format="parquet", exclude_invalid_files=True).to_table()
    live: dict[str, dict[str, str | None]] = {}
    for commit in sorted((uri / "_delta_log").glob("*.json")):
        for action in map(json.loads, commit.read_text().splitlines()):
            if "add" in action:
                live[action["add"]["path"]] = action["add"]["partitionValues"]
            if "remove" in action:
                live.pop(action["remove"]["path"], None)
    return pa.concat_tables(plain_file(uri / unquote(path), values, schema) for path, values in live.items())


def plain_file(path: Path, values: dict[str, str | None], schema: pa.Schema) -> pa.Table:
    table = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
    columns = {
        field.name: pa.array([values[field.name]] * len(table), pa.string()).cast(field.type)
        if field.name in values
        else table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    }
    return pa.table(columns)


def outcomes() -> Iterator[tuple[str, str]]:
    """Of each table `exact`, `refused: <why>`, or what is wrong."""
    for uri in tables():
        name = str(uri.relative_to(GOLDEN))
        try:
            found = read(uri)
        except ForeignTableError as error:
            yield name, f"refused: {error.feature}"
        except BrokenTableError as error:
            assert "\n" not in str(error) and "Kernel error" not in str(error), name
            yield name, f"refused: {error.what.replace(str(uri), 'the table')}"
        except LakehouseError as error:
            yield name, f"wrong: {error}"
        else:
            yield name, "exact" if multiset(found) == multiset(oracle(uri, found.schema)) else "wrong: other rows"


def test_each_golden_table_is_exact_or_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(outcomes())
    exact = sum(outcome == "exact" for outcome in found.values())
    refused = Counter(outcome.removeprefix("refused: ") for outcome in found.values() if outcome.startswith("refused: "))
    with capsys.disabled():
        print(f"\n{exact} of {len(found)} golden tables are exact; {refused.total()} are refused:")
        print("\n".join(f"  {count} {why}" for why, count in sorted(refused.items())))
    assert not {name: outcome for name, outcome in found.items() if outcome.startswith("wrong")}
    assert exact + refused.total() == len(found)
    if len(found) == 95:
        assert exact >= 75
