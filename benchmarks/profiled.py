"""A CSV file of sales: what `make table` looks at before it asks, beside what DuckDB says of the file and its copy as Parquet.

python -m benchmarks.profiled make <file> <rows>
python -m benchmarks.profiled ours|bare <file> <scratch folder>
"""

import sys
import time
from pathlib import Path

import duckdb

from benchmarks.sides import command

_SALES = """
COPY (
    SELECT 1000 + n AS id, 'pedido ' || n // 3 AS pedido, ['Recife', 'Rio', 'Belém', 'Curitiba'][1 + n % 4] AS loja,
        strftime(TIMESTAMP '2020-01-01' + to_minutes(n), '%d/%m/%Y %H:%M') AS vendido_em, n % 100_000 / 100 AS valor,
        n % 9 AS qtd,
        ['S', 'N'][1 + n % 2] AS pago, CASE WHEN n % 7 > 0 THEN 'obs ' || md5(n::VARCHAR) END AS obs,
        strftime(DATE '2020-01-01' + n % 900, '%Y-%m-%d') AS dia, n / 7 AS peso
    FROM (SELECT CAST(range AS INTEGER) AS n FROM range($rows))
) TO $path (HEADER)
"""


def ours(path: str, folder: Path) -> dict[str, object]:
    """Profile the file as the command does."""
    from lakehouse.commands.table import profiled
    from lakehouse.profile import propose  # noqa: F401  # loaded before the clock starts, as everything else is
    from lakehouse.profile.origin import origin_of
    from lakehouse.settings import Settings

    settings = Settings(root=str(folder / "lake"))
    begun = time.perf_counter()
    found = origin_of(path, settings.storage)
    proposal, _, _ = profiled(found, found.name, settings, folder)
    return {"seconds": time.perf_counter() - begun, "rows": proposal.trial.rows, "key": proposal.declaration.key.columns}


def bare(path: str, folder: Path) -> dict[str, object]:
    """Describe the file and copy it."""
    begun = time.perf_counter()
    connection = duckdb.connect()
    connection.execute("DESCRIBE FROM read_csv($1)", [path]).fetchall()
    connection.execute("COPY (FROM read_csv($1)) TO $2 (FORMAT parquet)", [path, str(folder / "copy.parquet")])
    [(rows,)] = connection.execute("SELECT count(*) FROM read_parquet($1)", [str(folder / "copy.parquet")]).fetchall()
    return {"seconds": time.perf_counter() - begun, "rows": rows}


def make(path: str, rows: int) -> None:
    """Write the file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(_SALES, {"rows": rows, "path": path})


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:], make=make, ours=ours, bare=bare))
