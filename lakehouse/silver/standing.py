"""The rules over a table as it stands: what a run of its checks alone reports. Nothing is written. Pure: no dagster.

    row rules           the stored rows that violate one
    table rules         evaluated over all files, as before a commit that replaces every file by itself
    a history's own     its versions, and those of silver, as they are

Not here: what has a meaning for a batch alone (types, ties, conflicts, the accounts, a drop of the volume). Of these the newest
commit reports. A rule over a column that the table does not have yet has validated nothing.
"""

from collections.abc import Iterator, Sequence

import narwhals as nw

from lakehouse.core import rules
from lakehouse.core.engines.session import Session
from lakehouse.core.rules import Finding
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import open_input
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.core.table.transaction import Transaction
from lakehouse.silver.checks import CURRENT, INTERVALS
from lakehouse.silver.versions import overlapping
from lakehouse.tables.spec import TableSpec
from lakehouse.tables.spec.history import IS_CURRENT


def of_silver(session: Session, storage: Storage, spec: TableSpec, table: Snapshot | None) -> list[Finding]:
    """The findings of the rules that a spec declares, over all rows of its silver table.

    Raises:
        BrokenTableError: a data file is missing or damaged.
    """
    if table is None:
        return []
    table.check()
    return [*_row_rules(session, spec, table), *_table_rules(session, storage, spec, table)]


def _row_rules(session: Session, spec: TableSpec, table: Snapshot) -> Iterator[Finding]:
    parsed = {rule.name: spec.parsed(rule.condition) for rule in spec.row_rules}
    conditions = {name: condition for name, condition in parsed.items() if condition.columns <= table.columns.keys()}
    read = sorted(set().union(*(condition.columns for condition in conditions.values())))
    counts: dict[str, int] = dict.fromkeys(conditions, 0)
    if conditions and table.files:
        frame = session.read(table.paths(), {name: table.columns[name] for name in read})
        counts = rules.count_violations(session, frame, conditions)[1]
    for rule in spec.row_rules:
        if rule.name in counts:
            yield Finding(rule.name, not counts[rule.name], rule.action, counts[rule.name], table.rows)


def _table_rules(session: Session, storage: Storage, spec: TableSpec, table: Snapshot) -> Iterator[Finding]:
    others = {ref.table: open_input(storage, ref) for ref in spec.referred}
    personal = {column.name for column in spec.columns if column.personal}
    itself = Transaction(table=table, add=table.files, remove=table.files)
    given = rules.TableInput(session, itself, table.columns, spec.key, others=others, personal=personal)
    for rule in spec.table_rules:
        if rule.of_commit or not {*rule.reads} <= table.columns.keys():
            continue
        yield rules.evaluator(rule.kind)(rule, rule.action, given)


def of_history(session: Session, spec: TableSpec, history: Snapshot | None, silver: Snapshot | None) -> list[Finding]:
    """The findings of a history's own checks over all its versions.

    Raises:
        BrokenTableError: a data file is missing or damaged.
    """
    if history is None:
        return []
    history.check()
    found = [intervals(session, spec, history)]
    return found if silver is None else [*found, current(session, history, history.files, silver=silver)]


def intervals(session: Session, spec: TableSpec, history: Snapshot) -> Finding:
    """Whether the versions of a key overlap, over all rows."""
    wrong = overlapping(session, spec.key, session.read(history.paths(), history.columns)) if history.files else 0
    return Finding(INTERVALS, not wrong, "fail", wrong, history.rows)


def current(session: Session, history: Snapshot, files: Sequence[DataFile], *, silver: Snapshot) -> Finding:
    """Whether as many versions are current as silver has rows, in these files of a history."""
    count = 0
    if files:
        count = session.count(session.read(history.paths(files), {IS_CURRENT: "boolean"}).filter(nw.col(IS_CURRENT)))
    other = abs(count - silver.rows)
    return Finding(CURRENT, not other, "warn", other, silver.rows, {"current": count, "silver": silver.rows})
