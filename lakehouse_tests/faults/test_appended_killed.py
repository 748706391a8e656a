"""Kills of a table that is appended to, while a file grows and another repeats records: no row is lost, none is there twice."""

from collections import Counter
from pathlib import Path

import pytest

from lakehouse_tests.conftest import Lake, Row, file_content
from lakehouse_tests.faults.driver import CAIXA, KILLED, RETRYABLE, Driver, KillPoint

POINTS = [
    KillPoint(call="write", about="ops/landing_files"),
    KillPoint(call="commit", about="ops/landing_files"),
    KillPoint(call="stage", about="bronze/caixa"),
    KillPoint(call="add_columns", about="bronze/caixa"),
    KillPoint(call="commit", about="quarantine/caixa"),
    KillPoint(call="commit", about="bronze/caixa", before=True),
    KillPoint(call="commit", about="bronze/caixa"),
    KillPoint(call="commit", about="silver/caixa", before=True),
    KillPoint(call="commit", about="silver/caixa"),
]


def _pix(number: int) -> Row:
    """The record of the id `raw-<number>`; every third is refused."""
    return {"id": -number if number % 3 == 2 else 1000 + number, "nome": "pix"}


class Till:
    """A CSV without ids that grows by two rows and a line that is none, and JSON lines of which two thirds came before."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.rounds = lake, 0
        self.text = "id,nome\n"

    def land(self) -> None:
        n, self.rounds = self.rounds, self.rounds + 1
        self.text += f"{n},caixa\n{n},caixa\n{n},caixa,a mais\n"
        self.lake.put("caixa", "a.csv", self.text)
        self.lake.put("caixa", f"{n}.jsonl", file_content([_pix(k) for k in range(n, n + 3)], first=n))

    def check(self) -> None:
        """The whole lake, computed from what landed."""
        accepted = [_pix(k)["id"] for k in range(self.rounds + 2) if _pix(k)["id"] > 0]
        wanted = Counter({**{(n, "caixa"): 2 for n in range(self.rounds)}, **{(n, "pix"): 1 for n in accepted}})
        silver = Counter((row["id"], row["nome"]) for row in self.lake.rows(CAIXA.silver, "id", "nome"))
        assert silver == wanted
        bronze = Counter(row["_source_file"].rpartition("/")[2] for row in self.lake.rows(CAIXA.bronze, "_source_file"))
        assert bronze == Counter({"a.csv": 2 * self.rounds, **{f"{n}.jsonl": 3 for n in range(self.rounds)}})
        refused = [row["layer"] for row in self.lake.quarantined(CAIXA)]
        assert Counter(refused) == {"bronze": self.rounds, "silver": self.rounds + 2 - len(accepted)}
        entries = self.lake.ledger()
        outcomes = ("written", "deduplicated", "deleted", "quarantined")
        assert all(entry["records_in"] == sum(entry[name] for name in outcomes) for entry in entries)
        read = Counter({layer: 0 for layer in ("bronze", "silver")})
        for entry in entries:
            read[entry["layer"]] += entry["records_in"]
        assert read == {"bronze": 6 * self.rounds, "silver": 5 * self.rounds}
        assert self.lake.stray_files() == []


@pytest.fixture
def till(driver: Driver, tmp_path: Path) -> Till:
    till = Till(Lake(tmp_path))
    till.land()
    assert driver.run(tmp_path, "appended").code == 0
    till.check()
    return till


@pytest.mark.slow
def test_a_run_that_was_killed_is_gone_on_from(driver: Driver, till: Till) -> None:
    folder = till.lake.folder
    for point in POINTS:
        till.land()
        end = driver.run(folder, "appended", point=point)
        if end.code != KILLED and point.call == "add_columns":
            assert end.code == 0, "there was no new column"
        else:
            assert end.code == KILLED, f"{point}: {end.output[-2000:]}"
        end = driver.run(folder, "appended")
        assert end.code == 0, end.output[-2000:]
        _clean(till)
        till.check()


def test_two_runs_at_once_take_a_tail_once(driver: Driver, till: Till) -> None:
    for _ in range(3):
        till.land()
        end = driver.run(till.lake.folder, "two appended")
        assert set(end.codes) <= {0, RETRYABLE}, end.output[-2000:]
        end = driver.run(till.lake.folder, "appended")
        assert end.code == 0, end.output[-2000:]
        _clean(till)
        till.check()


def _clean(till: Till) -> None:
    """Files of killed runs are in no commit; the maintenance removes them."""
    for path in till.lake.stray_files():
        Path(path).unlink()
