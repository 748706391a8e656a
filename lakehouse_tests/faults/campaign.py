"""A campaign: seeded chains of kills, after each chain one plain run, after each such run the oracle; and the table of it all.

Kills are at places between two writes that belong together, and at random moments of a run's whole length; most of them in
the work of one small table (`layers`), some in the whole Dagster job (`job`). See `driver.py`.
"""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from lakehouse.core.store.storage import STAGING, lock
from lakehouse.settings import project_folder
from lakehouse_tests.conftest import Lake, file_content
from lakehouse_tests.faults import oracle
from lakehouse_tests.faults.driver import KILLED, Driver, KillPoint, Work

Chain = list[KillPoint | None]
BEFORE_COMMIT, BEFORE_LEDGER, BEFORE_EVENT = "file written → Delta commit", "commit → ledger row", "commit → Dagster event"
RANDOM, RANDOM_JOB = "random moment of bronze and silver", "random moment of the Dagster job"

#: Between a data file and the commit that makes it visible: in every table that a run writes. Each is a chain of its own.
COMMIT_CHAINS: list[Chain] = [
    [KillPoint(call="write", about="ops/landing_files")],
    [KillPoint(call="commit", about="ops/landing_files", before=True)],
    [KillPoint(call="stage", about="bronze/itens")],
    [KillPoint(call="add_columns", about="bronze/itens", before=True)],
    [KillPoint(call="add_columns", about="bronze/itens")],
    [KillPoint(call="commit", about="quarantine/itens", before=True)],
    [KillPoint(call="commit", about="bronze/itens", before=True)],
    [KillPoint(call="commit", about="quarantine/itens", before=True, nth=2)],
    [KillPoint(call="commit", about="ops/deletes_itens", before=True)],
    [KillPoint(call="commit", about="silver/itens", before=True)],
]
#: Between a commit and its ledger row, and again in the run that makes up for it.
LEDGER_CHAINS: list[Chain] = [
    [KillPoint(call="commit", about="bronze/itens"), KillPoint(call="commit", about="ops/ledger", before=True)],
    [KillPoint(call="finalise", about="bronze/itens", before=True, nth=2), KillPoint(call="write", about="ops/ledger")],
    [KillPoint(call="write", about="ops/ledger")],
    [KillPoint(call="commit", about="silver/itens"), KillPoint(call="finalise", about="silver/itens", before=True)],
    [
        KillPoint(call="finalise", about="silver/itens", before=True, nth=2),
        KillPoint(call="commit", about="ops/ledger", before=True),
    ],
    [KillPoint(call="commit", about="ops/ledger", before=True, nth=2)],
]
#: Between a commit of an asset and Dagster's record of it: inside the IO manager, behind it, and before the event is stored.
EVENT_CHAINS: list[Chain] = [
    [
        KillPoint(call="commit", about="bronze/vendas"),
        KillPoint(call="publish", about="silver/vendas"),
        KillPoint(call="record", about="gold/vendas_diarias", before=True),
    ],
    [
        KillPoint(call="publish", about="bronze/vendas"),
        KillPoint(call="record", about="silver/vendas", before=True),
        KillPoint(call="commit", about="gold/vendas_mensais"),
    ],
    [
        KillPoint(call="record", about="bronze/vendas", before=True),
        KillPoint(call="commit", about="silver/vendas"),
        KillPoint(call="publish", about="gold/clientes_rfm"),
    ],
    [KillPoint(call="publish", about="bronze/vendas")],
]


@dataclass
class Tally:
    """What came of a campaign."""

    kills: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    where: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.kills + other.kills,
            {work: [*self.recoveries.get(work, []), *other.recoveries.get(work, [])] for work in ("layers", "job")},
            self.failed + other.failed,
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.torn + other.torn,
            self.where + other.where,
        )

    def table(self) -> str:
        """Kills by place, recoveries, seconds to recover, rows lost and doubled."""
        lines = [f"{'killed':40}{'times':>7}"]
        lines += [f"{group:40}{self.kills[group]:>7}" for group in dict.fromkeys([*GROUPS, *self.kills]) if self.kills[group]]
        lines += [f"{'all':40}{self.kills.total():>7}", "", f"{'one run recovers':40}{'times':>7}{'p50 s':>8}{'p95 s':>8}"]
        names = {"layers": "bronze and silver", "job": "the Dagster job"}
        for work, seconds in self.recoveries.items():
            if seconds:
                p95 = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
                lines.append(f"{names[work]:40}{len(seconds):>7}{median(seconds):>8.2f}{p95:>8.2f}")
        lines += ["", f"{'rows lost':40}{self.lost:>7}", f"{'rows doubled or outdated':40}{self.doubled:>7}"]
        lines += [f"{'half a batch seen by a reader':40}{self.torn:>7}", f"{'runs that did not recover':40}{len(self.failed):>7}"]
        return "\n".join(lines)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.torn or self.failed)


#: In a run over a file of the first form every kind of write occurs.
WHOLE_FORM = "v2-jsonl"
FORMS = (WHOLE_FORM, "v1-csv.gz", "v2-jsonl-flat", "v2-parquet", "v1-jsonl")
GROUPS = (BEFORE_COMMIT, BEFORE_LEDGER, BEFORE_EVENT, RANDOM, RANDOM_JOB)


class Lane:
    """A lake in a folder, with files that land one after the other, killed and recovered."""

    work: Work
    tables: Sequence[oracle.Table]

    def __init__(self, driver: Driver, folder: Path, *, seed: int, broken: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.driver, self.lake, self.chance, self.broken = driver, Lake(folder), random.Random(seed), broken
        self.tally = Tally()
        self.lengths: list[float] = []

    def land(self) -> None:
        """Land what comes next."""
        raise NotImplementedError

    def recover(self) -> float:
        """One plain run, and what the lake holds then. The seconds that it took."""
        end = self.driver.run(self.lake.folder, self.work, broken=self.broken)
        self.lengths.append(end.seconds)
        if end.code != 0:
            self.tally.failed.append(f"exit code {end.code}: {end.output[-2000:]}")
        losses = oracle.validate(self.lake, self.tables)
        # What is lost or doubled stays so in later checks, unless a run fixes it; that does not excuse the runs before.
        self.tally.lost = max(self.tally.lost, losses.lost)
        self.tally.doubled = max(self.tally.doubled, losses.doubled)
        self.tally.where = self.tally.where or list(losses.where)
        return end.seconds

    def chain(self, group: str, points: Chain) -> None:
        """Something lands, every run is killed, and one plain run recovers."""
        before = oracle.to_be_read(self.lake, self.tables)
        self.land()
        after = oracle.to_be_read(self.lake, self.tables)
        kills = self.tally.kills[group]
        for point in points:
            moment = self.chance.uniform(0, median(self.lengths)) if point is None else None
            end = self.driver.run(self.lake.folder, self.work, point=point, after=moment, broken=self.broken)
            if end.code != KILLED:
                if point is not None or end.code != 0:
                    self.tally.failed.append(f"not killed {point or 'at random'}, exit code {end.code}: {end.output[-2000:]}")
                break  # a run that was done before its moment has left nothing to kill
            self.tally.kills[group] += 1
            seen = oracle.readable(self.lake, self.tables)
            self.tally.torn += sum(now not in (old, new) for now, old, new in zip(seen, before, after, strict=True))
        seconds = self.recover()
        if self.tally.kills[group] > kills:
            self.tally.recoveries.setdefault(self.work, []).append(seconds)

    def run(self, group: str, chains: Sequence[Chain]) -> None:
        for points in chains:
            self.chain(group, points)

    def at_random(self, group: str, kills: int, *, longest: int) -> None:
        """Chains of up to `longest` kills at random moments, until there were so many."""
        for _ in range(3 * kills):
            left = kills - self.tally.kills[group]
            if not left:
                break
            self.chain(group, [None] * min(left, self.chance.randint(1, longest)))

    def check_finalised(self) -> None:
        """Nothing is left to do, nothing of the killed runs is in the way, and no check was bad."""
        assert self.tally.clean, self.tally
        versions = self.lake.versions()
        assert self.driver.run(self.lake.folder, self.work).code == 0
        assert self.lake.versions() == versions, "a run that had nothing to do"
        root = self.lake.folder / "lake"
        assert [path for path in root.rglob("*") if path.name.startswith(STAGING) or "lock" in path.name.lower()] == []
        for table in self.lake.versions():
            with lock(str(root / table), wait=0):
                pass


class Layers(Lane):
    """Bronze and silver of `itens`, every file with new, changed, deleted, repeated, refused records and a line that is none."""

    work = "layers"
    tables = oracle.LAYERS

    def __init__(
        self, driver: Driver, folder: Path, *, seed: int, broken: str = "", forms: Sequence[str] = (WHOLE_FORM,)
    ) -> None:
        super().__init__(driver, folder, seed=seed, broken=broken)
        self.landed, self.forms = 0, forms
        self.land()
        self.recover()

    def land(self) -> None:
        n, form = self.landed, self.forms[self.landed % len(self.forms)]
        self.landed += 1
        rows = [_item(100 + 100 * n + k, f"novo em {n}", n) for k in range(20)]
        rows += [_item(k, f"mudado em {n}", n, deleted=(k + n) % 3 == 0) for k in range(15)]
        rows += [_item(100 * n + k, f"novo em {n - 1}", n - 1) for k in range(5 if n else 0)]  # once more, as they were
        rows += [_item(-n - 1, "recusado", n)]
        if form.endswith("jsonl"):
            rows = [{**row, f"campo_{n}": n} for row in rows]
        content = file_content(rows, form, first=1000 * n)
        if form.endswith("jsonl"):
            content += b"{no record %d\n" % n
        self.lake.put("itens", f"{n:04d}.{form.split('-')[1]}", content)


def _item(number: int, name: str, minute: int, *, deleted: bool = False) -> dict[str, Any]:
    day, minutes = divmod(max(minute, 0), 1440)
    em = f"2026-01-{day + 1:02d}T{minutes // 60:02d}:{minutes % 60:02d}:00Z"
    return {"id": number, "nome": name, "situacao": "apagado" if deleted else "vivo", "em": em}


class Job(Lane):
    """The Dagster job over the sample's syncs, one file of sales after the other."""

    tables = oracle.JOB

    def __init__(self, driver: Driver, folder: Path, *, store: Path, seed: int, work: Work = "job") -> None:
        super().__init__(driver, folder, seed=seed)
        self.work = work
        home = folder / "dagster"
        home.mkdir()
        shutil.copy(project_folder() / "dagster.yaml", home)
        files = [path for path in (store / "raw").rglob("*.*") if path.is_file()]
        self.waiting = sorted(files, key=lambda path: (path.name, path.parent.name))
        for _ in range(3):  # the first of every stream: no mart is without its products and customers
            self.land()

    def land(self) -> None:
        path = self.waiting.pop(0)
        self.lake.put(path.parent.name, path.name, path.read_bytes())

    def land_all(self) -> None:
        while self.waiting:
            self.land()

    def gold(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the marts, read with delta-rs."""
        from deltalake import DeltaTable

        root = self.lake.folder / "lake" / "gold"
        tables = {log.parent.name: DeltaTable(str(log.parent)).to_pyarrow_table() for log in root.rglob("_delta_log")}
        return {name: sorted((tuple(row.items()) for row in rows.to_pylist()), key=str) for name, rows in tables.items()}

    def reports(self) -> list[str]:
        """The pages that were written."""
        root = self.lake.folder / "lake" / "reports"
        return [str(path.relative_to(root)) for path in root.rglob("index.html")]

    def unrecorded(self) -> list[str]:
        """Tables whose newest version no materialisation in Dagster's history tells of."""
        import dagster as dg

        missing = []
        with dg.DagsterInstance.from_config(str(self.lake.folder / "dagster")) as instance:
            for table, version in self.lake.versions().items():
                if table.split("/")[0] in ("bronze", "silver", "gold"):
                    event = instance.get_latest_materialization_event(dg.AssetKey(table.split("/")))
                    told = event.asset_materialization.metadata["delta_version"].value if event else None
                    if told != version:
                        missing.append(f"{table} is at version {version}, and Dagster was told of {told}")
        return missing
