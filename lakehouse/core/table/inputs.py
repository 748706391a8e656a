"""Inputs: a table as a run reads it, whatever is committed to it meanwhile.

    from outside the run       the version at its start
    written by the run         the version that it committed; where it committed none, that at its start
    outside a run              as it is
    not in this lake           from the base lake, where there is one; nothing is repaired there

Not here: when the view of a run begins (`runtime/view.py`), and what readers of marts see (`core/publications.py`).
"""

from lakehouse.core.names import TableRef
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage, View
from lakehouse.core.table.snapshot import Snapshot, open_existing, require_table


def open_input(storage: Storage, ref: TableRef) -> Snapshot | None:
    """The table that a step reads; None where there is none.

    Raises:
        BrokenTableError: it cannot be read at that version.
    """
    found, view = open_existing(storage.uri(ref)), storage.view
    if found is None and storage.base is not None:
        return _of_base(storage.base, ref, view)
    if found is None or view is None:
        return found
    version = _version(found, ref, view)
    # A commit that was torn by a power cut before it was reported is gone by now.
    return found if version >= found.version else open_existing(found.uri, version=version)


def _of_base(base: Storage, ref: TableRef, view: View | None) -> Snapshot | None:
    """A table of the base lake. At a version, since opening the newest one would set aside what a power cut has torn."""
    version = view.versions.get(ref) if view is not None else None
    version = newest_version(base, ref) if version is None else version
    return open_existing(base.uri(ref), version=version) if version >= 0 else None


def newest_version(storage: Storage, ref: TableRef) -> int:
    """The newest version that a table's log names; -1 where there is no table."""
    names = files.names_in(f"{storage.uri(ref)}/_delta_log")
    return max((int(name[:20]) for name in names if name.endswith(".json") and name[:20].isdigit()), default=-1)


def require_input(storage: Storage, ref: TableRef, *, remedy: str = "") -> Snapshot:
    """The same of a table that a step cannot do without.

    Args:
        remedy: what the error says to do; to materialise the asset, where it says nothing.

    Raises:
        BrokenTableError: there is no such table, or it cannot be read at that version.
    """
    return open_input(storage, ref) or require_table(storage.uri(ref), ref, remedy=remedy)


def is_viewed_older(storage: Storage, table: Snapshot) -> bool:
    """Whether a run reads an older version of a table than there is."""
    now = open_existing(table.uri) if storage.view is not None else None
    return now is not None and now.id == table.id and now.version > table.version


def _version(table: Snapshot, ref: TableRef, view: View) -> int:
    begin = view.versions.get(ref)
    last = table.last_commit() if begin is not None else None
    if begin is None or (last is not None and last.provenance.run_id in view.runs):
        return table.version
    own = [commit.version for commit in table.commits(since=begin) if commit.provenance.run_id in view.runs]
    return own[-1] if own else begin if begin >= 0 else table.version
