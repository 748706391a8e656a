"""Sources: where the records of a table come from.

Here: declarations, which are data. Not here: what lists and reads; it is registered by a declaration's type in
`landing/readers/registry.py`. docs/extending.md shows how a kind is added.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name, check_timezone, column_name, is_remote
from lakehouse.tables.spec.dialect import Csv
from lakehouse.tables.spec.member import check_member, check_one_of

if TYPE_CHECKING:
    from lakehouse.tables.spec.system import SourceSystem

SyncMode = Literal["full_refresh", "incremental"]
Withdrawals = Literal["delete", "keep"]


class Source:
    """A declaration of where records land. `asset` is the landing asset that bronze follows; `made_by` names it again where
    one of this project makes it.

    `owned` says that the landed files are this lake's: what expires, or is to be forgotten, may be removed from them.
    """

    owned: ClassVar[bool] = False

    @property
    def asset(self) -> str:
        raise NotImplementedError

    @property
    def made_by(self) -> str:
        return ""


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
            check_member(mode, SyncMode, f"Connector {self.name!r}: sync mode of {stream!r}")

    def stream(self, name: str) -> "AirbyteStream":
        """One of its streams as the source of a table.

        Raises:
            DeclarationError: it does not read that stream.
        """
        check_one_of(name, self.streams, f"Connector {self.name!r}: stream")
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
        check_one_of(name, self.streams, f"Connection {self.name!r}: stream")
        own = column_name(name) or name
        return AirbyteStream(own, folder=self.streams[name] or name, made_by=self.name, connector=self)


@dataclass(frozen=True)
class AirbyteStream(Source):
    """Files that Airbyte's S3 destination (or anything that writes its layout) puts under `raw/<stream>/`.

    Args:
        folder: where below `raw/`, when that is not the stream's name: `public/vendas` for a destination whose path has the
            namespace first. All that is below it belongs to the stream.
        made_by: the landing asset that writes them, where one of this project does.
        connector: what that asset runs or asks (`AirbyteConnector.stream`, `RestApi.resource`).
        csv: how its CSV files are written, where that is not as Airbyte writes them.
    """

    owned: ClassVar[bool] = True
    stream: str
    folder: str = ""
    made_by: str = ""
    connector: "AirbyteConnector | AirbyteServer | SourceSystem | None" = None
    csv: Csv | None = None

    def __repr__(self) -> str:
        """As dataclasses write it, without a dialect that is not declared, and without how a source system is asked: code
        versions are made of it.
        """
        if self.connector is not None and not isinstance(self.connector, (AirbyteConnector, AirbyteServer)):
            return repr(replace(self, connector=None))
        return _repr(self, {"csv"} if self.csv is None else set())

    def __post_init__(self) -> None:
        check_name(self.stream, "stream name")
        if not self.folder:
            object.__setattr__(self, "folder", self.stream)
        check_folder(self.folder, f"Stream {self.stream!r}")
        _check_csv(self.csv, f"Stream {self.stream!r}")
        if self.made_by:
            check_name(self.made_by, "asset name")

    @property
    def asset(self) -> str:
        return self.made_by or self.stream


@dataclass(frozen=True)
class PlainFiles(Source):
    """Files of anyone that are put under `raw/<name>/`: CSV, JSON lines, a JSON array, Parquet, Avro or Excel; each also as gzip,
    zstd, bz2 or a zip of one file. A part `month=03` of a path is a field where a column comes from `month`.

        PlainFiles("loja", csv=Csv(delimiter=";", encoding="cp1252"))

    Args:
        name: what the files are called in the asset graph.
        folder: where below `raw/`, when that is not the name. All that is below it belongs to the source.
        csv: how CSV files are written.
        sheet: the sheet of Excel files; the first by default.
    """

    owned: ClassVar[bool] = True
    name: str
    folder: str = ""
    csv: Csv | None = None
    sheet: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "source name")
        if not self.folder:
            object.__setattr__(self, "folder", self.name)
        check_folder(self.folder, f"Source {self.name!r}")
        _check_csv(self.csv, f"Source {self.name!r}")
        if not isinstance(self.sheet, str) or not self.sheet.isprintable():
            raise DeclarationError(
                f"Source {self.name!r}: {self.sheet!r:.80} is not the name of a sheet.", remedy="Give its name as Excel shows it."
            )

    @property
    def asset(self) -> str:
        return self.name


def check_folder(folder: str, what: str) -> None:
    """Refuse what cannot be a folder below `raw/`."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", folder, re.ASCII):
        raise DeclarationError(
            f"{what} cannot be below raw/{folder[:80]}.",
            remedy="Give a folder of letters, digits, `_`, `-` and `.`, without a slash at either end.",
        )


def _check_csv(csv: object, what: str) -> None:
    if csv is not None and not isinstance(csv, Csv):
        raise DeclarationError(f"{what}: {csv!r:.80} is no dialect.", remedy="Give csv=Csv(delimiter=';').")


@dataclass(frozen=True)
class DeltaSource(Source):
    """A Delta table that others write (Spark, Airbyte), with Airbyte's columns or without: what its commits bring is taken in.

    Args:
        uri: an absolute folder, or a place in a bucket.
        name: what it is called in the asset graph.
        timezone: of instants in partition values that have none: that of the session which wrote them.
        withdrawals: what becomes of rows that its writer deletes or replaces (DELETE, MERGE, an overwrite, RESTORE): silver
            follows the table (`delete`), or keeps them (`keep`). They are kept, too, where nothing is declared; then the first
            version that withdraws rows is warned of.
    """

    uri: str
    name: str
    timezone: str = ""
    withdrawals: Withdrawals | None = None

    def __repr__(self) -> str:
        """As dataclasses write it, without what is not declared of withdrawals: code versions are made of it."""
        return _repr(self, {"withdrawals"} if self.withdrawals is None else set())

    def __post_init__(self) -> None:
        check_name(self.name, "source name")
        if self.withdrawals is not None:
            check_member(self.withdrawals, Withdrawals, f"Source {self.name!r}: withdrawals")
        if self.timezone:
            check_timezone(self.timezone, f"Source {self.name!r}")
        if not (self.uri.startswith("/") or is_remote(self.uri)):
            raise DeclarationError(
                f"{self.uri!r} is not an absolute folder.", remedy="Give DeltaSource /path or s3://bucket/path."
            )

    @property
    def asset(self) -> str:
        return self.name


def _repr(source: AirbyteStream | DeltaSource, silent: set[str]) -> str:
    """A declaration as dataclasses write it, without some of its fields."""
    shown = [field.name for field in fields(source) if field.name not in silent]
    return f"{type(source).__name__}({', '.join(f'{name}={getattr(source, name)!r}' for name in shown)})"


def reads_same(one: Source, other: Source) -> bool:
    """Whether two sources are the same landed files."""
    folder = getattr(one, "folder", None)
    return one == other or (folder is not None and folder == getattr(other, "folder", None))


def check_source(source: object, what: str) -> None:
    """Refuse what is not declared as a source."""
    if isinstance(name := getattr(source, "name", None), str) and hasattr(source, "streams"):
        raise DeclarationError(
            f"{what}: {name!r} is a source system, and may have several streams.",
            remedy="Give one of them: its resource(...), its table(...), or its messages().",
        )
    if not isinstance(source, Source):
        raise DeclarationError(
            f"{what}: {source!r:.80} is not a source.", remedy="Give AirbyteStream(...), PlainFiles(...) or DeltaSource(...)."
        )


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
        check_source(self.source, f"Feed {self.name!r}")
        for name in self.values:
            check_name(name, "field name")
