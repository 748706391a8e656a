"""SQL databases by URL: an engine that neither waits for ever nor lets a password into a message.

What belongs here: connecting, and what a driver's error means. What does not: what is read or written
(`landing/sources/database.py`, `warehouse/publish.py`). Any SQLAlchemy URL; PostgreSQL through psycopg2, whose COPY both use.
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
#: What PostgreSQL's drivers say when it is no use to ask again; a failed connection carries no error code.
_REFUSED = ("password authentication failed", "no password supplied", "role ", "database ", "no pg_hba.conf entry")
#: SQLSTATE classes that another try does not change: syntax and access, catalogue, invalid authorisation, data exceptions.
_HOPELESS = ("42", "3D", "3F", "28", "22")
_LOCKED = ("55P03", "40P01", "40001")  # lock not available, deadlock, serialisation


def parse_url(text: str, *, setting: str) -> "URL":
    """The URL, plain `postgresql://` as psycopg2.

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
    return url.set(drivername="postgresql+psycopg2") if url.drivername in ("postgresql", "postgres") else url


def open_engine(
    text: str,
    *,
    setting: str,
    statement_seconds: float,
    lock_seconds: float = 30,
    connect_seconds: int = CONNECT_SECONDS,
    existing: bool = False,
) -> "Engine":
    """An engine whose connections end statements and waits for locks after so many seconds.

    Args:
        setting: the variable that holds the URL, for messages.
        existing: a SQLite file that is not there is an error instead of an empty database.

    Raises:
        DeclarationError: the URL is none, or its driver is not installed.
        SourceRefusedError: there is no such SQLite file.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    url = parse_url(text, setting=setting)
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        own = url.query.get("options", "")  # the URL's own, which these would replace
        millis = {"statement_timeout": statement_seconds, "lock_timeout": lock_seconds}
        options = " ".join(f"-c {name}={int(seconds * 1000)}" for name, seconds in millis.items())
        arguments = {
            "connect_timeout": connect_seconds,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "options": f"{own} -c timezone=UTC -c datestyle=ISO {options}".strip(),
        }
    elif url.get_backend_name() == "sqlite":
        if existing and not Path(url.database or "").is_file():
            raise SourceRefusedError(f"There is no SQLite file {url.database!r}.", remedy=f"Make it, or fix {setting}.")
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = {"timeout": lock_seconds, "isolation_level": None}
    try:
        engine = create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise DeclarationError(
            f"{setting} needs a driver that is not installed: {error}.",
            remedy=f"{install('production')}, or install the driver.",
        ) from None
    if engine.dialect.name == "sqlite":
        # sqlite3 begins no transaction before DDL, and takes the lock for writing only at the first write: a reader that has
        # become a writer may then be refused.
        begin = "BEGIN" if existing else "BEGIN IMMEDIATE"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


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
        if not type(error).__module__.startswith(("psycopg2", "sqlite3")):
            raise
        raise meaning(error, what, setting=setting) from None


def meaning(error: BaseException, what: str, *, setting: str) -> LakehouseError:
    """What a driver's error means, in one sentence without parameters or passwords."""
    reported = (str(error).strip() or type(error).__name__).splitlines()[0]
    state = str(getattr(error, "pgcode", None) or "")
    # libpq says which host it tried before the reason
    low = reported.lower()
    if state in _LOCKED or "database is locked" in low or "lock timeout" in low:
        return SourceDownError(
            f"{what}: another session holds a lock on it ({reported}).", remedy="End that session, or wait and run again."
        )
    hopeless = state.startswith(_HOPELESS) or (not state and "fatal:" in low and any(part in low for part in _REFUSED))
    hopeless = hopeless or "no such table" in low or "no such column" in low or "not a database" in low
    if hopeless:
        return SourceRefusedError(f"{what}: {reported}.", remedy=f"Fix the table, the rights or {setting}.")
    return SourceDownError(f"{what}: {reported}.", remedy=f"See that the database of {setting} answers, and run again.")


@contextmanager
def bounded(connection: "Connection", *, seconds: float) -> Iterator[None]:
    """Cut a PostgreSQL connection that is still busy after so many seconds: libpq itself waits for ever for a silent server."""
    number = getattr(connection.connection.driver_connection, "fileno", None)
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
