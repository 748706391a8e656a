"""SQL databases by URL: an engine that neither waits for ever nor lets a password into a message.

What belongs here: connecting, and what a driver's error means. What does not: what is read or written
(`landing/sources/database.py`, `warehouse/publish.py`). Any SQLAlchemy URL; PostgreSQL through psycopg2, whose COPY both use,
MySQL and MariaDB through pymysql, SQL Server through pymssql.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import DeclarationError, LakehouseError, SourceDownError, SourceRefusedError, install

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

CONNECT_SECONDS = 10
#: Of URLs that name no driver: the one that is used, and the extra of pyproject.toml that has it.
_DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql", "mariadb": "pymysql", "mssql": "pymssql"}
_EXTRAS = {"postgresql": "production", "mysql": "mysql", "mariadb": "mysql", "mssql": "mssql"}
#: What PostgreSQL's drivers say when it is no use to ask again; a failed connection carries no error code.
_REFUSED = ("password authentication failed", "no password supplied", "role ", "database ", "no pg_hba.conf entry")
#: SQLSTATE classes that another try does not change: syntax and access, catalogue, invalid authorisation, data exceptions, and
#: a statement that writes in a session that only reads.
_HOPELESS = ("42", "3D", "3F", "28", "22", "25006")
_LOCKED = ("55P03", "40P01", "40001")  # lock not available, deadlock, serialisation
#: The same as numbers of MySQL and MariaDB, and of SQL Server.
_HOPELESS_NUMBERS = {
    *(1044, 1045, 1049, 1054, 1064, 1142, 1143, 1146, 1227, 1356, 1370, 1792, 1698),
    *(102, 156, 207, 208, 229, 4060, 18456),
}
_LOCKED_NUMBERS = {1205, 1213, 1222}
_SQLITE_REFUSES = ("no such table", "no such column", "not a database", "syntax error", "readonly database", "could not decode")


def parse_url(text: str, *, setting: str) -> "URL":
    """The URL, with the driver that is used where it names none.

    Raises:
        DeclarationError: it is none. The text is not repeated: it may hold a password.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise DeclarationError(
            f"{setting} is not a database URL.", remedy="Write sqlite:////folder/file.db or postgresql://user:password@host/name."
        ) from None
    name = "postgresql" if url.drivername == "postgres" else url.drivername
    return url.set(drivername=f"{name}+{_DRIVERS[name]}") if name in _DRIVERS else url


def open_engine(
    text: str,
    *,
    setting: str,
    statement_seconds: float,
    lock_seconds: float = 30,
    connect_seconds: int = CONNECT_SECONDS,
    read_only: bool = False,
) -> "Engine":
    """An engine whose connections end statements and waits for locks after so many seconds.

    Args:
        setting: the variable that holds the URL, for messages.
        read_only: no statement can write, where the database knows such sessions (SQL Server does not); what is read is text
            that depends on no default of the server; a SQLite file that does not exist is an error, not an empty database.

    Raises:
        DeclarationError: the URL is none, or its driver is not installed.
        SourceRefusedError: the SQLite file does not exist.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    url = parse_url(text, setting=setting)
    backend, driver, first = url.get_backend_name(), url.drivername.partition("+")[2], list[str]()
    arguments: dict[str, Any] = {}
    if backend == "postgresql":
        arguments = _of_postgresql(url, statement_seconds, lock_seconds, connect_seconds, read_only=read_only)
    elif backend in ("mysql", "mariadb"):
        # Of the socket: a server that is silent for so long is left.
        own = {"connect_timeout": connect_seconds, "read_timeout": max(1, int(statement_seconds))}
        arguments = own if driver == "pymysql" else {}
        first = ["SET SESSION time_zone = '+00:00'", f"SET SESSION innodb_lock_wait_timeout = {max(1, int(lock_seconds))}"]
        first += ["SET SESSION TRANSACTION READ ONLY"] if read_only else []
    elif backend == "mssql":
        own = {"login_timeout": connect_seconds, "timeout": max(1, int(statement_seconds))}
        arguments = own if driver == "pymssql" else {}
        first = [f"SET LOCK_TIMEOUT {int(lock_seconds * 1000)}"]
    elif backend == "sqlite":
        if read_only and not Path(url.database or "").is_file():
            raise SourceRefusedError(f"There is no SQLite file {url.database!r}.", remedy=f"Make it, or fix {setting}.")
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = {"timeout": lock_seconds, "isolation_level": None}
        first = ["PRAGMA query_only = ON"] if read_only else []
    try:
        engine = create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        remedy = f"{install(_EXTRAS[backend])}." if backend in _EXTRAS else "Install the SQLAlchemy dialect that it names."
        raise DeclarationError(f"{setting} needs a driver that is not installed: {error}.", remedy=remedy) from None
    if first:
        event.listen(engine, "connect", lambda connection, _: _execute(connection, first))
    if engine.dialect.name == "sqlite":
        # sqlite3 begins no transaction before DDL, and takes the lock for writing only at the first write: a reader that has
        # become a writer may then be refused.
        begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _of_postgresql(
    url: "URL", statement_seconds: float, lock_seconds: float, connect_seconds: int, *, read_only: bool
) -> dict[str, Any]:
    own = url.query.get("options", "")  # the URL's own, which these would replace
    settings = {"timezone": "UTC", "datestyle": "ISO"}
    settings |= {"statement_timeout": f"{statement_seconds * 1000:.0f}", "lock_timeout": f"{lock_seconds * 1000:.0f}"}
    if read_only:
        # Texts of doubles are exact, and those of intervals and binary values the same on every server.
        settings |= {"default_transaction_read_only": "on", "extra_float_digits": "3", "intervalstyle": "iso_8601"}
        settings |= {"bytea_output": "hex", "client_encoding": "UTF8"}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return {
        "connect_timeout": connect_seconds,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": f"{own} {options}".strip(),
    }


def _execute(connection: Any, statements: list[str]) -> None:
    """Run what a session begins with."""
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


@contextmanager
def explained(what: str, *, setting: str) -> Iterator[None]:
    """Turn a driver's error into what it means: worth another try, or not.

    Raises:
        SourceDownError: the database did not answer, the connection was cut, a lock was not given in time.
        SourceRefusedError: credentials, a missing table or column, values that the database cannot hold.
    """
    import sqlalchemy.exc as sa

    try:
        yield
    except sa.DBAPIError as error:
        raise meaning(error.orig or error, what, setting=setting) from None
    except (LakehouseError, sa.SQLAlchemyError):
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("psycopg2", "sqlite3", "pymysql", "pymssql")):
            raise
        raise meaning(error, what, setting=setting) from None


def meaning(error: BaseException, what: str, *, setting: str) -> LakehouseError:
    """What a driver's error means, in one sentence without parameters or passwords."""
    number, reported = _numbered(error)
    state = str(getattr(error, "pgcode", None) or "")
    # libpq says which host it tried before the reason
    low = reported.lower()
    if state in _LOCKED or number in _LOCKED_NUMBERS or "database is locked" in low or "lock timeout" in low:
        return SourceDownError(
            f"{what}: another session holds a lock on it ({reported}).", remedy="End that session, or wait and run again."
        )
    hopeless = state.startswith(_HOPELESS) or (not state and "fatal:" in low and any(part in low for part in _REFUSED))
    hopeless = hopeless or number in _HOPELESS_NUMBERS or any(part in low for part in _SQLITE_REFUSES)
    if hopeless:
        return SourceRefusedError(f"{what}: {reported}.", remedy=f"Fix the table, the rights or {setting}.")
    return SourceDownError(f"{what}: {reported}.", remedy=f"See that the database of {setting} answers, and run again.")


def _numbered(error: BaseException) -> tuple[int, str]:
    """The number that MySQL's and SQL Server's drivers give an error, 0 where there is none, and the first line of its text."""
    number, *rest = error.args if error.args else (0,)
    if isinstance(number, int) and rest:
        text = rest[0].decode("utf-8", "replace") if isinstance(rest[0], bytes) else str(rest[0])
    else:
        number, text = 0, str(error)
    return number, (text.strip() or type(error).__name__).splitlines()[0].removesuffix(".")


@contextmanager
def bounded(connection: "Connection", *, seconds: float) -> Iterator[None]:
    """Cut a connection that is still busy after so many seconds: libpq itself waits for ever for a silent server, and pymysql for
    one that sends a byte now and then."""
    driver = connection.connection.driver_connection
    number = getattr(driver, "fileno", None) or getattr(getattr(driver, "_sock", None), "fileno", None)
    if number is None:
        yield
        return
    own = socket.socket(fileno=socket.dup(number()))

    def cut() -> None:
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0.1), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        own.close()
