"""Runs the lake's work in processes of its own, and has things happen to them: the driver of the fault rig.

    python -m lakehouse_tests.faults.driver       reads one JSON order per line, answers each with one JSON line

The libraries are imported once, here; each order is done by a fork that has opened nothing before:

    appended bronze and silver of one table that is appended to, in the same way
    adopted  the same of two tables that follow the Delta table of another writer in `other/` of the lake's folder
    layers   bronze and silver of one small table through the pure functions, each table held, as the assets do it: 0.5 s
    job      `lakehouse.commands.runs.trigger("medallion_etl")`, what `python -m lakehouse trigger` does after its imports: 10 s
    assets   the job's bronze and silver alone, as `python -m lakehouse materialize` does them: 4 s
    pedidos  extraction of both channels, bronze, silver and warehouse of the orders as their assets do them, with the settings of
             `settings.json` in the lake's folder: 1 s
    branch   extraction, bronze and silver of the database of `branch.json` in the lake's folder (`branch.py`): 3 s
    branch landing  its extraction alone: 1 s

A fault is put at a place (the nth call of a function, before or after it) or at a moment (seconds after the start).
"""

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from lakehouse.settings import project_folder
from lakehouse.tables.spec import AirbyteStream, Column, DeltaSource, TableSpec, in_range

ITENS = TableSpec(
    name="itens",
    source=AirbyteStream("itens"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("situacao", "string"), Column("em", "timestamp")),
    key=("id",),
    order=("em",),
    deleted="situacao = 'apagado'",
    rules=(in_range("id", minimum=0),),
)
#: A table that is appended to.
CAIXA = TableSpec(
    name="caixa",
    source=AirbyteStream("caixa"),
    columns=(Column("id", "bigint"), Column("nome", "string")),
    sync="append",
    rules=(in_range("id", minimum=0),),
)


def adopted(folder: Path) -> tuple[TableSpec, TableSpec]:
    """Tables that follow another writer's: one with a key, and one without."""
    columns = (Column("id", "bigint"), Column("nome", "string"))
    source = DeltaSource(str(folder / "other"), "outro", withdrawals="delete")
    keyed = TableSpec(name="chave", source=source, columns=columns, key=("id",), order=("id",), max_loss=1.0)
    return keyed, TableSpec(name="linhas", source=source, columns=columns, sync="append", max_loss=1.0)


BROKEN, RETRYABLE = 1, 10
KILLED = -signal.SIGKILL
Work = Literal[
    "layers", "appended", "adopted", "job", "assets", "pedidos", "branch", "branch landing", "two at once", "two appended"
]
#: Work that two processes do at the same time, without holding the tables.
_TWICE = ("two at once", "two appended")


@dataclass(frozen=True, kw_only=True)
class KillPoint:
    """The nth call of a function whose subject (a table's folder or name) ends in `about`, before or after it.

    Args:
        call: a key of `_points()`; every write of a run goes through one of these.
        act: what happens there. `fill` leaves `bytes` free on the disk that is mounted at `path`; `limit` lets no file of the
            process grow beyond `bytes`; `eio` has the call raise EIO; `vanish` removes the file `path`.
    """

    call: str
    about: str = ""
    before: bool = False
    nth: int = 1
    act: Literal["kill", "fill", "limit", "eio", "vanish"] = "kill"
    bytes: int = 0
    path: str = ""

    def __str__(self) -> str:
        nth = f" {self.nth}" if self.nth > 1 else ""
        return f"{'before' if self.before else 'after'} {self.call}{nth} {self.about}".rstrip()


@dataclass(frozen=True)
class End:
    """How a run ended: exit codes (negative for a signal) of its one or two processes, and what they said."""

    codes: list[int]
    seconds: float
    output: str

    @property
    def code(self) -> int:
        (code,) = self.codes
        return code


class Driver:
    """The warmed-up process, started when it is first asked for; a context manager that ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(60)

    def start(self) -> None:
        """Begin the imports, without waiting for them."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lakehouse_tests.faults.driver"],
            env=environment,
            cwd=project_folder(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, folder: Path, work: Work, *, point: KillPoint | None = None, after: float | None = None, broken: str = ""
    ) -> End:
        """Do the work over a lake, with a fault at a place or SIGKILL `after` seconds, and wait for its end.

        Args:
            broken: a name of `BROKEN_CHECKS`, which the process then does without.
        """
        if self._process is None:
            self.start()
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        order = {"folder": str(folder), "work": work, "place": asdict(point) if point else None, "after": after, "broken": broken}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the driver ended with {self._process.wait(60)}"
        output = folder / "output.txt"
        return End(**json.loads(answer), output=output.read_text(errors="replace") if output.exists() else "")


# --- in the driver's process -----------------------------------------------------------------------------------------


def _points() -> dict[str, tuple[Any, str, Callable[..., str]]]:
    """`{call: (owner, attribute, subject of the arguments)}`."""
    import dagster as dg

    from lakehouse.bronze import ingest
    from lakehouse.core import ledger
    from lakehouse.core.engines.duckdb import DuckDBSession
    from lakehouse.core.table import snapshot, transaction
    from lakehouse.runtime.io_manager import DeltaIOManager

    def recorded(_: Any, entry: Any, **__: Any) -> str:
        event = entry.dagster_event
        return event.asset_key.to_user_string() if event is not None and event.is_step_materialization else ""

    return {
        "stage": (ingest, "stage", lambda *_, **named: named["folder"]),
        "copy": (DuckDBSession, "copy", lambda _, __, path: str(path)),
        "write": (DuckDBSession, "write", lambda _, __, folder, **___: folder),
        "add_columns": (snapshot.Snapshot, "add_columns", lambda table, *_: table.uri),
        "commit": (transaction, "write_version", lambda staged: staged.table.uri),
        "finalise": (ledger, "finalise", lambda *_, **named: str(named["table"])),
        "publish": (DeltaIOManager, "publish", lambda _, ref, *__, **___: str(ref)),
        "record": (dg.DagsterInstance, "handle_new_event", recorded),
        "checksum": (ingest, "_checksum", lambda path: path),
    }


def _arm(point: KillPoint) -> None:
    owner, name, subject = _points()[point.call]
    original, calls = getattr(owner, name), iter(range(1, 10_000))
    act: Callable[[], None] = {
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "fill": partial(_fill, Path(point.path), point.bytes),
        "limit": partial(_limit, point.bytes),
        "eio": _fail,
        "vanish": Path(point.path).unlink,
    }[point.act]

    def wrapped(*args: Any, **named: Any) -> Any:
        here = subject(*args, **named).endswith(point.about) and next(calls) == point.nth
        if here and point.before:
            act()
        result = original(*args, **named)
        if here and not point.before:
            act()
        return result

    setattr(owner, name, wrapped)


def _fill(disk: Path, leave: int) -> None:
    """Put a file on a disk that leaves so many bytes free."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - leave)


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _fail() -> None:
    raise OSError(5, "Input/output error")


# Checks of ours that a process can be made to do without, to see whether the oracle finds what follows. Both have the batch
# numbers of ops/landing_files read as 0; neither changes anything as long as nobody is killed.


def _without_unfinished_batches() -> None:
    """What is planned counts as taken in: a batch that was begun is not finished."""
    _forget_batch_numbers(lambda _storage_root, _table: None)


def _without_the_plan() -> None:
    """What has a row in ops/ledger counts as taken in, as if files were noted after the commit and not ahead of it."""

    def taken_in(root: str, table: Any) -> set[int]:
        from lakehouse.core.table.snapshot import open_existing

        log = open_existing(f"{root}/ops/ledger")
        rows = log.table.to_pyarrow_table().to_pylist() if log else []
        return {row["batch_to"] for row in rows if (row["layer"], row["table"]) == (table.layer, table.table)}

    _forget_batch_numbers(taken_in)


def _forget_batch_numbers(known_batches: Callable[[str, Any], set[int] | None]) -> None:
    from lakehouse.core import ledger
    from lakehouse.core.table import snapshot

    watermark, planned_files = snapshot.Snapshot.watermark, ledger.planned_files

    def forgotten(self: Any, app: str) -> int:
        return 0 if self.uri.endswith("ops/landing_files") else watermark(self, app)

    def planned(session: Any, uri: str, table: Any) -> Any:
        root = uri.removesuffix("/ops/landing_files")
        bronze = snapshot.open_existing(f"{root}/{table.layer}/{table.table}")
        batches = known_batches(root, table)
        files = [entry for entry in planned_files(session, uri, table)[1] if batches is None or entry[0] in batches]
        return watermark(bronze, ledger.ingest_app(table)) if bronze else 0, files

    snapshot.Snapshot.watermark = forgotten  # type: ignore[method-assign]
    ledger.planned_files = planned


BROKEN_CHECKS: dict[str, Callable[[], None]] = {
    "unfinished batches": _without_unfinished_batches,
    "written-ahead plan": _without_the_plan,
}


def _layers(folder: Path, spec: TableSpec = ITENS, *, locked: bool = True) -> int:
    from lakehouse.core.store.storage import lock
    from lakehouse_tests.conftest import Lake

    lake = Lake(folder)
    for ref, step in ((spec.bronze, lake.ingest), (spec.silver, lake.refresh)):
        with lock(lake.storage.uri(ref)) if locked else nullcontext():
            step(spec)
    return 0


def _pedidos(folder: Path) -> int:
    """What the assets of the orders do, in their order, each holding what they hold."""
    from lakehouse.core.store.storage import lock
    from lakehouse.core.table.snapshot import open_existing
    from lakehouse.landing.assets.systems import Systems
    from lakehouse.landing.sources.registry import Work, extract
    from lakehouse.settings import Settings
    from lakehouse.tables.pedidos import PEDIDOS, SOURCES
    from lakehouse.warehouse.assets import warehouse_of
    from lakehouse.warehouse.publish import Target, publish
    from lakehouse_tests.conftest import Lake

    lake = Lake(folder)
    settings = Settings(**json.loads((folder / "settings.json").read_text()))
    systems = Systems.of(settings)
    for declared in SOURCES:
        with (
            lock(f"{lake.storage.landing}/raw/{declared.name}"),
            lake.session() as session,
            systems.opened(declared) as (system, sample),
        ):
            cache, deadline = f"{systems.cache}/{declared.name}", time.monotonic() + 300
            extract(
                system,
                Work(storage=lake.storage, session=session, declared=declared, sample=sample, cache=cache, deadline=deadline),
            )
    for part in PEDIDOS.parts:
        with lock(lake.storage.uri(part.bronze)):
            lake.ingest(part)
    with lock(lake.storage.uri(PEDIDOS.silver)):
        lake.refresh(PEDIDOS)
    snapshot = open_existing(lake.storage.uri(PEDIDOS.silver))
    assert snapshot is not None
    target = Target(PEDIDOS.silver, {column.name: column.type for column in PEDIDOS.columns}, PEDIDOS.key)
    with lake.session() as session:
        publish(session, warehouse_of(settings), target, snapshot)
    return 0


def _dagster(folder: Path, work: Work) -> int:
    from lakehouse.commands import runs

    os.environ |= {
        "LAKEHOUSE_ROOT": str(folder / "lake"),
        "LAKEHOUSE_LANDING": str(folder / "landing"),
        "DAGSTER_HOME": str(folder / "dagster"),
    }
    return runs.trigger("medallion_etl") if work == "job" else runs.materialize("group:bronze or group:silver")


def _child(order: dict[str, Any]) -> None:
    """What a fork does; its exit code says how it went."""
    from lakehouse.core.errors import LakehouseError

    folder = Path(order["folder"])
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = BROKEN
    try:
        if order["broken"]:
            BROKEN_CHECKS[order["broken"]]()
        if order["place"]:
            _arm(KillPoint(**order["place"]))
        work = order["work"]
        if work == "pedidos":
            code = _pedidos(folder)
        elif work in ("branch", "branch landing"):
            code = importlib.import_module("lakehouse_tests.faults.branch").run(folder, whole=work == "branch")
        elif work == "adopted":
            code = max(_layers(folder, spec) for spec in adopted(folder))
        else:
            spec = CAIXA if "appended" in work else ITENS
            code = _dagster(folder, work) if work in ("job", "assets") else _layers(folder, spec, locked=work not in _TWICE)
    except BaseException as error:  # noqa: BLE001 - the exit code says so
        _limit(resource.RLIM_INFINITY)
        traceback.print_exc()
        code = RETRYABLE if isinstance(error, LakehouseError) and error.retryable else BROKEN
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _do(order: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    children = []
    for _ in range(2 if order["work"] in _TWICE else 1):
        child = os.fork()
        if not child:
            _child(order)
        children.append(child)
    if order["after"] is not None:
        handle = os.pidfd_open(children[0])
        ended, _, _ = select.select([handle], [], [], order["after"])
        os.close(handle)
        if not ended:
            os.kill(children[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"codes": codes, "seconds": time.monotonic() - started}


def _warm_up() -> None:
    """Import what a run imports, so that no fork has to."""
    for name in (
        "altair",
        "dbt.adapters.duckdb.connections",
        "dbt.cli.main",
        "deltalake.transaction",
        "narwhals.dataframe",
        "psycopg2",
        "pyarrow.parquet",
        "requests",
        "sqlalchemy.dialects.postgresql",
        "sqlalchemy.dialects.sqlite",
        "sqlglot.lineage",
        "tenacity",
        "vl_convert",
        "lakehouse.bronze.ingest",
        "lakehouse.landing.assets.systems",
        "lakehouse.landing.sources.registry",
        "lakehouse.commands.foreground",
        "lakehouse.silver.refresh",
        "lakehouse_tests.conftest",
        "lakehouse_tests.landing.branch",
    ):
        importlib.import_module(name)
    from lakehouse.gold.project import ensure_manifest

    ensure_manifest()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    _warm_up()
    for line in sys.stdin:
        print(json.dumps(_do(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
