"""Repeats: records of a table that is appended to which were delivered before, known by the `_airbyte_raw_id` that they brought.

    new records ─┬▶ ids that occur more than once among them ─┐
                 └▶ ids that older bronze files may hold ─────┴▶ row ids of the repeats ─▶ `deduplicated` in the ledger

A record counts where its id is in bronze for the first time: by batch, then by file, then by its place there. An id that bronze
has made of where and what the record is says nothing of that: such records count with every delivery.

Older files are pruned by the bounds of the id, and of the others the id alone is read: docs/decisions/0072-append-identity.md
has the figures. Pure: no dagster, engine-neutral.
"""

from collections.abc import Sequence
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.core.table.staging import files_for_keys
from lakehouse.silver.inputs import ROW_ID, Feed, of_feed

RAW_ID, _BATCH = "_airbyte_raw_id", "_batch_id"
_DELIVERED, _ROW_NUMBER, _COUNT, _CONTENT = "_delivered", "_row_number", "_n", "_content"
#: An id as bronze makes it. In what was read before bronze noted which these are, they are taken for made.
_MADE = "^[0-9a-f]{32}$"


def repeats(session: Session, feeds: Sequence[Feed], records: "nw.LazyFrame[Any]") -> "tuple[nw.LazyFrame[Any] | None, int]":
    """`ROW_ID` of the records that do not count, persisted, None when all of them do; and how many ids came with several contents
    among these records. (Contents of older batches are not read for it.)

    Args:
        feeds: the bronze tables, each with how far it was read: an id is one of its bronze table.
        records: all that these bring after that, with bronze's own columns and `ROW_ID`.
    """
    parts = [(feed, records if feed.alone else records.filter(of_feed(feed))) for feed in feeds]
    each = [_of_feed(session, feed, part) for feed, part in parts]
    found = session.persist(nw.concat([frame for frame, _ in each], how="vertical").unique())
    return (found if session.rows(found.head(1)) else None), sum(others for _, others in each)


def _of_feed(session: Session, feed: Feed, records: "nw.LazyFrame[Any]") -> "tuple[nw.LazyFrame[Any], int]":
    noted = nw.col("_raw_id_delivered")
    delivered = nw.when(noted.is_null()).then(~nw.col(RAW_ID).str.contains(_MADE)).otherwise(noted)
    narrow = records.select(RAW_ID, _BATCH, "_source_file", *ROW_ID, delivered.alias(_DELIVERED))
    if feed.seen:  # a batch; all of bronze is read twice rather than held
        narrow = session.persist(narrow)
    counted = narrow.group_by(RAW_ID).agg(nw.len().alias(_COUNT), nw.col(_DELIVERED).cast(nw.Int64).max().alias(_DELIVERED))
    several = counted.filter((nw.col(_COUNT) > 1) & (nw.col(_DELIVERED) == 1)).select(RAW_ID)
    several = session.persist(narrow.join(session.persist(several), on=RAW_ID, how="semi"))
    row_number = nw.col(RAW_ID).cum_count().over(RAW_ID, order_by=[_BATCH, "_source_file", *ROW_ID])
    later = several.with_columns(row_number.alias(_ROW_NUMBER)).filter(nw.col(_ROW_NUMBER) > 1)
    found = [later.filter(nw.col(_DELIVERED)).select(*ROW_ID)]
    if feed.seen:
        mine = narrow.filter(nw.col(_DELIVERED))
        found.append(mine.join(_stored(session, feed, mine), on=RAW_ID, how="semi").select(*ROW_ID))
    return nw.concat(found, how="vertical"), _contents(session, feed, records, several.filter(nw.col(_DELIVERED)))


def content_lines(target: object, ids: int) -> tuple[str, ...]:
    """What the console says where ids came with several contents."""
    what = f"{target}: {ids:,} ids (_airbyte_raw_id) came with more than one content; the first delivery counts. "
    way = "Have the source give each record an id of its own, or declare a key and an order instead of sync='append'."
    return (what + way,) if ids else ()


def _contents(session: Session, feed: Feed, records: "nw.LazyFrame[Any]", several: "nw.LazyFrame[Any]") -> int:
    """How many ids of `several` records have more than one content. Where no id repeats, nothing is read."""
    if not session.rows(several.head(1)):
        return 0
    whole = records.join(several.select(*ROW_ID), on=list(ROW_ID), how="semi")
    digests = session.digest(whole, _CONTENT, list(feed.part.fields)).group_by(RAW_ID)
    lowest, highest = nw.col(_CONTENT).min().alias("_low"), nw.col(_CONTENT).max().alias("_high")
    return session.count(digests.agg(lowest, highest).filter(nw.col("_low") != nw.col("_high")))


def _stored(session: Session, feed: Feed, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
    """Ids of these records that are in bronze from batches that were read before."""
    ids = session.persist(records.select(RAW_ID).unique())
    files = [
        file
        for file in files_for_keys(session, feed.bronze, ids, RAW_ID)
        if file.lower.get(_BATCH) is None or file.lower[_BATCH] <= feed.seen
    ]
    stored = session.read(feed.bronze.paths(files), {RAW_ID: "string", _BATCH: "bigint"})
    return session.persist(stored.filter(nw.col(_BATCH) <= feed.seen).select(RAW_ID).join(ids, on=RAW_ID, how="semi").unique())
