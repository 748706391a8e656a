"""Keys: which columns identify a row, and which tells the newest version of one; counted over all records."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from lakehouse.core.engines.duckdb import DuckDBSession, quoted
from lakehouse.profile.columns import Measured, typed
from lakehouse.profile.trial import Trial

#: Words of a name by how much they promise a key; the least first.
_NAMED = (
    r"id|_id|uuid|guid|pk",
    r"(id|cod|codigo|chave|uuid)_.+|.+_(id|uuid|key)",
    r"(cod|codigo|code|chave|key|numero|num|nr|protocolo|sku|matricula|placa|isbn|ean)(_.*)?|.+_(numero|num|nr|codigo|cod)",
    r"cpf|cnpj|email|e_mail|documento",
)
_PART = re.compile(
    r"(^|_)(id|cod|codigo|num|numero|nr|item|seq|sequencia|linha|line|data|dt|date|dia|mes|ano|loja|filial|serie)(_|$)"
)
_CHANGED = re.compile(
    r"(^|_)(updated|modified|changed|atualiza\w*|altera\w*|modifica\w*|ultima|lsn|version|versao|cursor)(_|$)", re.IGNORECASE
)
_WEAK = len(_NAMED)
#: Without a name that promises one a column is a key of so many rows at least: of few, every column is unique.
_FROM_ROWS = 100
_TRIED = 6


@dataclass(frozen=True)
class Key:
    """The columns of the key, none for a table that is appended to; of the order; and why."""

    columns: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    evidence: tuple[str, ...] = field(default=())
    order_evidence: str = ""


def key_of(
    session: DuckDBSession, trial: Trial, columns: Sequence[Measured], *, known: Sequence[str] = (), rows: bool = False
) -> Key:
    """The key of a trial's records.

    Args:
        known: the columns of the source's own primary key.
        rows: each record is a row, and none is a version of another: no value of the key repeats.
    """
    order = _order(columns, trial.rows)
    found = _Counted(session, trial, columns)
    if known and all(any(one.name == name and one.filled == trial.rows for one in columns) for name in known):
        return _made(tuple(known), order, ("the primary key of its database table",))
    named = sorted(
        (one for one in columns if one.filled == trial.rows and not one.refused and _may(one)),
        key=lambda one: (_rank(one.name, trial.name), columns.index(one)),
    )
    candidates = [one for one in named if one.distinct >= 0.85 * trial.rows][:_TRIED]
    for one in candidates:
        rank = _rank(one.name, trial.name)
        if found.distinct(one.name) == trial.rows and (rank < _WEAK or trial.rows >= _FROM_ROWS):
            why = f"{trial.rows:,} of {trial.rows:,} values differ, none is null"
            return _made((one.name,), order, (why,))
    for one in (one for one in named[:_TRIED] if _rank(one.name, trial.name) < 3 and not rows):
        if (again := _repeated(found, one, order, trial)) is not None:
            return _made((one.name,), order, (again,))
    for two in _pairs(named):
        if found.distinct(*two) == trial.rows and trial.rows > 1:
            return _made(two, order, (f"{trial.rows:,} of {trial.rows:,} pairs differ, none has a null",))
    return Key(
        evidence=("no column, and no two with the name of a number or a date, tell all rows apart: every record is a row",)
    )


class _Counted:
    """Exact counts over all records, each made once."""

    def __init__(self, session: DuckDBSession, trial: Trial, columns: Sequence[Measured]) -> None:
        self.columns = {one.name: one.column for one in columns}
        self.session, self.trial = session, trial
        self.counts: dict[tuple[str, ...], int] = {}

    def distinct(self, *names: str) -> int:
        if names not in self.counts:
            relation = typed(self.session, self.trial, [self.columns[name] for name in names]).to_native()
            relation = relation.select(", ".join(map(quoted, names)))
            self.counts[names] = relation.distinct().aggregate("count(*)").fetchall()[0][0]
        return self.counts[names]

    def different(self) -> int:
        """How many records differ in anything, their instant of extraction included where Airbyte has one."""
        return self.distinct(*self.columns)


def _repeated(found: _Counted, one: Measured, order: str, trial: Trial) -> str | None:
    """Why a column is the key though values repeat: in records that are the same, or that are versions of a row."""
    count = found.distinct(one.name)
    if count < 0.5 * trial.rows or count < 2:
        return None
    again = trial.rows - count
    if found.different() == count:
        return f"{count:,} values in {trial.rows:,} records; the other {again:,} records are the same as one of these"
    if order and order != one.name and found.distinct(one.name, order) == found.different():
        return f"{count:,} values in {trial.rows:,} records; the other {again:,} are of another {order}, or the same"
    return None


def _pairs(named: Sequence[Measured]) -> list[tuple[str, str]]:
    parts = [one.name for one in named if _PART.search(one.name)][:_TRIED]
    return list(combinations(parts, 2))[:10]


def _may(one: Measured) -> bool:
    """Whether a column of its type can be a key: numbers that are measured cannot."""
    return one.column.type in ("string", "bigint", "int", "date", "timestamp") and one.guess.about.kind not in (
        "text",
        "name",
        "address",
    )


def _rank(name: str, table: str) -> int:
    if name in (f"{table}_id", f"id_{table}", f"{table.rstrip('s')}_id", f"id_{table.rstrip('s')}"):
        return 0
    return next((rank for rank, pattern in enumerate(_NAMED) if re.fullmatch(pattern, name)), _WEAK)


def is_named(name: str) -> bool:
    """Whether a column is called like what identifies something."""
    return _rank(name, "") < _WEAK


def _order(columns: Sequence[Measured], rows: int) -> str:
    """The column that tells the newest version, empty where none says so by its name."""
    for one in columns:
        dated = one.column.type in ("timestamp", "date") or (one.column.type == "bigint" and re.search("lsn|vers", one.name))
        if dated and one.filled == rows and not one.refused and _CHANGED.search(one.name):
            return one.name
    return ""


def _made(key: tuple[str, ...], order: str, evidence: tuple[str, ...]) -> Key:
    if order:
        return Key(key, (order,), evidence, f"the newest version of a row has the greatest {order}")
    return Key(
        key, key, evidence, "no column is called like the instant of a change: of two versions the one that lands last counts"
    )
