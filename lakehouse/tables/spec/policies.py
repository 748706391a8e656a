"""Policies of a table: bounds of its health, how long records are kept, whom they are about."""

from dataclasses import dataclass
from datetime import timedelta

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name


@dataclass(frozen=True, kw_only=True)
class Health:
    """Bounds within which a Delta table is healthy; each is a part of its check in `ops/table_health`.

    Args:
        event_time: the timestamp column that says when what the newest row tells happened.
        max_event_age: how old its newest value may be; None measures it and reports nothing.
        max_commit_age: how long ago the last commit may be.
        max_small: the largest share of data files below a quarter of their target size, once there are more than 50 files.
        max_files: the most data files, as long as some of them are small.
        max_log: the most commits since the last checkpoint.
        max_quarantine: the largest share of the records that came in which are in quarantine.
    """

    event_time: str = ""
    max_event_age: timedelta | None = None
    max_commit_age: timedelta | None = None
    max_small: float = 0.9
    max_files: int = 2_000
    max_log: int = 500
    max_quarantine: float = 0.05

    def __post_init__(self) -> None:
        if self.event_time:
            check_name(self.event_time, "column name")
        if self.max_event_age is not None and not self.event_time:
            raise DeclarationError("A health record bounds the age of events, but names no column.", remedy="Give event_time.")
        if not (0 < self.max_small <= 1 and 0 <= self.max_quarantine <= 1 and self.max_log >= 1 and self.max_files >= 1):
            raise DeclarationError(
                f"max_small {self.max_small}, max_quarantine {self.max_quarantine}, max_files {self.max_files} or "
                f"max_log {self.max_log} is out of range.",
                remedy="Give shares from 0 to 1, and numbers of files and commits from 1.",
            )


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long records are kept, counted from their event date; what has no age is kept for ever.

    Args:
        event: the silver column (date or timestamp) that says when what a record tells happened. It is the same in all records
            of a key: what has expired is known by it alone.
        landing: files of which every record is older, and is proven to be in bronze.
        bronze: records that silver has read. What they made of silver is kept as the baseline that a rebuild starts from.
        silver: rows; a record that is delivered later than that is counted as deleted.
        quarantine: counted from when a record was put there; it may have no date that can be read.
    """

    event: str
    landing: timedelta | None = None
    bronze: timedelta | None = None
    silver: timedelta | None = None
    quarantine: timedelta | None = None

    def __post_init__(self) -> None:
        check_name(self.event, "column name")
        ages = {name: getattr(self, name) for name in ("landing", "bronze", "silver", "quarantine")}
        for name, age in ages.items():
            if age is not None and age < timedelta(days=1):
                raise DeclarationError(f"Retention: {name} is kept for {age}.", remedy="Give a day or more.")
        if self.landing is not None and self.bronze is not None and self.bronze < self.landing:
            raise DeclarationError(
                "Retention: landed files outlive the bronze records that they are proven by.",
                remedy="Keep bronze at least as long as landing.",
            )


@dataclass(frozen=True)
class Subject:
    """Which person (or firm) a record is about: `make forget` erases all that tables of one `kind` say of one of them.

    Args:
        kind: what the subject is called in all tables that know it, such as `cliente`.
        column: the delivered column that has its key.
    """

    kind: str
    column: str

    def __post_init__(self) -> None:
        check_name(self.kind, "subject")
        check_name(self.column, "column name")
