"""Writes: how a frame becomes a transaction on a table, for tables that are not merged from bronze.

append      add the rows
overwrite   replace all rows, and the columns when they differ
merge       replace the rows whose key occurs in the frame, add the others; only files that hold such a key are rewritten
partition   replace the rows of one partition; every row of the frame is proven to belong to it before anything is staged
"""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.names import check_name
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_table
from lakehouse.core.table.transaction import Transaction, discard

if TYPE_CHECKING:
    import narwhals as nw

#: With more changed keys than this all files are taken to hold one: the list of keys would not fit in bounded memory.
_COMPARED_KEYS = 500_000
Mode = Literal["append", "overwrite", "merge", "partition"]


@dataclass(frozen=True, kw_only=True)
class Write:
    """What an asset returns to have a frame written.

    Args:
        frame: the rows, as a frame of the session that writes (an input that was loaded) or a function that makes one
            with it; `columns` is the contract `{column: type}` that they are cast to.
        key: for `merge`, the columns that identify a row.
        partition: for `partition`, the columns and the one value of each that all rows have.
        max_loss: the largest share of the table's rows that may go.
    """

    frame: "nw.LazyFrame[Any] | Callable[[Session], nw.LazyFrame[Any]]"
    columns: Mapping[str, str]
    mode: Mode
    key: Sequence[str] = ()
    sort_by: Sequence[str] = ()
    partition: Mapping[str, str] = field(default_factory=dict)
    max_loss: float = 1.0
    file_mb: int = 64
    provenance: Provenance = Provenance()  # noqa: RUF009 # frozen


def stage_write(session: Session, uri: str, write: Write) -> Transaction:
    """Stage a write against the table as it is now.

    Raises:
        DeclarationError: a column has a name that is not on the allow-list.
        BrokenTableError: the table has other columns and the mode keeps them.
        RefusedWriteError: rows outside the declared partition, two rows of one key, or one without.
    """
    for name in write.columns:
        check_name(name.removeprefix("_"), "column name")  # the lake's own begin with one
    snapshot = open_table(uri, write.columns)
    same = snapshot.columns == dict(write.columns)
    if not same and write.mode != "overwrite":
        raise BrokenTableError(
            f"{uri} has other columns than the rows that should go there.",
            remedy="Write it with mode overwrite once, or fix the asset's columns.",
        )
    stage = {"append": _append, "overwrite": _overwrite, "merge": _merge, "partition": _partition}[write.mode]
    add, remove = stage(session, snapshot, write, write.frame(session) if callable(write.frame) else write.frame)
    return Transaction(
        table=snapshot,
        add=add,
        remove=remove,
        max_loss=write.max_loss,
        columns=None if same else write.columns,
        provenance=replace(write.provenance, operation=write.mode),
    )


Staged = tuple[list[DataFile], list[DataFile]]
#: The path of the file that a stored row is in.
PATH = "_path"


def _put(session: Session, snapshot: Snapshot, write: Write, frame: "nw.LazyFrame[Any]") -> list[DataFile]:
    sort_by = write.sort_by or write.key
    return session.write(frame, snapshot.uri, columns=write.columns, sort_by=sort_by, file_mb=write.file_mb)


def _append(session: Session, snapshot: Snapshot, write: Write, frame: "nw.LazyFrame[Any]") -> Staged:
    return _put(session, snapshot, write, frame), []


def _overwrite(session: Session, snapshot: Snapshot, write: Write, frame: "nw.LazyFrame[Any]") -> Staged:
    return _put(session, snapshot, write, frame), list(snapshot.files)


def _merge(session: Session, snapshot: Snapshot, write: Write, frame: "nw.LazyFrame[Any]") -> Staged:
    import narwhals as nw

    if not write.key:
        raise DeclarationError("A merge needs a key.", remedy="Give Write(key=...).")
    rows = session.persist(frame.select(*write.columns))
    key = list(write.key)
    if session.rows(rows.filter(nw.any_horizontal(*[nw.col(name).is_null() for name in key], ignore_nulls=False)).head(1)):
        raise RefusedWriteError(
            f"A row of the merge into {snapshot.uri} has no {', '.join(key)}.",
            remedy="Filter the rows without a key before returning the frame: they would be added again by every run.",
        )
    repeated = rows.group_by(*key).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
    if session.rows(repeated.head(1)):
        raise RefusedWriteError(
            f"Two rows of the merge into {snapshot.uri} have the same {', '.join(key)}.",
            remedy="Keep the newest row of every key before returning the frame.",
        )
    changed = rows.select(*key)
    chosen = files_for_keys(session, snapshot, changed, key[0])
    stored = session.read(snapshot.paths(chosen), {name: write.columns[name] for name in key}, path_column=PATH)
    located = session.persist(stored.join(changed, on=key, how="semi"))
    return replace_keys(
        session, snapshot, changed=changed, rows=rows, located=located, key=key, columns=write.columns, file_mb=write.file_mb
    )


def _partition(session: Session, snapshot: Snapshot, write: Write, frame: "nw.LazyFrame[Any]") -> Staged:
    import narwhals as nw

    if not write.partition or any(write.columns.get(name) != "string" for name in write.partition):
        raise DeclarationError(
            f"The partition {dict(write.partition)} is not made of text columns of the table.",
            remedy="Give Write(partition={column: value}) with columns of type string.",
        )
    belongs = nw.all_horizontal(*[nw.col(n) == v for n, v in write.partition.items()], ignore_nulls=False)
    belongs = belongs.fill_null(False)
    rows = session.persist(frame.select(*write.columns))
    foreign = session.count(rows.filter(~belongs))
    if foreign:
        raise RefusedWriteError(
            f"{foreign} rows do not belong to the partition {dict(write.partition)} of {snapshot.uri}.",
            remedy="Filter them, or write them to the partition that they belong to.",
        )

    def may_contain(file: DataFile) -> bool:
        return all(
            file.lower.get(name) is None or file.lower[name] <= value <= file.upper[name]
            for name, value in write.partition.items()
        )

    touched = [file for file in snapshot.files if may_contain(file)]
    rest = session.read(snapshot.paths(touched), write.columns).filter(~belongs)
    return [*_put(session, snapshot, write, rest), *_put(session, snapshot, write, rows)], touched


def replace_keys(
    session: Session,
    snapshot: Snapshot,
    *,
    changed: "nw.LazyFrame[Any]",
    rows: "nw.LazyFrame[Any]",
    located: "nw.LazyFrame[Any]",
    key: Sequence[str],
    columns: Mapping[str, str],
    file_mb: int,
    partition: str = "",
    sort_by: Sequence[str] = (),
) -> Staged:
    """Stage a table without the rows whose key is in `changed`, and with `rows`.

    Only files that hold a changed key are written again, in one stream in the order of keys. A row takes the place of the
    one it replaces, so nothing is sorted; only the small files that are written again are, together, and take the new keys
    with them.

    Args:
        changed: the keys, persisted.
        rows: the new rows, persisted, each with a key of `changed`.
        located: key and path (`PATH`) of stored rows, persisted; at least of all whose key is in `changed`.
        sort_by: the order of rows, where a key has several: none of them takes the place of a single one then.
    """
    import narwhals as nw

    key, sort_by = list(key), list(sort_by or key)
    located = located.join(changed, on=key, how="semi")
    hit = {row[0] for row in session.rows(located.select(PATH).unique())}
    remove = [file for file in snapshot.files if snapshot.paths([file])[0] in hit]
    small = [file for file in remove if file.size * 2 <= file_mb * 1_000_000]
    large = [file for file in remove if file not in small]
    if all(file.lower.get(key[0]) is not None for file in large):
        large.sort(key=lambda file: file.lower[key[0]])
    inserts, replacing = (rows.join(located, on=key, how="anti"), rows) if sort_by == key else (rows, rows.head(0))
    outcome = changed.join(replacing.with_columns(nw.lit(True).alias("_live")), on=key, how="left")
    outcome = session.persist(outcome.select(*[nw.col(name).alias(f"_new_{name}") for name in columns], "_live", *key))
    add: list[DataFile] = []
    try:
        if large:
            frame = _with_outcomes(session.read(snapshot.paths(large), columns), outcome, key=key, columns=columns)
            order = () if session.preserves_order else sort_by
            add += session.write(frame, snapshot.uri, columns=columns, sort_by=order, file_mb=file_mb, partition=partition)
        if small or session.rows(inserts.head(1)):
            parts = [inserts.select(*columns)]
            if small:
                frame = _with_outcomes(session.read(snapshot.paths(small), columns), outcome, key=key, columns=columns)
                parts.append(frame)
            frame = nw.concat(parts, how="vertical")
            add += session.write(frame, snapshot.uri, columns=columns, sort_by=sort_by, file_mb=file_mb, partition=partition)
    except BaseException:
        discard(snapshot.uri, add)
        raise
    return add, remove


def _with_outcomes(
    stored: "nw.LazyFrame[Any]", outcome: "nw.LazyFrame[Any]", *, key: list[str], columns: Mapping[str, str]
) -> "nw.LazyFrame[Any]":
    """Stored rows in their order, those whose key is in `outcome` replaced by its `_new_` columns, or gone where not `_live`."""
    import narwhals as nw

    keys = [f"_key_{name}" for name in key]
    outcome = outcome.with_columns(nw.lit(True).alias("_changed")).rename(dict(zip(key, keys, strict=True)))
    joined = stored.join(outcome, left_on=key, right_on=keys, how="left")
    joined = joined.filter(nw.col("_changed").is_null() | nw.col("_live").fill_null(False))
    return joined.select(
        *[
            nw.when(nw.col("_changed").is_null()).then(nw.col(name)).otherwise(nw.col(f"_new_{name}")).alias(name)
            for name in columns
        ]
    )


def files_for_keys(session: Session, snapshot: Snapshot, keys: "nw.LazyFrame[Any]", column: str) -> list[DataFile]:
    """Files whose bounds of `column` hold one of its values in `keys`."""

    distinct = keys.select(column).unique()
    if session.count(distinct) > _COMPARED_KEYS:
        return list(snapshot.files)
    values = [row[0] for row in session.rows(distinct.sort(column))]

    def may_contain(file: DataFile) -> bool:
        low, high = file.lower.get(column), file.upper.get(column)
        if low is None or high is None:
            return True
        position = bisect.bisect_left(values, low)
        return position < len(values) and bool(values[position] <= high)

    return [file for file in snapshot.files if may_contain(file)] if values else []
