"""Moments: what a person writes for the version of a table: a number, a day, an instant, a publication or a run.

`7` is Delta's version; `2026-11-20`, `2026-11-20T14:30` and `p12` are as in `make sql AT=` (`ask/instant.py`); what else begins a
run's id is that run: what its steps have read, and what it has made.
"""

import re

from lakehouse.ask.instant import Versions, as_of
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.snapshot import Snapshot

_RUN = re.compile(r"(?!\d{4}-)[0-9a-f]{4,8}(-[0-9a-f-]{0,27})?")


def versions_of(storage: Storage, text: str) -> Versions:
    """The versions at a day, an instant, a publication or a run.

    Raises:
        DeclarationError: it is not one of them, or there is no such publication or run.
        BrokenTableError: (the answer) the table did not exist then, or is none that the run has read.
    """
    if not _RUN.fullmatch(text):
        return as_of(storage, text)
    import dagster as dg

    from lakehouse.commands.instance.runlog import find
    from lakehouse.commands.replay import run_of

    with dg.DagsterInstance.get() as instance:
        run = run_of(storage, find(instance, text).dagster_run)

    def version(ref: TableRef, newest: Snapshot) -> int:
        if run.versions.get(ref, -1) < 0:
            known = ", ".join(sorted(str(each) for each, number in run.versions.items() if number >= 0))
            raise BrokenTableError(f"The run {run.id} has not read {ref}.", remedy=f"It has read {known}.")
        return run.versions[ref]

    return version


def version_of(storage: Storage, ref: TableRef, newest: Snapshot, text: str) -> int:
    """The version of one table; of digits alone, up to six of them, the version itself."""
    return int(text) if re.fullmatch(r"\d{1,6}", text) else versions_of(storage, text)(ref, newest)
