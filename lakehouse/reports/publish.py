"""A report as a file of the lake: made when what it is made of has changed, else left as it is.

    tables as the run views them ─▶ made.json says the same? ─┬ yes ─▶ nothing
                                                            └ no ──▶ page ─▶ <report>/<day>/index.html, then made.json

What does not belong here: what a page says (`<report>.py`), and how it looks (`<report>_page.py`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import is_viewed_older, open_input
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import RETRY, code_version, failures
from lakehouse.runtime.view import viewed

Snapshots = Mapping[TableRef, Snapshot | None]
#: Beside the pages: what the newest one was made of.
_MADE = "made.json"


@dataclass(frozen=True)
class Page:
    """A page for one day; `metadata` is shown with the materialisation, its `preview` as Markdown."""

    day: date
    html: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def report_arguments(report: TableRef, *, tag: str) -> dict[str, Any]:
    """Arguments of `@dg.asset` that every report has."""
    return {
        "key": report.key,
        "group_name": "reports",
        "owners": ["team:dados"],
        "kinds": {"html"},
        "tags": {tag: ""},
        "retry_policy": RETRY,
        "io_manager_key": None,
        "output_required": False,
    }


def publish(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    *,
    report: TableRef,
    tables: Sequence[TableRef],
    make: Callable[[Session, Snapshots], Page | None],
    also: Mapping[str, Any] | None = None,
) -> Iterator[dg.MaterializeResult]:
    """Make a report anew if a table of it, its code or what it is `also` made of has changed. There is none while `make` says
    that its tables have no day to report."""
    storage = viewed(context, lake)
    folder = storage.uri(report)
    with failures():
        snapshots = {ref: open_input(storage, ref) for ref in tables}
        # With the id: a table that was made anew begins at version 0 again.
        inputs: dict[str, Any] = {str(ref): [found.version, found.id] for ref, found in snapshots.items() if found}
        inputs |= also or {}
        code = _code(report.table)
        made = _made(folder)
        unchanged = made.get("code") == code and made.get("inputs") == inputs
        unchanged = unchanged or _is_newer(storage, made, snapshots)
        unchanged = unchanged and str(made.get("page")) in files.listing(folder, below=True)
        if unchanged:
            context.log.info("The report %s is current.", made["page"])
        else:
            with lake.session() as session:
                page = make(session, snapshots)
            if page is None:
                context.log.warning("There is no report %s: its tables have no data yet.", report)
                return
            made = {"page": f"{page.day.isoformat()}/index.html", "code": code, "inputs": inputs, "said": dict(page.metadata)}
            storage.put(report, made["page"], page.html.encode())
            storage.put(report, _MADE, json.dumps(made, indent=1).encode())
        metadata = {name: dg.MetadataValue.md(v) if name == "preview" else v for name, v in made["said"].items()}
        yield dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.path(f"{folder}/{made['page']}"),
                **metadata,
                "bytes": files.stat(f"{folder}/{made['page']}").size,
                "nothing_to_do": unchanged,
            }
        )


def rows(session: Session, snapshot: Snapshot | None, *, chosen: Sequence[DataFile] | None = None) -> list[dict[str, Any]]:
    """The rows of a mart, or of some of its files; none of one that is not there."""
    if snapshot is None:
        return []
    return session.dicts(session.read(snapshot.paths(chosen), snapshot.columns), *snapshot.columns)


def states(snapshots: Snapshots) -> list[dict[str, Any]]:
    """What every page says of the tables that it is made of."""
    return [
        {"layer": ref.layer, "table": ref.table, "version": s.version, "rows": s.rows, "bytes": s.bytes}
        for ref, s in snapshots.items()
        if s is not None
    ]


def _is_newer(storage: Storage, made: Mapping[str, Any], snapshots: Snapshots) -> bool:
    """Whether another run has made the page of newer tables than the view of this run has."""
    versions = {ref: made.get("inputs", {}).get(str(ref), [-1])[0] for ref in snapshots}
    return any(table and versions[ref] > table.version and is_viewed_older(storage, table) for ref, table in snapshots.items())


def _made(folder: str) -> dict[str, Any]:
    """What the newest page was made of; nothing when there is none."""
    try:
        found: dict[str, Any] = json.loads(files.read(f"{folder}/{_MADE}"))
    except FileNotFoundError:
        return {}
    return found


def _code(report: str) -> str:
    here = Path(__file__).parent
    sources = [*sorted(here.glob(f"{report}*.py")), here / "page.py", *sorted((here / "templates").glob("*.j2"))]
    return code_version(*[source.read_text() for source in sources])
