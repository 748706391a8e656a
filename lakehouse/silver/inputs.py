"""What a refresh reads: the bronze tables of a silver table, and how far it has read each.

    silver's watermark `from:bronze/<table>` < _batch_id <= bronze's own `ingest:bronze/<table>`

A row id (`ROW_ID`) tells a row from all others of the refresh: the file that it was read from, with its feed, and its position.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lakehouse.core import ledger, quarantine
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import column_name
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import is_viewed_older, open_input
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_existing
from lakehouse.landing.readers.files.fields import ENVELOPE, WITHDRAWN
from lakehouse.tables.spec import EXTRA, TableSpec

ROW_ID = ("_file", "_position")
#: More files than a bronze table has.
_FEED = 1_000_000_000
GENERATION = "_airbyte_generation_id"


@dataclass
class Feed:
    """One bronze table of a refresh: batches after `seen` up to `newest` are read."""

    part: TableSpec
    number: int
    alone: bool
    bronze: Snapshot
    seen: int = 0
    newest: int = 0
    #: The first batch that counts; 0 where all do.
    begin: int = 0
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
    """The bronze tables, as the run reads them.

    Raises:
        BrokenTableError: one does not exist.
    """
    feeds = []
    for number, part in enumerate(spec.parts):
        bronze = open_input(storage, part.bronze)
        if bronze is None:
            what = f"{spec.silver} needs {part.bronze}, which does not exist."
            raise BrokenTableError(what, remedy=part.bronze.how_to_make)
        newest, begin = (bronze.watermark(app(part.bronze)) for app in (ledger.ingest_app, ledger.begin_app))
        feed = Feed(part, number, not spec.feeds, bronze, newest=newest, begin=begin)
        if spec.sync == "overwrite":
            feed.generation = bronze.watermark(ledger.complete_app(part.bronze))
        feeds.append(feed)
    return feeds


def is_ahead(storage: Storage, table: Snapshot, feeds: Sequence[Feed]) -> bool:
    """Whether another run has read more of bronze into a table than the view of this run has: there is nothing left to do."""
    return any(table.watermark(feed.app) > feed.newest and is_viewed_older(storage, feed.bronze) for feed in feeds)


def records(session: Session, feeds: Sequence[Feed], *, anew: bool = False) -> "nw.LazyFrame[Any]":
    """The new records of all feeds as they are in bronze, or (`anew`) all: envelope, delivered fields and `ROW_ID`."""
    frames = [_batches(session, feed, 0 if anew else feed.seen, feed.newest) for feed in feeds]
    return frames[0] if len(frames) == 1 else nw.concat(frames, how="vertical")


def not_read(session: Session, feeds: Sequence[Feed]) -> int:
    """How many records of bronze no longer count: what came before a table of another writer was taken in whole, and, where
    withdrawals were followed once, the marks of those."""
    return sum(_not_read(session, feed) for feed in feeds if feed.begin > 1 or (feed.begin and not feed.part.withdraws))


def _not_read(session: Session, feed: Feed) -> int:
    frame = session.read(feed.bronze.paths(), {"_batch_id": "bigint", "_airbyte_meta": "string"})
    before, marked = nw.col("_batch_id") < feed.begin, (nw.col("_airbyte_meta") == WITHDRAWN).fill_null(False)
    return session.count(frame.filter(before if feed.part.withdraws else before | marked))


def delivers(feed: Feed) -> bool:
    """Whether batches that were not read may hold records of the generation that counts."""
    if feed.generation is None:
        return feed.seen < feed.newest
    new = [f for f in feed.bronze.files if f.upper.get("_batch_id") is None or f.upper["_batch_id"] > feed.seen]
    return feed.generation > 0 and any(_may_contain(file, feed.generation) for file in new)


def _may_contain(file: DataFile, generation: int) -> bool:
    low, high = file.lower.get(GENERATION), file.upper.get(GENERATION)
    if low is None or high is None:
        return file.nulls.get(GENERATION) != file.rows
    return bool(low <= generation <= high)


def of_feed(feed: Feed) -> "nw.Expr":
    """Whether a row is of the feed, by its row id."""
    return (nw.col(ROW_ID[0]) >= feed.number * _FEED) & (nw.col(ROW_ID[0]) < (feed.number + 1) * _FEED)


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
    keys = session.persist(refused.select(**{name: nw.col(column) for name, column in names.items()}))
    count = session.count(keys)
    if not count:
        return None
    # A record that shares its id and file with one of them is read again too; that changes nothing.
    again = session.persist(_batches(session, feed, 0, feed.seen).join(keys, on=list(names), how="semi"))
    if session.count(again) < count:
        raise BrokenTableError(
            f"Of {count:,} records in {part.quarantine} some are no longer in {part.bronze}.",
            remedy=f"Bronze was replaced: run make rebuild TABLE={part.silver_name}.",
        )
    return again


def delivered(
    session: Session, part: TableSpec, bronze: Snapshot, frame: "nw.LazyFrame[Any]", *beside: str
) -> "nw.LazyFrame[Any]":
    """Bronze records with the declared fields under the names of `TableSpec.fields`, and the columns `beside`.

    Args:
        frame: read with `bronze_columns`.
    """
    sources = _sources(part, bronze)
    rivals = list(dict.fromkeys(field for found in sources.values() for column, field in found if column == EXTRA))
    within = {field: f"_of_extra_{number}" for number, field in enumerate(rivals)}
    if within:
        frame = session.extract(frame, {alias: (EXTRA, (field,)) for field, alias in within.items()})
    values: dict[str, nw.Expr] = {name: nw.lit(part.values[field]) for name, field in part.fields.items() if name not in sources}
    for name, found in sources.items():
        texts = [nw.col(within[field] if column == EXTRA else column) for column, field in found]
        values[name] = nw.coalesce(*texts) if len(texts) > 1 else texts[0]
    return frame.select(*beside, **{name: values[name] for name in part.fields})


def bronze_columns(part: TableSpec, bronze: Snapshot) -> dict[str, str]:
    """The text columns of bronze that the declared fields are read from, by name with their type."""
    return dict.fromkeys([column for found in _sources(part, bronze).values() for column, _ in found], "string")


def _sources(part: TableSpec, bronze: Snapshot) -> dict[str, list[tuple[str, str]]]:
    """By the names of `TableSpec.fields` the bronze columns that may have a record's value of a delivered field, and under which
    name; the first value counts. What all records have the same is not delivered."""
    known, declared = bronze.fields, {*part.fields.values()}
    delivered = {name: field for name, field in part.fields.items() if field not in part.values}
    return {name: _sources_of(field, known, declared) for name, field in delivered.items()}


def _sources_of(field: str, names: Mapping[str, Sequence[str]], declared: Set[str]) -> list[tuple[str, str]]:
    """The same of one field.

    A field that is declared by the name of its column alone is also one that is written otherwise, unless another column is
    declared to come from that. A record decides, whatever else was delivered before or after it.

    Args:
        names: by bronze column the fields that have it for a name.
        declared: the fields of all columns.
    """
    column = column_name(field)
    known = names.get(column or "", ())
    if column is None or not known:
        return [(column or EXTRA, field)]
    claimed = declared - {field}
    meant = [field] if field != column else sorted({field, *known} - claimed, key=lambda name: (name != field, name))
    found = [(column if name == known[0] else EXTRA, name) for name in meant if name in known]
    return found or [(EXTRA, field)]


def _batches(session: Session, feed: Feed, after: int, until: int) -> "nw.LazyFrame[Any]":
    part, bronze, after = feed.part, feed.bronze, max(after, feed.begin - 1)
    files = [f for f in bronze.files if f.upper.get("_batch_id") is None or f.upper["_batch_id"] > after]
    if feed.generation is not None:
        files = [file for file in files if _may_contain(file, feed.generation)]
    have = {**ENVELOPE, **bronze_columns(part, bronze)}
    frame = session.read(bronze.paths(files if until > after else []), have, row_id=ROW_ID)
    frame = frame.filter((nw.col("_batch_id") > after) & (nw.col("_batch_id") <= until))
    if feed.generation is not None:
        frame = frame.filter(nw.col(GENERATION) == feed.generation)
    elif feed.begin and not part.withdraws:  # they were followed once, and no longer are
        frame = frame.filter((nw.col("_airbyte_meta") != WITHDRAWN).fill_null(True))
    frame = delivered(session, part, bronze, frame, *ENVELOPE, *ROW_ID)
    if feed.alone:
        return frame
    file, position = (nw.col(name).cast(nw.Int64) for name in ROW_ID)
    return frame.with_columns((file + feed.number * _FEED).alias(ROW_ID[0]), position.alias(ROW_ID[1]))
