"""Versions: the records of a key become intervals, each with the values that were valid in it.

    records (instant, order, values, deleted?) ─▶ points: newest of those with this or an earlier instant ─▶ runs ─▶ versions

At an instant a key is what the newest of its records says, by silver's order, among those with this instant or an earlier one. So
a record counts (it is a point) when every newer one has a later instant. Points that follow each other and say the same are one
run, and the first of a run opens a version. A run of deletes is a gap.

The versions follow from the set of points alone, and the points of a set from those of its parts: whoever has the points of what
was read before needs none of the records. Pure: no dagster, engine-neutral.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.silver.validate import DELETED
from lakehouse.tables.spec import EXTRACTED_AT, TableSpec, tracked
from lakehouse.tables.spec.history import IS_CURRENT, VALID_FROM, VALID_TO, VERSION

#: When a record's values became valid; and where a point comes from, of which the lower number yields to the same point.
INSTANT, ORIGIN = "_instant", "_origin"
_LOWEST, _LATER, _BEFORE, _OPENS, _SIDE = "_lowest", "_later", "_before_", "_opens", "_side"


@dataclass(frozen=True)
class Versions:
    """What the points of some keys come to; both persisted.

    Args:
        rows: the versions, with the columns of the points and those of a history.
        hidden: the points that opened none: deletes, and records that say what was known.
    """

    rows: "nw.LazyFrame[Any]"
    hidden: "nw.LazyFrame[Any]"


def instant_of(spec: TableSpec) -> nw.Expr:
    """The instant of a record: its first order column where that is one, else when it was extracted."""
    first, kinds = spec.order[0], {column.name: column.type for column in spec.columns}
    extracted = nw.col(EXTRACTED_AT)
    return nw.coalesce(nw.col(first), extracted) if kinds[first] == "timestamp" else extracted


def versions(session: Session, spec: TableSpec, records: "nw.LazyFrame[Any]") -> Versions:
    """The versions of some keys.

    Args:
        records: all points of these keys, or more: silver's columns, `DELETED`, `INSTANT` and `ORIGIN`.
    """
    key, own = list(spec.key), records.collect_schema().names()
    known = session.persist(_with_openings(spec, points(spec, records)))
    opening = known.filter(nw.col(_OPENS))
    live = (~nw.col(DELETED)).cast(nw.Int64)
    ends = nw.col(INSTANT).shift(-1).over(*key, order_by=INSTANT)
    rows = opening.with_columns(
        nw.col(INSTANT).alias(VALID_FROM),
        ends.alias(VALID_TO),
        live.cum_sum().over(*key, order_by=INSTANT).cast(nw.Int32).alias(VERSION),
    )
    rows = rows.filter(~nw.col(DELETED)).with_columns(nw.col(VALID_TO).is_null().alias(IS_CURRENT))
    hidden = known.filter(~nw.col(_OPENS) | nw.col(DELETED))
    return Versions(
        session.persist(rows.select(*own, VALID_FROM, VALID_TO, IS_CURRENT, VERSION)), session.persist(hidden.select(*own))
    )


def only_version(records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """Records of which each is alone in its key, and no delete, as versions."""
    schema = records.collect_schema()
    never = nw.lit(None).cast(schema[INSTANT])
    return records.with_columns(
        nw.col(INSTANT).alias(VALID_FROM),
        never.alias(VALID_TO),
        nw.lit(True).alias(IS_CURRENT),
        nw.lit(1).cast(nw.Int32).alias(VERSION),
    )


def overlapping(session: Session, key: Sequence[str], rows: "nw.LazyFrame[Any]") -> int:
    """How many of some versions end after the next one of their key begins, end before they begin, or are current and have an
    end."""
    follows = nw.col(VALID_FROM).shift(-1).over(*key, order_by=VALID_FROM)
    checked = rows.select(*key, VALID_FROM, VALID_TO, IS_CURRENT).with_columns(follows.alias(_LATER))
    reaches = (nw.col(VALID_TO) > nw.col(_LATER)) | (nw.col(VALID_TO).is_null() & ~nw.col(_LATER).is_null())
    backwards = nw.col(VALID_TO) <= nw.col(VALID_FROM)
    other = nw.col(IS_CURRENT) != nw.col(VALID_TO).is_null()
    return session.count(checked.filter(reaches.fill_null(False) | backwards.fill_null(False) | other))


def points(spec: TableSpec, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """The records that count: every newer one of the key has a later instant."""
    key, order = list(spec.key), silver_order(spec)
    lowest = nw.col(INSTANT).cum_min(reverse=True).over(*key, order_by=order)
    # Those of one instant are left, of which the newest counts.
    some = records.with_columns(lowest.alias(_LOWEST)).filter(nw.col(INSTANT) == nw.col(_LOWEST))
    newest = nw.col(key[0]).cum_count(reverse=True).over(*key, INSTANT, order_by=order)
    return some.with_columns(newest.alias(_LATER)).filter(nw.col(_LATER) == 1).drop(_LOWEST, _LATER)


def silver_order(spec: TableSpec) -> list[str]:
    """The columns by which the records of a key are compared, the newest last, as silver compares them: a later generation is
    newer whatever it has; of the same records the one that was there is the last."""
    decided, whole = (*spec.key, *spec.order, EXTRACTED_AT), [INSTANT] if spec.sync == "overwrite" else []
    return [*whole, *spec.order, EXTRACTED_AT, DELETED, *[c.name for c in spec.columns if c.name not in decided], ORIGIN]


def _with_openings(spec: TableSpec, those: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """Points with whether each says something else than the one before it."""
    key, names = list(spec.key), [DELETED, *tracked(spec)]
    before = {f"{_BEFORE}{name}": nw.col(name).shift(1).over(*key, order_by=INSTANT) for name in names}
    those = those.with_columns(**before)
    other = [_differ(name) for name in tracked(spec)]
    changed = nw.any_horizontal(*other, ignore_nulls=False) if other else nw.lit(False)
    was = nw.col(_BEFORE + DELETED)
    opens = was.is_null() | (nw.col(DELETED) != was).fill_null(False) | (~nw.col(DELETED) & changed)
    return those.with_columns(opens.alias(_OPENS)).drop(*before)


def _differ(name: str) -> nw.Expr:
    """Whether a column has another value than in the point before; two nulls are the same."""
    now, before = nw.col(name), nw.col(_BEFORE + name)
    return (now != before).fill_null(False) | (now.is_null() != before.is_null())


def different(before: "nw.LazyFrame[Any]", after: "nw.LazyFrame[Any]") -> "tuple[nw.LazyFrame[Any], nw.LazyFrame[Any]]":
    """The rows that are only in one of two frames of the same columns; nulls are equal."""
    names = before.collect_schema().names()
    frames = [before.with_columns(nw.lit(1).alias(_SIDE)), after.with_columns(nw.lit(2).alias(_SIDE))]
    low, high = nw.col(_SIDE).min().alias(_LOWEST), nw.col(_SIDE).max().alias(_LATER)
    found = nw.concat(frames, how="vertical").group_by(*names).agg(low, high)
    before_only, after_only = ((nw.col(_LOWEST) == side) & (nw.col(_LATER) == side) for side in (1, 2))
    return found.filter(before_only).select(*names), found.filter(after_only).select(*names)
