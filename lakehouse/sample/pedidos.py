"""The order sources of the sample: the records of a web shop's API, a branch's SQLite database, and the API itself.

    transactions.parquet, products.parquet ─▶ <target>/sources/pedidos_api.json ─▶ `shop()`: HTTP on 127.0.0.1
                                          └─▶ <target>/sources/pedidos.db       table `pedidos`

**Real**: product, value, quantity and instant of sale lines of 2017. **Made up**: the channel (the first lines are the web
shop's, the next the branch's), `id`, that one record in forty comes twice, and that one of the shop's in 150 has no id.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import duckdb

from lakehouse.core.errors import SourceRefusedError
from lakehouse.sample.landing import find_sources
from lakehouse.sample.serving import served

SHOP_LINES, BRANCH_LINES = 1_200, 800
API_FILE, DB_FILE = "pedidos_api.json", "pedidos.db"
PAGE = 100
_LINES = """
SELECT
    coalesce(products.product_type, products.product_category, 'Sem nome') AS nome,
    CAST(round(CAST(lines.sales_value AS DECIMAL(12, 2)) / greatest(quantity, 1), 2) AS DOUBLE) AS valor,
    CAST(greatest(quantity, 1) AS BIGINT) AS quantidade,
    strftime(transaction_timestamp, '%Y-%m-%dT%H:%M:%SZ') AS updated_at
FROM (
    SELECT *, file_row_number AS line FROM read_parquet($transactions, file_row_number = true) WHERE file_row_number < $lines
) AS lines
LEFT JOIN read_parquet($products) AS products USING (product_id)
ORDER BY lines.line
"""
Record = dict[str, Any]


def write_order_sources(target: Path) -> None:
    """Write both sources below `target`, whole or not at all. They are the same every time."""
    folder = target / "sources"
    if (folder / API_FILE).is_file() and (folder / DB_FILE).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sources = find_sources()
    with duckdb.connect(config={"threads": 1}) as connection:
        found = connection.execute(
            _LINES,
            {
                "transactions": sources["transactions"],
                "products": sources["products"],
                "lines": SHOP_LINES + BRANCH_LINES,
            },
        )
        names = [column[0] for column in found.description or ()]
        lines: list[Record] = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    shop = [{"id": None if n % 150 == 0 else n, **line} for n, line in enumerate(lines[:SHOP_LINES], start=1)]
    branch = [{"id": 1_000_000 + n, **line} for n, line in enumerate(lines[SHOP_LINES:], start=1)]
    temporary = folder / f".{API_FILE}"
    temporary.write_text(json.dumps(_with_copies(shop)))
    temporary.rename(folder / API_FILE)
    temporary = folder / f".{DB_FILE}"
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(temporary)) as branch_db, branch_db:
        branch_db.execute("CREATE TABLE pedidos (id INTEGER, nome TEXT, valor NUMERIC, quantidade INTEGER, updated_at TEXT)")
        branch_db.executemany("INSERT INTO pedidos VALUES (:id, :nome, :valor, :quantidade, :updated_at)", _with_copies(branch))
    temporary.rename(folder / DB_FILE)


def _with_copies(records: list[Record]) -> list[Record]:
    return [*records, *[record for n, record in enumerate(records, start=1) if n % 40 == 0 and record["id"] is not None]]


@contextmanager
def api(landing: str) -> Iterator[str]:
    """The URL of the sample's API, which answers for the block."""
    with shop(f"{landing}/sources/{API_FILE}") as url:
        yield url


@contextmanager
def database(landing: str) -> Iterator[str]:
    """The URL of the sample's database."""
    yield f"sqlite:///{landing}/sources/{DB_FILE}"


@contextmanager
def shop(records: Path | str, *, token: str = "") -> Iterator[str]:
    """The web shop's API on a free port of 127.0.0.1 for the block; its URL.

    Raises:
        SourceRefusedError: the sample was not written.
    """
    path = Path(records)
    if not path.is_file():
        raise SourceRefusedError(
            f"The sample's order sources are not there: {path}.",
            remedy="Run make sample, or name yours: LAKEHOUSE_PEDIDOS_API_URL and LAKEHOUSE_PEDIDOS_DB_URL.",
        )
    orders = json.loads(path.read_text())

    class Shop(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                self.send_error(401)
                return
            parts = urlsplit(self.path)
            body = json.dumps(page(orders, parse_qs(parts.query), path=parts.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:  # what it is asked for is in the step's metadata
            pass

    with served(Shop) as port:
        yield f"http://127.0.0.1:{port}/pedidos"


def page(orders: list[Record], query: dict[str, list[str]], *, path: str) -> Record:
    """One page of the orders from `updated_since` on, with the link to the next."""
    since = query.get("updated_since", [""])[0]
    number = int(query.get("page", ["1"])[0])
    wanted = [order for order in orders if order["updated_at"] >= since[:19]]
    more = number * PAGE < len(wanted)
    following = urlencode({**({"updated_since": since} if since else {}), "page": number + 1})
    records = wanted[(number - 1) * PAGE : number * PAGE]
    return {"data": records, "total": len(wanted), "next": f"{path}?{following}" if more else None}
