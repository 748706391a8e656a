"""Both sides of `rest`: a thousand pages of a thousand orders from an API on 127.0.0.1 to landing, beside a bare loop.

    python -m benchmarks.rest ours <url> <folder>   the declared source: fetched, compared with what landed, landed
    python -m benchmarks.rest bare <url> <folder>   `requests`, `json`, and a file of JSON lines

The API is `benchmarks.rest_server`. The clock starts when the modules are loaded.
"""

import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urljoin

import requests

from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.store.storage import Storage, lock
from lakehouse.landing.sources.registry import Work, extract
from lakehouse.tables.spec import Resource, RestApi

_FOLDER = "loja/pedidos"


def ours(url: str, folder: Path) -> int:
    """Extract as the asset does; the records that landed."""
    storage = Storage(root=f"{folder}/lake", landing=f"{folder}/landing")
    resource = Resource("pedidos", since="updated_since", cursor="updated_at")
    system = RestApi("loja", url=url, resources=(resource,))
    memory = os.environ.get("LAKEHOUSE_MEMORY_LIMIT", "200MB")
    with (
        lock(f"{storage.landing}/raw/{_FOLDER}"),
        duckdb_session(memory_limit=memory, spill=f"{folder}/.spill", folders=[str(folder)]) as session,
    ):
        deadline = time.monotonic() + 600
        work = Work(storage=storage, session=session, declared=system, sample=False, cache=f"{folder}/cache", deadline=deadline)
        return extract(system, work).streams["pedidos"].new


def bare(url: str, folder: Path) -> int:
    """What has to be done at least; the records written."""
    rows = 0
    wanted: str | None = url
    with requests.Session() as session, (folder / "pedidos.jsonl").open("w", encoding="utf-8") as out:
        while wanted:
            found = session.get(wanted, timeout=30).json()
            out.writelines(f"{json.dumps(record, ensure_ascii=False)}\n" for record in found["data"])
            rows += len(found["data"])
            wanted = urljoin(wanted, found["next"]) if found["next"] else None
    return rows


def main() -> None:
    """Do what was asked for and print what it took."""
    what, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    rows = {"ours": ours, "bare": bare}[what](url, folder)
    print(json.dumps({"seconds": time.perf_counter() - begun, "rows": rows}))


if __name__ == "__main__":
    main()
