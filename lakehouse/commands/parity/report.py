"""Report: what was compared, as lines for a person and as a document for programs and the page (`reports/paridade_page.py`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from lakehouse.commands.parity.lake import Pair
from lakehouse.commands.parity.rows import Comparison, Difference

Outcome = Literal["equal", "differs", "refused"]


@dataclass(frozen=True)
class Entry:
    """One table of the report: its comparison, or why there is none.

    Args:
        table: ours, `silver/vendas`.
        path: the other one, as a person named or found it.
        by: how the two belong together.
    """

    table: str
    path: str
    by: str
    comparison: Comparison | None = None
    refusal: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.comparison is None:
            return "refused"
        return "differs" if self.comparison.differences else "equal"


@dataclass(frozen=True)
class Report:
    """Two lakes beside each other; `only_here` are tables of ours, `only_there` those of the other lake without one."""

    here: str
    there: str
    entries: Sequence[Entry]
    only_here: Sequence[str] = ()
    only_there: Sequence[Pair] = ()

    @property
    def counts(self) -> Mapping[Outcome, int]:
        found = [entry.outcome for entry in self.entries]
        return {outcome: found.count(outcome) for outcome in get_args(Outcome)}

    @property
    def code(self) -> int:
        """1: something differs, or is only there; 2: nothing does, and a table cannot be compared; 0: all is equal."""
        if self.counts["differs"] or self.only_there:
            return 1
        return 2 if self.counts["refused"] else 0


def lines(found: Comparison) -> Iterator[str]:
    """A comparison as text."""
    yield f"here:  {found.here.uri}, version {found.here.version}, {found.here.rows:,} rows"
    yield f"there: {found.there.uri}, version {found.there.version}, {found.there.rows:,} rows"
    for where, only in (("here", found.only_here), ("there", found.only_there)):
        if only:
            yield f"only {where}: column {', '.join(only)}"
    for difference in found.differences:
        yield f"{difference.rows:,} {difference.what}"
        yield from (f"    {_example(difference, number)}" for number in range(len(difference.examples)))
    nothing = "" if found.differences else ", and nothing differs"
    yield f"{found.both:,} rows are in both; {found.columns} columns were compared{nothing}"


def summary(report: Report) -> Iterator[str]:
    """What is only in one lake, and the counts."""
    for pair in report.only_there:
        yield f"only there: {pair.path}" + (f" ({pair.why})" if pair.why else "")
    for table in report.only_here:
        yield f"only here: {table}"
    counts = report.counts
    yield (
        f"{len(report.entries)} tables were compared: {counts['equal']} equal, {counts['differs']} differ, "
        f"{counts['refused']} cannot be compared; {len(report.only_there)} are only there, {len(report.only_here)} only here"
    )


def document(report: Report, *, at: datetime) -> dict[str, Any]:
    """The report for programs; instants are UTC.

    Args:
        at: when it was made.
    """
    return {
        "at": at.astimezone(UTC).isoformat(),
        "here": report.here,
        "there": report.there,
        "counts": dict(report.counts),
        "tables": [_table(entry) for entry in report.entries],
        "only_here": [*report.only_here],
        "only_there": [
            {"path": pair.path, "uri": pair.uri, "namesake": pair.namesake, "instead": pair.instead} for pair in report.only_there
        ],
    }


def _table(entry: Entry) -> dict[str, Any]:
    own = {"table": entry.table, "path": entry.path, "by": entry.by, "outcome": entry.outcome}
    return {**own, "refusal": entry.refusal, "comparison": None if entry.comparison is None else asdict(entry.comparison)}


def _example(difference: Difference, number: int) -> str:
    example = difference.examples[number]
    return f"{example.row}: {example.here} here, {example.there} there" if difference.column else example.row
