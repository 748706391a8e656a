"""Withdrawn records: of a table of another writer whose rows leave silver when they leave that table.

    bronze records, some marked as withdrawn ─▶ each takes back an equal one that came before ─▶ what is left are the table's rows

Equal is what has the same declared fields, and the same `_airbyte_raw_id` where the record came with one. The oldest goes first.
What is left is deduplicated, or added, like records of any other source: so silver follows the table whatever its keys and order
are. A key of which a row was withdrawn may have its newest version in bronze, not in silver: `followed_by_key` looks there.
Pure: no dagster, engine-neutral.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.landing.readers.files.fields import WITHDRAWN
from lakehouse.silver.inputs import ROW_ID, Feed, of_feed

_META, _RAW_ID = "_airbyte_meta", "_airbyte_raw_id"
_CONTENT, _STEP, _BALANCE, _LOWEST, _LIVE, _NEWEST = "_content", "_step", "_balance", "_lowest", "_live", "_newest"


@dataclass(frozen=True)
class Again:
    """Keys whose rows follow from bronze alone, whatever silver has of them.

    Args:
        keys: their columns under the names of the key, persisted.
        older: their accepted records of batches that were read before, and that no record has taken back.
    """

    keys: "nw.LazyFrame[Any]"
    older: "nw.LazyFrame[Any]"


@dataclass(frozen=True)
class Followed:
    """What is left of the new records, how many of them were taken back, and how many take back."""

    records: "nw.LazyFrame[Any]"
    repeated: int = 0
    withdrawn: int = 0
    again: Again | None = None


#: Of a row of `taken_back`: whether the record is marked as withdrawn; else it was taken back by one.
WITHDRAWS = "_withdraws"


def is_withdrawn() -> nw.Expr:
    """Whether a bronze record is marked as withdrawn."""
    return (nw.col(_META) == WITHDRAWN).fill_null(False)


def has_any(session: Session, records: "nw.LazyFrame[Any]") -> bool:
    """Whether some of the records are marked as withdrawn."""
    return bool(session.rows(records.filter(is_withdrawn()).select(_RAW_ID).head(1)))


def followed(session: Session, feeds: Sequence[Feed], records: "nw.LazyFrame[Any]") -> Followed:
    """What is left of all of bronze."""
    taken = taken_back(session, feeds, records)
    counts = dict(session.rows(taken.group_by(WITHDRAWS).agg(nw.len().alias("_n"))))
    left = records.join(taken, on=list(ROW_ID), how="anti") if counts else records
    return Followed(left, counts.get(False, 0), counts.get(True, 0))


def followed_by_key(
    session: Session,
    feeds: Sequence[Feed],
    records: "nw.LazyFrame[Any]",
    *,
    keyed: "nw.LazyFrame[Any]",
    keys: Mapping[str, str],
    accepted: "Callable[[nw.LazyFrame[Any]], nw.LazyFrame[Any]]",
    every: bool,
) -> Followed:
    """What is left of new records, and what has to be computed again of their keys.

    Args:
        records: all of bronze; `keyed` is the same with the columns `keys`, each with the name that it has in the key.
        accepted: leaves the records that no rule refuses.
        every: compute all keys of new records again, not only those of which a row was withdrawn.
    """
    fresh, row_id = _is_new(feeds), list(ROW_ID)
    touching = keyed.filter(fresh if every else fresh & is_withdrawn())
    touched = session.persist(touching.select(*keys).unique())
    ids = session.persist(keyed.join(touched, on=list(keys), how="semi").select(*row_id))
    some = session.persist(records.join(ids, on=row_id, how="semi"))
    taken = taken_back(session, feeds, some)
    new = session.persist(records.filter(fresh))
    left = new.filter(~is_withdrawn()).join(taken, on=row_id, how="anti")
    repeated = session.count(new.filter(~is_withdrawn())) - session.count(left)
    older = accepted(some.filter(~fresh).join(taken, on=row_id, how="anti"))
    again = Again(touched.select(**{name: nw.col(column) for column, name in keys.items()}), older)
    return Followed(left, repeated, session.count(new.filter(is_withdrawn())), again)


def _is_new(feeds: Sequence[Feed]) -> nw.Expr:
    parts = [(nw.col("_batch_id") > feed.seen) & (nw.lit(True) if feed.alone else of_feed(feed)) for feed in feeds]
    return nw.any_horizontal(*parts, ignore_nulls=True)


def taken_back(session: Session, feeds: Sequence[Feed], records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """`ROW_ID` of the records that do not count, with `WITHDRAWS`; persisted.

    Args:
        records: with bronze's own columns and `ROW_ID`: all that have the same content as any of them.
    """
    parts = [_of_feed(session, feed, records if feed.alone else records.filter(of_feed(feed))) for feed in feeds]
    return session.persist(nw.concat(parts, how="vertical"))


def _of_feed(session: Session, feed: Feed, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    own = nw.when(nw.col("_raw_id_delivered").fill_null(False)).then(nw.col(_RAW_ID)).alias("_own_id")
    content = [*feed.part.fields, "_own_id"]
    marked = records.with_columns(own, is_withdrawn().alias(WITHDRAWS))
    # A cheap digest finds the few records that are worth a safe one.
    hashed = session.digest(marked, "_hash", content)
    gone = session.persist(hashed.filter(nw.col(WITHDRAWS)).select("_hash").unique())
    some = session.fingerprint(hashed.join(gone, on="_hash", how="semi"), _CONTENT, content)
    some = session.persist(some.select(_CONTENT, WITHDRAWS, "_batch_id", "_source_file", *ROW_ID))
    order = ["_batch_id", "_source_file", *ROW_ID]
    step = nw.when(nw.col(WITHDRAWS)).then(nw.lit(-1)).otherwise(nw.lit(1)).cast(nw.Int64)
    walk = some.with_columns(step.alias(_STEP))
    walk = walk.with_columns(nw.col(_STEP).cum_sum().over(_CONTENT, order_by=order).alias(_BALANCE))
    # A record that takes back what bronze no longer has (it was forgotten) takes back nothing that comes later.
    sums = walk.group_by(_CONTENT).agg(nw.col(_STEP).sum().alias(_LIVE), nw.col(_BALANCE).min().alias(_LOWEST))
    lowest = nw.when(nw.col(_LOWEST) < 0).then(nw.col(_LOWEST)).otherwise(nw.lit(0))
    live = session.persist(sums.select(_CONTENT, (nw.col(_LIVE) - lowest).alias(_LIVE)))
    came = some.filter(~nw.col(WITHDRAWS))
    newest = nw.col(_CONTENT).cum_count(reverse=True).over(_CONTENT, order_by=order)
    came = came.with_columns(newest.alias(_NEWEST)).join(live, on=_CONTENT, how="inner").filter(nw.col(_NEWEST) > nw.col(_LIVE))
    return nw.concat([frame.select(*ROW_ID, WITHDRAWS) for frame in (came, some.filter(nw.col(WITHDRAWS)))], how="vertical")
