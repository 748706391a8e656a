"""The production instance's storage: dagster-postgres, with an error that names the setting when there is no database.

dagster-postgres ends such a start with "too many retries for DB connection" after it waited for as long as the network
takes, which is minutes where packets are dropped.
"""

from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from lakehouse.core.errors import LakehouseError

CONNECT_SECONDS = "5"  # one attempt
WAIT_SECONDS = 10  # a database that is being restarted comes back within it


class DatabaseUnreachable(LakehouseError):
    """The instance's database does not answer."""


class PostgresStorage(DagsterPostgresStorage):
    """`storage: {custom: {module: lakehouse.postgres, class: PostgresStorage}}`; takes dagster-postgres's own config."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> DagsterPostgresStorage:
        url = make_url(pg_url_from_config(config_value))
        if url.drivername == "postgresql":  # SQLAlchemy 2.1 takes that for psycopg 3, dagster-postgres brings psycopg2
            url = url.set(drivername="postgresql+psycopg2")
        if "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": CONNECT_SECONDS})
        _connect(url)
        text = url.render_as_string(hide_password=False)
        return super().from_config_value(inst_data, {**config_value, "postgres_url": text})


def _connect(url: URL) -> None:
    engine = create_engine(url)
    retries = Retrying(retry=retry_if_exception_type(OperationalError), stop=stop_after_delay(WAIT_SECONDS), wait=wait_fixed(1))
    try:
        for attempt in retries:
            with attempt:
                engine.connect().close()
    except RetryError as error:
        cause = str(error.last_attempt.exception()).splitlines()[0]
        raise DatabaseUnreachable(
            f"Dagster's PostgreSQL at {url.host}:{url.port}/{url.database} does not answer: {cause}",
            remedy="DAGSTER_POSTGRES_URL names it: start the database (make stack) or mend the setting.",
        ) from None
    finally:
        engine.dispose()
