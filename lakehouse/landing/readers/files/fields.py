"""Fields of a record: Airbyte's envelope of either generation, and values as the text that was delivered.

Here: names and SQL of columns. Not here: which fields a file has (`scan.py`).
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from lakehouse.core.engines.duckdb import bounded
from lakehouse.core.names import AIRBYTE
from lakehouse.core.store.storage import LandedFile

#: Bronze's own columns, before the delivered fields. `_raw_id_delivered` is whether the record brought its id, or bronze made it;
#: it is null in what was read before bronze noted that.
ENVELOPE = {
    **dict(zip(AIRBYTE, ("string", "timestamp", "string", "bigint"), strict=True)),
    "_source_file": "string",
    "_batch_id": "bigint",
    "_ingested_at": "timestamp",
    "_extra": "string",
    "_raw_id_delivered": "boolean",
}
#: `_airbyte_meta` of a record that takes an equal one back: its row has left a table of another writer.
WITHDRAWN = '{"withdrawn":true}'
V1_NAMES = {"_airbyte_raw_id": "_airbyte_ab_id", "_airbyte_extracted_at": "_airbyte_emitted_at"}
DATA = "_airbyte_data"
#: What Airbyte adds to a record. Everything else that was delivered is a field, whatever it is called.
ENVELOPE_NAMES = frozenset((*AIRBYTE, *V1_NAMES.values(), DATA))
#: `YYYY_MM_DD_<epoch ms>_<part>` is the destination's default file name.
_SYNC_INSTANT = re.compile(r"\d{4}_\d{2}_\d{2}_(\d{13})_\d+")


def sql(text: str) -> duckdb.Expression:
    return duckdb.SQLExpression(text)


def instant_sql(text: str) -> str:
    """Epoch milliseconds (JSON, CSV) or a timestamp (Parquet, flattened JSON of some versions); null for anything else."""
    millis = f"TRY(make_timestamptz(CAST({text} AS BIGINT) * 1000))"
    instant = f"CASE WHEN regexp_full_match({text}, '\\d+(\\.0*)?') THEN {millis} ELSE TRY_CAST({text} AS TIMESTAMPTZ) END"
    return bounded(f"({instant})", "timestamp")


def instant(file: LandedFile) -> datetime:
    """When a file without extraction times was extracted: the instant in its name, else its own."""
    named = _SYNC_INSTANT.search(Path(file.path).name)
    return datetime.fromtimestamp(int(named.group(1)) / 1000 if named else file.modified, tz=UTC)
