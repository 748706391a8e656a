"""Invent: three records of the shapes of a source, for a test that may be read by anyone. No value of the source is in them, but
for the few that a column that is not personal is made of.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lakehouse.core.engines.casts import CURRENCY
from lakehouse.profile.columns import Measured
from lakehouse.profile.keys import Key
from lakehouse.tables.spec import Column, Csv, DeltaSource, TableSpec

ROWS = 3
_BEGIN = datetime(2024, 3, 14, 9, 30, tzinfo=UTC)


def records(columns: Sequence[Measured], key: Key) -> list[dict[str, Any]]:
    """Records by delivered field; values within documents are where they are in the source."""
    out: list[dict[str, Any]] = []
    for number in range(ROWS):
        record: dict[str, Any] = {}
        for one in columns:
            *outer, last = (one.column.field, *one.column.steps)
            inner = record
            for step in outer:
                inner = inner.setdefault(str(step), {})
            inner[str(last)] = _value(one, number, unique=one.name in key.columns)
        out.append(record)
    return out


def csv_text(rows: Sequence[Mapping[str, Any]], dialect: Csv) -> str:
    """Records as a CSV file in a dialect."""
    out = io.StringIO()
    out.write("relatório\n" * dialect.skip)
    writer = csv.writer(
        out,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        lineterminator="\n",
    )
    if not dialect.header:
        writer.writerow(rows[0])
    writer.writerows([[_cell(value) for value in row.values()] for row in rows])
    out.write("total\n" * dialect.footer)
    return out.getvalue()


def as_delta(spec: TableSpec, lines: str, folder: Path) -> TableSpec:
    """The table with a Delta table of these records (lines of JSON) in a folder for its source."""
    import pyarrow as pa
    from deltalake import write_deltalake

    records = [{name: _flat(value) for name, value in json.loads(line).items()} for line in lines.splitlines()]
    write_deltalake(str(folder), pa.Table.from_pylist(records))
    return replace(spec, source=DeltaSource(str(folder), spec.origin.asset))


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _cell(value: Any) -> str:
    return str(_flat(value))


def _value(one: Measured, number: int, *, unique: bool) -> Any:
    column, shape = one.column, one.guess.shape
    if column.type == "string":
        return _text(one, number, unique=unique)
    if column.type == "boolean":
        return ((column.true or ("true",))[0], (column.false or ("false",))[0])[number % 2]
    if column.type in ("date", "timestamp"):
        return _instant(column, number, shape)
    if column.type.startswith("decimal"):
        return _amount(column, number, shape)
    return str(number + 1) if column.decimal else number + (0.5 if column.type == "double" else 1)


def _text(one: Measured, number: int, *, unique: bool) -> Any:
    shape, few = one.guess.shape, one.values
    if one.guess.about.kind:
        return _person(one.guess.about.kind, shape, number)
    if shape.startswith("["):
        return [f"{one.name} {number + 1}"]
    if few and not unique:
        return few[number % len(few)]
    digits = bool(re.fullmatch(r"9+", shape))
    return f"{number + 1:0{len(shape)}}" if digits else f"{one.name} {number + 1}"


def _instant(column: Column, number: int, shape: str) -> Any:
    instant = _BEGIN + timedelta(days=number)
    units = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}
    if column.form:
        return int(instant.timestamp()) * units[column.form]
    if column.format:
        return instant.strftime(column.format)
    if column.type == "date":
        return f"{instant:%Y-%m-%d}"
    gap = "T" if "X" in shape[10:11] else " "
    return f"{instant:%Y-%m-%d}{gap}{instant:%H:%M:%S}{'Z' if shape.endswith('X') else ''}"


def _amount(column: Column, number: int, shape: str) -> Any:
    digits, scale = (int(part) for part in re.findall(r"\d+", column.type))
    amount = (1_234.5, 7.25, 0.5)[number] % 10 ** (digits - scale)
    plain = f"{amount:.{min(scale, 2)}f}"
    if not column.decimal:
        return float(plain)
    whole, _, cents = f"{amount:,.{min(scale, 2)}f}".partition(".")
    whole = whole.replace(",", ".") if column.decimal == "," else whole
    sign = re.search(CURRENCY.replace("R", "X").replace("US", "XX"), shape)
    signs = {"X$": "R$ ", "XX$": "US$ "}
    before = signs.get(sign[0], f"{sign[0]} ") if sign else ""
    return before + whole + (f"{column.decimal}{cents}" if cents else "")


def _person(kind: str, shape: str, number: int) -> str:
    """A text of nobody, in the shape of a document where it has one."""
    if kind == "CPF":
        return _numbered(shape, f"00000000{number + 1}", ((10, 2), (11, 2)))
    if kind == "CNPJ":
        return _numbered(shape, f"0000000{number + 1}0001", ((5, 2), (6, 2)))
    if kind == "e-mail":
        return f"pessoa{number + 1}@example.com"
    if kind == "name":
        return f"Pessoa {number + 1}"
    digits = [position for position, letter in enumerate(shape) if letter == "9"]
    if digits and not re.search(r"[xX]", shape):
        return "".join("0" if position in digits[:-1] else str(number + 1) if position in digits else letter
                       for position, letter in enumerate(shape))  # fmt: skip
    return f"texto {number + 1}"


def _numbered(shape: str, digits: str, starts: Sequence[tuple[int, int]]) -> str:
    """A document's number with its check digits, punctuated as in the shape."""
    for high, low in starts:
        weights, weight = [], high
        for _ in digits:
            weights.append(weight)
            weight = weight - 1 if weight > low else 9
        rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11
        digits += str(0 if rest < 2 else 11 - rest)
    if len(digits) != shape.count("9"):
        return digits
    left = iter(digits)
    return "".join(next(left) if letter == "9" else letter for letter in shape)
