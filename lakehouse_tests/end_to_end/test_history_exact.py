"""The history of the real sales is that of plain Python over what was delivered, in whatever order the files came."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from lakehouse.tables.spec import history_ref, tracked
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.silver.model import history

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
SPEC = replace(VENDAS, history=True)
OWN = ("valid_from", "valid_to", "is_current", "version")
DELIVERED = [column.name for column in SPEC.columns if column.expression is None]


def typed(row):
    """A bronze record as its values."""
    one = {name: row[name] for name in DELIVERED}
    for name in ("created_at", "updated_at"):
        at = datetime.fromisoformat(one[name])
        one[name] = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    one["id"], one["quantidade"] = int(one["id"]), int(Decimal(one["quantidade"]))
    one["valor_unitario"] = Decimal(one["valor_unitario"]).quantize(Decimal("0.0001"))
    one["cliente_id"] = None if one["cliente_id"] in (None, "") else int(Decimal(one["cliente_id"]))
    one["_extracted_at"] = row["_airbyte_extracted_at"].astimezone(UTC)
    return {**one, "_deleted": one["status"] == "deleted", "_instant": one["updated_at"]}


def test_every_version_of_the_real_sales(lake, real_data):
    folder = real_data / "vendas" / "landing" / "raw" / "vendas"
    files = random.Random(7).sample(sorted(folder.iterdir()), len([*folder.iterdir()]))
    for start in range(0, len(files), 6):
        for path in files[start : start + 6]:
            lake.put("vendas", path.name, path.read_bytes())
        lake.run(SPEC)
        found = lake.history(SPEC)
        assert not found.stopped and found.entry is not None and found.entry.balanced
        assert [finding.rule for finding in found.findings if not finding.passed] == []
    names = [name for name in tracked(SPEC) if name in DELIVERED]
    columns = [*DELIVERED, "_extracted_at"]
    delivered = [typed(row) for row in lake.rows(SPEC.bronze, *DELIVERED, "_airbyte_extracted_at")]
    expected = history(delivered, key=SPEC.key, order=SPEC.order, columns=columns, tracked=names)
    shown = ("id", *names, "updated_at", *OWN)
    rows = lake.rows(history_ref(SPEC), *shown)
    assert {tuple(row[name] for name in shown) for row in rows} == {tuple(row[name] for name in shown) for row in expected}
    assert len(rows) == len(expected) > len(lake.rows(SPEC.silver, "id"))
    by_key = {}
    for row in rows:
        by_key.setdefault(row["id"], {})[row["version"]] = row
    pairs = [(versions[1], versions[2]) for versions in by_key.values() if 2 in versions]
    moved = [(a, b) for a, b in pairs if b["created_at"] - a["created_at"] == timedelta(days=1)]
    assert moved and all(a["valid_to"] == b["valid_from"] for a, b in moved), "a day of the sale that moved opens a version"
    before = lake.rows(history_ref(SPEC), "id", *OWN, "_extracted_at")
    lake.history(SPEC, rebuild=True)
    assert lake.rows(history_ref(SPEC), "id", *OWN, "_extracted_at") == before
