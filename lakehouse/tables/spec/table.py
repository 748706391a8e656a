"""TableSpec: the record of one table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from itertools import count
from typing import Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.expressions import Expression, parse
from lakehouse.core.names import Engine, TableRef, check_name, column_name
from lakehouse.tables.spec.columns import Column
from lakehouse.tables.spec.explode import array_column, check_explode, check_of_record, record_level
from lakehouse.tables.spec.history import check_history, history_ref
from lakehouse.tables.spec.member import check_member, check_one_of
from lakehouse.tables.spec.policies import Health, Retention, Subject
from lakehouse.tables.spec.rules import Action, References, RowRule, TableRule, not_null
from lakehouse.tables.spec.sources import Feed, PlainFiles, Source, check_source, reads_same
from lakehouse.tables.spec.withdrawals import check_withdrawals, withdraws

Drift = Literal["evolve", "quarantine", "freeze"]
#: The empty one is the engine that LAKEHOUSE_ENGINE names.
OwnEngine = Literal["", Engine]
Sync = Literal["dedup", "append", "overwrite"]
OnChange = Literal["stop", "rebuild"]
_STRICT: tuple[Action, ...] = ("quarantine", "fail")
_HEALTH = Health()


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One source table on its way from landing to silver.

    Args:
        name: bronze table, and silver table unless `silver_name` says otherwise.
        source: where its records land.
        feeds: instead of a source: the bronze tables, each with its own source, whose records together make the silver table.
        values: fields that all records have, beside those delivered; as text.
        columns: silver's columns in order; calculated ones may use those before them.
        sync: what a sync's records are: new versions of rows, of which the newest counts (`dedup`); rows that are added
            (`append`); or the whole table, of which the newest complete generation counts (`overwrite`).
        key: columns that identify a row; never null. A table that is appended to has none, one that is overwritten may.
        order: columns by which the newest version of a key is found; the extraction time follows, then deletes before
            upserts, then the content, so that the outcome never depends on the order in which files arrived.
        deleted: condition that marks a record as the deletion of its key.
        rules: checked before every commit.
        drift: what a new source field does: `evolve` adds it to bronze, `quarantine` puts the file in quarantine, `freeze`
            stops the batch.
        transform: name of a module of `silver/transforms/` whose `transform(frame)` runs between casting and calculated
            columns.
        on_change: what a declaration does that makes other values of records which silver has read: `stop` the table until
            `make rebuild`, or `rebuild` it from bronze with the next run.
        max_loss: the largest share of rows that one commit may remove before it is refused.
        engine: what computes silver, where that is another than LAKEHOUSE_ENGINE says.
        freshness: how old the newest materialisation may be.
        partition: a date column by which silver's files are kept apart; never null.
        file_mb: target size of a silver data file. Smaller files make small merges cheaper, larger ones scans.
        health: bounds of what is measured of the silver table every five minutes.
        explode: the path of an array within the records, whose elements are the rows (`tables/spec/explode.py`).
        history: whether a table beside it has every version of a key, or the columns of which a change opens one
            (`tables/spec/history.py`).
        retention: how long its records are kept; for ever by default.
        subject: whom its records are about.
    """

    name: str
    source: Source | None = None
    feeds: tuple[Feed, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[Column, ...]
    sync: Sync = "dedup"
    key: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    silver_name: str = ""
    deleted: str | None = None
    rules: tuple[RowRule | TableRule, ...] = ()
    drift: Drift = "evolve"
    transform: str | None = None
    on_change: OnChange = "stop"
    max_loss: float = 0.5
    engine: OwnEngine = ""
    freshness: timedelta | None = None
    partition: str = ""
    file_mb: int = 16
    explode: str = ""
    history: bool | tuple[str, ...] = False
    health: Health = _HEALTH
    retention: Retention | None = None
    subject: Subject | None = None
    description: str = ""
    owners: tuple[str, ...] = ("team:dados",)
    tags: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        check_name(self.name, "table name")
        if not self.silver_name:
            object.__setattr__(self, "silver_name", self.name)
        check_name(self.silver_name, "silver table name")
        for tag in self.tags:
            check_name(tag, "tag")
        if self.transform is not None:
            check_name(self.transform, "transform")
        check_member(self.engine, OwnEngine, f"Table {self.name!r}: engine")
        check_member(self.drift, Drift, f"Table {self.name!r}: drift")
        check_member(self.on_change, OnChange, f"Table {self.name!r}: on_change")
        if not 0 <= self.max_loss <= 1 or self.file_mb < 1:
            raise DeclarationError(
                f"Table {self.name!r}: max_loss {self.max_loss} or file_mb {self.file_mb} is out of range.",
                remedy="Give max_loss as a share from 0 to 1, and file_mb as 1 or more.",
            )
        names = [column.name for column in self.columns]
        if (self.source is None) == (not self.feeds) or (self.feeds and self.values):
            raise DeclarationError(
                f"Table {self.name!r} has no source, or two.", remedy="Give source, or feeds with their values."
            )
        if self.source is not None:
            check_source(self.source, f"Table {self.name!r}")
        self._check_names(names)
        self._check_sync()
        check_explode(self)
        check_member(self.sync, Sync, f"Table {self.name!r}: sync")
        needed = self.sync == "dedup" or (self.sync == "overwrite" and bool(self.key or self.order))
        for role, listed in (("key", self.key), ("order", self.order)):
            missing = [name for name in listed if name not in names]
            if missing or (needed and not listed):
                raise DeclarationError(
                    f"Table {self.name!r}: {role} {listed} is not made of its columns.",
                    remedy=f"Name at least one of {', '.join(names)}.",
                )
        kinds = {column.name: column.type for column in self.columns}
        if self.health.event_time and kinds.get(self.health.event_time) != "timestamp":
            raise DeclarationError(
                f"Table {self.name!r}: its event time {self.health.event_time!r} is not one of its timestamp columns.",
                remedy="Name one in Health(event_time=...).",
            )
        self._check_retention(kinds)
        allowed = [not_null(name, action=action) for name in self.never_null for action in _STRICT]
        for rule in self.rules:
            if rule.name in {own.name for own in allowed} and rule not in allowed:
                raise DeclarationError(
                    f"Table {self.name!r}: by its rule {rule.name!r} the key or the partition might be null.",
                    remedy="Use not_null(...) with the action quarantine or fail, or leave it out: they are never null.",
                )
        if odd := [column.name for column in self.columns if column.invalid and column.name in {*self.never_null, *self.order}]:
            raise DeclarationError(
                f"Table {self.name!r}: rows are told apart and ordered by {odd[0]!r}, which may be null for what is no value.",
                remedy="Leave invalid out, so that such a record goes to quarantine.",
            )
        self._check_expressions(names)
        check_of_record(self)
        check_withdrawals(self)
        check_history(self)

    def _check_sync(self) -> None:
        kinds = {column.name: column.type for column in self.columns}
        if self.partition and kinds.get(self.partition) != "date":
            raise DeclarationError(
                f"Table {self.name!r} cannot be partitioned by {self.partition!r}.",
                remedy="Name one of its columns of type date.",
            )
        if (not self.key and (self.observed or self.deleted is not None)) or (self.sync == "append" and (self.key or self.order)):
            raise DeclarationError(
                f"Table {self.name!r}, sync {self.sync}: without a key nothing is replaced, and what is appended has none.",
                remedy="Leave out key, order, deleted and observed columns, or use sync='dedup'.",
            )
        if self.sync == "overwrite" and any(isinstance(part.origin, PlainFiles) for part in self.parts):
            raise DeclarationError(
                f"Table {self.name!r} is overwritten by whole generations, and plain files do not say which they are of.",
                remedy="Use sync='dedup' with a key, or sync='append'.",
            )
        if self.observed and self.deleted is not None:
            raise DeclarationError(
                f"Table {self.name!r} counts observations and has deletes: what would count after one?",
                remedy="Leave out `deleted` or the observed columns.",
            )

    def _check_retention(self, kinds: Mapping[str, str]) -> None:
        if self.subject is not None and self.subject.column not in {column.name for column in self.delivered}:
            raise DeclarationError(
                f"Table {self.name!r}: the subject's column {self.subject.column!r} is none that records bring.",
                remedy="Name a delivered column in Subject(kind, column).",
            )
        if self.subject is not None and next(c for c in self.delivered if c.name == self.subject.column).path:
            raise DeclarationError(
                f"Table {self.name!r}: the subject's column {self.subject.column!r} is within a document.",
                remedy="Name a column that is a field of its own: landed files are searched by fields.",
            )
        retention = self.retention
        if retention is None:
            return
        observed = {column.name for column in self.observed}
        if kinds.get(retention.event) not in ("date", "timestamp") or retention.event in observed:
            raise DeclarationError(
                f"Table {self.name!r}: its event date {retention.event!r} is not one of its dates and timestamps.",
                remedy="Name one that records bring, or that is calculated from them, in Retention(event=...).",
            )
        if retention.event in self.order and retention.event not in self.key:
            raise DeclarationError(
                f"Table {self.name!r}: its event date {retention.event!r} orders the versions of a key, so it changes.",
                remedy="Name a date that a key keeps, such as the one of its creation.",
            )
        if retention.landing is not None and any(p.origin.made_by or not p.origin.owned for p in self.parts):
            raise DeclarationError(
                f"Table {self.name!r}: its landed files belong to who writes them, and the next extraction goes on from them.",
                remedy="Leave Retention(landing=...) out.",
            )
        if retention.bronze is not None and self.sync == "overwrite":
            raise DeclarationError(
                f"Table {self.name!r} is overwritten: silver is made of the newest generation in bronze.",
                remedy="Leave Retention(bronze=...) out.",
            )

    def _check_names(self, columns: list[str]) -> None:
        self._refuse_repeats([feed.name for feed in self.feeds], "feed")
        self._refuse_repeats(columns, "column")
        self._refuse_repeats([rule.name for rule in self.rules], "rule")

    def _refuse_repeats(self, names: list[str], what: str) -> None:
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise DeclarationError(
                f"Table {self.name!r} declares the {what} {repeated[0]!r} twice.",
                remedy="Rename or remove one of them.",
            )

    def _check_expressions(self, names: list[str]) -> None:
        seen = [column.name for column in self.columns if column.expression is None]
        for column in self.columns:
            if column.expression is not None:
                self._parse(column.expression, seen, f"column {column.name!r}")
                seen.append(column.name)
        if self.deleted is not None:
            self._parse(self.deleted, names, "deleted")
        for rule in self.rules:
            if isinstance(rule, RowRule):
                if not self._parse(rule.condition, names, f"rule {rule.name!r}").columns:
                    raise DeclarationError(
                        f"Rule {rule.name!r} of table {self.name!r} reads no column.", remedy=f"Use {', '.join(names)}."
                    )
            elif any(name not in names for name in rule.reads):
                raise DeclarationError(
                    f"Rule {rule.name!r} of table {self.name!r} names a column that is not there.",
                    remedy=f"Use {', '.join(names)}.",
                )

    def _parse(self, text: str, columns: list[str], what: str) -> Expression:
        """One of this spec's expressions as it is declared: what is wrong with it is said with table and place."""
        try:
            return parse(text, columns=columns, types={column.name: column.type for column in self.columns})
        except DeclarationError as error:
            raise type(error)(f"Table {self.name!r}, {what}: {error.what}", remedy=error.remedy) from error

    @property
    def parts(self) -> "tuple[TableSpec, ...]":
        """The table once for each of its bronze tables, as if that were the only one; itself when there is one."""
        if not self.feeds:
            return (self,)
        return tuple(
            replace(self, name=feed.name, source=feed.source, values=feed.values, feeds=(), silver_name=self.silver_name)
            for feed in self.feeds
        )

    @property
    def withdraws(self) -> bool:
        """Whether rows leave silver because they have left a table of another writer."""
        return withdraws(self)

    @property
    def origin(self) -> Source:
        """Where the records of one bronze table land.

        Raises:
            DeclarationError: there are several; ask its `parts`.
        """
        if self.source is None:
            raise DeclarationError(f"Table {self.name!r} has several sources.", remedy="Ask each of its parts.")
        return self.source

    @property
    def landing(self) -> TableRef:
        """The landing asset that bronze follows."""
        return TableRef("landing", self.origin.asset)

    @property
    def bronze(self) -> TableRef:
        """The bronze table of a table that has one; else ask its `parts`."""
        return TableRef("bronze", self.name)

    @property
    def never_null(self) -> tuple[str, ...]:
        """The key and the partition."""
        return tuple(dict.fromkeys((*self.key, *([self.partition] if self.partition else []))))

    @property
    def delivered(self) -> tuple[Column, ...]:
        """The columns that records bring."""
        return tuple(column for column in self.columns if column.delivered)

    @cached_property
    def array(self) -> Column | None:
        """The array whose elements are the rows, as a column of the record; None where the rows are records."""
        if not self.explode:
            return None
        field = array_column(self.explode, personal=False).bronze_name
        personal = any(c.personal for c in self.delivered if not c.parent or c.bronze_name == field)
        return array_column(self.explode, personal=personal)

    @cached_property
    def of_elements(self) -> tuple[Column, ...]:
        """The delivered columns that are read from an element."""
        return tuple(column for column in self.delivered if not column.parent) if self.explode else ()

    @cached_property
    def of_record(self) -> tuple[Column, ...]:
        """What is read from fields of a record: the delivered columns, or the record's own and the array."""
        if self.array is None:
            return self.delivered
        return (*(column for column in self.delivered if column.parent), self.array)

    @cached_property
    def record_level(self) -> frozenset[str]:
        """The columns that say something of the record: all of them, unless the rows are elements."""
        if not self.explode:
            return frozenset(column.name for column in self.columns)
        calculated = {c.name: frozenset(self.parsed(c.expression).columns) for c in self.columns if c.expression is not None}
        return record_level(self.columns, calculated)

    @property
    def record_key(self) -> tuple[str, ...]:
        """The key of a record: of which the newest version counts. Its rows have it in common where they are elements."""
        return self.key[:-1] if self.explode else self.key

    @property
    def position(self) -> str:
        """The column that tells the elements of a record apart; empty where the rows are records."""
        return next((column.name for column in self.columns if column.position), "")

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The delivered fields that columns are read from, each under the name that records have it by in a refresh."""
        out: dict[str, str] = {}
        for delivered in dict.fromkeys(column.field for column in self.of_record):
            base = column_name(delivered) or "field"
            names = (base if n == 1 else f"{base}_{n}" for n in count(1))
            out[next(name for name in names if name not in out)] = delivered
        return out

    def text_of(self, column: Column) -> str:
        """The name in `fields` that a column of a record is read from."""
        return self._names[column.field]

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """`fields` by the field."""
        return {delivered: name for name, delivered in self.fields.items()}

    @property
    def observed(self) -> tuple[Column, ...]:
        """The columns that tell when records of a key were extracted."""
        return tuple(column for column in self.columns if column.observed)

    @property
    def silver(self) -> TableRef:
        return TableRef("silver", self.silver_name)

    @property
    def quarantine(self) -> TableRef:
        return TableRef("quarantine", self.name)

    @property
    def row_rules(self) -> tuple[RowRule, ...]:
        """Declared row rules, and first those that follow from the record itself: key and partition are never null."""
        implied = tuple(not_null(name) for name in self.never_null if f"not_null_{name}" not in {r.name for r in self.rules})
        return implied + tuple(rule for rule in self.rules if isinstance(rule, RowRule))

    @property
    def table_rules(self) -> tuple[TableRule, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule, TableRule))

    @property
    def referred(self) -> tuple[TableRef, ...]:
        """The other silver tables that its rules name."""
        names = dict.fromkeys(rule.table for rule in self.table_rules if isinstance(rule, References))
        return tuple(TableRef("silver", name) for name in names if name != self.silver_name)

    def parsed(self, text: str) -> Expression:
        """One of this spec's expressions, checked against all of its columns."""
        return parse(text, columns=[column.name for column in self.columns])


def check_references(*specs: TableSpec) -> tuple[TableSpec, ...]:
    """Return the specs, or refuse a reference to what is not declared, or tables that refer to each other in a circle."""
    tables = {spec.silver_name: spec for spec in specs}
    for spec in specs:
        for rule in spec.table_rules:
            if isinstance(rule, References):
                _check_reference(spec, rule, tables)
    todo, done = {name: {ref.table for ref in spec.referred} for name, spec in tables.items()}, set[str]()
    while free := [name for name, needs in todo.items() if needs <= done]:
        done |= {*free}
        todo = {name: needs for name, needs in todo.items() if name not in done}
    if todo:
        raise DeclarationError(
            f"The tables {', '.join(sorted(todo))} refer to each other in a circle.", remedy="Leave one of the references out."
        )
    return specs


def _check_reference(spec: TableSpec, rule: References, tables: Mapping[str, TableSpec]) -> None:
    what = f"Rule {rule.name!r} of table {spec.name!r}"
    check_one_of(rule.table, tables, f"{what}: silver table")
    kinds = {column.name: column.type for column in tables[rule.table].columns}
    check_one_of(rule.target, kinds, f"{what}: column of silver/{rule.table}")
    mine = next(column.type for column in spec.columns if column.name == rule.column)
    if mine != kinds[rule.target]:
        raise DeclarationError(
            f"{what} compares a {mine} with {rule.target!r}, a {kinds[rule.target]}.", remedy="Declare both columns of one type."
        )


def check_unique(*specs: TableSpec) -> tuple[TableSpec, ...]:
    """Return the specs, or refuse two that would write the same table."""
    bronze, silver = [part.bronze for spec in specs for part in spec.parts], [spec.silver for spec in specs]
    silver += [history_ref(spec) for spec in specs if spec.history]
    for refs in (bronze, silver):
        for ref in refs:
            if refs.count(ref) > 1:
                raise DeclarationError(f"Two tables are declared as {ref}.", remedy="Give one of them another name.")
    return specs


def check_subjects(*specs: TableSpec) -> tuple[TableSpec, ...]:
    """Return the specs, or refuse two that read the same landed files and of which one alone says whom the records are about."""
    for spec in specs:
        for other in specs:
            shared = any(reads_same(one.origin, two.origin) for one in spec.parts for two in other.parts)
            kinds = [each.subject.kind if each.subject is not None else "" for each in (spec, other)]
            if shared and kinds[0] and not kinds[1]:
                raise DeclarationError(
                    f"Table {other.name!r} reads the files of {spec.name!r}, and does not say that they are about a {kinds[0]}.",
                    remedy=f"Add subject=Subject({kinds[0]!r}, ...): what is to be forgotten is in its bronze table as well.",
                )
    return specs


def check_tables(*specs: TableSpec) -> tuple[TableSpec, ...]:
    """Return the specs, or refuse what is wrong between two of them: places, references, subjects."""
    return check_subjects(*check_references(*check_unique(*specs)))
