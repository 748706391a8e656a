"""The production instance's storage: dagster-postgres, with an error that names the setting when there is no database.

dagster-postgres says "too many retries for DB connection" then, after it waited for as long as the network takes, which is
minutes where packets are dropped. Here a start ends after `WAIT_SECONDS` with one sentence, and an error in a process that
runs already says the same as its cause, which is what logs and the UI show.
"""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine, ExceptionContext, make_url
from sqlalchemy.exc import OperationalError
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from lakehouse.core.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.runtime.dagster_private import ConfigurableClassData

CONNECT_SECONDS = "5"  # one attempt
WAIT_SECONDS = 5  # a database that is being restarted comes back within it
REMEDY = "DAGSTER_POSTGRES_URL names it: start the database (make stack) or fix the setting."


class DatabaseUnreachable(LakehouseError):
    """The instance's database does not answer."""


_INSTANCES: set[tuple[str | None, int | None, str | None]] = set()


def _location(url: URL) -> tuple[str | None, int | None, str | None]:
    return url.host, url.port, url.database


@event.listens_for(Engine, "handle_error", retval=True)  # dagster-postgres makes engines of its own, and anew
def _name_the_setting(context: ExceptionContext) -> Exception | None:
    if context.engine is None or not isinstance(context.sqlalchemy_exception, OperationalError):
        return None
    if (context.connection is None or context.is_disconnect) and _location(context.engine.url) in _INSTANCES:
        original = context.original_exception
        return OperationalError(None, None, type(original)(f"{str(original).splitlines()[0]}. {REMEDY}"))
    return None


class PostgresStorage(DagsterPostgresStorage):
    """`storage: {custom: {module: lakehouse.runtime.postgres, class: PostgresStorage}}`; takes dagster-postgres's own config."""

    @classmethod
    def from_config_value(cls, inst_data: "ConfigurableClassData | None", config_value: Any) -> Any:
        url = make_url(pg_url_from_config(config_value))
        if url.drivername == "postgresql":  # SQLAlchemy 2.1 takes that for psycopg 3, dagster-postgres brings psycopg2
            url = url.set(drivername="postgresql+psycopg2")
        if "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": CONNECT_SECONDS})
        _connect(url)
        _INSTANCES.add(_location(url))
        text = url.render_as_string(hide_password=False)
        return super().from_config_value(inst_data, {**config_value, "postgres_url": text})


def _one_sentence(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, LakehouseError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _connect(url: URL) -> None:
    engine = create_engine(url)
    retries = Retrying(retry=retry_if_exception_type(OperationalError), stop=stop_after_delay(WAIT_SECONDS), wait=wait_fixed(1))
    try:
        for attempt in retries:
            with attempt:
                engine.connect().close()
    except RetryError as error:
        last = error.last_attempt.exception()
        cause = str(getattr(last, "orig", None) or last).splitlines()[0]
        sys.excepthook = _one_sentence  # webserver and daemon are Dagster's programs: nobody there catches ours
        raise DatabaseUnreachable(
            f"Dagster's PostgreSQL at {url.host}:{url.port}/{url.database} does not answer: {cause}.",
            remedy=REMEDY,
        ) from None
    finally:
        engine.dispose()
