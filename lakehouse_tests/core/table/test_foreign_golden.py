"""The Delta kernel's golden tables: each is read exactly, or refused by the name of what it has, in one sentence.

`LAKEHOUSE_GOLDEN_TABLES` is a folder with them (CONTRIBUTING.md says how to get it). The oracle is the Parquet beside a table
(`expected`); where there is none, a reader of its own that knows commits, mapped names and deletion vectors.
"""

import json
import os
import re
import struct
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from lakehouse.core.errors import BrokenTableError, ForeignTableError, LakehouseError
from lakehouse.core.table.foreign import require_foreign
from lakehouse_tests.foreign import Z85

GOLDEN = os.environ.get("LAKEHOUSE_GOLDEN_TABLES", "")
#: The zones of the sessions that wrote partition values without one.
ZONES = {"data-reader-partition-values": "America/Los_Angeles"} | {
    f"kernel-timestamp-{form}": "UTC" for form in ("int96", "pst", "timestamp_micros", "timestamp_millis")
}
pytestmark = pytest.mark.skipif(not GOLDEN, reason="LAKEHOUSE_GOLDEN_TABLES is not set: 95 golden tables are not read")


def tables() -> list[Path]:
    return sorted({log.parent for log in Path(GOLDEN).rglob("_delta_log")}) if GOLDEN else []


def read(uri: Path) -> pa.Table:
    zone = next((ZONES[part] for part in uri.relative_to(GOLDEN).parts if part in ZONES), "")
    table = require_foreign(str(uri), timezone=zone, remedy="")
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
    live: dict[tuple[str, str], dict[str, Any]] = {}
    physical: dict[str, str] = {}
    for commit in sorted(path for path in (uri / "_delta_log").iterdir() if re.fullmatch(r"\d{20}\.json", path.name)):
        for action in map(json.loads, filter(None, commit.read_text().splitlines())):
            for kind, of in action.items():
                vector = str((of.get("deletionVector") or {}).get("pathOrInlineDv", "")) if kind in ("add", "remove") else ""
                if kind == "metaData":
                    fields = json.loads(of["schemaString"])["fields"]
                    physical = {f["name"]: f["metadata"].get("delta.columnMapping.physicalName", f["name"]) for f in fields}
                elif kind == "add":
                    live[of["path"], vector] = of
                elif kind == "remove":
                    live.pop((of["path"], vector), None)
    read = (plain_file(uri, add, schema, physical) for add in live.values())
    return pa.concat_tables([schema.empty_table(), *read])


def plain_file(uri: Path, add: dict[str, Any], schema: pa.Schema, physical: dict[str, str]) -> pa.Table:
    table, values = pq.ParquetFile(uri / unquote(add["path"]), coerce_int96_timestamp_unit="us").read(), add["partitionValues"]
    columns = {}
    for field in schema:
        name = physical.get(field.name, field.name)
        if name in values:
            columns[field.name] = pa.array([values[name]] * len(table), pa.string()).cast(field.type)
        elif name in table.column_names:
            columns[field.name] = named(table.column(name).combine_chunks(), field.type)
        else:
            columns[field.name] = pa.nulls(len(table), field.type)
    gone = deleted(uri, add["deletionVector"]) if add.get("deletionVector") else set()
    whole = pa.table(columns, schema=schema)
    left = [whole.slice(number, 1) for number in range(len(table)) if number not in gone] if gone else [whole]
    return pa.concat_tables([schema.empty_table(), *left])


def named(values: Any, kind: pa.DataType) -> Any:
    """Values of a file as a type of the table; what is nested has its parts by name, or by position where names are mapped."""
    if pa.types.is_struct(kind):
        there, own = [*values.type.names], [*kind.names]
        parts = [
            named(values.field(there.index(name) if {*there} == {*own} else n), kind.field(n).type) for n, name in enumerate(own)
        ]
        return pa.StructArray.from_arrays(parts, fields=[*kind], mask=values.is_null())
    return values.cast(kind)


def deleted(uri: Path, vector: dict[str, Any]) -> set[int]:
    """The positions of a deletion vector, as the protocol writes them: 64-bit roaring bitmaps."""
    text, kind = vector["pathOrInlineDv"], vector["storageType"]
    if kind == "i":
        content = z85(text)
    else:
        name = f"{text[:-20]}/deletion_vector_{uuid.UUID(bytes=z85(text[-20:]))}.bin".lstrip("/") if kind == "u" else text
        begin = vector["offset"] + 4  # after the size
        content = (uri / name).read_bytes()[begin : begin + vector["sizeInBytes"]]
    magic, bitmaps = struct.unpack_from("<IQ", content)
    assert magic == 1681511377
    position, found = 12, set[int]()
    for _ in range(bitmaps):
        (high,) = struct.unpack_from("<I", content, position)
        low, position = roaring(content, position + 4)
        found |= {(high << 32) + value for value in low}
    assert len(found) == vector["cardinality"]
    return found


def roaring(content: bytes, begin: int) -> tuple[set[int], int]:
    """The values of a 32-bit roaring bitmap, and where it ends."""
    (cookie,) = struct.unpack_from("<I", content, begin)
    assert cookie == 12346 or cookie & 0xFFFF == 12347
    runs = b""
    if cookie == 12346:
        (count,) = struct.unpack_from("<I", content, begin + 4)
        position = begin + 8
    else:
        count, position = (cookie >> 16) + 1, begin + 4
        runs, position = content[position : position + (count + 7) // 8], position + (count + 7) // 8
    heads = [struct.unpack_from("<HH", content, position + 4 * n) for n in range(count)]
    position += 4 * count + (0 if runs and count < 4 else 4 * count)  # the offsets of the containers
    found = set[int]()
    for number, (key, less) in enumerate(heads):
        if runs and runs[number // 8] >> number % 8 & 1:
            (length,) = struct.unpack_from("<H", content, position)
            pairs = [struct.unpack_from("<HH", content, position + 2 + 4 * n) for n in range(length)]
            low, size = [start + n for start, more in pairs for n in range(more + 1)], 2 + 4 * length
        elif less + 1 <= 4096:
            low, size = [*struct.unpack_from(f"<{less + 1}H", content, position)], 2 * (less + 1)
        else:
            bits = int.from_bytes(content[position : position + 8192], "little")
            low, size = [n for n in range(65536) if bits >> n & 1], 8192
        found |= {(key << 16) + value for value in low}
        position += size
    return found, position


def z85(text: str) -> bytes:
    words = [reduce(lambda value, letter: value * 85 + Z85.index(letter), text[n : n + 5], 0) for n in range(0, len(text), 5)]
    return struct.pack(f">{len(words)}I", *words)


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
    assert exact >= {95: 75, 154: 120}.get(len(found), 0)  # golden_data, and both folders
