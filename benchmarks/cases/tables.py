"""Cases over generated tables: `full`, `increment`, `spread`, `history`, `gold`, `elt`, `append`, `upkeep`, `profile`, `parity`,
`adopt`."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cases.common import BOUND_ROWS, FULL_PEAK, GB, Bench, Figure, fresh_home, same_rows, work_figures
from benchmarks.cases.graph import SALES_MARTS
from benchmarks.measure import BENCH, PROJECT, BenchmarkError, Run, alternate, run

FULL_RATIO = 1.3
INCREMENT_SHARE = 0.15
SPREAD_RATIO = 1.3
HISTORY_RATIO = 1.5
HISTORY_SHARE = 0.15
ELT_RATIO = 1.1
#: With ids that rise with time; with random ones every older file may hold one.
APPEND_SHARE = 0.05
PROFILE_RATIO = 10
PARITY_LIMIT = "1500MB"
_PROFILED = 1_000_000
_ADOPTED = 10_000_000
_CHANGED = 10_000
_BATCH = 11
#: In an environment of its own: it pins another DuckDB than the lakehouse.
LAKEBENCH = ("lakebench[duckdb]==2.2.0", "duckdb-extensions==1.5.5", "duckdb-extension-delta==1.5.5")


def full(bench: Bench) -> Iterator[Figure]:
    """Bronze to silver of all rows."""
    run(["-m", "benchmarks.generate", str(bench.sales), str(bench.rows)])
    bronze = bench.sales / "bronze"

    def ours() -> Run:
        return run(["-m", "benchmarks.ours", str(bronze), str(bench.fresh("ours-full"))])

    def bare() -> Run:
        return run(["-m", "benchmarks.bare", "full", str(bronze / "vendas"), str(bench.fresh("bare-full"))])

    found = bench.persist("full", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    bench.full = found
    same_rows(bench.silver("ours", "full"), bench.silver("bare", "full"))
    bounded = bench.rows >= BOUND_ROWS
    yield from work_figures("full", found, ratio=FULL_RATIO if bounded else None, peak=FULL_PEAK if bounded else None)


def increment(bench: Bench) -> Iterator[Figure]:
    """10,000 changed lines into the table that `full` made."""
    if not bench.full:
        yield from full(bench)
    bronze = bench.sales / "bronze_next"

    def start(side: str) -> Path:
        folder = bench.fresh(f"{side}-increment")
        shutil.copytree(bench.work / f"{side}-full", folder, copy_function=os.link)
        return folder

    def ours() -> Run:
        return run(["-m", "benchmarks.ours", str(bronze), str(start("ours"))])

    def bare() -> Run:
        return run(["-m", "benchmarks.bare", "increment", str(bronze / "vendas"), str(start("bare"))])

    found = bench.persist("increment", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    silver = bench.silver("ours", "increment")
    same_rows(silver, bench.silver("bare", "increment"))
    yield from work_figures("increment", found)
    share = found["ours"].seconds / bench.full["ours"].seconds
    limit = INCREMENT_SHARE if bench.rows >= BOUND_ROWS else None
    yield Figure(
        "increment", "share of our full run", share, unit="x", limit=limit, bound=f"<= {INCREMENT_SHARE}" if limit else ""
    )
    files = run(["-m", "benchmarks.compare", "files", str(silver), str(bronze / "vendas"), str(_BATCH)]).output
    bench.raw["increment_files"] = dict(files)
    yield Figure(
        "increment", "files rewritten, of those with a changed key", files["rewritten_with_changed_keys"],
        files["files_with_changed_keys"], unit="files",
    )  # fmt: skip
    yield Figure(
        "increment", "files rewritten without one, of the others", files["rewritten_without"],
        files["files_before"] - files["files_with_changed_keys"], unit="files", limit=0, bound="0",
    )  # fmt: skip


def spread(bench: Bench) -> Iterator[Figure]:
    """10,000 newer versions spread over the whole table, beside a plain copy of the files that hold one."""
    if not bench.full:
        yield from full(bench)
    bronze = bench.sales / "bronze_spread"
    before = {file.name: file.stat().st_size for file in bench.silver("ours", "full").glob("*.parquet")}

    def ours() -> Run:
        folder = bench.fresh("ours-spread")
        shutil.copytree(bench.work / "ours-full", folder, copy_function=os.link)
        return run(["-m", "benchmarks.ours", str(bronze), str(folder)])

    def bare() -> Run:
        folder = bench.fresh("bare-spread")
        folder.mkdir()
        return run(["-m", "benchmarks.bare", "copy", str(bench.silver("ours", "full")), str(folder)])

    found = bench.persist("spread", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    bounded = bench.rows >= BOUND_ROWS
    yield from work_figures("spread", found, ratio=SPREAD_RATIO if bounded else None, peak=FULL_PEAK if bounded else None)
    after = {file.name: file.stat().st_size for file in bench.silver("ours", "spread").glob("*.parquet")}
    written = sum(size for name, size in after.items() if name not in before)
    yield Figure("spread", "files written, of", len(set(after) - set(before)), len(before), unit="files")
    changed = _CHANGED * sum(before.values()) / bench.rows
    yield Figure("spread", "bytes written per changed byte", written / changed, unit="x")


def history(bench: Bench) -> Iterator[Figure]:
    """Every version of all rows, of which 5 % have two, beside window functions; then 10,000 changed lines."""
    made = bench.fresh("history")
    run(["-m", "benchmarks.history", "make", str(made), str(bench.rows)])

    def ours() -> Run:
        lake = bench.fresh("ours-history")
        shutil.copytree(made / "lake", lake, copy_function=os.link)
        return run(["-m", "benchmarks.history", "ours", str(made / "bronze"), str(lake)])

    def bare() -> Run:
        return run(["-m", "benchmarks.history", "bare", str(made / "bronze"), str(bench.fresh("bare-history"))])

    def by_batch() -> Run:
        lake = bench.fresh("ours-history-next")
        shutil.copytree(bench.work / "ours-history", lake, copy_function=os.link)
        run(["-m", "benchmarks.ours", str(made / "bronze_next"), str(lake)])  # a history follows silver
        return run(["-m", "benchmarks.history", "ours", str(made / "bronze_next"), str(lake)])

    found = bench.persist("history", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    table = Path("silver", "vendas_history")
    same_rows(bench.work / "ours-history" / table, bench.work / "bare-history")
    bounded = bench.rows >= BOUND_ROWS
    yield from work_figures("history", found, ratio=HISTORY_RATIO if bounded else None)
    after = bench.persist("history_increment", alternate({"ours": by_batch}, rounds=bench.rounds))["ours"]
    run(["-m", "benchmarks.history", "bare", str(made / "bronze_next"), str(bench.fresh("bare-history-next"))])
    same_rows(bench.work / "ours-history-next" / table, bench.work / "bare-history-next")
    share = after.seconds / found["ours"].seconds
    limit = HISTORY_SHARE if bounded else None
    yield Figure(
        "history",
        "10,000 lines, share of our full run",
        share,
        unit="x",
        limit=limit,
        bound=f"<= {HISTORY_SHARE}" if limit else "",
    )


def gold(bench: Bench) -> Iterator[Figure]:
    """Every mart over sales, from nothing."""
    if not bench.full:
        yield from full(bench)
    lake = bench.fresh("gold")
    shutil.copytree(bench.silver("ours", "full"), lake / "silver" / "vendas", copy_function=os.link)
    run(["-m", "benchmarks.gold", "prepare", str(lake)])

    def ours() -> Run:
        home = fresh_home(bench, "gold-run")
        locations = {**home, "LAKEHOUSE_SILVER_ROOT": str(lake / "silver")}
        return run(["-m", "lakehouse", "materialize", SALES_MARTS.select], env=locations)

    def bare() -> Run:
        return run(["-m", "benchmarks.gold", "bare", str(lake), str(bench.fresh("bare-gold"))])

    found = bench.persist("gold", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    marts = bench.work / "gold-run" / "lake" / "gold"
    for name in ("vendas_diarias", "vendas_mensais", "vendas_por_pais"):
        same_rows(marts / name, bench.work / "bare-gold" / name)
    ours_, bare_ = found["ours"], found["bare"]
    yield Figure("gold", "process that makes all marts", ours_.wall, bare_.wall)
    yield Figure("gold", "CPU of the process", ours_.cpu, bare_.cpu)
    limit = FULL_PEAK / GB
    yield Figure(
        "gold", "peak memory", ours_.peak / GB, bare_.peak / GB, unit="GB", limit=limit, bound=f"<= {limit} GB"
    )  # fmt: skip


def elt(bench: Bench) -> Iterator[Figure]:
    """TPC-DS to a fact table, merges, maintenance and a query."""
    theirs = BENCH / "lakebench"
    python, data = str(theirs / "bin" / "python"), str(theirs / "tpcds")
    side = str(PROJECT / "benchmarks" / "lakebench_side.py")
    if not (theirs / ".done").exists():
        run(["-m", "venv", "--clear", str(theirs)])
        run(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *LAKEBENCH], python=python)
        (theirs / ".done").touch()
    run([side, "generate", data], python=python)

    def ours() -> Run:
        return run(["-m", "benchmarks.elt", data, str(bench.fresh("elt"))])

    def bare() -> Run:
        return run([side, "run", data, str(bench.fresh("elt-lakebench"))], python=python)

    found = bench.persist("elt", alternate({"ours": ours, "lakebench": bare}, rounds=bench.rounds))
    mine, other = found["ours"], found["lakebench"]
    if mine.output["fact_rows"] != other.output["fact_rows"]:
        raise BenchmarkError(f"The fact table has {mine.output['fact_rows']} rows, LakeBench's {other.output['fact_rows']}.")
    for phase, theirs_ in other.output["phases"].items():
        yield Figure("elt", phase, mine.output["phases"][phase], theirs_)
    yield Figure("elt", "total", mine.seconds, other.seconds, value=mine.seconds / other.seconds, limit=ELT_RATIO,
                 bound=f"<= {ELT_RATIO} x")  # fmt: skip
    yield Figure("elt", "peak memory", mine.peak / GB, other.peak / GB, unit="GB", limit=FULL_PEAK / GB,
                 bound=f"<= {FULL_PEAK / GB} GB")  # fmt: skip


def append(bench: Bench) -> Iterator[Figure]:
    """10,000 records, half of them repeats of an older batch, into a table of 10 M that is appended to."""
    for ids, share in (("rising", APPEND_SHARE), ("random", None)):
        made = bench.fresh(f"append-{ids}")
        run(["-m", "benchmarks.append", "make", str(made), ids])

        def ours(made: Path = made, ids: str = ids) -> Run:
            folder = bench.fresh("append-run")
            shutil.copytree(made, folder, copy_function=os.link)
            return run(["-m", "benchmarks.append", "refresh", str(folder), ids])

        found = bench.persist(f"append_{ids}", alternate({ids: ours}, rounds=bench.rounds))[ids]
        read, table = found.output["lookup_bytes"], found.output["table_bytes"]
        yield Figure("append", f"refresh, {ids} ids", found.seconds)
        yield Figure("append", f"its look-up, {ids} ids", found.output["lookup_seconds"])
        yield Figure(
            "append", f"bytes that it reads, {ids} ids", read / GB, table / GB, unit="GB",
            value=read / table, limit=share, bound="" if share is None else f"<= {share} x",
        )  # fmt: skip


def upkeep(bench: Bench) -> Iterator[Figure]:
    """10 M rows in 2,000 small files: a scan before and after they were compacted, and what compacting takes."""
    folder = str(bench.fresh("upkeep"))

    def scans() -> Run:
        found = [run(["-m", "benchmarks.upkeep", "scan", folder]) for _ in range(bench.rounds)]
        return min(found, key=lambda done: done.seconds)

    run(["-m", "benchmarks.upkeep", "make", folder])
    before, done, after = scans(), run(["-m", "benchmarks.upkeep", "compact", folder]), scans()
    if (before.output["rows"], before.output["ids"]) != (after.output["rows"], after.output["ids"]):
        raise BenchmarkError(f"Compacting changed rows: {before.output} and {after.output}.")
    what = f"scan of {before.output['files']:,} files, then {after.output['files']}"
    faster = before.seconds / after.seconds
    yield Figure("upkeep", what, after.seconds, before.seconds, value=1 / faster, limit=1 / 3, bound="<= 1/3 x")
    yield Figure("upkeep", "compacting them", done.seconds)
    yield Figure("upkeep", "its peak memory", done.peak / GB, unit="GB", limit=2, bound="<= 2 GB")


def profile(bench: Bench) -> Iterator[Figure]:
    """What `make table` looks at before it asks, beside DuckDB's own description of the file and its copy as Parquet."""
    path = str(bench.fresh("profiled") / "vendas.csv")
    run(["-m", "benchmarks.profiled", "make", path, str(_PROFILED)])

    def ours() -> Run:
        return run(["-m", "benchmarks.profiled", "ours", path, str(bench.fresh("ours-profiled"))])

    def bare() -> Run:
        return run(["-m", "benchmarks.profiled", "bare", path, str(bench.fresh("bare-profiled"))])

    found = bench.persist("profile", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    if found["ours"].output["rows"] != found["bare"].output["rows"]:
        raise BenchmarkError(f"The profile has {found['ours'].output['rows']} rows, DuckDB {found['bare'].output['rows']}.")
    yield from work_figures("profile", found, ratio=PROFILE_RATIO, peak=FULL_PEAK)


def parity(bench: Bench) -> Iterator[Figure]:
    """A silver table beside another writer's of as many rows, with prices and instants as texts there: `make compare`."""
    folder, rows = str(bench.fresh("parity")), str(bench.rows)
    limit = {"LAKEHOUSE_MEMORY_LIMIT": PARITY_LIMIT}
    run(["-m", "benchmarks.parity", "make", folder, rows], env=limit)

    def ours() -> Run:
        return run(["-m", "benchmarks.parity", "compare", folder, rows], env=limit)

    found = bench.persist("parity", alternate({"ours": ours}, rounds=bench.rounds))["ours"]
    expected = {"rows are only here": 10, "rows differ in valor": 10}
    if (found.output["both"], found.output["differences"]) != (bench.rows - 10, expected):
        raise BenchmarkError(f"The comparison found {found.output}.")
    yield Figure("parity", "comparing the two tables", found.seconds)
    yield Figure("parity", "CPU of the process", found.cpu)
    peak = FULL_PEAK / GB
    yield Figure("parity", "peak memory", found.peak / GB, unit="GB", limit=peak, bound=f"<= {peak} GB")


def adopt(bench: Bench) -> Iterator[Figure]:
    """A table of another writer into bronze, where each value is text and each record has an id, beside a scan of it."""
    table = str(bench.fresh("adopted") / "vendas")
    run(["-m", "benchmarks.adopted", "make", table, str(min(_ADOPTED, bench.rows))])

    def ours() -> Run:
        return run(["-m", "benchmarks.adopted", "ours", table, str(bench.fresh("ours-adopted"))])

    def bare() -> Run:
        return run(["-m", "benchmarks.adopted", "bare", table, str(bench.fresh("bare-adopted"))])

    found = bench.persist("adopt", alternate({"ours": ours, "bare": bare}, rounds=bench.rounds))
    if found["ours"].output["rows"] != found["bare"].output["rows"]:
        raise BenchmarkError(f"Bronze has {found['ours'].output['rows']} rows, the scan {found['bare'].output['rows']}.")
    yield from work_figures("adopt", found, peak=FULL_PEAK)
