"""TableSpec: one record from which landing, bronze, silver, checks, freshness and the dbt source of a table follow.

What belongs here: frozen records that validate themselves and say how to fix what they refuse.
What does not: reading, writing, dagster, anything about one particular table.

    TableSpec(
        name="vendas", source=AirbyteStream("vendas"), key=("id",), order=("updated_at",),
        columns=(Column("id", "bigint"), ..., Column("total", "decimal(18,4)", expression="quantidade * valor")),
        rules=(not_null("pedido_id"), accepted_values("status", "paid", "deleted", action="warn"), min_rows(1)),
    )
"""

from lakehouse.tables.spec.columns import EXTRA, EXTRACTED_AT, RECORD_DIGEST, Column, Form, Observed
from lakehouse.tables.spec.database import Database, Query, Table
from lakehouse.tables.spec.dialect import Csv
from lakehouse.tables.spec.feed import CapturedFeed
from lakehouse.tables.spec.history import history_ref, history_table, refs_of, tracked, with_histories
from lakehouse.tables.spec.job import Job, job_of
from lakehouse.tables.spec.kafka import KafkaTopic
from lakehouse.tables.spec.policies import Health, Retention, Subject
from lakehouse.tables.spec.rest import (
    ApiKey,
    Basic,
    Bearer,
    Cursor,
    LinkHeader,
    NextUrl,
    OAuth2ClientCredentials,
    Offset,
    Pages,
    Rate,
    Resource,
    RestApi,
    Single,
)
from lakehouse.tables.spec.retry import Retry
from lakehouse.tables.spec.rules import (
    Action,
    InRange,
    OwnCheck,
    References,
    RowKind,
    RowRule,
    TableAction,
    TableKind,
    TableRule,
    Unique,
    accepted_values,
    expression,
    in_range,
    matches,
    min_rows,
    not_null,
    references,
    unique,
    volume_drop,
)
from lakehouse.tables.spec.setting import Setting, setting, settings_of
from lakehouse.tables.spec.sources import (
    AirbyteConnector,
    AirbyteServer,
    AirbyteStream,
    DeltaSource,
    Feed,
    PlainFiles,
    Source,
    SyncMode,
    reads_same,
)
from lakehouse.tables.spec.system import SourceSystem
from lakehouse.tables.spec.table import (
    Drift,
    OnChange,
    Sync,
    TableSpec,
    check_references,
    check_subjects,
    check_tables,
    check_unique,
)

__all__ = [
    "EXTRA",
    "EXTRACTED_AT",
    "RECORD_DIGEST",
    "Action",
    "AirbyteConnector",
    "AirbyteServer",
    "AirbyteStream",
    "ApiKey",
    "Basic",
    "Bearer",
    "CapturedFeed",
    "Column",
    "Csv",
    "Cursor",
    "Database",
    "DeltaSource",
    "Drift",
    "Feed",
    "Form",
    "Health",
    "InRange",
    "Job",
    "KafkaTopic",
    "LinkHeader",
    "NextUrl",
    "OAuth2ClientCredentials",
    "Observed",
    "Offset",
    "OnChange",
    "OwnCheck",
    "Pages",
    "PlainFiles",
    "Query",
    "Rate",
    "References",
    "Resource",
    "RestApi",
    "Retention",
    "Retry",
    "RowKind",
    "RowRule",
    "Setting",
    "Single",
    "Source",
    "SourceSystem",
    "Subject",
    "Sync",
    "SyncMode",
    "Table",
    "TableAction",
    "TableKind",
    "TableRule",
    "TableSpec",
    "Unique",
    "accepted_values",
    "check_references",
    "check_subjects",
    "check_tables",
    "check_unique",
    "expression",
    "history_ref",
    "history_table",
    "in_range",
    "job_of",
    "matches",
    "min_rows",
    "not_null",
    "reads_same",
    "references",
    "refs_of",
    "setting",
    "settings_of",
    "tracked",
    "unique",
    "volume_drop",
    "with_histories",
]
