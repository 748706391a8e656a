"""Rules of a table: conditions on every row, and on the table as it would be after a commit.

Here: one small frozen record a kind. Not here: what computes; it is registered by a rule's `kind` in `core/rules.py`.
docs/extending.md shows how a kind is added.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.core.patterns import check_pattern
from lakehouse.tables.spec.member import check_member

Action = Literal["warn", "quarantine", "fail"]
TableAction = Literal["warn", "fail"]
RowKind = Literal["not_null", "accepted_values", "range", "matches", "expression"]
TableKind = Literal["min_rows", "unique", "volume_drop", "references"]
#: Checks that silver tables have without declaring them (`silver/checks.py`).
OwnCheck = Literal["castable", "ledger", "complete", "conflicts", "order_ties"]


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """A condition that every row must meet. A row on which `condition` is null meets it; false violates it, and so does a
    value with which it cannot be evaluated (a cast, an overflow).

    A kind has a `name` (the check's, which is persisted: it never changes) and a `condition`, in the allowed subset of SQL
    (`core/expressions.py`). Where a file's statistics can prove the condition, a proof is registered for the kind.
    """

    kind: ClassVar[RowKind]
    action: Action = "quarantine"

    def __post_init__(self) -> None:
        _check(self, kinds=RowKind, actions=Action)

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def condition(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class ColumnRule(RowRule):
    """A condition on one column. The check is called after the kind and the column."""

    column: str

    def __post_init__(self) -> None:
        check_name(self.column, "column name")
        super().__post_init__()

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.column}"

    @property
    def quoted(self) -> str:
        """The column in SQL."""
        return f'"{self.column}"'


@dataclass(frozen=True)
class NotNull(ColumnRule):
    """The column has a value."""

    kind: ClassVar[RowKind] = "not_null"

    @property
    def condition(self) -> str:
        return f"{self.quoted} IS NOT NULL"


@dataclass(frozen=True)
class AcceptedValues(ColumnRule):
    """The column is null or one of `values`: texts, or whole numbers of a column of numbers."""

    kind: ClassVar[RowKind] = "accepted_values"
    values: tuple[str | int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.values:
            raise DeclarationError(f"No value of {self.column!r} is accepted.", remedy="List the accepted values.")
        if odd := [value for value in self.values if type(value) not in (str, int)]:
            raise DeclarationError(
                f"Rule {self.name!r}: {odd[0]!r:.40} is no text and no whole number.",
                remedy="Write a day, an instant or a decimal as text ('1.50').",
            )

    @property
    def condition(self) -> str:
        return f"{self.quoted} IN ({', '.join(_text(v) if isinstance(v, str) else str(v) for v in self.values)})"


@dataclass(frozen=True)
class InRange(ColumnRule):
    """The column is null or within the bounds, both included."""

    kind: ClassVar[RowKind] = "range"
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minimum is None and self.maximum is None:
            raise DeclarationError(f"The range rule on {self.column!r} has no bound.", remedy="Give minimum, maximum or both.")

    @property
    def condition(self) -> str:
        parts = [f"{self.quoted} >= {self.minimum!r}"] if self.minimum is not None else []
        parts += [f"{self.quoted} <= {self.maximum!r}"] if self.maximum is not None else []
        return " AND ".join(parts)


@dataclass(frozen=True)
class Matches(ColumnRule):
    """The column is null or the regular expression finds a match in it."""

    kind: ClassVar[RowKind] = "matches"
    pattern: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pattern(self.pattern, f"Rule {self.name!r}")

    @property
    def condition(self) -> str:
        return f"regexp_matches({self.quoted}, {_text(self.pattern)})"


@dataclass(frozen=True)
class Condition(RowRule):
    """A condition in SQL, under a name of its own."""

    kind: ClassVar[RowKind] = "expression"
    check: str
    sql: str

    @property
    def name(self) -> str:
        return self.check

    @property
    def condition(self) -> str:
        return self.sql


@dataclass(frozen=True, kw_only=True)
class TableRule:
    """A condition on the table as it would be after the commit. What evaluates it is registered for its kind.

    A kind has a `name` (the check's, which is persisted: it never changes), and `reads` the columns that it names. One that
    compares the table with what it was before is `of_commit`: over a table as it stands it has no meaning.
    """

    kind: ClassVar[TableKind]
    of_commit: ClassVar[bool] = False
    action: TableAction = "fail"

    def __post_init__(self) -> None:
        _check(self, kinds=TableKind, actions=TableAction)

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def reads(self) -> tuple[str, ...]:
        return ()

    @property
    def text(self) -> str:
        """What the description of its check shows: the kind and what was declared."""
        given = [value for name, value in vars(self).items() if name != "action"]
        return f"{self.kind} {', '.join(map(str, self.reads or given))}"


@dataclass(frozen=True)
class MinRows(TableRule):
    """The table has at least so many rows."""

    kind: ClassVar[TableKind] = "min_rows"
    rows: int

    @property
    def name(self) -> str:
        return f"min_rows_{self.rows}"


@dataclass(frozen=True)
class Unique(TableRule):
    """No two rows agree in all of these columns."""

    kind: ClassVar[TableKind] = "unique"
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.columns:
            raise DeclarationError("A rule unique() names no column.", remedy="Name the columns that are unique together.")
        super().__post_init__()

    @property
    def name(self) -> str:
        return "_".join((self.kind, *self.columns))

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True)
class VolumeDrop(TableRule):
    """The table does not lose more than this share of its rows in one commit."""

    kind: ClassVar[TableKind] = "volume_drop"
    of_commit: ClassVar[bool] = True
    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise DeclarationError(f"volume_drop({self.share}) is not a share.", remedy="Give a number above 0 and up to 1.")

    @property
    def name(self) -> str:
        return self.kind


@dataclass(frozen=True)
class References(TableRule):
    """Every row's value of a column is null or in a column of another silver table, as the run finds that table."""

    kind: ClassVar[TableKind] = "references"
    column: str
    table: str
    target: str

    def __post_init__(self) -> None:
        for name, what in ((self.column, "column name"), (self.table, "table name"), (self.target, "column name")):
            check_name(name, what)
        super().__post_init__()

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.column}"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def text(self) -> str:
        return f"{self.column} is in silver/{self.table}, column {self.target}"


# --- as they are declared ----------------------------------------------------------------------------------------------


def not_null(column: str, *, action: Action = "quarantine") -> RowRule:
    """The column has a value."""
    return NotNull(column, action=action)


def accepted_values(column: str, *values: str | int, action: Action = "quarantine") -> RowRule:
    """The column is null or one of `values`: texts, or whole numbers of a column of numbers."""
    return AcceptedValues(column, values, action=action)


def in_range(
    column: str, *, minimum: float | None = None, maximum: float | None = None, action: Action = "quarantine"
) -> RowRule:
    """The column is null or within the bounds, both included."""
    return InRange(column, minimum, maximum, action=action)


def matches(column: str, pattern: str, *, action: Action = "quarantine") -> RowRule:
    """The column is null or the regular expression finds a match in it (what it may have: see `core/patterns.py`)."""
    return Matches(column, pattern, action=action)


def expression(name: str, condition: str, *, action: Action = "quarantine") -> RowRule:
    """Any condition in the allowed subset of SQL (see `core/expressions.py`)."""
    return Condition(name, condition, action=action)


def min_rows(rows: int, *, action: TableAction = "fail") -> TableRule:
    """The table has at least so many rows."""
    return MinRows(rows, action=action)


def unique(*columns: str, action: TableAction = "fail") -> TableRule:
    """No two rows agree in all of these columns."""
    return Unique(columns, action=action)


def volume_drop(share: float, *, action: TableAction = "fail") -> TableRule:
    """The table does not lose more than this share of its rows in one commit."""
    return VolumeDrop(share, action=action)


def references(column: str, table: str, target: str, *, action: TableAction = "fail") -> TableRule:
    """Every row's value of `column` is null or one of the column `target` of the silver table `table`."""
    return References(column, table, target, action=action)


def _check(rule: RowRule | TableRule, *, kinds: Any, actions: Any) -> None:
    kind = getattr(rule, "kind", "")
    if kind not in get_args(kinds):
        raise DeclarationError(
            f"{type(rule).__name__} is of the kind {kind!r}, which is not one of {', '.join(get_args(kinds))}.",
            remedy="Add it in lakehouse/tables/spec/rules.py, and register what it does in lakehouse/core/rules.py.",
        )
    check_name(rule.name, "rule name")
    if rule.name in get_args(OwnCheck) or rule.name.startswith("castable_"):
        raise DeclarationError(f"The rule name {rule.name!r} is a check that every table has.", remedy="Choose another name.")
    check_member(rule.action, actions, f"Rule {rule.name!r}: action")


def _text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"
