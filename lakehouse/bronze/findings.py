"""Findings of a bronze batch: what could not be read, how the fields differ from the declared ones, and whether it adds up.

Here: the checks that every bronze table has, and what the console gets of them. Not here: what reads the files. Pure: no dagster.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lakehouse.bronze.changes import Changed
from lakehouse.core.ledger import withdrawn_app
from lakehouse.core.names import column_name
from lakehouse.core.rules import Finding
from lakehouse.core.store.storage import LandedFile
from lakehouse.core.table.provenance import Entry
from lakehouse.core.table.snapshot import Snapshot
from lakehouse.landing.readers.files.forms import Reject
from lakehouse.landing.readers.files.stage import Staged
from lakehouse.landing.readers.here import Here
from lakehouse.tables.spec import DeltaSource, TableSpec

#: Rules that every bronze table has; each is an asset check.
READABLE_FILES, READABLE_RECORDS, DRIFT, BALANCE = "readable_files", "readable_records", "schema_drift", "ledger"
CHANGES, COLLISIONS = "changed_by_airbyte", "field_collisions"
_SHOWN = 3


@dataclass(frozen=True)
class Withdrawals:
    """How many rows have left a table of another writer with a batch, and what the console says of those that stay here."""

    rows: int = 0
    lines: tuple[str, ...] = ()


def findings(
    spec: TableSpec,
    staged: Staged,
    entry: Entry,
    *,
    added: dict[str, str],
    types: dict[str, str],
    changed: Sequence[Changed],
    grown: Sequence[str],
    withdrawn: Withdrawals,
) -> list[Finding]:
    declared = {column.bronze_name for column in spec.of_record} - set(spec.values)
    bad_files = [r for r in staged.rejects if r.record is None and r.rule != "schema_drift"]
    bad_records = entry.quarantined
    refused = [r for r in staged.rejects if r.rule == "schema_drift"]
    beyond = sorted(set(added) - declared)
    missing = sorted(
        field for field in spec.fields.values() if not _is_delivered(field, staged.seen) and field not in spec.values
    )
    missing = missing if staged.rows else []
    first = entry.batch_from == 0
    retyped = {n: _change(types[n], kind) for n, kind in staged.types.items() if types.get(n, kind) != kind}
    drift = {
        "new_columns": beyond,
        "missing_columns": missing,
        "perhaps_renamed": [*missing, *beyond] if len(missing) == len(beyond) == 1 and not first else [],
        "types": retyped,
        "refused_files": [r.path for r in refused],
    }
    return [
        Finding(
            READABLE_FILES,
            not bad_files,
            "quarantine",
            len(bad_files),
            entry.batch_to,
            {"files": [f"{r.path}: {r.reason}" for r in bad_files[:20]], "changed_in_place": [*grown[:20]]},
            _file_lines(spec, bad_files),
        ),
        Finding(READABLE_RECORDS, not bad_records, "quarantine", bad_records, entry.records_in),
        Finding(
            DRIFT,
            not (refused or missing or retyped or (beyond and not first)),
            "warn",
            len(refused) + len(missing) + len(retyped) + len(beyond),
            len(staged.fields),
            drift,
        ),
        _collisions(spec, staged),
        _by_airbyte(spec, staged, entry, changed),
        Finding(
            BALANCE,
            entry.balanced,
            "fail",
            0 if entry.balanced else 1,
            entry.records_in,
            dict(vars(entry)) | ({"withdrawn": withdrawn.rows} if withdrawn.rows else {}),
            withdrawn.lines,
        ),
    ]


def withdrawals(spec: TableSpec, table: Snapshot, here: Here, taken: Sequence[LandedFile]) -> Withdrawals:
    """What has left a table of another writer; with a line the first time that rows stay without being declared to."""
    rows = sum(here.withdrawn.get(file.path, 0) for file in taken)
    origin = spec.origin
    known = table.watermark(withdrawn_app(spec.bronze))
    if not rows or known or not isinstance(origin, DeltaSource) or origin.withdrawals is not None:
        return Withdrawals(rows)
    line = (
        f"{spec.bronze}: {rows:,} rows have left the Delta table {origin.uri}, deleted or replaced by its writer, and stay here. "
        "To have them leave silver too, declare DeltaSource(..., withdrawals='delete'); withdrawals='keep' says that they stay."
    )
    return Withdrawals(rows, (line,))


def _file_lines(spec: TableSpec, refused: Sequence[Reject]) -> tuple[str, ...]:
    """A line for each of the first refused files, with its reason, which ends with what helps."""
    more = len(refused) - _SHOWN
    lines = [f"{spec.bronze} {reject.path} is refused whole: {reject.reason}" for reject in refused[:_SHOWN]]
    return (*lines, *([f"{spec.bronze} and {more:,} more files are refused: the check readable_files."] if more > 0 else []))


def _collisions(spec: TableSpec, staged: Staged) -> Finding:
    """Fields that share a column's name, and are not each declared; and those that a record has twice."""
    rivals = {column: names for column, names in staged.names.items() if len(names) > 1 and staged.seen & {*names}}
    own = {column.field for column in spec.delivered}
    shared = {column: names for column, names in rivals.items() if not own >= {*names}}
    apart = {column: names for column, names in rivals.items() if column not in shared}
    return Finding(
        COLLISIONS,
        not (shared or staged.repeated),
        "warn",
        len(shared) + len(staged.repeated),
        len(staged.seen),
        {"columns": shared, "each_declared": apart, "repeated": staged.repeated},
        tuple(_collision_lines(spec, shared, staged.repeated)),
    )


def _collision_lines(spec: TableSpec, shared: Mapping[str, Sequence[str]], repeated: Mapping[str, int]) -> Iterator[str]:
    for column, names in shared.items():
        listed, example = ", ".join(map(repr, names)), f"source={names[-1]!r}"
        yield (
            f"{spec.bronze} {column}: the fields {listed} share this name; the first is in the column, the others in _extra. "
            f"Declare each that you need by its own: Column(…, {example})."
        )
    for name, records in repeated.items():
        yield f"{spec.bronze} {name}: {records:,} records have this field twice; one of the values counts. Correct the source."


def _is_delivered(field: str, seen: Collection[str]) -> bool:
    """Whether records have a declared field; one that is declared by a column's own name may be written otherwise."""
    return field in seen or any(column_name(name) == field for name in seen)


def _by_airbyte(spec: TableSpec, staged: Staged, entry: Entry, changed: Sequence[Changed]) -> Finding:
    fields: dict[str, int] = {}
    for one in changed:
        fields[one.field] = fields.get(one.field, 0) + one.count
    examples = [f"{one.field} {one.change} {one.reason}: {record}" for one in changed for record in one.records][:20]
    detail = {"fields": fields, "examples": examples} if changed else {}
    lines = tuple(one.line(spec.bronze) for one in changed)
    return Finding(CHANGES, not staged.changed, "warn", staged.changed, entry.records_in, detail, lines)


def _change(old: str, new: str) -> str:
    """How a Parquet field's type changed. Bronze holds text, so nothing is cut off either way."""
    sizes = ["int8", "int16", "int32", "int64", "float", "double", "string"]
    known = old in sizes and new in sizes
    word = ("widened" if sizes.index(new) > sizes.index(old) else "narrowed") if known else "changed"
    return f"{word} from {old} to {new}"
