"""Protection: which versions of a table must stay readable, and why.

    current          what readers see
    floor            what was current when the retention floor began, and every version since
    publication      what readers see of a mart (ops/publications), where it is not the current version
    pins             make pin TABLE=... VERSION=... REASON=...   (ops/pins)
    models           what registered models were made from (lakehouse/ml/registry.py)
    backups          what the kept backups hold
    replays          what runs of the last days have read and made (replays.py)

Pure: no dagster. Where it cannot be known what models use, tables that models may use are not vacuumed at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lakehouse.core import publications
from lakehouse.core.errors import DeclarationError, LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.publications import Named
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import OWN_CLEANUP, Snapshot, open_existing, require_table
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged, redo_on_conflict
from lakehouse.ml.registry import Registry, versions_in_use
from lakehouse.observability.outbox import small_session
from lakehouse.tables import ALL
from lakehouse.tables.spec import refs_of

PINS = TableRef("ops", "pins")
COLUMNS = {
    "layer": "string",
    "table": "string",
    "table_id": "string",
    "version": "bigint",
    "reason": "string",
    "pinned_at": "timestamp",
}
#: Layers of which registered models may be made.
_OF_MODELS = ("gold", "ml")
#: Versions by table and the table's id (one that was made anew begins at version 0 again), with their reasons.
Versions = Mapping[tuple[TableRef, str], Mapping[int, str]]


@dataclass(frozen=True)
class Protection:
    """Versions of tables that must stay, each with its reason. `unknown` says why it is not known what models use."""

    pins: Versions = field(default_factory=dict)
    backups: Versions = field(default_factory=dict)
    models: Mapping[TableRef, frozenset[int]] = field(default_factory=dict)
    unknown: str = ""
    published: Mapping[TableRef, Named] = field(default_factory=dict)
    replays: Versions = field(default_factory=dict)

    def of(self, ref: TableRef, snapshot: Snapshot, *, replays: bool = True) -> dict[int, str]:
        """The versions of a table that must stay besides those within the retention floor.

        Args:
            replays: also those that runs can be computed again from.
        """
        reasons: dict[int, list[str]] = {snapshot.version: ["current"]}
        for source in (self.pins, self.backups):
            for version, reason in source.get((ref, snapshot.id), {}).items():
                reasons.setdefault(version, []).append(reason)
        named = self.published.get(ref)
        if named is not None and named.id == snapshot.id and named.version < snapshot.version:
            reasons.setdefault(named.version, []).append("readers see it")
        for version, reason in self.replays.get((ref, snapshot.id), {}).items() if replays else ():
            if version < snapshot.version:
                reasons.setdefault(version, []).append(reason)
        for version in self.models.get(ref, ()):
            reasons.setdefault(version, []).append("a registered model was made from it")
        return {version: "; ".join(found) for version, found in sorted(reasons.items())}

    def refuses(self, ref: TableRef) -> str:
        """Why nothing of a table may go, empty when something may."""
        return self.unknown if ref.layer in _OF_MODELS else ""


def protection(
    storage: Storage, registry: Registry, *, backups: Versions | None = None, replays: Versions | None = None
) -> Protection:
    """What is to be kept of all tables, as of now."""
    pinned: dict[tuple[TableRef, str], dict[int, str]] = {}
    for pin in pins(storage):
        key = (TableRef(pin["layer"], pin["table"]), pin["table_id"])
        pinned.setdefault(key, {})[pin["version"]] = f"pinned: {pin['reason']}"
    models: Mapping[TableRef, frozenset[int]] = {}
    unknown = ""
    try:
        models = versions_in_use(registry, storage)
    except LakehouseError as error:  # MLflow does not answer, its extra is not installed, or a table of a model is damaged
        unknown = f"It is not known which versions the registered models use. {error}"
    return Protection(pinned, backups or {}, models, unknown, publications.newest(storage).tables, replays or {})


def pins(storage: Storage) -> list[dict[str, Any]]:
    """What is pinned, in order."""
    found = open_existing(storage.uri(PINS))
    if found is None or not found.files:
        return []
    with small_session(storage) as session:
        return session.dicts(session.read(found.paths(), COLUMNS).sort("layer", "table", "version"), *COLUMNS)


def pin(storage: Storage, ref: TableRef, *, version: int, reason: str) -> None:
    """Keep a version of a table readable until it is unpinned.

    Raises:
        DeclarationError: no reason is given, or there is no such table.
        BrokenTableError: that version can no longer be read.
    """
    if not reason.strip() or version < 0:
        raise DeclarationError("A pin needs a version and a reason.", remedy="Give VERSION=<number> and REASON='...'.")
    with lock(storage.uri(ref)):
        now = existing(storage, ref)
        found = open_existing(now.uri, version=version)
        if found is not None:
            found.check()
        own_log_cleanup(now)
    row = {"layer": ref.layer, "table": ref.table, "table_id": now.id, "version": version, "reason": reason}
    with lock(storage.uri(PINS)):
        others = [p for p in pins(storage) if (p["layer"], p["table"], p["version"]) != (*ref.key, version)]
        _write(storage, [*others, {**row, "pinned_at": datetime.now(UTC)}])


def unpin(storage: Storage, ref: TableRef, *, version: int) -> None:
    """Let go of a pinned version.

    Raises:
        DeclarationError: it is not pinned.
    """
    with lock(storage.uri(PINS)):
        there = pins(storage)
        rest = [p for p in there if (p["layer"], p["table"], p["version"]) != (*ref.key, version)]
        if len(rest) == len(there):
            known = ", ".join(f"{p['layer']}/{p['table']} {p['version']}" for p in there) or "nothing"
            raise DeclarationError(f"Version {version} of {ref} is not pinned.", remedy=f"Pinned: {known}.")
        _write(storage, rest)


def existing(storage: Storage, ref: TableRef) -> Snapshot:
    """A table that must be there.

    Raises:
        BrokenTableError: it is not.
    """
    return require_table(storage.uri(ref), ref, remedy="make summary lists the tables.")


def own_log_cleanup(snapshot: Snapshot) -> Snapshot:
    """See that nobody but the maintenance cleans a table's log. The table as it is then."""
    if snapshot.table.metadata().configuration.get(OWN_CLEANUP) == "false":
        return snapshot
    return snapshot.set_properties({OWN_CLEANUP: "false"})


def _write(storage: Storage, rows: list[dict[str, Any]]) -> None:
    uri = storage.uri(PINS)
    write = Write(frame=lambda session: session.table(rows, COLUMNS), columns=COLUMNS, mode="overwrite")

    def once() -> None:
        with small_session(storage) as session:
            commit_staged(stage_write(session, uri, write))

    redo_on_conflict(once)


def table_of(name: str, known: list[TableRef], *, where: str = "the lake") -> TableRef:
    """The table that a person names: `silver/vendas`, or a name that one silver table (else one table at all) has.

    Args:
        known: the tables that there are in `where`.

    Raises:
        DeclarationError: there is no such table, or several.
    """
    found = _named(name, known)
    if len(found) == 1:
        return found[0]
    if found:
        what, remedy = f"{name!r} is the name of several tables.", f"Name layer and table: one of {_listed(found)}."
    elif own := _named(name, refs_of(*ALL)):
        what = f"{own[0]} is declared, and there is nothing of it in {where} yet."
        remedy = f"make run writes it; {where} has {_listed(known)}."
    else:
        what = f"There is no table {name[:80]!r} in {where}."
        remedy = f"Name layer and table: one of {_listed(known)}." if known else f"There is no table at all in {where}: make run."
    raise DeclarationError(what, remedy=remedy)


def _named(name: str, known: Iterable[TableRef]) -> list[TableRef]:
    found = [ref for ref in known if name in (str(ref), ref.table)]
    return [ref for ref in found if ref.layer == "silver"] or found


def _listed(known: Iterable[TableRef]) -> str:
    return ", ".join(map(str, known))[:600] or "no table"


def readable(uri: str, version: int) -> int:
    """Open a version of a table, see that each of its data files is there, and count its rows.

    Raises:
        BrokenTableError: it cannot be read.
    """
    found = require_table(uri, uri, version=version, remedy="Restore it: make restore TABLE=<layer>/<table>.")
    found.check()
    return found.rows
