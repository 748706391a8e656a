"""What a run leaves in Dagster's SQLite files: bytes of its events in its own log and in the index, and the size of its file.

    python -m benchmarks.stored HOME    of the newest run

Standard library only: the files are read as they are.
"""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

_EVENTS = "SELECT count(*), coalesce(sum(length(CAST(event AS BLOB))), 0) FROM event_logs WHERE run_id = ?"


def of_run(home: Path, run_id: str) -> dict[str, int]:
    """Of one run, by its id. Dagster stores what it shows across runs (checks, materialisations, starts and ends) twice."""
    own, index = home / "history" / "runs" / f"{run_id}.db", home / "history" / "runs" / "index.db"
    (events, written), (shared, again) = _ask(own, _EVENTS, run_id), _ask(index, _EVENTS, run_id)
    return {"events": events, "event_bytes": written, "indexed": shared, "index_bytes": again, "file_bytes": own.stat().st_size}


def newest(home: Path) -> str:
    """The run that was made last."""
    return str(_ask(home / "history" / "runs.db", "SELECT run_id FROM runs ORDER BY id DESC LIMIT 1")[0])


def _ask(path: Path, query: str, *values: str) -> tuple[int, int]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        row: tuple[int, int] = database.execute(query, values).fetchone()
    return row


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(json.dumps(of_run(folder, newest(folder))))
