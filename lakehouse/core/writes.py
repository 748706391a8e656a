"""Writes: how a frame becomes a candidate of a table, for tables that are not merged from bronze.

append      add the rows
overwrite   replace all rows, and the columns when they differ
merge       replace the rows whose key occurs in the frame, add the others; only files that hold such a key are rewritten
partition   replace the rows of one partition; every row of the frame is proven to belong to it before anything is staged
"""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.core.delta import Candidate, DataFile, Snapshot, discard, open_table
from lakehouse.core.engines import Session
from lakehouse.core.errors import BrokenTableError, DeclarationError, RefusedWriteError
from lakehouse.core.names import check_name

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
    info: Mapping[str, str] = field(default_factory=dict)


def stage_write(session: Session, uri: str, write: Write) -> Candidate:
    """Stage a write against the table as it is now.

    Raises:
        DeclarationError: a column has a name that is not on the allow-list.
        BrokenTableError: the table has other columns and the mode keeps them.
        RefusedWriteError: rows outside the declared partition, or two rows of one key.
    """
    for name in write.columns:
        check_name(name.removeprefix("_"), "column name")  # the lake's own begin with one
    snapshot = open_table(uri, write.columns)
    same = snapshot.columns == dict(write.columns)
    if not same and write.mode != "overwrite":
        raise BrokenTableError(
            f"{uri} has other columns than the rows that should go there.",
            remedy="Write it with mode overwrite once, or mend the asset's columns.",
        )
    stage = {"append": _append, "overwrite": _overwrite, "merge": _merge, "partition": _partition}[write.mode]
    add, remove = stage(session, snapshot, write, write.frame(session) if callable(write.frame) else write.frame)
    return Candidate(
        snapshot=snapshot,
        add=add,
        remove=remove,
        max_loss=write.max_loss,
        columns=None if same else write.columns,
        info={"operation": write.mode, **write.info},
    )


Staged = tuple[list[DataFile], list[DataFile]]


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
    rows = session.keep(frame.select(*write.columns))
    key = list(write.key)
    repeated = rows.group_by(*key).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
    if session.rows(repeated.head(1)):
        raise RefusedWriteError(
            f"Two rows of the merge into {snapshot.uri} have the same {', '.join(key)}.",
            remedy="Keep the newest row of every key before returning the frame.",
        )
    return replace_keys(
        session, snapshot, changed=rows.select(*key), rows=rows, key=key, columns=write.columns, file_mb=write.file_mb
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
    rows = session.keep(frame.select(*write.columns))
    foreign = session.rows(rows.filter(~belongs).select(nw.len().alias("n")))[0][0]
    if foreign:
        raise RefusedWriteError(
            f"{foreign} rows do not belong to the partition {dict(write.partition)} of {snapshot.uri}.",
            remedy="Filter them, or write them to the partition that they belong to.",
        )

    def may_hold(file: DataFile) -> bool:
        return all(
            file.lower.get(name) is None or file.lower[name] <= value <= file.upper[name]
            for name, value in write.partition.items()
        )

    touched = [file for file in snapshot.files if may_hold(file)]
    rest = session.read(snapshot.paths(touched), write.columns).filter(~belongs)
    return [*_put(session, snapshot, write, rest), *_put(session, snapshot, write, rows)], touched


def replace_keys(
    session: Session,
    snapshot: Snapshot,
    *,
    changed: "nw.LazyFrame[Any]",
    rows: "nw.LazyFrame[Any]",
    key: Sequence[str],
    columns: Mapping[str, str],
    file_mb: int,
) -> Staged:
    """Stage a table without the rows whose key is in `changed`, and with `rows`.

    Only files that hold a changed key are written again, one by one, so memory is bounded by a file and the others keep
    their place in the order of keys. Small files that are written again take the new keys with them.

    Args:
        changed: the keys, kept; `rows`: the new rows, kept, each with a key of `changed`.
    """
    import narwhals as nw

    key = list(key)
    near = files_near(session, snapshot, changed, key[0])
    path = "_path"
    stored = session.read(snapshot.paths(near), {name: columns[name] for name in key}, path_column=path)
    place = session.keep(stored.join(changed, on=key, how="semi"))
    hit = {row[0] for row in session.rows(place.select(path).unique())}
    remove = [file for file in near if snapshot.paths([file])[0] in hit]
    small = [file for file in remove if file.size * 2 <= file_mb * 1_000_000]
    inserts = rows.join(place, on=key, how="anti")
    groups: list[tuple[list[DataFile], bool]] = [([file], False) for file in remove if file not in small]
    if small or session.rows(inserts.head(1)):
        groups.append((small, True))
    add: list[DataFile] = []
    try:
        for files, takes_inserts in groups:
            paths = snapshot.paths(files)
            parts = [inserts] if takes_inserts else []
            if paths:
                here = place.filter(nw.col(path).is_in(paths))
                parts.append(session.read(paths, columns).join(changed, on=key, how="anti"))
                parts.append(rows.join(here, on=key, how="semi"))
            frame = nw.concat([part.select(*columns) for part in parts], how="vertical")
            add += session.write(frame, snapshot.uri, columns=columns, sort_by=key, file_mb=file_mb)
    except BaseException:
        discard(snapshot.uri, add)
        raise
    return add, remove


def files_near(session: Session, snapshot: Snapshot, keys: "nw.LazyFrame[Any]", column: str) -> list[DataFile]:
    """Files whose bounds of `column` hold one of its values in `keys`."""
    import narwhals as nw

    distinct = keys.select(column).unique()
    if session.rows(distinct.select(nw.len().alias("n")))[0][0] > _COMPARED_KEYS:
        return list(snapshot.files)
    values = [row[0] for row in session.rows(distinct.sort(column))]

    def may_hold(file: DataFile) -> bool:
        low, high = file.lower.get(column), file.upper.get(column)
        if low is None or high is None:
            return True
        position = bisect.bisect_left(values, low)
        return position < len(values) and bool(values[position] <= high)

    return [file for file in snapshot.files if may_hold(file)] if values else []
