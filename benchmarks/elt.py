"""ELTBench of the package `lakebench`, by the lakehouse's own reads, writes and merges.

The operations of its light mode on TPC-DS: load five tables, make a fact table, merge 0.1 % of the sales into it three times,
optimise, vacuum, query. Half of what is merged adds to rows that are there, half is new, as there; where LakeBench takes random
numbers this takes remainders of the keys, and it adds up the sales of a key before they are merged, which LakeBench does not.

    python -m benchmarks.elt <folder of Parquet tables> <lake>
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import narwhals as nw
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lakehouse.core.engines import duckdb as _engine  # noqa: F401 - loaded before the clock starts
from lakehouse.core.engines.session import Session, open_session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import require_table
from lakehouse.core.table.staging import Mode, Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.settings import load_settings

TABLES = ("store_sales", "date_dim", "store", "item", "customer")
MERGES, SEED, MODULO = 3, 7, 1_000
KEY = ("s_store_id", "i_item_id", "c_customer_id", "sale_date")
FACT = {
    **dict.fromkeys(KEY[:3], "string"),
    "sale_date": "date",
    "total_quantity": "bigint",
    "total_net_paid": "decimal(38,2)",
    "total_net_profit": "decimal(38,2)",
}
_TOTALS = tuple(name for name in FACT if name not in KEY)
_SOLD = {"total_quantity": "ss_quantity", "total_net_paid": "ss_net_paid", "total_net_profit": "ss_net_profit"}


class Elt:
    """The operations, each timed."""

    def __init__(self, source: Path, storage: Storage, session: Session) -> None:
        self.source, self.storage, self.session = source, storage, session
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """All of them in LakeBench's order; figures that tell whether both sides did the same."""
        with self._timed("load"):
            for name in TABLES:
                self._load(name)
        with self._timed("fact"):
            self._write("total_sales_fact", FACT, self._fact, mode="overwrite")
        created = self._table("total_sales_fact")[1]
        for number in range(MERGES):
            with self._timed("merge"):
                self._write("total_sales_fact", FACT, partial(self._changes, SEED + number), mode="merge", key=KEY)
        uri = self.storage.uri(TableRef("gold", "total_sales_fact"))
        with self._timed("optimise"):
            DeltaTable(uri).optimize.compact()
        with self._timed("vacuum"):
            DeltaTable(uri).vacuum(0, enforce_retention_duration=False, dry_run=False)
        with self._timed("query"):
            fact, merged = self._table("total_sales_fact")
            by_year = fact.group_by(nw.col("sale_date").dt.year().alias("year")).agg(nw.col("total_net_profit").sum())
            years = self.session.rows(by_year)
        return {"phases": self.seconds, "fact_rows": created, "merged_rows": merged, "years": len(years)}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - begun

    def _load(self, name: str) -> None:
        files = sorted(str(path) for path in (self.source / name).glob("*.parquet"))
        columns = {field.name: _kind(field.type) for field in pq.read_schema(files[0])}
        self._write(name, columns, lambda session: session.read(files, columns), mode="overwrite")

    def _write(
        self,
        name: str,
        columns: dict[str, str],
        frame: Callable[[Session], "nw.LazyFrame[Any]"],
        *,
        mode: Mode,
        key: tuple[str, ...] = (),
    ) -> None:
        uri = self.storage.uri(TableRef("gold", name))
        with lock(uri):
            commit_staged(stage_write(self.session, uri, Write(frame=frame, columns=columns, mode=mode, key=key)))

    def _table(self, name: str) -> "tuple[nw.LazyFrame[Any], int]":
        """The table and its number of rows."""
        found = require_table(self.storage.uri(TableRef("gold", name)), TableRef("gold", name))
        return self.session.read(found.paths(), found.columns), found.rows

    def _sales(self) -> "nw.LazyFrame[Any]":
        """The lines of store_sales with the names of what their surrogate keys stand for."""
        frame = self._table("store_sales")[0]
        for name, own, foreign in (
            ("date_dim", "d_date_sk", "ss_sold_date_sk"),
            ("store", "s_store_sk", "ss_store_sk"),
            ("item", "i_item_sk", "ss_item_sk"),
            ("customer", "c_customer_sk", "ss_customer_sk"),
        ):
            frame = frame.join(self._table(name)[0], left_on=foreign, right_on=own, how="inner")
        return frame.with_columns(nw.col("d_date").alias("sale_date"))

    def _fact(self, session: Session) -> "nw.LazyFrame[Any]":
        of_2001 = self._sales().filter(nw.col("d_year") == 2001)
        totals = of_2001.group_by(*KEY).agg(*[nw.col(sold).sum().alias(name) for name, sold in _SOLD.items()])
        return totals.sort("s_store_id", "sale_date")

    def _changes(self, seed: int, session: Session) -> "nw.LazyFrame[Any]":
        chosen = nw.col("ss_customer_sk") + nw.col("ss_sold_date_sk") + seed
        sales = self._sales().with_columns(chosen.alias("_chosen")).filter(nw.col("_chosen") % MODULO == 0)
        new = nw.concat_str(nw.lit("NEW_"), nw.col("_chosen").cast(nw.String))
        customer = nw.when(nw.col("ss_ticket_number") % 2 == 0).then(new).otherwise(nw.col("c_customer_id"))
        more = {"total_quantity": (5, 1), "total_net_paid": (50, 5), "total_net_profit": (20, 1)}
        added = {name: nw.col(_SOLD[name]) + nw.col("ss_item_sk") % span + least for name, (span, least) in more.items()}
        lines = sales.select(*KEY[:2], customer.alias("c_customer_id"), "sale_date", **added)
        changes = session.persist(lines.group_by(*KEY).agg(*[nw.col(name).sum() for name in _TOTALS]))
        stored = self._table("total_sales_fact")[0].join(changes.select(*KEY), on=list(KEY), how="semi")
        both = nw.concat([frame.select(*_typed()) for frame in (changes, stored)], how="vertical")
        return both.group_by(*KEY).agg(*[nw.col(name).sum() for name in _TOTALS])


def _typed() -> list[nw.Expr]:
    numbers = {"total_quantity": nw.Int64(), "total_net_paid": nw.Decimal(38, 2), "total_net_profit": nw.Decimal(38, 2)}
    return [nw.col(name).cast(numbers[name]) if name in numbers else nw.col(name) for name in FACT]


def _kind(kind: Any) -> str:
    """Arrow's type as a type of the lakehouse."""
    name = str(kind).removeprefix("large_").removesuffix("_view")
    if name.startswith("decimal"):
        return f"decimal({kind.precision},{kind.scale})"
    return {"int32": "int", "int64": "bigint", "date32[day]": "date", "string": "string"}[name]


def main(source: str, lake: str) -> dict[str, Any]:
    """Run it in a fresh lake."""
    storage = Storage(root=lake, landing=source)
    bound = load_settings().memory_bound
    folders = [*storage.folders(), source]
    begun = time.perf_counter()
    with open_session("duckdb", memory_limit=bound, spill=f"{lake}/.spill", folders=folders) as session:
        figures = Elt(Path(source), storage, session).run()
    return {"seconds": time.perf_counter() - begun, **figures}


if __name__ == "__main__":
    print(json.dumps(main(*(str(Path(argument).absolute()) for argument in sys.argv[1:3]))))
