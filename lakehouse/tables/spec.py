"""TableSpec: one record from which landing, bronze, silver, checks, freshness and the dbt source of a table follow.

What belongs here: frozen records that validate themselves and say how to mend what they refuse.
What does not: reading, writing, dagster, anything about one particular table.

    TableSpec(
        name="vendas", source=AirbyteStream("vendas"), key=("id",), order=("updated_at",),
        columns=(Column("id", "bigint"), ..., Column("total", "decimal(18,4)", expression="quantidade * valor")),
        rules=(not_null("pedido_id"), accepted_values("status", "paid", "deleted", action="warn"), min_rows(1)),
    )
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.expressions import Expression, parse
from lakehouse.core.files import is_remote
from lakehouse.core.names import TableRef, check_name, column_name

Action = Literal["warn", "quarantine", "fail"]
TableAction = Literal["warn", "fail"]
Drift = Literal["evolve", "quarantine", "freeze"]
Engine = Literal["", "duckdb", "spark"]
Form = Literal["", "epoch_ms"]
Sync = Literal["dedup", "append", "overwrite"]
SyncMode = Literal["full_refresh", "incremental"]
Observed = Literal["", "first", "last", "count"]
_STRICT: tuple[Action, ...] = ("quarantine", "fail")
_TYPES = re.compile(r"string|bigint|int|double|boolean|date|timestamp|decimal\(([1-9]|[12]\d|3[0-8]),(\d|[12]\d|3[0-8])\)")
#: Checks that silver tables have without declaring them (`silver/checks.py`).
_OWN_CHECKS = ("castable", "ledger", "complete", "conflicts")
_FIELD = re.compile(r"[A-Za-z0-9_][^\x00-\x1f\"']{0,126}")

#: Kept in silver beside the declared columns. The declared order ends with the extraction time, and an incremental merge
#: cannot compare a late record with the row that is there unless the row remembers its own.
EXTRACTED_AT = "_extracted_at"


@dataclass(frozen=True)
class Column:
    """One silver column.

    Args:
        name: the silver name.
        type: string, bigint, int, double, boolean, date, timestamp (UTC) or decimal(p,s).
        source: the field as delivered, when it is called otherwise (a rename).
        expression: for a calculated column; SQL over the columns declared before it. Such a column has no source.
        description: shown in Dagster and dbt.
        default: what a record without a value gets, as text.
        personal: says something about a person; `make quarantine` does not show it.
        nulls: delivered texts that mean that there is no value.
        form: how a timestamp is delivered, where it is no text of one: `epoch_ms`.
        observed: for a column that tells when records of its key were extracted: the `first` and the `last` instant
            (timestamps), or the `count` of distinct ones. Of a single record, as rules and expressions see it, these are its
            own instant, and 1.
    """

    name: str
    type: str
    source: str | None = None
    expression: str | None = None
    description: str = ""
    default: str | None = None
    personal: bool = False
    nulls: tuple[str, ...] = ()
    form: Form = ""
    observed: Observed = ""

    def __post_init__(self) -> None:
        check_name(self.name, "column name")
        _check_member(self.form, ("", "epoch_ms"), f"Column {self.name!r}: form")
        _check_member(self.observed, ("", "first", "last", "count"), f"Column {self.name!r}: observed")
        if not _TYPES.fullmatch(self.type):
            raise DeclarationError(
                f"Column {self.name!r} has the unknown type {self.type!r}.",
                remedy="Use string, bigint, int, double, boolean, date, timestamp or decimal(p,s) without spaces.",
            )
        decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", self.type)
        if decimal and int(decimal[2]) > int(decimal[1]):
            raise DeclarationError(
                f"Column {self.name!r}: {self.type} has more decimals than digits.", remedy="Write decimal(digits,decimals)."
            )
        if self.default is not None and self.expression is not None:
            raise DeclarationError(
                f"Column {self.name!r} is calculated and has a default.", remedy="Put the default into the expression (COALESCE)."
            )
        if self.source is not None and self.expression is not None:
            raise DeclarationError(f"Column {self.name!r} has both a source and an expression.", remedy="Keep one of them.")
        if self.source is not None and (not _FIELD.fullmatch(self.source) or column_name(self.source) is None):
            raise DeclarationError(
                f"Column {self.name!r} cannot come from a field called {self.source[:80]!r}.",
                remedy="Use the field's name as delivered; it must begin with a letter and be at most 63 characters long.",
            )
        if self.form and self.type != "timestamp":
            raise DeclarationError(f"Column {self.name!r} is a {self.type}, not an instant.", remedy="Leave the form out.")
        if self.observed and self.type not in (("int", "bigint") if self.observed == "count" else ("timestamp",)):
            raise DeclarationError(
                f"Column {self.name!r} is a {self.type} and cannot hold the {self.observed} of its observations.",
                remedy="Use timestamp for first and last, int or bigint for count.",
            )
        if not self.delivered and (self.nulls or self.form or self.default is not None or self.source is not None):
            raise DeclarationError(
                f"Column {self.name!r} is not delivered, and says how it would be.",
                remedy="Leave source, default, nulls and form out.",
            )

    @property
    def delivered(self) -> bool:
        """Whether records bring the column's value; else it is calculated or observed."""
        return self.expression is None and not self.observed

    @property
    def bronze_name(self) -> str:
        """The bronze column this one is cast from."""
        return column_name(self.source or self.name) or self.name


@dataclass(frozen=True)
class RowRule:
    """A condition that every row must meet. A row on which `condition` is null meets it; false violates it, and so does a
    value with which it cannot be evaluated (a cast, an overflow).

    `kind` and what follows it say the condition again where a file's statistics can prove it.
    """

    name: str
    condition: str
    action: Action = "quarantine"
    description: str = ""
    kind: Literal["expression", "not_null", "range"] = "expression"
    column: str = ""
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        _check_rule_name(self.name)
        _check_member(self.action, ("warn", "quarantine", "fail"), f"Rule {self.name!r}: action")


@dataclass(frozen=True)
class TableRule:
    """A condition on the table as it would be after the commit.

    `limit` is a count of rows for `min_rows` and a share between 0 and 1 for `volume_drop`.
    """

    name: str
    kind: Literal["min_rows", "unique", "volume_drop"]
    action: TableAction = "fail"
    limit: float = 0
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_rule_name(self.name)
        _check_member(self.kind, ("min_rows", "unique", "volume_drop"), f"Rule {self.name!r}: kind")
        _check_member(self.action, ("warn", "fail"), f"Rule {self.name!r}: action")
        if self.kind == "unique" and not self.columns:
            raise DeclarationError(f"Rule {self.name!r} names no column.", remedy="Name the columns that are unique together.")


def not_null(column: str, *, action: Action = "quarantine") -> RowRule:
    """The column has a value."""
    return RowRule(f"not_null_{column}", f'"{check_name(column)}" IS NOT NULL', action, kind="not_null", column=column)


def accepted_values(column: str, *values: str, action: Action = "quarantine") -> RowRule:
    """The column is null or one of `values`."""
    if not values:
        raise DeclarationError(f"No value of {column!r} is accepted.", remedy="List the accepted values.")
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return RowRule(f"accepted_values_{column}", f'"{check_name(column)}" IN ({listed})', action)


def in_range(
    column: str, *, minimum: float | None = None, maximum: float | None = None, action: Action = "quarantine"
) -> RowRule:
    """The column is null or within the bounds, both included."""
    name = f'"{check_name(column)}"'
    parts = [f"{name} >= {minimum!r}"] if minimum is not None else []
    parts += [f"{name} <= {maximum!r}"] if maximum is not None else []
    if not parts:
        raise DeclarationError(f"The range rule on {column!r} has no bound.", remedy="Give minimum, maximum or both.")
    return RowRule(f"range_{column}", " AND ".join(parts), action, kind="range", column=column, minimum=minimum, maximum=maximum)


def matches(column: str, pattern: str, *, action: Action = "quarantine") -> RowRule:
    """The column is null or the regular expression finds a match in it."""
    quoted = pattern.replace("'", "''")
    return RowRule(f"matches_{column}", f"regexp_matches(\"{check_name(column)}\", '{quoted}')", action)


def expression(name: str, condition: str, *, action: Action = "quarantine") -> RowRule:
    """Any condition in the allowed subset of SQL (see `core/expressions.py`)."""
    return RowRule(name, condition, action)


def min_rows(rows: int, *, action: TableAction = "fail") -> TableRule:
    """The table has at least so many rows."""
    return TableRule(f"min_rows_{rows}", "min_rows", action, rows)


def unique(*columns: str, action: TableAction = "fail") -> TableRule:
    """No two rows agree in all of these columns."""
    return TableRule("unique_" + "_".join(columns), "unique", action, 0, columns)


def volume_drop(share: float, *, action: TableAction = "fail") -> TableRule:
    """The table does not lose more than this share of its rows in one commit."""
    if not 0 < share <= 1:
        raise DeclarationError(f"volume_drop({share}) is not a share.", remedy="Give a number above 0 and up to 1.")
    return TableRule("volume_drop", "volume_drop", action, share)


@dataclass(frozen=True)
class AirbyteConnector:
    """One of Airbyte's own source connectors, run by this project instead of a server: `landing/<name>` is its sync.

        LOJA = AirbyteConnector("loja", "source-postgres", {"host": "..."}, {"vendas": "incremental"})
        TableSpec(name="vendas", source=LOJA.stream("vendas"), ...)

    Args:
        name: the landing asset. Its executable is looked for in `<LAKEHOUSE_CONNECTORS>/<name>/bin`, and what is secret in its
            config in `<LAKEHOUSE_CONNECTORS>/<name>.json`.
        executable: the connector's command, or its absolute path.
        config: as the connector's `spec` says; without secrets.
        streams: what is read, and how.
        max_runtime: a sync that takes longer is ended; so is one that says nothing for `max_silence`.
    """

    name: str
    executable: str
    config: Mapping[str, Any] = field(default_factory=dict)
    streams: Mapping[str, SyncMode] = field(default_factory=dict)
    max_runtime: timedelta = timedelta(hours=6)
    max_silence: timedelta = timedelta(minutes=30)

    def __post_init__(self) -> None:
        check_name(self.name, "connector name")
        if not re.fullmatch(r"/?[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_.][\w.-]*)*", self.executable, re.ASCII):
            raise DeclarationError(
                f"{self.executable[:80]!r} cannot be the command of connector {self.name!r}.",
                remedy="Give its name, such as source-faker, or an absolute path.",
            )
        if not self.streams:
            raise DeclarationError(f"Connector {self.name!r} reads no stream.", remedy="Name its streams.")
        for stream, mode in self.streams.items():
            _check_member(mode, ("full_refresh", "incremental"), f"Connector {self.name!r}: sync mode of {stream!r}")

    def stream(self, name: str) -> "AirbyteStream":
        """One of its streams as the source of a table.

        Raises:
            DeclarationError: it does not read that stream.
        """
        _check_member(name, tuple(self.streams), f"Connector {self.name!r}: stream")
        return AirbyteStream(column_name(name) or name, made_by=self.name, connector=self)


@dataclass(frozen=True)
class AirbyteServer:
    """A connection of an Airbyte server, whose destination is landing: `landing/<name>` is one of its syncs.

        LOJA = AirbyteServer("loja", "e735894a-e773-4938-969f-45f53957b75b", {"vendas": "", "clientes": "public/clientes"})
        TableSpec(name="vendas", source=LOJA.stream("vendas"), ...)

    Args:
        name: the landing asset.
        connection: its id, the last part of its URL in Airbyte's pages. The server is LAKEHOUSE_AIRBYTE_URL.
        streams: its streams as Airbyte calls them, with the connection's prefix; `<namespace>.<name>` where two namespaces have
            one of that name. Each with its folder below `raw/`, `""` when that is its name.
        max_runtime: so long a run waits for a sync. One that takes longer goes on at the server, and the next run waits for it.
    """

    name: str
    connection: str
    streams: Mapping[str, str]
    max_runtime: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        check_name(self.name, "connection name")
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", self.connection):
            raise DeclarationError(
                f"{self.connection[:80]!r} is not the id of connection {self.name!r}.",
                remedy="Give the UUID that its URL in Airbyte's pages ends with, in lower case.",
            )
        if not self.streams:
            raise DeclarationError(f"Connection {self.name!r} has no stream.", remedy="Name its streams.")
        for stream in self.streams:
            self.stream(stream)

    def stream(self, name: str) -> "AirbyteStream":
        """One of its streams as the source of a table.

        Raises:
            DeclarationError: it has no such stream.
        """
        _check_member(name, tuple(self.streams), f"Connection {self.name!r}: stream")
        own = column_name(name) or name
        return AirbyteStream(own, folder=self.streams[name] or name, made_by=self.name, connector=self)


@dataclass(frozen=True)
class AirbyteStream:
    """Files that Airbyte's S3 destination (or anything that writes its layout) puts under `raw/<stream>/`.

    Args:
        folder: where below `raw/`, when that is not the stream's name: `public/vendas` for a destination whose path has the
            namespace first. All that is below it belongs to the stream.
        made_by: the landing asset that writes them, where one of this project does.
        connector: what that asset runs (`AirbyteConnector.stream`, `AirbyteServer.stream`).
    """

    stream: str
    folder: str = ""
    made_by: str = ""
    connector: AirbyteConnector | AirbyteServer | None = None

    def __post_init__(self) -> None:
        check_name(self.stream, "stream name")
        if not self.folder:
            object.__setattr__(self, "folder", self.stream)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", self.folder, re.ASCII):
            raise DeclarationError(
                f"Stream {self.stream!r} cannot be below raw/{self.folder[:80]}.",
                remedy="Give a folder of letters, digits, `_`, `-` and `.`, without a slash at either end.",
            )
        if self.made_by:
            check_name(self.made_by, "asset name")


@dataclass(frozen=True)
class DeltaSource:
    """A Delta table that others write (Spark, Airbyte), with Airbyte's columns or without: what its commits bring is taken in.

    Args:
        uri: an absolute folder, or a place in a bucket.
        name: what it is called in the asset graph.
    """

    uri: str
    name: str

    def __post_init__(self) -> None:
        check_name(self.name, "source name")
        if not (self.uri.startswith("/") or is_remote(self.uri)):
            raise DeclarationError(
                f"{self.uri!r} is not an absolute folder.", remedy="Give DeltaSource /path or s3://bucket/path."
            )

    @property
    def stream(self) -> str:
        return self.name

    @property
    def made_by(self) -> str:
        return ""


Source = AirbyteStream | DeltaSource


@dataclass(frozen=True)
class Feed:
    """One of several bronze tables that a silver table is made of.

    Args:
        name: the bronze table.
        source: where its records land.
        values: fields that all of its records have, beside those delivered; as text.
    """

    name: str
    source: Source
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "table name")
        for name in self.values:
            check_name(name, "field name")


@dataclass(frozen=True, kw_only=True)
class Health:
    """Bounds within which a Delta table is healthy; each is a part of its check in `ops/table_health`.

    Args:
        event_time: the timestamp column that says when what the newest row tells happened.
        max_event_age: how old its newest value may be; None measures it and judges nothing.
        max_commit_age: how long ago the last commit may be.
        max_small: the largest share of data files below a quarter of their target size, once there are more than 50 files.
        max_files: the most data files, as long as some of them are small.
        max_log: the most commits since the last checkpoint.
        max_quarantine: the largest share of the records that came in which are in quarantine.
    """

    event_time: str = ""
    max_event_age: timedelta | None = None
    max_commit_age: timedelta | None = None
    max_small: float = 0.9
    max_files: int = 2_000
    max_log: int = 500
    max_quarantine: float = 0.05

    def __post_init__(self) -> None:
        if self.event_time:
            check_name(self.event_time, "column name")
        if self.max_event_age is not None and not self.event_time:
            raise DeclarationError("A health record bounds the age of events, but names no column.", remedy="Give event_time.")
        if not (0 < self.max_small <= 1 and 0 <= self.max_quarantine <= 1 and self.max_log >= 1 and self.max_files >= 1):
            raise DeclarationError(
                f"max_small {self.max_small}, max_quarantine {self.max_quarantine}, max_files {self.max_files} or "
                f"max_log {self.max_log} is out of range.",
                remedy="Give shares from 0 to 1, and numbers of files and commits from 1.",
            )


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long records are kept, counted from their event date; what has no age is kept for ever.

    Args:
        event: the silver column (date or timestamp) that says when what a record tells happened. It is the same in all records
            of a key: what has expired is known by it alone.
        landing: files of which every record is older, and is proven to be in bronze.
        bronze: records that silver has read. What they made of silver is kept as the baseline that a rebuild starts from.
        silver: rows; a record that is delivered later than that is counted as deleted.
        quarantine: counted from when a record was put there; it may have no date that can be read.
    """

    event: str
    landing: timedelta | None = None
    bronze: timedelta | None = None
    silver: timedelta | None = None
    quarantine: timedelta | None = None

    def __post_init__(self) -> None:
        check_name(self.event, "column name")
        ages = {name: getattr(self, name) for name in ("landing", "bronze", "silver", "quarantine")}
        for name, age in ages.items():
            if age is not None and age < timedelta(days=1):
                raise DeclarationError(f"Retention: {name} is kept for {age}.", remedy="Give a day or more.")
        if self.landing is not None and self.bronze is not None and self.bronze < self.landing:
            raise DeclarationError(
                "Retention: landed files outlive the bronze records that they are proven by.",
                remedy="Keep bronze at least as long as landing.",
            )


@dataclass(frozen=True)
class Subject:
    """Which person (or firm) a record is about: `make forget` erases all that tables of one `kind` say of one of them.

    Args:
        kind: what the subject is called in all tables that know it, such as `cliente`.
        column: the delivered column that has its key.
    """

    kind: str
    column: str

    def __post_init__(self) -> None:
        check_name(self.kind, "subject")
        check_name(self.column, "column name")


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
        rules: judged before every commit.
        drift: what a new source field does: `evolve` adds it to bronze, `quarantine` puts the file in quarantine, `freeze`
            stops the batch.
        transform: name of a module of `silver/transforms/` whose `transform(frame)` runs between casting and calculated
            columns.
        max_loss: the largest share of rows that one commit may remove before it is refused.
        engine: what computes silver, where that is another than LAKEHOUSE_ENGINE says.
        freshness: how old the newest materialisation may be.
        partition: a date column by which silver's files are kept apart; never null.
        file_mb: target size of a silver data file. Smaller files make small merges cheaper, larger ones scans.
        health: bounds of what is measured of the silver table every five minutes.
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
    max_loss: float = 0.5
    engine: Engine = ""
    freshness: timedelta | None = None
    partition: str = ""
    file_mb: int = 16
    health: Health = Health()
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
        _check_member(self.engine, ("", "duckdb", "spark"), f"Table {self.name!r}: engine")
        _check_member(self.drift, ("evolve", "quarantine", "freeze"), f"Table {self.name!r}: drift")
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
        self._refuse_repeats([feed.name for feed in self.feeds], "feed")
        self._check_kept_apart()
        self._refuse_repeats(names, "column")
        self._refuse_repeats([rule.name for rule in self.rules], "rule")
        _check_member(self.sync, ("dedup", "append", "overwrite"), f"Table {self.name!r}: sync")
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
                f"Table {self.name!r}: its event time {self.health.event_time!r} is none of its timestamp columns.",
                remedy="Name one in Health(event_time=...).",
            )
        self._check_kept_for(kinds)
        allowed = [not_null(name, action=action) for name in self.never_null for action in _STRICT]
        for rule in self.rules:
            if rule.name in {own.name for own in allowed} and rule not in allowed:
                raise DeclarationError(
                    f"Table {self.name!r}: by its rule {rule.name!r} the key or the partition might be null.",
                    remedy="Use not_null(...) with the action quarantine or fail, or leave it out: they are never null.",
                )
        self._check_expressions(names)

    def _check_kept_apart(self) -> None:
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
        if self.observed and self.deleted is not None:
            raise DeclarationError(
                f"Table {self.name!r} counts observations and has deletes: what would count after one?",
                remedy="Leave out `deleted` or the observed columns.",
            )

    def _check_kept_for(self, kinds: Mapping[str, str]) -> None:
        if self.subject is not None and self.subject.column not in {column.name for column in self.delivered}:
            raise DeclarationError(
                f"Table {self.name!r}: the subject's column {self.subject.column!r} is none that records bring.",
                remedy="Name a delivered column in Subject(kind, column).",
            )
        kept = self.retention
        if kept is None:
            return
        observed = {column.name for column in self.observed}
        if kinds.get(kept.event) not in ("date", "timestamp") or kept.event in observed:
            raise DeclarationError(
                f"Table {self.name!r}: its event date {kept.event!r} is none of its dates and timestamps.",
                remedy="Name one that records bring, or that is calculated from them, in Retention(event=...).",
            )
        if kept.event in self.order and kept.event not in self.key:
            raise DeclarationError(
                f"Table {self.name!r}: its event date {kept.event!r} orders the versions of a key, so it changes.",
                remedy="Name a date that a key keeps, such as the one of its creation.",
            )
        if kept.landing is not None and any(isinstance(p.origin, DeltaSource) or p.origin.made_by for p in self.parts):
            raise DeclarationError(
                f"Table {self.name!r}: its landed files belong to who writes them, and the next extraction goes on from them.",
                remedy="Leave Retention(landing=...) out.",
            )
        if kept.bronze is not None and self.sync == "overwrite":
            raise DeclarationError(
                f"Table {self.name!r} is overwritten: silver is made of the newest generation in bronze.",
                remedy="Leave Retention(bronze=...) out.",
            )

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
                parse(column.expression, columns=seen)
                seen.append(column.name)
        if self.deleted is not None:
            parse(self.deleted, columns=names)
        for rule in self.rules:
            if isinstance(rule, RowRule):
                if not parse(rule.condition, columns=names).columns:
                    raise DeclarationError(
                        f"Rule {rule.name!r} of table {self.name!r} reads no column.", remedy=f"Use {', '.join(names)}."
                    )
            elif any(name not in names for name in rule.columns):
                raise DeclarationError(
                    f"Rule {rule.name!r} of table {self.name!r} names a column that is not there.",
                    remedy=f"Use {', '.join(names)}.",
                )

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
        return TableRef("landing", self.origin.made_by or self.origin.stream)

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

    def parsed(self, text: str) -> Expression:
        """One of this spec's expressions, checked against all of its columns."""
        return parse(text, columns=[column.name for column in self.columns])


def check_unique(*specs: TableSpec) -> tuple[TableSpec, ...]:
    """Return the specs, or refuse two that would write the same table."""
    bronze, silver = [part.bronze for spec in specs for part in spec.parts], [spec.silver for spec in specs]
    for refs in (bronze, silver):
        for ref in refs:
            if refs.count(ref) > 1:
                raise DeclarationError(f"Two tables are declared as {ref}.", remedy="Give one of them another name.")
    return specs


def _check_rule_name(name: str) -> None:
    check_name(name, "rule name")
    if name in _OWN_CHECKS or name.startswith("castable_"):
        raise DeclarationError(f"The rule name {name!r} is a check that every table has.", remedy="Choose another name.")


def _check_member(value: str, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise DeclarationError(f"{what} is {value!r}.", remedy=f"Use one of {', '.join(allowed)}.")
