"""Generations: the history of a table that is overwritten, of which each generation is the whole table at its instant.

    generations that are whole ─▶ what differs from one to the next: new and changed rows, and keys that are gone ─▶ points

A generation counts when it is complete and silver has read it, or a later one. Its instant is when its last record was extracted,
and after that of the one before; of a generation without a record it is when it was first seen. Which generations a history has,
and their instants, are a fact of its newest commit: a rebuild has the same. Pure: no dagster, engine-neutral.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot
from lakehouse.landing.readers.registry import landing
from lakehouse.silver import history_baseline, inputs
from lakehouse.silver.inputs import GENERATION, Feed
from lakehouse.silver.validate import DELETED
from lakehouse.silver.versions import INSTANT, ORIGIN, different, points
from lakehouse.tables.spec import EXTRACTED_AT, TableSpec
from lakehouse.tables.spec.history import VALID_FROM, VALID_TO

#: The fact of a commit that has the generations, each with its instant.
_FACT = "generations"
_BATCH, _LATER = 0, "_later"


class Past:
    """The generations that a history has, and those that it has not yet."""

    def __init__(
        self, session: Session, storage: Storage, spec: TableSpec, *, feed: Feed, silver: Snapshot, made: Provenance
    ) -> None:
        self._session, self._storage, self._spec, self._feed = session, storage, spec, feed
        #: Whether the table is overwritten.
        self.counts = spec.sync == "overwrite"
        self._known = {int(number): datetime.fromisoformat(at) for number, at in json.loads(made.facts.get(_FACT, "[]"))}
        self.shown = silver.watermark(feed.shown) if self.counts else 0
        self._read: dict[int, datetime] = {}

    @property
    def is_ahead(self) -> bool:
        """Whether silver shows a generation that the history has not."""
        return self.shown > max(self._known, default=0)

    @property
    def new(self) -> dict[int, datetime]:
        """The generations that are read, with their instants."""
        return self._read

    def open(self, *, anew: bool) -> None:
        """Find which generations are to be read.

        Args:
            anew: all of them.
        """
        if not self.counts:
            return
        last = max(self._known, default=0)
        numbers = [number for number in self._complete() if last < number <= self.shown]
        found = self._known | self._instants(numbers)
        self._read = found if anew else {number: found[number] for number in numbers}

    def _complete(self) -> list[int]:
        """Generations that have landed whole; of a source that does not tell, all that bronze has."""
        origin = landing(self._feed.part.origin, self._storage)
        told = origin.generations()
        if not told:
            frame = self._session.read(self._feed.bronze.paths(), {GENERATION: "bigint"})
            told = [number for (number,) in self._session.rows(frame.select(GENERATION).unique()) if number is not None]
        return sorted({*told, *([self.shown] if self.shown else [])})

    def _instants(self, numbers: Sequence[int]) -> dict[int, datetime]:
        frame = self._session.read(self._feed.bronze.paths(), {GENERATION: "bigint", "_airbyte_extracted_at": "timestamp"})
        frame = frame.filter(nw.col(GENERATION).is_in(list(numbers)))
        newest = frame.group_by(GENERATION).agg(nw.col("_airbyte_extracted_at").max().alias("at"))
        extracted = dict(self._session.rows(newest.select(GENERATION, "at"))) if numbers else {}
        before = max(self._known.values(), default=datetime.fromtimestamp(0, tz=UTC))
        found: dict[int, datetime] = {}
        for number in numbers:
            at = extracted.get(number) or (datetime.now(UTC) if number == numbers[-1] else before)
            before = found[number] = max(at.astimezone(UTC), before + timedelta(microseconds=1))
        return found

    def records(self) -> "nw.LazyFrame[Any]":
        """The bronze records of the generations that are read."""
        feed = replace(self._feed, seen=0, generation=None)
        return inputs.records(self._session, [feed]).filter(nw.col(GENERATION).is_in(list(self._read)))

    def with_instant(self, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Records with the instant of their generation."""
        rows = [{"_number": number, INSTANT: at} for number, at in self._read.items()]
        table = self._session.table(rows, {"_number": "bigint", INSTANT: "timestamp"})
        return records.join(table, left_on=GENERATION, right_on="_number", how="inner")

    def differences(
        self, current: "nw.LazyFrame[Any] | None", accepted: "nw.LazyFrame[Any]", tracked: Sequence[str]
    ) -> "tuple[nw.LazyFrame[Any], nw.LazyFrame[Any]]":
        """The keys that are otherwise in a generation than in the one before, persisted, and their points in each.

        Args:
            current: the rows before the first of these generations; None where there were none.
            accepted: the records, with their instants.
        """
        session, key = self._session, list(self._spec.key)
        wanted = [*key, *tracked]
        before = current.select(*wanted) if current is not None else session.table([], self._types(wanted))
        each: list[tuple[datetime, nw.LazyFrame[Any]]] = []
        changed: list[nw.LazyFrame[Any]] = []
        for at in sorted(self._read.values()):
            rows = session.persist(points(self._spec, accepted.filter(nw.col(INSTANT) == nw.lit(at))))
            now = rows.filter(~nw.col(DELETED)).select(*wanted)
            changed += [frame.select(*key) for frame in different(before, now)]
            each.append((at, rows))
            before = now
        keys = session.persist(nw.concat(changed, how="vertical").unique())
        found = []
        for at, rows in each:
            found.append(rows.join(keys, on=key, how="semi"))
            found.append(self._ended(keys.join(rows, on=key, how="anti"), at).select(*rows.collect_schema().names()))
        return keys, nw.concat(found, how="vertical")

    def gaps(self, stored: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The instants at which rows ended and no other began, as deletes."""
        key = list(self._spec.key)
        follows = nw.col(VALID_FROM).shift(-1).over(*key, order_by=VALID_FROM)
        rows = stored.with_columns(follows.alias(_LATER)).filter(~nw.col(VALID_TO).is_null())
        rows = rows.filter(nw.col(_LATER).is_null() | (nw.col(_LATER) != nw.col(VALID_TO)))
        ended = rows.select(*key, nw.col(VALID_TO).alias(INSTANT), nw.col(VALID_TO).alias(EXTRACTED_AT))
        return self._as_deletes(ended)

    def _ended(self, keys: "nw.LazyFrame[Any]", at: datetime) -> "nw.LazyFrame[Any]":
        instant = nw.lit(at).cast(nw.Datetime("us", "UTC"))
        return self._as_deletes(keys.with_columns(instant.alias(INSTANT), instant.alias(EXTRACTED_AT)))

    def _as_deletes(self, rows: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        made = history_baseline.as_deletes(self._session, self._spec, rows, INSTANT)
        return made.with_columns(nw.lit(_BATCH).alias(ORIGIN))

    def _types(self, names: Sequence[str]) -> dict[str, str]:
        types = history_baseline.point_columns(self._spec)
        return {name: types[name] for name in names}

    def passed_over(self, arrived: int, later: int) -> int:
        """Records of bronze that are in no generation that was read."""
        return self._feed.bronze.rows - later - arrived if self.counts else 0

    def fact(self) -> dict[str, str]:
        """The fact for a commit."""
        every = sorted((self._known | self._read).items())
        return {_FACT: json.dumps([[number, at.isoformat()] for number, at in every])} if self.counts else {}
