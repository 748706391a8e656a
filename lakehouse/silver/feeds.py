"""What a refresh reads: the bronze tables of a silver table, and how far it has read each.

    silver's watermark `from:bronze/<table>` < _batch_id <= bronze's own `ingest:bronze/<table>`

A row's place (`PLACE`) tells it from all others of the refresh: the file it was read from, with its feed, and its position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lakehouse.core import ledger, quarantine
from lakehouse.core.delta import DataFile, Snapshot, open_existing
from lakehouse.core.engines import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.landing.airbyte import ENVELOPE
from lakehouse.core.storage import Storage
from lakehouse.tables.spec import TableSpec

PLACE = ("_file", "_position")
#: More files than a bronze table has.
_FEED = 1_000_000_000
_GENERATION = "_airbyte_generation_id"


@dataclass
class Feed:
    """One bronze table of a refresh: batches after `seen` up to `newest` are read."""

    part: TableSpec
    number: int
    alone: bool
    bronze: Snapshot
    seen: int = 0
    newest: int = 0
    #: The one generation that is read, where only that counts.
    generation: int | None = None

    @property
    def shown(self) -> str:
        """Under which silver remembers which generation it shows."""
        return f"generation:{self.part.bronze}"

    @property
    def app(self) -> str:
        """Under which silver remembers how far it has read."""
        return ledger.read_app(self.part.bronze)


def open_feeds(storage: Storage, spec: TableSpec) -> list[Feed]:
    """The bronze tables as they are now.

    Raises:
        BrokenTableError: one does not exist.
    """
    feeds = []
    for number, part in enumerate(spec.parts):
        bronze = open_existing(storage.uri(part.bronze))
        if bronze is None:
            what = f"{spec.silver} needs {part.bronze}, which does not exist."
            raise BrokenTableError(what, remedy=f"Materialise {part.bronze} first.")
        feed = Feed(part, number, not spec.feeds, bronze, newest=bronze.transaction(ledger.ingest_app(part.bronze)))
        if spec.sync == "overwrite":
            feed.generation = bronze.transaction(ledger.complete_app(part.bronze))
        feeds.append(feed)
    return feeds


def records(session: Session, feeds: Sequence[Feed]) -> "nw.LazyFrame[Any]":
    """The new records of all feeds as they are in bronze: envelope, delivered fields and `PLACE`."""
    frames = [_batches(session, feed, feed.seen, feed.newest) for feed in feeds]
    return frames[0] if len(frames) == 1 else nw.concat(frames, how="vertical")


def brings(feed: Feed) -> bool:
    """Whether batches that were not read may hold records of the generation that counts."""
    if feed.generation is None:
        return feed.seen < feed.newest
    new = [f for f in feed.bronze.files if f.upper.get("_batch_id") is None or f.upper["_batch_id"] > feed.seen]
    return feed.generation > 0 and any(_may_hold(file, feed.generation) for file in new)


def _may_hold(file: DataFile, generation: int) -> bool:
    low, high = file.lower.get(_GENERATION), file.upper.get(_GENERATION)
    if low is None or high is None:
        return file.nulls.get(_GENERATION) != file.rows
    return bool(low <= generation <= high)


def of_feed(feed: Feed) -> "nw.Expr":
    """Whether a row is of the feed, by its place."""
    return (nw.col(PLACE[0]) >= feed.number * _FEED) & (nw.col(PLACE[0]) < (feed.number + 1) * _FEED)


def waiting(session: Session, storage: Storage, feeds: Sequence[Feed]) -> "nw.LazyFrame[Any] | None":
    """The bronze records of what the rules have put in quarantine; None when that is nothing.

    Raises:
        BrokenTableError: one of them is no longer in bronze.
    """
    found = [frame for feed in feeds if (frame := _waiting(session, storage, feed)) is not None]
    return nw.concat(found, how="vertical") if found else None


def _waiting(session: Session, storage: Storage, feed: Feed) -> "nw.LazyFrame[Any] | None":
    part = feed.part
    table = open_existing(storage.uri(part.quarantine))
    if table is None:
        return None
    refused = quarantine.waiting(session, table, layer="silver").filter(nw.col("batch_id") <= feed.seen)
    names = {"_batch_id": "batch_id", "_source_file": "source_file", "_airbyte_raw_id": "raw_id"}
    keys = session.keep(refused.select(**{name: nw.col(column) for name, column in names.items()}))
    count = rows_of(session, keys)
    if not count:
        return None
    # A record that shares its id and file with one of them is read again too; that changes nothing.
    again = session.keep(_batches(session, feed, 0, feed.seen).join(keys, on=list(names), how="semi"))
    if rows_of(session, again) < count:
        raise BrokenTableError(
            f"Of {count:,} records in {part.quarantine} some are no longer in {part.bronze}.",
            remedy=f"Bronze was replaced: run make rebuild TABLE={part.silver_name}.",
        )
    return again


def _batches(session: Session, feed: Feed, after: int, until: int) -> "nw.LazyFrame[Any]":
    values, bronze = feed.part.values, feed.bronze
    fields = [column.bronze_name for column in feed.part.delivered]
    files = [f for f in bronze.files if f.upper.get("_batch_id") is None or f.upper["_batch_id"] > after]
    have = {**ENVELOPE, **{name: "string" for name in fields if name not in values}}
    if feed.generation is not None:
        files = [file for file in files if _may_hold(file, feed.generation)]
    frame = session.read(bronze.paths(files if until > after else []), have, place=PLACE)
    frame = frame.filter((nw.col("_batch_id") > after) & (nw.col("_batch_id") <= until))
    if feed.generation is not None:
        frame = frame.filter(nw.col(_GENERATION) == feed.generation)
    if values:
        frame = frame.with_columns(**{name: nw.lit(values[name]) for name in fields if name in values})
    if feed.alone:
        return frame
    file, position = (nw.col(name).cast(nw.Int64) for name in PLACE)
    frame = frame.with_columns((file + feed.number * _FEED).alias(PLACE[0]), position.alias(PLACE[1]))
    return frame.select(*ENVELOPE, *dict.fromkeys(fields), *PLACE)


def rows_of(session: Session, frame: "nw.LazyFrame[Any]") -> int:
    """How many rows a frame has."""
    return int(session.rows(frame.select(nw.len().alias("n")))[0][0])
