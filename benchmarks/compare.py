"""What makes two runs comparable: the same rows, and only the files rewritten that had to be. Nothing is measured here.

python -m benchmarks.compare rows <table> <table> [<column> ...]
python -m benchmarks.compare files <table> <bronze table> <batch>
"""

import json
import sys

import duckdb
from deltalake import DeltaTable

# Every value of every row takes part; sum and xor do not depend on the order of rows.
_CHECKSUM = """
SELECT count(*) AS row_count, bit_xor(hash(t)) AS xored, sum(CAST(hash(t) AS HUGEINT)) AS summed
FROM (SELECT COLUMNS(lambda name: list_contains($columns, name)) FROM read_parquet($files)) AS t
"""

_AFFECTED = """
SELECT DISTINCT filename
FROM (SELECT id, filename FROM read_parquet($files, filename = true)) AS stored
SEMI JOIN (SELECT CAST(id AS BIGINT) AS id FROM read_parquet($bronze) WHERE _batch_id = $batch) AS changed USING (id)
"""


def checksum(uri: str, columns: list[str] | None = None) -> dict[str, object]:
    """Schema (names, types, order), count and order-independent hash of all rows of a Delta table."""
    table = DeltaTable(uri)
    fields = [(field.name, str(field.type)) for field in table.schema().fields if not columns or field.name in columns]
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        names = [name for name, _ in fields]
        values = con.execute(_CHECKSUM, {"files": table.file_uris(), "columns": names}).fetchall()[0]
    return {"columns": fields, "rows": values[0], "hash": [str(value) for value in values[1:]]}


def rewritten(uri: str, bronze: str, batch: int) -> dict[str, int]:
    """How many files of the version before hold a key of this bronze batch, how many of them, and of the others, are gone."""
    after = DeltaTable(uri)
    before = DeltaTable(uri, version=after.version() - 1)
    old, new = set(before.file_uris()), set(after.file_uris())
    source = DeltaTable(bronze).file_uris()
    with duckdb.connect() as con:
        found = con.execute(_AFFECTED, {"files": sorted(old), "bronze": source, "batch": batch}).fetchall()
    affected = {row[0] for row in found}
    return {
        "files_before": len(old),
        "files_with_changed_keys": len(affected),
        "rewritten_with_changed_keys": len(affected - new),
        "rewritten_without": len(old - new - affected),
    }


def main(arguments: list[str]) -> int:
    """Print what was found as JSON; 1 when it is not as it should be."""
    if arguments[0] == "rows":
        first, second = (checksum(uri, arguments[3:]) for uri in arguments[1:3])
        print(json.dumps({"equal": first == second, "rows": first["rows"], "tables": [first, second]}))
        return int(first != second)
    found = rewritten(arguments[1], arguments[2], int(arguments[3]))
    print(json.dumps(found))
    return int(found["rewritten_without"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
