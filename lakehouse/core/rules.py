"""Rules at work: conditions become columns of a frame, findings report what was counted.

Row rules check the records of a batch, table rules the table as it would be, both before the commit. Declared in
`tables/spec/rules.py`; shown as asset checks by the layers. What a kind does is a function that is registered here by the
kind's name: `@table_rule` evaluates the table, `@proof` spares the rows of a file whose statistics prove a row rule.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal, TypeVar

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import DeclarationError
from lakehouse.core.expressions import Expression
from lakehouse.core.names import TableRef
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.core.table.transaction import Transaction

#: So many keys are compared with all others faster than all are grouped.
_FEW_ROWS = 500_000

Severity = Literal["warn", "quarantine", "fail"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one rule: `failed` rows or records out of `validated`. `lines` are what the console says of it."""

    rule: str
    passed: bool
    action: Severity
    failed: int = 0
    validated: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether nothing may be committed."""
        return self.action == "fail" and not self.passed


def telling(findings: Iterable[Finding]) -> list[Finding]:
    """One finding a rule, of the findings of several batches, oldest first: the newest that did not pass, else the newest."""
    by_rule: dict[str, Finding] = {}
    for each in findings:
        if not each.passed or each.rule not in by_rule or by_rule[each.rule].passed:
            by_rule[each.rule] = each
    return list(by_rule.values())


@dataclass(frozen=True)
class Release:
    """A person's word that one batch may pass the rules with action `fail` that stop it.

    Args:
        reason: why; it is kept in the commit.
        accept: take in what offends a rule. Else it goes to quarantine, and a rule of the table as a whole stands.
    """

    reason: str
    accept: bool = False

    def __post_init__(self) -> None:
        if not 3 <= len(self.reason.strip()) <= 500 or not self.reason.isprintable():
            raise DeclarationError(
                "A release needs a reason that others will understand: 3 to 500 characters on one line.",
                remedy="Give it as REASON='...'.",
            )

    @property
    def action(self) -> Severity:
        """What a row rule with action `fail` does meanwhile."""
        return "warn" if self.accept else "quarantine"


def violations(
    session: Session, frame: "nw.LazyFrame[Any]", conditions: Mapping[str, Expression]
) -> "tuple[nw.LazyFrame[Any], dict[str, nw.Expr]]":
    """Add columns per condition, and return expressions that are true where a row violates one.

    A row on which a condition is null meets it; one on which it cannot be evaluated (an overflow) violates it.
    """
    values = {f"_meets_{name}": (condition, "boolean") for name, condition in conditions.items()}
    frame = session.compute(frame, values, failed="_broke")
    return frame, {n: ~nw.col(f"_meets_{n}").fill_null(True) | nw.col(f"_broke_meets_{n}") for n in conditions}


def count_violations(
    session: Session, frame: "nw.LazyFrame[Any]", conditions: Mapping[str, Expression]
) -> tuple[int, dict[str, int]]:
    """How many rows there are, and how many violate each condition."""
    frame, flags = violations(session, frame, conditions)
    counts = [flag.cast(nw.Int64).sum().alias(f"_n_{name}") for name, flag in flags.items()]
    row = session.rows(frame.select(nw.len().alias("_rows"), *counts))[0]
    return int(row[0]), {name: int(count or 0) for name, count in zip(flags, row[1:], strict=True)}


@dataclass(frozen=True)
class TableInput:
    """What a table rule looks at: the table as it would be, its columns' types and its key.

    Args:
        others: the silver tables that rules name, as the run found them; None where there is none yet.
        personal: columns of which no value may be shown.
    """

    session: Session
    transaction: Transaction
    types: Mapping[str, str]
    key: Sequence[str]
    others: Mapping[str, Snapshot | None] = field(default_factory=dict)
    personal: Collection[str] = ()

    @property
    def rows(self) -> int:
        return self.transaction.rows

    @property
    def rows_before(self) -> int:
        return self.transaction.table.rows


#: Functions of a declared rule (`tables/spec/rules.py`), the action that it has in this run, and the table.
Evaluator = Callable[[Any, Severity, TableInput], Finding]
#: Functions of a declared rule and a data file: whether the file's statistics say that none of its rows violates the rule.
Proof = Callable[[Any, DataFile], bool]

F = TypeVar("F")
EVALUATORS: dict[str, Evaluator] = {}
PROOFS: dict[str, Proof] = {}


def table_rule(kind: str) -> Callable[[Evaluator], Evaluator]:
    """Register the function that evaluates table rules of a kind."""
    return _registered(EVALUATORS, kind)


def proof(kind: str) -> Callable[[Proof], Proof]:
    """Register the function that proves row rules of a kind; rows of a kind without one are always counted."""
    return _registered(PROOFS, kind)


def _registered(functions: dict[str, F], kind: str) -> Callable[[F], F]:
    def register(function: F) -> F:
        functions[kind] = function
        return function

    return register


def evaluator(kind: str) -> Evaluator:
    """The registered function of a kind of table rule.

    Raises:
        DeclarationError: there is none.
    """
    if kind not in EVALUATORS:
        raise DeclarationError(
            f"Table rules of the kind {kind!r} are declared, and nothing evaluates them.",
            remedy="Register a function for it in lakehouse/core/rules.py.",
        )
    return EVALUATORS[kind]


def proven(rule: Any, file: DataFile) -> bool:
    """Whether a file's statistics say that none of its rows violates a row rule."""
    return rule.kind in PROOFS and PROOFS[rule.kind](rule, file)


@proof("not_null")
def _not_null(rule: Any, file: DataFile) -> bool:
    return file.nulls.get(rule.column) == 0


@proof("range")
def _range(rule: Any, file: DataFile) -> bool:
    low, high = file.lower.get(rule.column), file.upper.get(rule.column)
    if not isinstance(low, int | float | Decimal) or not isinstance(high, int | float | Decimal):
        return False
    return bool((rule.minimum is None or low >= rule.minimum) and (rule.maximum is None or high <= rule.maximum))


@table_rule("min_rows")
def _min_rows(rule: Any, action: Severity, table: TableInput) -> Finding:
    return Finding(rule.name, table.rows >= rule.rows, action, max(rule.rows - table.rows, 0), table.rows)


@table_rule("volume_drop")
def _volume_drop(rule: Any, action: Severity, table: TableInput) -> Finding:
    before, after = table.rows_before, table.rows
    lost = max(before - after, 0)
    detail = {"rows_before": before, "rows_after": after}
    return Finding(rule.name, lost <= rule.share * before, action, lost, before, detail)


@table_rule("unique")
def _unique(rule: Any, action: Severity, table: TableInput) -> Finding:
    repeated, total = _repeated(table, rule.columns)
    return Finding(rule.name, not repeated, action, repeated, total)


@table_rule("references")
def _references(rule: Any, action: Severity, table: TableInput) -> Finding:
    """The table's own rows stand for it where a table refers to itself."""
    session, transaction = table.session, table.transaction
    paths, other = transaction.table.paths(transaction.files), table.others.get(rule.table)
    frame = session.read(paths, {rule.column: table.types[rule.column]})
    values = frame.filter(~nw.col(rule.column).is_null()).group_by(rule.column).agg(nw.len().alias("_n"))
    if rule.table not in table.others:
        known = session.read(paths, {rule.target: table.types[rule.target]})
    elif other is None:
        known = session.table([], {rule.target: table.types[rule.column]})
    else:
        known = session.read(other.paths(), {rule.target: other.columns[rule.target]})
    missing = session.persist(values.join(known.unique(), left_on=rule.column, right_on=rule.target, how="anti"))
    [(distinct, rows)] = session.rows(missing.select(nw.len().alias("_v"), nw.col("_n").sum().alias("_r")))
    detail: dict[str, Any] = {"values": distinct} if distinct else {}
    if distinct and other is None and rule.table in table.others:
        detail["reason"] = f"silver/{rule.table} does not exist yet. {TableRef('silver', rule.table).how_to_make}"
    if distinct and rule.column not in table.personal:
        some = session.rows(missing.sort(rule.column).select(rule.column).head(3))
        detail["examples"] = [str(value) for (value,) in some]
    return Finding(rule.name, not distinct, action, int(rows or 0), transaction.rows, detail)


def _repeated(table: TableInput, columns: Sequence[str]) -> tuple[int, int]:
    """How many rows repeat another in `columns`, of how many that were looked at.

    The table's own key was unique before, and a merge replaces every file that holds a changed key, so for the key only the
    staged files are read; for other columns the whole table as it would be.
    """
    session, transaction = table.session, table.transaction
    own = set(columns) == set(table.key)
    files = transaction.add if own else transaction.files
    paths = dict(zip(transaction.table.paths(files), files, strict=True))
    if own and _seen_unique(session, paths, table.key, table.types):
        return 0, sum(file.rows for file in files)
    wanted = {name: table.types[name] for name in columns}
    total = repeated = 0
    for group in _overlapping(files, columns[0]):
        frame = session.read(transaction.table.paths(group), wanted)
        distinct = frame.group_by(*columns).agg(nw.len().alias("_n"))
        rows = sum(file.rows for file in group)
        total += rows
        repeated += rows - session.count(distinct)
    return repeated, total


def _seen_unique(session: Session, files: Mapping[str, DataFile], key: Sequence[str], types: Mapping[str, str]) -> bool:
    """Whether the order of the rows shows that no key occurs twice. They were written in the order of the key, so it
    mostly does, in half the time that grouping takes. A few new rows may lie in a file between all others: these are compared."""
    key_ranges = session.key_ranges([*files], key)
    if key_ranges is None:
        return False
    apart: set[str] = set()
    while overlap := next(
        ((one[2], two[2]) for one, two in pairwise(sorted(s for s in key_ranges if s[2] not in apart)) if two[0] <= one[1]), None
    ):
        if overlap[0] == overlap[1]:
            return False
        apart.add(min(overlap, key=lambda path: files[path].rows))
    if not apart:
        return True
    if sum(files[path].rows for path in apart) > _FEW_ROWS:
        return False
    wanted = {name: types[name] for name in key}
    few = session.persist(session.read(sorted(apart), wanted))
    rest = session.read([path for path in files if path not in apart], wanted)
    repeated = few.group_by(*key).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
    return not session.rows(repeated.head(1)) and not session.rows(rest.join(few, on=list(key), how="semi").head(1))


def _overlapping(files: Sequence[DataFile], column: str) -> list[list[DataFile]]:
    """Files in groups such that no value of `column` can be in two of them. Small groups fit the processor's cache."""
    bounded = [file for file in files if file.lower.get(column) is not None and not file.nulls.get(column)]
    if len(bounded) < len(files):
        return [list(files)]
    groups: list[list[DataFile]] = []
    high = None
    for file in sorted(bounded, key=lambda file: file.lower[column]):
        if groups and file.lower[column] <= high:
            groups[-1].append(file)
            high = max(high, file.upper[column])
        else:
            groups.append([file])
            high = file.upper[column]
    return groups
