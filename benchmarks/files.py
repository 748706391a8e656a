"""Our side of `files`: many small JSONL files landed at once, taken into bronze; then nothing new among as many.

    python -m benchmarks.files write <landing folder> <count>      makes the files, unless they are there and complete
    python -m benchmarks.files ingest <landing folder> <lake's folder>

The pure functions as the asset calls them: lock, session, stage, commit, finalise. The clock starts after the first listing, with
the modules loaded; the listings that a run makes itself are in its time.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import deltalake  # noqa: F401 - the lakehouse loads it where it is used; here it is loaded before the clock starts

from lakehouse.bronze.ingest import stage_batch
from lakehouse.core import ledger
from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import require_table
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import load_settings
from lakehouse.tables.spec import AirbyteStream
from lakehouse.tables.vendas import VENDAS

GENERATOR = 1  # raise when the same arguments would give other files
_RECORDS = 20
assert isinstance(VENDAS.source, AirbyteStream)
STREAM = VENDAS.source.stream
_AT = 1_767_225_600_000


def write(landing: Path, count: int) -> None:
    """Land `count` files of 20 sales each, as Airbyte names and fills them."""
    marker = landing / "complete.json"
    wanted = {"generator": GENERATOR, "files": count}
    if marker.is_file() and json.loads(marker.read_text()) == wanted:
        return
    shutil.rmtree(landing, ignore_errors=True)
    folder = landing / "raw" / STREAM
    folder.mkdir(parents=True)
    for number in range(count):
        lines = (_line(number * _RECORDS + record) for record in range(_RECORDS))
        (folder / f"2026_01_01_{_AT + number}_0.jsonl").write_text("".join(lines))
    marker.write_text(json.dumps(wanted))


def _line(number: int) -> str:
    data = {
        "id": number,
        "pedido_id": number // 4,
        "produto_id": f"P{number % 20_000}",
        "descricao": f"PRODUTO NUMERO {number % 20_000}",
        "quantidade": 1 + number % 12,
        "valor_unitario": number % 100_000 / 100,
        "cliente_id": number % 100_000 if number % 10 else None,
        "pais": "Brasil",
        "status": "paid",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    envelope = {"_airbyte_raw_id": f"{number:032x}", "_airbyte_extracted_at": _AT, "_airbyte_generation_id": 1}
    return json.dumps({**envelope, "_airbyte_meta": {"sync_id": 1, "changes": []}, "_airbyte_data": data}) + "\n"


def ingest(storage: Storage, *, memory_limit: str) -> int:
    """Take in what is new. Returns the number of records written.

    Raises:
        RuntimeError: a record went elsewhere than to the table: those generated have nothing wrong.
    """
    uri = storage.uri(VENDAS.bronze)
    with (
        lock(uri),
        duckdb_session(memory_limit=memory_limit, spill=f"{storage.root}/.spill", folders=storage.folders()) as session,
    ):
        batch = stage_batch(session, storage, VENDAS, run_id="benchmark")
        if batch.transaction is None or batch.entry is None:
            return 0
        if batch.entry.written != batch.entry.records_in:
            raise RuntimeError(f"The generated sales were not written as they are: {batch.entry}.")
        commit_staged(batch.transaction.with_provenance(run_id="benchmark"))
        ledger.finalise(
            session, storage.uri(ledger.LEDGER_TABLE), table=VENDAS.bronze, snapshot=require_table(uri, VENDAS.bronze)
        )
        return batch.entry.written


def main(landing: str, lake: str) -> dict[str, object]:
    """Ingest twice.

    Raises:
        RuntimeError: the first run did not write every record, or the second wrote one.
    """
    bound = load_settings().memory_bound
    storage = Storage(root=lake, landing=landing)
    files = len(storage.landed(STREAM))
    begun = time.perf_counter()
    written = ingest(storage, memory_limit=bound)
    between = time.perf_counter()
    again = ingest(storage, memory_limit=bound)
    ended = time.perf_counter()
    if (written, again) != (files * _RECORDS, 0):
        raise RuntimeError(f"Of {files} files {written} records were written, then {again}.")
    return {"seconds": between - begun, "again": ended - between, "files": files, "records": written, "memory_limit": bound}


if __name__ == "__main__":
    first, second = sys.argv[2:4]
    if sys.argv[1] == "write":
        write(Path(first), int(second))
    else:
        print(json.dumps(main(str(Path(first).absolute()), str(Path(second).absolute()))))
