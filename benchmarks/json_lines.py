"""Both sides of `json`: one file of JSON lines to bronze, beside DuckDB's own reader and a copy to Parquet.

    python -m benchmarks.json_lines write <folder> <lines>          makes `plain` and `exact`, unless they are there and complete
    python -m benchmarks.json_lines ours <landing file> <folder>    staged as bronze does
    python -m benchmarks.json_lines bare <landing file> <folder>

In `plain` DuckDB keeps every number as it was delivered. In `exact` each record has an amount that ends in a zero, which it does
not: such records are rewritten before they are parsed. The clock starts when the modules are loaded.
"""

import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.store.storage import LandedFile
from lakehouse.landing.readers.files.stage import stage
from lakehouse.settings import load_settings

GENERATOR = 1  # raise when the same arguments would give other files
_AT = 1_767_225_600_000


def write(folder: Path, lines: int) -> None:
    """Two files of so many sales in Airbyte's form."""
    marker = folder / "complete.json"
    wanted = {"generator": GENERATOR, "lines": lines}
    if marker.is_file() and json.loads(marker.read_text()) == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, cents in (("plain", "5"), ("exact", "0")):
        with (folder / f"{name}.jsonl").open("w") as out:
            out.writelines(_line(number, cents) for number in range(lines))
    marker.write_text(json.dumps(wanted))


def _line(number: int, cents: str) -> str:
    data = f'"id":{number},"nome":"Cliente {number % 100_000}","valor":{number % 1_000}.2{cents},"data":"2026-01-01T00:00:00Z"'
    return f'{{"_airbyte_raw_id":"{number:032x}","_airbyte_extracted_at":{_AT},"_airbyte_data":{{{data}}}}}\n'


def ours(file: Path, folder: Path) -> int:
    """Stage the file as a batch of bronze; the records written."""
    memory = load_settings().memory_bound
    landed = LandedFile(path=file.name, size=file.stat().st_size, version="1", modified=file.stat().st_mtime)
    with duckdb_session(memory_limit=memory, spill=f"{folder}/.spill", folders=[str(file.parent), str(folder)]) as session:
        staged = stage(session, [landed], landing=str(file.parent), folder=str(folder), batch=1, ingested_at=datetime.now(UTC))
    return staged.rows


def bare(file: Path, folder: Path) -> int:
    """The same file as a script would copy it; the records written."""
    target = str(folder / "bare.parquet")
    duckdb.execute("SET threads = 2")
    copied = duckdb.execute(f"COPY (FROM read_ndjson('{file}')) TO '{target}' (COMPRESSION zstd)").fetchall()  # nosec B608
    return int(copied[0][0])


def main() -> None:
    """Do what was asked for and print what it took."""
    what, first, second = sys.argv[1:4]
    if what == "write":
        write(Path(first), int(second))
        return
    folder = Path(second)
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    rows = {"ours": ours, "bare": bare}[what](Path(first), folder)
    print(json.dumps({"seconds": time.perf_counter() - begun, "rows": rows}))


if __name__ == "__main__":
    main()
