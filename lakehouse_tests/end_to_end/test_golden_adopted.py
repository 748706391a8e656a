"""The Delta kernel's golden tables, each adopted as `make adopt` does: silver has its rows, or one sentence says why not.

`LAKEHOUSE_GOLDEN_TABLES` is a folder with them (CONTRIBUTING.md says how to get it); whether they are read right is tested in
`core/table/test_foreign_golden.py`.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from lakehouse.commands.parity.rows import compared
from lakehouse.core.errors import LakehouseError
from lakehouse.core.table.foreign_lake import look, tables_below
from lakehouse.core.table.snapshot import open_existing
from lakehouse.profile.render import spec_of
from lakehouse_tests.conftest import Lake
from lakehouse_tests.profile.test_delta import proposed

GOLDEN = os.environ.get("LAKEHOUSE_GOLDEN_TABLES", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not GOLDEN, reason="LAKEHOUSE_GOLDEN_TABLES is not set")]


def outcome(uri: str, folder: Path) -> str:
    """`equal`, `refused`, or what is wrong."""
    try:
        found = look(uri, location=GOLDEN, timezone="UTC")
        if found.table is None:
            return "refused"
        with found.table.reading() as rows:
            if not any(batch.num_rows for batch in rows):
                return "without rows"
        lake = Lake(folder / "lake")
        spec = spec_of(proposed(uri, folder / "scratch", timezone="UTC").declaration)
        lake.run(spec)
        silver = open_existing(lake.storage.uri(spec.silver))
        assert silver is not None
        with lake.session() as session:
            comparison = compared(session, spec, silver, found.table)
    except LakehouseError as error:
        return f"wrong: {error}"
    return f"wrong: {comparison.differences}" if comparison.differences or lake.quarantined(spec) else "equal"


def test_each_golden_table_is_adopted_with_all_of_its_rows_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for number, uri in enumerate(tables_below(GOLDEN)):
        (tmp_path / str(number)).mkdir()
        found[uri] = outcome(uri, tmp_path / str(number))
    with capsys.disabled():
        print(f"\nadopted: {dict(Counter(found.values()))}")
    assert not {uri: outcome for uri, outcome in found.items() if outcome.startswith("wrong")}
