"""Small inputs that real sources deliver, read in place, each with its stated outcome in silver and quarantine.

Each folder of `cases` is one stream's landing folder; `expected.json` beside them has the columns and what is right.
"""

import datetime as dt
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake

CASES = (
    "01-union_timestamp",
    "01-union_string",
    "01-unionint",
    "02-money",
    "02-nested",
    "02-numbers",
    "03-fields",
    "03-mongo",
    "03-case",
    "03-csvcoll",
    "03-undecl",
    "07-nested",
    "08-timestamp",
    "08-date",
    "08-datecols",
    "08-epoch",
    "09-bool",
    "09-n_decimal",
    "09-neg",
    "09-comma",
)


#: Cases in which an engine computes what bronze does not decide; casts are tried value by value in core/engines/test_casts.py.
ON_SPARK_TOO = ("02-numbers", "03-fields", "07-nested", "08-datecols", "09-comma")


@pytest.mark.parametrize("case", CASES)
def test_a_case_comes_out_as_expected(real_data: Path, tmp_path: Path, case: str, engine_name: str) -> None:
    if engine_name == "spark" and case not in ON_SPARK_TOO:
        pytest.skip("what is right is decided in bronze, or by casts that have tests of their own")
    lake, folder = Lake(tmp_path, engine=engine_name), real_data / "cases"
    if not (folder / case).is_dir():
        pytest.skip(f"there are no cases in {folder}")
    expected = json.loads((folder / "expected.json").read_text())[case]
    spec = declared(expected)
    shutil.copytree(folder / case, tmp_path / "landing" / "raw" / "caso")
    refresh = lake.run(spec)
    assert refresh.entry is not None and refresh.entry.balanced
    rows = lake.rows(spec.silver)
    refused = [json.loads(row["record"])["id"] for row in lake.quarantined(spec)]
    kinds = {column.name: column.type for column in spec.columns}
    for number, values in expected.get("rows", {}).items():
        mine = [row for row in rows if str(row["id"]) == number]
        if values == "refused":
            assert number in refused and not mine, number
            continue
        assert number not in refused and len(mine) == 1, number
        for name, value in {} if values == "once" else values.items():
            assert mine[0][name] == _typed(value, kinds[name]), (number, name)
    assert len(rows) == expected.get("count", len(rows))
    assert len(refused) == expected.get("refused", len(refused))


def declared(expected: dict[str, Any]) -> TableSpec:
    """The table that a case is declared as."""
    columns = [Column(name, kind, **_arguments(*more)) for name, kind, *more in expected["columns"]]
    sync = expected.get("sync", "dedup")
    key = {} if sync == "append" else {"key": ("id",), "order": tuple(expected.get("order", ("id",)))}
    return TableSpec(name="caso", source=AirbyteStream("caso"), columns=tuple(columns), sync=sync, max_loss=1.0, **key)


def _arguments(more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in (more or {}).items()}


def _typed(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "timestamp":
        return dt.datetime.fromisoformat(value)
    if kind == "date":
        return dt.date.fromisoformat(value)
    return Decimal(value) if kind.startswith("decimal") else value
