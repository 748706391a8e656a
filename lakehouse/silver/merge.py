"""The newest version of every key: which of the new records become rows, which rows they replace, what is deleted.

    increment  accepted + the rows and tombstones of the same keys ─▶ newest per key ─▶ files that hold one, rewritten
    whole      all accepted records ─▶ one sort; only keys that occur more than once, or in a delete, are ever compared

The outcome follows from the set of records alone: versions of a key are compared by the declared order, then extraction
time, then deletes before upserts, then content. Where the declared order does not decide which of two records that differ is
the newest, that is counted as a tie. Where the rows are elements of a record (`elements.py`), versions are records, and all
rows of the newest one take the place of all rows of the one before. Observed columns are the sums of what was seen of a
key, whichever version is the newest.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import LakehouseError
from lakehouse.core.names import TableRef
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot
from lakehouse.core.table.staging import PATH, files_for_keys, replace_keys
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.silver.elements import beside, elements, records
from lakehouse.silver.inputs import ROW_ID
from lakehouse.silver.validate import ACCEPTED, DELETED, Validator, cast_of
from lakehouse.silver.withdrawn import Again
from lakehouse.tables.spec import EXTRACTED_AT, RECORD_DIGEST, TableSpec

_ORIGIN, _ROW_NUMBER, _OPEN, _SEEN = "_origin", "_row_number", "_open", "_seen_"
#: A digest of what a version says, null where it was not read; all deletes say the same.
_DIGEST = "_digest"
#: The application id under which the tombstones number their keys and orders, and silver the one that its rows are of. A run
#: that was killed between the two commits leaves silver behind.
IDENTITY = "identity"
#: The stored row wins when all else is equal, so nothing is written. A tombstone yields to the
#: same one in the batch: it was stored by a run that did not live to apply it.
_STORED, _BATCH, _TOMBSTONE = 2, 1, 0


@dataclass(frozen=True)
class Change:
    """Staged files, and how many of the accepted records became rows or deletes.

    `accepted`, `written` and `deleted` count records, of which each may be several rows; `upserts` are the new rows of an
    increment. `conflicts` counts keys whose records differ in more than what is observed, `ties` those whose newest records
    differ although the declared order has them equal.
    """

    transaction: Transaction
    accepted: int
    written: int
    deleted: int
    deletes: "nw.LazyFrame[Any]"
    upserts: "nw.LazyFrame[Any] | None"
    conflicts: int = 0
    ties: int = 0


def silver_columns(spec: TableSpec) -> dict[str, str]:
    """`{column: type}` of the silver table."""
    own = {EXTRACTED_AT: "timestamp", **({RECORD_DIGEST: "string"} if spec.explode else {})}
    return {**{column.name: column.type for column in spec.columns}, **own}


def delete_columns(spec: TableSpec) -> dict[str, str]:
    """`{column: type}` of the tombstones: what decides which version of a key is the newest."""
    names = (*spec.record_key, *(name for name in spec.order if name not in spec.record_key))
    types = silver_columns(spec)
    return {**{name: types[name] for name in names}, EXTRACTED_AT: "timestamp"}


def tombstones_ref(target: TableRef) -> TableRef:
    """The table of a silver table's tombstones."""
    return table_beside("deletes", target)


def baseline_ref(target: TableRef) -> TableRef:
    """Where what expired bronze records have made of a silver table is kept (`silver/baseline.py`)."""
    return table_beside("baseline", target)


def with_keys(
    session: Session, spec: TableSpec, delivered: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]"
) -> "tuple[nw.LazyFrame[Any], list[str]]":
    """The records with their key, roughly cast before anything else is computed; validated where the key is computed too."""
    whole = [c for c in spec.of_record if not (c.nulls or c.steps or c.default is not None)]
    plain = {c.name: (spec.text_of(c), cast_of(c)) for c in whole}
    if spec.transform is not None or any(name not in plain for name in spec.record_key):
        return records(spec, validated), list(spec.record_key)
    casts = {f"_key_{name}": plain[name] for name in spec.record_key}
    return session.cast(delivered, casts, exact=False), list(casts)


def table_beside(kind: str, target: TableRef) -> TableRef:
    """The table of `ops` that is of one `kind` beside another table."""
    name = f"{kind}_{target.table}"
    if len(name) > 63:  # the longest name; two long ones must not share their beginning
        name = f"{name[:54]}_{hashlib.sha256(target.table.encode()).hexdigest()[:8]}"
    return TableRef("ops", name)


def check_rows(transaction: Transaction, expected: int, spec: TableSpec) -> None:
    """Give up a change that would not leave as many rows as it should.

    Raises:
        LakehouseError: it would not; its files are gone.
    """
    if transaction.rows == expected:
        return
    transaction.abandon()
    raise LakehouseError(
        f"The change of {transaction.table.uri} staged {transaction.rows:,} rows instead of {expected:,}; nothing was committed.",
        remedy=f"Run make rebuild TABLE={spec.name} and report this.",
    )


class Merge:
    """Stages what accepted records change in a silver table and its tombstones."""

    def __init__(self, session: Session, spec: TableSpec, validator: Validator, *, silver: Snapshot, deletes: Snapshot) -> None:
        self._session, self._spec, self._validator = session, spec, validator
        self._silver, self._deletes = silver, deletes
        self._columns, self._narrow, self._key = silver_columns(spec), delete_columns(spec), list(spec.record_key)
        self._observed = [column.name for column in spec.observed]
        decided = (*spec.key, *spec.order, EXTRACTED_AT, *self._observed)
        self._content = [RECORD_DIGEST] if spec.explode else [name for name in self._columns if name not in decided]
        #: What versions are compared by.
        self._whole = {**self._narrow, RECORD_DIGEST: "string"} if spec.explode else self._columns
        self._order = [*spec.order, EXTRACTED_AT, DELETED, *self._content]

    def rebuild(self, delivered: "nw.LazyFrame[Any]", validated: "nw.LazyFrame[Any]") -> Change:
        """Everything at once, streaming: keys that occur once go straight to the sort, the others without their losers."""
        session, key = self._session, self._key
        keyed, keys = with_keys(session, self._spec, delivered, validated)
        # Two scans that read almost nothing: 1.2 s of CPU per 10 M rows, one that counts both takes 2.5 s.
        repeated = keyed.select(*keys).group_by(*keys).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
        ended = validated.filter(nw.col(DELETED)).select(**{name: nw.col(of) for name, of in zip(keys, key, strict=True)})
        special = session.persist(nw.concat([repeated.select(*keys), ended], how="vertical"))
        some = keyed.join(special, on=keys, how="semi") if keys != key else delivered
        accepted = records(self._spec, self._validator.accepted(some)).with_columns(nw.lit(_BATCH).alias(_ORIGIN))
        if self._observed:  # asked for more than once
            accepted = session.persist(accepted)
        numbered, ties = self._deduplicate(
            lambda columns, _: self._with_digest(accepted).select(*columns, DELETED, _ORIGIN, *ROW_ID, _DIGEST)
        )
        losers = numbered.filter((nw.col(_ROW_NUMBER) > 1) | nw.col(DELETED)).select(*ROW_ID)
        if self._spec.explode:  # which records are refused is known, and was a look at all of their elements
            rows = elements(self._spec, session.filter_true(validated, ACCEPTED)).join(losers, on=list(ROW_ID), how="anti")
        else:
            rows = self._validator.accepted(delivered.join(losers, on=list(ROW_ID), how="anti"))
        rows = rows.select(*self._columns)
        if self._observed:
            rows = self._with_seen(rows, self._seen(accepted))
        add = self._stage(rows, sort_by=self._spec.key)
        written = self._records_in(add)
        deletes = numbered.filter((nw.col(_ROW_NUMBER) == 1) & nw.col(DELETED))
        return Change(
            transaction=Transaction(table=self._silver, add=add, remove=self._silver.files),
            accepted=written + session.count(losers),
            written=written,
            deleted=session.count(deletes),
            deletes=deletes,
            upserts=None,
            conflicts=self._conflicts(accepted),
            ties=ties,
        )

    def increment(self, validated: "nw.LazyFrame[Any]", *, again: Again | None = None) -> Change:
        """Only what changes: compare the batch with the rows and deletes of its keys, rewrite the files these are in.

        Args:
            again: keys of which rows and deletes that are there do not count, but the records that it has.
        """
        session, key, narrow = self._session, self._key, self._narrow
        row_id = [nw.col(name).cast(nw.Int64) for name in ROW_ID]
        fields = [*map(nw.col, (*self._columns, DELETED, *beside(self._spec))), *row_id]
        batch = session.persist(session.filter_true(validated, ACCEPTED).select(*fields))
        own = records(self._spec, batch)
        if again is not None:
            batch = session.persist(nw.concat([batch, again.older.select(*fields)], how="vertical"))
        accepted = records(self._spec, batch)
        keys = accepted.select(*key)
        keys = keys if again is None else nw.concat([keys, again.keys], how="vertical")
        chosen = files_for_keys(session, self._silver, keys, key[0])
        stored = session.read(self._silver.paths(chosen), self._columns if self._observed else narrow, path_column=PATH)
        stored = session.persist(stored.join(keys, on=key, how="semi"))
        tombstones = session.persist(session.read(self._deletes.paths(), narrow).join(keys, on=key, how="semi"))
        located = stored.select(*key, PATH)
        if again is not None:
            stored, tombstones = (frame.join(again.keys, on=key, how="anti") for frame in (stored, tombstones))

        def contenders(columns: Mapping[str, str], these: "nw.LazyFrame[Any] | None") -> "nw.LazyFrame[Any]":
            """Versions of the batch's keys, or of `these`: its own, the stored rows and the tombstones."""
            if these is None or self._observed:
                return self._versions(columns, accepted, stored, tombstones, whole=bool(self._observed))
            # Read again from the files that they are in, which are mostly those that will be rewritten.
            located = session.rows(stored.join(these, on=key, how="semi").select(PATH).unique())
            rows = session.read(sorted(path for (path,) in located), columns).join(these, on=key, how="semi")
            return self._versions(columns, accepted, rows, tombstones)

        numbered, ties = self._deduplicate(contenders)
        changed = numbered.filter((nw.col(_ROW_NUMBER) == 1) & (nw.col(_ORIGIN) == _BATCH))
        live = changed.filter(~nw.col(DELETED)).select(*ROW_ID)
        upserts = batch.join(live, on=list(ROW_ID), how="semi").select(*self._columns)
        if self._observed:
            # What was seen of a key changes its row, also where the stored version stands.
            standing = stored.join(changed.select(*key), on=key, how="anti")
            upserts = nw.concat([upserts, standing.select(*self._columns)], how="vertical")
            upserts = self._with_seen(upserts, self._seen(accepted, stored))
            changed = keys.unique()
        upserts = session.persist(upserts)
        deletes = numbered.filter((nw.col(_ROW_NUMBER) == 1) & (nw.col(_ORIGIN) == _BATCH) & nw.col(DELETED))
        changed = changed.select(*key)
        if again is not None:
            changed = session.persist(nw.concat([changed, again.keys], how="vertical").unique())
        transaction = self._replaced(session.persist(changed) if self._observed else changed, upserts, located)
        return Change(
            transaction=transaction,
            accepted=session.count(own),
            written=session.count(live.join(own, on=list(ROW_ID), how="semi") if self._spec.explode or again else upserts),
            deleted=session.count(deletes.join(own, on=list(ROW_ID), how="semi") if again else deletes),
            deletes=deletes,
            upserts=upserts,
            conflicts=self._conflicts(accepted, stored),
            ties=ties,
        )

    def _replaced(self, changed: "nw.LazyFrame[Any]", rows: "nw.LazyFrame[Any]", located: "nw.LazyFrame[Any]") -> Transaction:
        """The table without the rows of the keys `changed`, and with `rows`; as `replace_keys`."""
        session, spec, key = self._session, self._spec, self._key
        add, remove = replace_keys(
            session,
            self._silver,
            changed=changed,
            rows=rows,
            located=located,
            key=key,
            columns=self._columns,
            file_mb=spec.file_mb,
            partition=spec.partition,
            sort_by=spec.key,
        )
        transaction = Transaction(table=self._silver, add=add, remove=remove)
        replaced = session.count(located.join(changed, on=key, how="semi"))
        check_rows(transaction, self._silver.rows - replaced + session.count(rows), spec)
        return transaction

    def from_baseline(self, validated: "nw.LazyFrame[Any]", rows: "nw.LazyFrame[Any]", ended: "nw.LazyFrame[Any]") -> Change:
        """Everything at once, where some of it is no longer in bronze: the records, and the baseline's `rows` and deletes."""
        session, key = self._session, self._key
        row_id = [nw.col(name).cast(nw.Int64) for name in ROW_ID]
        batch = session.filter_true(validated, ACCEPTED)
        batch = session.persist(batch.select(*self._columns, DELETED, *beside(self._spec), *row_id))
        accepted, rows = records(self._spec, batch), session.persist(rows)
        numbered, ties = self._deduplicate(lambda columns, _: self._versions(columns, accepted, rows, ended))
        newest = numbered.filter(nw.col(_ROW_NUMBER) == 1)
        mine = newest.filter(nw.col(_ORIGIN) == _BATCH)
        live = mine.filter(~nw.col(DELETED)).select(*ROW_ID)
        standing = rows.join(newest.filter(nw.col(_ORIGIN) == _STORED).select(*key), on=key, how="semi")
        parts = [batch.join(live, on=list(ROW_ID), how="semi"), standing]
        found = nw.concat([part.select(*self._columns) for part in parts], how="vertical")
        if self._observed:
            found = self._with_seen(found, self._seen(accepted, rows))
        add = self._stage(found, sort_by=self._spec.key)
        return Change(
            transaction=Transaction(table=self._silver, add=add, remove=self._silver.files),
            accepted=session.count(accepted),
            written=session.count(live),
            deleted=session.count(mine.filter(nw.col(DELETED))),
            deletes=newest.filter(nw.col(DELETED)),
            upserts=None,
            conflicts=self._conflicts(accepted, rows),
            ties=ties,
        )

    def append(self, validated: "nw.LazyFrame[Any]", *, anew: bool, rows: "nw.LazyFrame[Any] | None" = None) -> Change:
        """Every accepted record is a row, beside those that are there or, `anew`, instead of them; then beside `rows`."""
        accepted = self._session.filter_true(validated, ACCEPTED)
        ended = self._session.count(accepted.filter(nw.col(DELETED))) if self._spec.explode else 0  # without elements
        batch = elements(self._spec, accepted).select(*self._columns)
        carried = self._session.count(self._firsts(rows)) if rows is not None else 0
        rows = batch if rows is None else nw.concat([batch, rows.select(*self._columns)], how="vertical")
        add = self._stage(rows, sort_by=[*self._spec.order, EXTRACTED_AT])
        written = self._records_in(add) - carried
        transaction = Transaction(table=self._silver, add=add, remove=self._silver.files if anew else ())
        none = self._session.table([], self._narrow)
        return Change(
            transaction=transaction, accepted=written + ended, written=written, deleted=ended, deletes=none, upserts=None
        )

    def store_tombstones(self, deletes: "nw.LazyFrame[Any]", *, anew: bool) -> int:
        """Commit the deletes before the table: one that is remembered twice, or too early, changes nothing.

        Returns the number of the key and order that they have now (`IDENTITY`).
        """
        columns, session = self._narrow, self._session
        new = deletes.select(*columns)
        if not anew and self._deletes.files:
            have = session.read(self._deletes.paths(), columns)
            new = new.join(have, on=list(columns), how="anti")
        add = session.write(new, self._deletes.uri, columns=columns, sort_by=self._key)
        remove = self._deletes.files if anew else ()
        other = [*self._deletes.columns.items()] != [*columns.items()]  # the key or the order was declared anew
        number = max(self._deletes.watermark(IDENTITY), self._silver.watermark(IDENTITY)) + other
        if add or remove or other:
            commit_staged(
                Transaction(
                    table=self._deletes,
                    add=add,
                    remove=remove,
                    columns=columns if other else None,
                    watermarks={IDENTITY: number} if other else {},
                    provenance=Provenance(operation="deletes"),
                )
            )
        return number

    def _records_in(self, files: Sequence[DataFile]) -> int:
        """How many records the rows of staged files are of."""
        if not self._spec.explode:
            return sum(file.rows for file in files)
        position = {name: self._columns[name] for name in (self._spec.position,)}
        return self._session.count(self._firsts(self._session.read(self._silver.paths(files), position)))

    def _firsts(self, rows: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """One row for each record."""
        return rows.filter(nw.col(self._spec.position) == 0) if self._spec.explode else rows

    def _stage(self, rows: "nw.LazyFrame[Any]", *, sort_by: Sequence[str]) -> list[DataFile]:
        """Rows as data files of the silver table."""
        spec = self._spec
        return self._session.write(
            rows, self._silver.uri, columns=self._columns, sort_by=sort_by, file_mb=spec.file_mb, partition=spec.partition
        )

    # --- versions of a key -------------------------------------------------------------------------------------------

    def _numbered(self, frame: "nw.LazyFrame[Any]", order: list[str]) -> "nw.LazyFrame[Any]":
        """The frame with `_row_number`: 1 for the newest version of its key, 2 for the one before it."""
        row_number = nw.col(self._key[0]).cum_count(reverse=True).over(*self._key, order_by=order)
        return frame.with_columns(row_number.alias(_ROW_NUMBER))

    def _versions(
        self,
        columns: Mapping[str, str],
        accepted: "nw.LazyFrame[Any]",
        rows: "nw.LazyFrame[Any]",
        ended: "nw.LazyFrame[Any]",
        *,
        whole: bool = True,
    ) -> "nw.LazyFrame[Any]":
        """Records of the batch, rows and deletes of keys as versions that can be compared; `whole` rows have all columns."""
        if self._spec.explode:  # all rows of a version say the same
            rows = rows.select(*(self._whole if whole else columns)).unique()
        batch = self._with_digest(accepted).with_columns(nw.lit(_BATCH).alias(_ORIGIN))
        rows = rows.with_columns(nw.lit(False).alias(DELETED), nw.lit(_STORED).alias(_ORIGIN))
        rows = self._with_digest(rows) if whole else rows.with_columns(nw.lit(None).cast(nw.Int64).alias(_DIGEST))
        gone = self._with_digest(self._as_rows(ended)).with_columns(nw.lit(_TOMBSTONE).alias(_ORIGIN))
        nowhere = {name: nw.lit(None).cast(nw.Int64) for name in ROW_ID}
        fields = [*columns, DELETED, _ORIGIN, *ROW_ID, _DIGEST]
        frames = [batch, rows.with_columns(**nowhere), gone.with_columns(**nowhere)]
        return nw.concat([frame.select(*fields) for frame in frames], how="vertical")

    def _deduplicate(
        self, contenders: "Callable[[Mapping[str, str], nw.LazyFrame[Any] | None], nw.LazyFrame[Any]]"
    ) -> "tuple[nw.LazyFrame[Any], int]":
        """Key, order, origin, row id and row number of every version; and the number of ties. Whole records are compared only
        where the declared order does not decide which version of a key is the newest.

        Args:
            contenders: the versions with the given columns, `DELETED`, `_ORIGIN` and their row id; of the given keys at least.
        """
        session, key = self._session, self._key
        have = [*self._narrow, DELETED, _ORIGIN, *ROW_ID]
        # Equal in everything: then the one that is there stands, and nothing has to be written.
        order = [*(name for name in self._order if name in have), _ORIGIN]
        numbered = session.persist(self._numbered(self._opened(contenders(self._narrow, None)), order))
        undecided = numbered.filter((nw.col(_ROW_NUMBER) == 1) & nw.col(_OPEN)).select(*key)
        if not session.rows(undecided.head(1)):
            return numbered, 0
        undecided = session.persist(undecided)
        whole = contenders(self._whole, undecided).join(undecided, on=key, how="semi")
        again = session.persist(self._numbered(self._opened(whole), [*self._order, _ORIGIN]).select(*have, _ROW_NUMBER, _OPEN))
        decided = numbered.join(undecided, on=key, how="anti").select(*have, _ROW_NUMBER)
        ties = session.count(again.filter((nw.col(_ROW_NUMBER) == 1) & nw.col(_OPEN)))
        return session.persist(nw.concat([decided, again.select(*have, _ROW_NUMBER)], how="vertical")), ties

    def _opened(self, versions: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Versions with whether another one, equal by the declared order, says something else, as far as is known."""
        equals = (*self._key, *(name for name in self._spec.order if name not in self._key))
        digest, every = nw.col(_DIGEST), nw.col(self._key[0]).count().over(*equals)
        differ = (digest.min().over(*equals) != digest.max().over(*equals)).fill_null(False)
        return versions.with_columns(((every > 1) & (differ | (digest.count().over(*equals) < every))).alias(_OPEN))

    def _with_digest(self, versions: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Versions with a digest of what they say beside key, order and observations."""
        if not self._content:
            return versions.with_columns(nw.col(DELETED).cast(nw.Int64).alias(_DIGEST))
        versions = self._session.digest(versions, _DIGEST, self._content)
        return versions.with_columns(nw.when(~nw.col(DELETED)).then(nw.col(_DIGEST)).otherwise(nw.lit(0)).alias(_DIGEST))

    def _as_rows(self, deletes: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Tombstones in the shape of silver rows."""
        others = {name: kind for name, kind in self._columns.items() if name not in self._narrow}
        types = self._session.table([], others).collect_schema() if others else {}
        missing = {name: nw.lit(None).cast(dtype) for name, dtype in types.items()}
        return deletes.with_columns(**missing, **{DELETED: nw.lit(True)})

    # --- observations --------------------------------------------------------------------------------------------------

    def _seen(self, batch: "nw.LazyFrame[Any]", stored: "nw.LazyFrame[Any] | None" = None) -> "nw.LazyFrame[Any]":
        """What was seen of every key, by the batch and by the rows that are there: the observed columns as `_seen_<name>`."""
        columns = self._spec.observed
        frame = batch.select(*self._key, EXTRACTED_AT).unique()  # two records of one instant are one observation
        instant, types = nw.col(EXTRACTED_AT), self._session.table([], {c.name: c.type for c in columns}).collect_schema()
        mine = {c.name: (nw.lit(1) if c.observed == "count" else instant).cast(types[c.name]) for c in columns}
        frame = frame.select(*self._key, **mine)
        if stored is not None:
            frame = nw.concat([frame, stored.select(*self._key, *mine)], how="vertical")
        sums = {"first": nw.Expr.min, "last": nw.Expr.max, "count": nw.Expr.sum}
        found = [sums[c.observed](nw.col(c.name)).cast(types[c.name]).alias(_SEEN + c.name) for c in columns]
        return frame.group_by(*self._key).agg(*found)

    def _with_seen(self, rows: "nw.LazyFrame[Any]", seen: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Rows with the observed columns as they were seen; a key that was compared with no other keeps its own."""
        keys = {f"{_SEEN}key_{name}": name for name in self._key}
        seen = seen.rename({name: alias for alias, name in keys.items()})
        joined = rows.join(seen, left_on=self._key, right_on=list(keys), how="left")
        known = {name: nw.coalesce(nw.col(_SEEN + name), nw.col(name)) for name in self._observed}
        return joined.with_columns(**known).select(*self._columns)

    def _conflicts(self, *versions: "nw.LazyFrame[Any]") -> int:
        """Keys whose records say different things; asked only where a key is observed, not changed."""
        if not self._observed:
            return 0
        frames = [frame.select(*self._key, *self._content) for frame in versions]
        frame = (nw.concat(frames, how="vertical") if len(frames) > 1 else frames[0]).unique()
        several = frame.group_by(*self._key).agg(nw.len().alias("_n")).filter(nw.col("_n") > 1)
        return self._session.count(several)
