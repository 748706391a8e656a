"""`python -m benchmarks`: run the cases, print every figure beside its bound; exit code 1 when a bound is missed.

Each case is described in `cases/`, how it is measured in `measure.py`. Run it on an idle machine: both sides run in turn,
so that a disturbance meets both, but a ratio of two disturbed times is still a poor figure; the load is printed.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.cases import CASES, SIZED, SIZES, Bench, Figure, why_not
from benchmarks.measure import BENCH, BenchmarkError

_COLUMNS = (11, 44, 10, 10, 7, 10, 7)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the lakehouse beside a bare script.")
    parser.add_argument(
        "--rows", type=int, action="append", help="generated sales; may be given again (default: 1,000,000 and 10,000,000)"
    )
    parser.add_argument("--only", action="append", choices=list(CASES), help="only this case; may be given again")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure here")
    parser.add_argument("--check", action="store_true", help="only look whether the cases fit the graph; nothing is run")
    arguments = parser.parse_args()
    if arguments.check:
        return _check()
    BENCH.mkdir(parents=True, exist_ok=True)
    busy = os.getloadavg()[0] > 0.5
    sizes: list[int] = arguments.rows or list(SIZES)
    benches = [Bench(rows=rows, rounds=arguments.rounds) for rows in sizes]
    print(f"{arguments.rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    print(_line("case", "what", "ours", "bare", "ratio", "bound", ""))
    figures: list[dict[str, object]] = []
    failures: list[str] = []
    for bench in benches:
        print(f"{bench.rows:,} rows")
        for name in arguments.only or CASES:
            if name not in SIZED and bench is not benches[-1]:
                continue
            reason = why_not(name)
            if reason:
                print(_line(name, f"skipped: {reason}"))
                continue
            try:
                for figure in CASES[name](bench):
                    figures.append({"rows": bench.rows, **asdict(figure), "missed": figure.missed})
                    print(_show(figure), flush=True)
            except BenchmarkError as error:
                failures.append(f"{name}: {error}")
                print(_line(name, "failed", "", "", "", "", "FAILED"), flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if busy:
        print("Other work was running when this began: times and their ratios are poor figures, CPU and memory are fair ones.")
    for failure in failures:
        print(failure, file=sys.stderr)
    if arguments.json:
        runs = {bench.rows: bench.raw for bench in benches}
        arguments.json.write_text(json.dumps({"figures": figures, "runs": runs}, indent=1) + "\n")
    return int(bool(failures) or any(figure["missed"] for figure in figures))


def _check() -> int:
    from benchmarks.check import problems  # loads the definitions; what measures must stay small

    found = problems()
    for problem in found:
        print(problem, file=sys.stderr)
    return int(bool(found))


def _show(figure: Figure) -> str:
    ratio = f"{figure.ours / figure.bare:.2f}" if figure.bare and figure.unit in ("s", "GB") else ""
    result = "" if figure.limit is None else "MISSED" if figure.missed else "ok"
    ours, bare = (_number(value, figure.unit) for value in (figure.ours, figure.bare))
    return _line(figure.case, figure.what, ours, bare, ratio, figure.bound, result)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit in ("files", "modules"):
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 1 and unit != "GB" else f"{value:.2f} {unit}"


def _line(*cells: str) -> str:
    padded = zip([*cells, *[""] * (len(_COLUMNS) - len(cells))], _COLUMNS, strict=True)
    return "  ".join(f"{c:>{w}}" if 2 <= i <= 4 else f"{c:<{w}}" for i, (c, w) in enumerate(padded)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
