"""`make run`: one line a part, alive every two seconds; skips folded, warnings counted, what failed shown; JSON passed on."""

import io
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence

import pytest

from lakehouse.commands import console, first_run
from lakehouse.commands.console import Lines, Part, remaining
from lakehouse.commands.first_run import Work, run_parts, works


def commanded(lines: Sequence[str], *, code: int = 0, seconds: float = 0) -> list[str]:
    """A command that writes lines, waits and ends."""
    text = f"import time\nprint({chr(10).join(lines)!r}, flush=True)\ntime.sleep({seconds})\nraise SystemExit({code})"
    return [sys.executable, "-c", text]


def entry(message: str, step: str = "bronze__vendas") -> str:
    return json.dumps({"level": "INFO", "step": step, "message": message})


@pytest.fixture
def quiet_end(monkeypatch):
    monkeypatch.setattr(first_run, "_report", lambda parts: iter([f"! {w}" for part in parts for w in part.warnings]))


def test_a_part_is_one_line_with_its_records_and_folded_skips(quiet_end, capsys):
    lines = [
        entry("bronze/vendas version 2: 1,601,937 records in, 1,601,937 written."),
        *[entry(f"Skipping step x{n} due to skipped dependencies: y.") for n in range(72)],
        "no JSON at all",
        "warning: silver/vendas castable: 3 of 100 (make quarantine TABLE=vendas)",
    ]
    planned = [Work("sales", "to silver", 5, [commanded(lines)]), Work("slo", "rates", 5, [commanded([])])]
    assert run_parts(planned, passed_on=False) == 0
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[1/2\] sales: to silver \.* \d s, 1,601,937 records, [\d,]+ a second, 72 steps skipped", out[0])
    assert re.fullmatch(r"\[2/2\] slo: rates \.* \d s", out[1])
    assert out[2:] == ["! silver/vendas castable: 3 of 100 (make quarantine TABLE=vendas)"]


def test_a_part_that_is_silent_shows_that_it_lives(quiet_end, monkeypatch):
    monkeypatch.setattr(first_run, "BEAT", 0.1)
    out = io.StringIO()
    seen: list[float] = []
    monkeypatch.setattr(first_run, "console_for", lambda parts: Lines(parts, out))
    monkeypatch.setattr(Lines, "beat", lambda self: (seen.append(time.monotonic()), self._write(".")))
    assert run_parts([Work("sales", "to silver", 1, [commanded([], seconds=1)])], passed_on=False) == 0
    assert out.getvalue().count(".") >= 5
    assert max(after - before for before, after in itertools.pairwise(seen)) < 1
    assert console.BEAT < 3


def test_the_first_part_that_fails_ends_it_with_the_lines_that_it_wrote_last(quiet_end, capsys):
    planned = [
        Work("sales", "to silver", 5, [commanded([entry("All is well."), "failed step: silver__vendas"], code=1)]),
        Work("slo", "rates", 5, [commanded([])]),
    ]
    assert run_parts(planned, passed_on=False) == 1
    captured = capsys.readouterr()
    assert "FAILED after" in captured.out and "[2/2]" not in captured.out
    assert "bronze/vendas: All is well.\nfailed step: silver__vendas\nerror: sales failed." in captured.err


def test_json_is_passed_on_and_nothing_is_drawn(quiet_end, capsys):
    line = entry("bronze/vendas version 2: 7 records in, 7 written.")
    assert run_parts([Work("sales", "to silver", 5, [commanded([line])])], passed_on=True) == 0
    assert capsys.readouterr() == ("", f"{line}\n")


def test_the_time_that_is_left_is_measured_by_what_is_past():
    past, now, later = Part("a", "", 10, took=20), Part("b", "", 30), Part("c", "", 5)
    now.began = time.monotonic() - 20
    assert remaining([past, now, later], 1) == pytest.approx(30 * 2 - 20 + 5 * 2, abs=1)
    now.began = time.monotonic() - 500
    assert remaining([past, now, later], 1) == pytest.approx(10, abs=1)


def test_files_of_ones_own_are_asked_for_without_the_samples_stubs():
    assert [work.name for work in works(sample=False)] == ["medallion_etl", "monitoring", "slo"]
    assert len(works(sample=True)) == 7
