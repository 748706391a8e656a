"""kill -9 at random moments of the extraction of a database: one run later silver is the source."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lakehouse_tests.faults import KILLS, branch


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[tuple[str, branch.Sql]]:
    with closing(sqlite3.connect(tmp_path / "branch.db", isolation_level=None, timeout=30)) as connection:

        def sql(statement: str) -> list[tuple[Any, ...]]:
            return connection.execute(statement).fetchall()

        yield f"sqlite:///{tmp_path}/branch.db", sql


@pytest.mark.faults
def test_kills_lose_and_double_nothing_of_sqlite(tmp_path: Path, sqlite: tuple[str, branch.Sql]) -> None:
    url, sql = sqlite
    assert branch.campaign(tmp_path / "lake", url, sql, seed=24) >= KILLS
    branch.check(tmp_path / "lake", sql)
