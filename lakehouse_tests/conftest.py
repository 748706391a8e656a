"""What the tests share: a lake in a temporary folder, landed files in every form that Airbyte writes, the real data.

Here: fixtures, and the records and writers behind them. Not here: expectations; each test states its own.
"""

import csv
import gzip
import io
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lakehouse.core.engines.session import Session, Spark, duckdb_session, open_session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import project_folder
from lakehouse.tables.spec import TableSpec, history_ref

if TYPE_CHECKING:  # every test folder imports this file, few of them run bronze and silver
    import dagster as dg

    from lakehouse.bronze.ingest import Batch
    from lakehouse.core.engines.duckdb import DuckDBSession
    from lakehouse.core.rules import Release
    from lakehouse.silver.refresh import Mode, Refresh

Row = dict[str, Any]
LEDGER = TableRef("ops", "ledger")
LANDING_FILES = TableRef("ops", "landing_files")

#: Envelope generation, format, compression, and whether the fields stand beside the envelope or in `_airbyte_data`.
FORMS = [
    f"{generation}-{format_}{zipped}{shape}"
    for generation in ("v1", "v2")
    for format_ in ("jsonl", "csv", "parquet")
    for zipped in ("", ".gz")
    for shape in ("", "-flat")
    if (format_, zipped) != ("parquet", ".gz")
]
#: 2026-01-01T00:00:00Z in milliseconds: when records were extracted, unless a test says otherwise.
EXTRACTED = 1_767_225_600_000


# --- landing ---------------------------------------------------------------------------------------------------------


def enveloped(row: Row, number: int, *, generation: str, at: int) -> tuple[Row, Row]:
    """A record's envelope, and its fields."""
    row = dict(row)
    at = row.pop("_at", at)
    if generation == "v1":
        return {"_airbyte_ab_id": f"raw-{number}", "_airbyte_emitted_at": at}, row
    meta = {"sync_id": 7, "changes": []}
    envelope = {"_airbyte_raw_id": f"raw-{number}", "_airbyte_extracted_at": at}
    return {**envelope, "_airbyte_meta": meta, "_airbyte_generation_id": 3}, row


def file_content(rows: Sequence[Row], form: str = "v2-jsonl", *, at: int = EXTRACTED, first: int = 0) -> bytes:
    """The bytes of a landed file. A row may carry its own extraction time as `_at`."""
    generation, rest = form.split("-", 1)
    name, _, shape = rest.partition("-")
    format_ = name.removesuffix(".gz")
    pairs = [enveloped(row, first + n, generation=generation, at=at) for n, row in enumerate(rows)]
    if shape == "flat":
        records = [{**envelope, **fields} for envelope, fields in pairs]
    else:
        document = json.dumps if format_ != "jsonl" else lambda fields: fields
        records = [{**envelope, "_airbyte_data": document(fields)} for envelope, fields in pairs]
    content = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[format_](records)
    return gzip.compress(content) if name.endswith(".gz") else content


def _jsonl(records: Sequence[Row]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _csv(records: Sequence[Row]) -> bytes:
    def cell(value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        return json.dumps(value, separators=(",", ":")) if isinstance(value, dict | list) else value

    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: cell(value) for name, value in record.items()} for record in records])
    return out.getvalue().encode()


def _parquet(records: Sequence[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: [record.get(name) for record in records] for name in records[0]}
    for name in ("_airbyte_extracted_at", "_airbyte_emitted_at"):
        if name in columns:
            columns[name] = pa.array(columns[name], pa.timestamp("ms", "UTC"))
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


# --- the tables that are declared ------------------------------------------------------------------------------------


def of_another_table(asset: str) -> bool:
    """Whether an asset (`silver/x`, or its step `silver__x`) is of a table that the project does not come with: who uses it
    declares tables of their own (`make table`), and that is no fault of the project."""
    from lakehouse.tables import ALL, brt, pedidos, vendas

    own = {spec.name for spec in (*vendas.TABLES, *brt.TABLES, *pedidos.TABLES)}
    others = [spec for spec in ALL if spec.name not in own]
    refs = {str(ref) for spec in others for part in spec.parts for ref in (part.silver, part.bronze, part.landing)}
    return asset.replace("__", "/") in refs


# --- the lake --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lake:
    """A lake below a folder, driven through the pure functions as the assets drive them; `engine` computes silver."""

    folder: Path
    engine: str = "duckdb"
    spark: Spark = field(default_factory=lambda: Spark(master="local[2]"))

    @property
    def storage(self) -> Storage:
        return Storage(root=str(self.folder / "lake"), landing=str(self.folder / "landing"))

    def session(self, memory_limit: str = "1GB") -> "AbstractContextManager[DuckDBSession]":
        return duckdb_session(memory_limit=memory_limit, spill=str(self.folder / "spill"), folders=[str(self.folder.parent)])

    def silver_session(self) -> "AbstractContextManager[Session]":
        spill, folders = str(self.folder / "spill"), [str(self.folder.parent)]
        return open_session(self.engine, memory_limit="1GB", spill=spill, folders=folders, spark=self.spark)

    def put(self, stream: str, name: str, content: bytes | str) -> Path:
        """Land a file, whole."""
        target = self.folder / "landing" / "raw" / stream / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return target

    def of_delta(self, spec: TableSpec, lines: str) -> TableSpec:
        """A table whose source is another writer's, with records (lines of JSON) as that table."""
        from lakehouse.profile.invent import as_delta

        return as_delta(spec, lines, self.folder / "theirs")

    def land(self, stream: str, name: str, rows: Sequence[Row], form: str = "v2-jsonl", *, at: int = EXTRACTED) -> Path:
        """Land rows under `<name>.<format>`."""
        suffix = form.split("-")[1]
        return self.put(stream, f"{name}.{suffix}", file_content(rows, form, at=at))

    def ingest(self, spec: TableSpec, *, release: "Release | None" = None) -> "Batch":
        from lakehouse.bronze.ingest import stage_batch

        with self.session() as session:
            batch = stage_batch(session, self.storage, spec, run_id="run", release=release)
            if batch.transaction is not None:
                commit_staged(batch.transaction)
                self._finalise(session, spec.bronze)
            return batch

    def refresh(
        self, spec: TableSpec, *, rebuild: bool = False, mode: "Mode" = "increment", release: "Release | None" = None
    ) -> "Refresh":
        from lakehouse.silver.refresh import finalise_quarantine, stage_refresh

        with self.silver_session() as session:
            mode = "rebuild" if rebuild else mode
            refresh = stage_refresh(session, self.storage, spec, run_id="run", mode=mode, release=release)
            if refresh.transaction is not None:
                commit_staged(refresh.transaction)
                self._finalise(session, spec.silver)
                silver = open_existing(self.storage.uri(spec.silver))
                assert silver is not None
                finalise_quarantine(session, self.storage, spec, silver)
            return refresh

    def history(self, spec: TableSpec, *, rebuild: bool = False) -> "Refresh":
        """The history of a table, from what silver has read."""
        from lakehouse.silver.history import stage_history

        with self.silver_session() as session:
            refresh = stage_history(session, self.storage, spec, run_id="run", mode="rebuild" if rebuild else "increment")
            if refresh.transaction is not None:
                commit_staged(refresh.transaction)
                self._finalise(session, history_ref(spec))
            return refresh

    def run(self, spec: TableSpec) -> "Refresh":
        """Bronze, then silver."""
        self.ingest(spec)
        return self.refresh(spec)

    def _finalise(self, session: Session, ref: TableRef) -> None:
        from lakehouse.core import ledger

        snapshot = open_existing(self.storage.uri(ref))
        assert snapshot is not None
        ledger.finalise(session, self.storage.uri(LEDGER), table=ref, snapshot=snapshot)

    def rows(self, ref: TableRef, *columns: str) -> list[Row]:
        """The rows of a table in the order of all of the given columns (default: all), `[]` when there is no table."""
        from lakehouse.core.engines.duckdb import literal

        snapshot = open_existing(self.storage.uri(ref))
        if snapshot is None or not snapshot.files:
            return []
        with self.session() as session:
            paths = [literal(path) for path in snapshot.paths()]
            relation = session.connection.read_parquet(paths, union_by_name=True)
            names = columns or tuple(snapshot.columns)
            for name in set(names) - set(relation.columns):
                relation = relation.select(f'*, NULL AS "{name}"')
            found = relation.select(", ".join(f'"{name}"' for name in names)).order("ALL").fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]

    def quarantined(self, spec: TableSpec) -> list[Row]:
        return self.rows(spec.quarantine, "layer", "rules", "record", "source_file", "reason", "batch_id")

    def deletes(self, spec: TableSpec) -> TableRef:
        """The table of a silver table's tombstones."""
        from lakehouse.silver.refresh import tombstones_ref

        return tombstones_ref(spec.silver)

    def ledger(self) -> list[Row]:
        return self.rows(LEDGER)

    def versions(self) -> dict[str, int]:
        """The version of every Delta table of the lake."""
        from deltalake import DeltaTable

        root = self.folder / "lake"
        return {
            str(log.parent.relative_to(root)): DeltaTable(str(log.parent)).version() for log in sorted(root.rglob("_delta_log"))
        }

    def stray_files(self) -> list[str]:
        """Data files, staged or whole, that no version of their table has."""
        from deltalake import DeltaTable

        root = self.folder / "lake"
        stray = []
        for log in root.rglob("_delta_log"):
            entries = [json.loads(line) for file in log.glob("*.json") for line in file.read_text().splitlines()]
            known = {entry["add"]["path"] for entry in entries if "add" in entry}
            files = [f for f in log.parent.rglob("*.parquet") if f.is_file() and log not in f.parents]
            stray += [str(f) for f in files if str(f.relative_to(log.parent)) not in known]
            assert DeltaTable(str(log.parent)).version() >= 0
        return stray


Filled = Callable[[Lake, Callable[[Lake], object]], Lake]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture(scope="session")
def fill_once(tmp_path_factory: pytest.TempPathFactory) -> "Filled":
    """What fills a lake is done once in a process; each test that asks gets a copy in a lake of its own."""
    filled: dict[Callable[[Lake], object], Lake] = {}

    def fill(lake: Lake, steps: Callable[[Lake], object]) -> Lake:
        if steps not in filled:
            first = Lake(tmp_path_factory.mktemp("filled"))
            steps(first)
            filled[steps] = first
        shutil.copytree(filled[steps].folder, lake.folder, dirs_exist_ok=True)
        return lake

    return fill


@pytest.fixture
def make_lake(tmp_path: Path) -> Callable[..., Lake]:
    """Lakes beside each other, each empty; with the arguments of `Lake`."""
    count = iter(range(10_000))

    def make(**arguments: Any) -> Lake:
        return Lake(tmp_path / f"lake-{next(count)}", **arguments)

    return make


@pytest.fixture(scope="module")
def spark_application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Spark application for all of a module: sessions share it while one is open."""
    from lakehouse.core.engines.session import Spark, open_session

    spill = str(tmp_path_factory.mktemp("spark") / "spill")
    with open_session("spark", memory_limit="2GB", spill=spill, folders=[], spark=Spark(master="local[2]")) as session:
        session.table([], {"a": "int"})
        yield


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.spark)])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    if request.param == "spark":
        request.getfixturevalue("spark_application")
    return str(request.param)


@pytest.fixture
def storage(lake: Lake) -> Storage:
    return lake.storage


@pytest.fixture
def session(lake: Lake) -> "Iterator[DuckDBSession]":
    with lake.session() as opened:
        yield opened


# --- runs ------------------------------------------------------------------------------------------------------------


def run_selected(root: Path, selection: "dg.AssetSelection", **given: Any) -> "dg.ExecuteInProcessResult":
    """Run what is selected over the lake below a folder, as Dagster's UI does for `Execute all` and `Materialize`."""
    import dagster as dg

    from lakehouse.definitions import build_defs
    from lakehouse.settings import Settings

    with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
        warnings.simplefilter("ignore")
        chosen = dg.Definitions(jobs=[dg.define_asset_job("chosen", selection=selection)])
        job = dg.Definitions.merge(build_defs(Settings(root=str(root))), chosen).resolve_job_def("chosen")
        return job.execute_in_process(instance=instance, raise_on_error=False, **given)


# --- parameters ------------------------------------------------------------------------------------------------------


def few(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Cases as parameters, of which all but the quick ones are slow: they take the same way through the code."""
    known = list(cases)
    assert set(quick) <= set(known), quick
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in known]


# --- processes -------------------------------------------------------------------------------------------------------


def with_parent(*command: str) -> list[str]:
    """The command of a server that ends with this process, also when that is killed (on Linux)."""
    return [*(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()), *command]


# --- values ----------------------------------------------------------------------------------------------------------


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def plain(row: Mapping[str, Any]) -> Row:
    """A row with instants in UTC and decimals as text, so that rows from different readers compare."""
    out: Row = {}
    for name, value in row.items():
        if isinstance(value, datetime):
            out[name] = value.astimezone(UTC).isoformat()
        elif isinstance(value, Decimal):
            out[name] = f"{value:f}"
        else:
            out[name] = value
    return out


def touch(path: Path) -> None:
    """Give a file another modification time and leave its content alone."""
    moved = time.time() + 10
    os.utime(path, (moved, moved))


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data; skips where there is none. CI checks its presence itself (`.ci/run`)."""
    location = os.environ.get("LAKEHOUSE_REAL_DATA", "").strip() or "../shared/data"
    if location == "skip":
        pytest.skip("LAKEHOUSE_REAL_DATA=skip")
    found = (project_folder() / location).resolve()
    if not (found / "vendas" / "EXPECTED.json").is_file():
        pytest.skip(f"there is no real data in {found}: set LAKEHOUSE_REAL_DATA")
    return found


@pytest.fixture
def copied_landing(real_data: Path, lake: Lake) -> Callable[[Sequence[str]], None]:
    """Land some of the real sales files, by name, in the lake of the test."""

    def land(names: Sequence[str]) -> None:
        target = lake.folder / "landing" / "raw" / "vendas"
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy2(real_data / "vendas" / "landing" / "raw" / "vendas" / name, target / name)

    return land
