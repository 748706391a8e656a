"""The queries of *Tabelas*: health as it was measured last, growth over time, versions of a table, and where its lineage is."""

from dataclasses import dataclass
from datetime import datetime

import narwhals as nw

from lakehouse.core.names import TableRef
from lakehouse.dashboard.reading import Lake, Row
from lakehouse.observability import outbox
from lakehouse.observability.table_health import HEALTH_TABLE

_GROWTH = ("measured_at", "rows", "bytes", "files")
#: A measurement is a file of its own until the table is compacted; so many are read.
_POINTS = 150
_VERSIONS = 15
#: Where `make dev` serves Dagster's UI.
_UI = "http://127.0.0.1:3000"


@dataclass(frozen=True)
class Version:
    """One commit of a table."""

    number: int
    at: datetime | None
    operation: str
    run_id: str
    figures: str


@dataclass(frozen=True)
class TableStory:
    """One table: its rows, bytes and files over time, and its newest versions, newest first."""

    growth: list[Row]
    versions: list[Version]


def health(lake: Lake) -> list[Row]:
    """The last measurement of every table that exists, by layer and name."""
    order = {layer: n for n, layer in enumerate(("bronze", "silver", "gold", "ml", "quarantine", "ops"))}
    rows = [row for row in outbox.newest(lake.session, lake.storage, HEALTH_TABLE) if row["outcome"] != "absent"]
    return sorted(rows, key=lambda row: (order.get(row["layer"], len(order)), row["table"]))


def story(lake: Lake, layer: str, table: str) -> TableStory:
    """What became of one table."""
    ref = TableRef(layer, table)  # type: ignore[arg-type] # refuses what is no name
    return TableStory(_growth(lake, ref), _versions(lake, ref))


def lineage(ui: str, layer: str, table: str) -> str:
    """The page of a table's lineage in Dagster's UI."""
    return f"{(ui or _UI).rstrip('/')}/assets/{layer}/{table}?view=lineage"


def _growth(lake: Lake, ref: TableRef) -> list[Row]:
    measured = lake.opened(HEALTH_TABLE)
    if measured is None or not measured.files:
        return []
    ordered = sorted(measured.files, key=lambda file: str(file.upper.get("measured_at")))
    few = {file.path: file for file in [*ordered[:: -(-len(ordered) // _POINTS)], ordered[-1]]}
    frame = lake.session.read(measured.paths(list(few.values())), measured.columns)
    mine = frame.filter((nw.col("layer") == ref.layer) & (nw.col("table") == ref.table) & ~nw.col("rows").is_null())
    return lake.select(mine.sort("measured_at"), *_GROWTH)


def _versions(lake: Lake, ref: TableRef) -> list[Version]:
    snapshot = lake.opened(ref)
    if snapshot is None:
        return []
    out = []
    for commit in snapshot.commits(since=snapshot.version - _VERSIONS):
        made = commit.provenance
        figures = {name: count for name in _PARTS if (count := getattr(made.figures, name, 0))}
        out.append(Version(commit.version, commit.at, made.maintenance or made.operation, made.run_id, _figures(figures)))
    return out[::-1]


_PARTS = {
    "records_in": "entraram",
    "written": "gravados",
    "deduplicated": "repetidos",
    "deleted": "apagados",
    "quarantined": "em quarentena",
}


def _figures(figures: dict[str, int]) -> str:
    from lakehouse.reports import page

    return ", ".join(f"{page.number(count)} {_PARTS[name]}" for name, count in figures.items())
