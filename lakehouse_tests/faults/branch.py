"""A branch's database that is taken in while processes are killed: three kinds of tables, and what silver has to be after it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lakehouse.tables.spec import Column, Database, Query, Table, TableSpec
from lakehouse.tables.spec.setting import setting
from lakehouse_tests.faults import KILLS
from lakehouse_tests.faults.driver import KILLED, Driver

Sql = Callable[..., list[tuple[Any, ...]]]

FILIAL = Database(
    "filial",
    url=setting("FILIAL_DB_URL", secret=True),
    tables=(
        Table("pedidos"),
        Table("itens", cursor="id", overlap=50),
        Table("clientes", cursor=None),
        Query("resumo", "SELECT nome AS id, count(*) AS n FROM clientes GROUP BY nome", key=("id",)),
    ),
)
_ID, _NOME = Column("id", "bigint"), Column("nome", "string")
PEDIDOS = TableSpec(
    name="pedidos",
    source=FILIAL.table("pedidos"),
    columns=(_ID, _NOME, Column("ativo", "boolean"), Column("updated_at", "timestamp")),
    key=("id",),
    order=("updated_at",),
    deleted="ativo = false",
)
ITENS = TableSpec(name="itens", source=FILIAL.table("itens"), columns=(_ID, _NOME), sync="append")
CLIENTES = TableSpec(name="clientes", source=FILIAL.table("clientes"), columns=(_ID, _NOME), sync="overwrite", max_loss=1.0)
RESUMO = TableSpec(
    name="resumo",
    source=FILIAL.table("resumo"),
    columns=(Column("id", "string"), Column("n", "bigint")),
    sync="overwrite",
    max_loss=1.0,
)
SPECS = (PEDIDOS, ITENS, CLIENTES, RESUMO)


def run(folder: Path, *, whole: bool) -> int:
    """What the landing asset does; and, for the whole, what bronze and silver do after it."""
    from lakehouse_tests.conftest import Lake
    from lakehouse_tests.landing.branch import Branch

    lake = Lake(folder)
    Branch(lake, FILIAL, json.loads((folder / "branch.json").read_text())).take()
    for spec in SPECS if whole else ():
        while lake.ingest(spec).more:
            pass
        lake.refresh(spec)
    return 0


def campaign(folder: Path, url: str, sql: Sql, seed: int) -> int:
    """Kill extractions, and whole runs, at random moments while the source changes, then let one run end. Returns how many were
    killed.

    Args:
        sql: runs one statement in the branch's database, and returns its rows.
    """
    chance = random.Random(seed)
    folder.mkdir(exist_ok=True)
    (folder / "branch.json").write_text(json.dumps(url))
    _create(sql)
    kills, number, seconds = 0, 0, {"branch landing": 1.0, "branch": 2.0}
    with Driver() as driver:
        while kills < KILLS and number < 4 * KILLS:
            number += 1
            _change(sql, number, chance)
            part = "branch" if number % 3 == 0 else "branch landing"
            end = driver.run(folder, part, after=chance.uniform(0.02, seconds[part]))
            assert end.code in (0, KILLED), end.output
            kills += end.code == KILLED
            seconds[part] = end.seconds if end.code == 0 else seconds[part] * 1.05
            if number % 10 == 5:
                assert driver.run(folder, "branch").code == 0
        end = driver.run(folder, "branch")
        assert end.code == 0, end.output
    return kills


def _create(sql: Sql) -> None:
    sql("CREATE TABLE pedidos (id bigint PRIMARY KEY, nome varchar(40), ativo smallint, updated_at timestamp)")
    sql("CREATE TABLE itens (id bigint PRIMARY KEY, nome varchar(40))")
    sql("CREATE TABLE clientes (id bigint PRIMARY KEY, nome varchar(40))")
    for start in range(1, 2001, 500):
        ids = range(start, start + 500)
        sql(
            f"INSERT INTO pedidos VALUES {', '.join(f'({n}, $item {n}$, 1, $2024-01-01 00:00:00$)' for n in ids)}".replace(
                "$", "'"
            )
        )
        for table in ("itens", "clientes"):
            sql(f"INSERT INTO {table} VALUES {', '.join(f'({n}, $nome {n % 97}$)' for n in ids)}".replace("$", "'"))


def _change(sql: Sql, number: int, chance: random.Random) -> None:
    at, new = f"2024-01-02 {number // 60:02}:{number % 60:02}:00", 10_000 + 10 * number
    sql(f"UPDATE pedidos SET nome = 'mudado {number}', updated_at = '{at}' WHERE id % 50 = {chance.randrange(50)}")
    sql(f"UPDATE pedidos SET ativo = 0, updated_at = '{at}' WHERE id = {chance.randrange(1, 2000)}")
    sql(f"INSERT INTO pedidos VALUES ({new}, 'novo', 1, '{at}')")
    sql(f"INSERT INTO itens VALUES ({new}, 'novo')")
    sql(f"DELETE FROM clientes WHERE id % 100 = {chance.randrange(100)}")
    sql(f"UPDATE clientes SET nome = 'mudado' WHERE id = {chance.randrange(1, 2000)}")


def check(folder: Path, sql: Sql) -> None:
    """Silver is the source, row by row; what was killed left no row twice and no file that counts and should not."""
    from lakehouse_tests.conftest import Lake

    lake = Lake(folder)
    live = sql("SELECT id, nome FROM pedidos WHERE ativo = 1 ORDER BY id")
    assert [(row["id"], row["nome"]) for row in lake.rows(PEDIDOS.silver, "id", "nome")] == live
    for spec in (ITENS, CLIENTES):
        expected = sql(f"SELECT id, nome FROM {spec.name} ORDER BY id, nome")  # nosec B608
        assert [(row["id"], row["nome"]) for row in lake.rows(spec.silver, "id", "nome")] == expected
    counts = dict(sql("SELECT nome, count(*) FROM clientes GROUP BY nome"))
    assert {row["id"]: row["n"] for row in lake.rows(RESUMO.silver, "id", "n")} == counts
    for table in ("pedidos", "itens"):
        raw = [row["_airbyte_raw_id"] for row in _landed(folder, table)]
        assert len(raw) == len(set(raw)), table
    for spec in SPECS:
        assert lake.quarantined(spec) == []


def _landed(folder: Path, table: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    paths = sorted((folder / "landing" / "raw" / "filial" / table).glob("*.parquet"))
    return [row for path in paths for row in pq.ParquetFile(path).read(columns=["_airbyte_raw_id"]).to_pylist()]
