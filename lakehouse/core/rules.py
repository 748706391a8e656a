"""Rules at work: conditions become columns of a frame, findings say what was counted.

Row rules judge the records of a batch, table rules the table as it would be, both before the commit. Declared in
`tables/spec.py`; shown as asset checks by the layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import narwhals as nw

from lakehouse.core.delta import Candidate, DataFile
from lakehouse.core.engines import Session
from lakehouse.core.errors import DeclarationError
from lakehouse.core.expressions import Expression

#: So many keys are compared with all others faster than all are grouped.
_FEW_ROWS = 500_000

Severity = Literal["warn", "quarantine", "fail"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one rule: `failed` rows or records out of `judged`."""

    rule: str
    passed: bool
    action: Severity
    failed: int = 0
    judged: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stops(self) -> bool:
        """Whether nothing may be committed."""
        return self.action == "fail" and not self.passed


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


def min_rows(candidate: Candidate, rule: str, limit: int, action: Severity) -> Finding:
    """The table has at least `limit` rows."""
    return Finding(rule, candidate.rows >= limit, action, max(limit - candidate.rows, 0), candidate.rows)


def volume_drop(candidate: Candidate, rule: str, share: float, action: Severity) -> Finding:
    """The table does not lose more than `share` of its rows."""
    before, after = candidate.snapshot.rows, candidate.rows
    lost = max(before - after, 0)
    return Finding(rule, lost <= share * before, action, lost, before, {"rows_before": before, "rows_after": after})


def unique(
    session: Session,
    candidate: Candidate,
    rule: str,
    *,
    columns: Sequence[str],
    types: Mapping[str, str],
    key: Sequence[str],
    action: Severity,
) -> Finding:
    """No two rows agree in `columns`.

    The table's own key was unique before, and a merge replaces every file that holds a changed key, so for the key the
    staged files are judged; other columns are judged over the whole table as it would be.
    """
    own = set(columns) == set(key)
    files = candidate.add if own else candidate.files
    if own and _seen_unique(session, dict(zip(candidate.snapshot.paths(files), files, strict=True)), key, types):
        return Finding(rule, True, action, 0, sum(file.rows for file in files))
    wanted = {name: types[name] for name in columns}
    total = repeated = 0
    for group in _overlapping(files, columns[0]):
        frame = session.read(candidate.snapshot.paths(group), wanted)
        distinct = frame.group_by(*columns).agg(nw.len().alias("_n"))
        rows = sum(file.rows for file in group)
        total += rows
        repeated += rows - session.rows(distinct.select(nw.len().alias("n")))[0][0]
    return Finding(rule, not repeated, action, repeated, total)


def _seen_unique(session: Session, files: Mapping[str, DataFile], key: Sequence[str], types: Mapping[str, str]) -> bool:
    """Whether the order of the rows shows that no key occurs twice. They were written in the order of the key, so it
    mostly does, in half the time that grouping takes. A few new rows may lie in a file between all others: these are compared."""
    stretches = session.stretches([*files], key)
    if stretches is None:
        return False
    apart: set[str] = set()
    while overlap := next(
        ((one[2], two[2]) for one, two in pairwise(sorted(s for s in stretches if s[2] not in apart)) if two[0] <= one[1]), None
    ):
        if overlap[0] == overlap[1]:
            return False
        apart.add(min(overlap, key=lambda path: files[path].rows))
    if not apart:
        return True
    if sum(files[path].rows for path in apart) > _FEW_ROWS:
        return False
    wanted = {name: types[name] for name in key}
    few = session.keep(session.read(sorted(apart), wanted))
    rest = session.read([path for path in files if path not in apart], wanted)
    repeated = few.group_by(*key).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
    return not session.rows(repeated.head(1)) and not session.rows(rest.join(few, on=list(key), how="semi").head(1))


def _overlapping(files: Sequence[DataFile], column: str) -> list[list[DataFile]]:
    """Files in groups such that no value of `column` can be in two of them. Small groups fit the processor's cache."""
    bounded = [file for file in files if column in file.lower and not file.nulls.get(column)]
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
