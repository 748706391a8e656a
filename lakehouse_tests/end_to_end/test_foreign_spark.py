"""Tables that Spark writes and changes in every way, taken in after each step: what Spark itself reads is the oracle.

other_spark.py  ─▶  a Delta table, step by step  ─▶  DeltaSource  ─▶  bronze: what is new;  silver (overwrite): the rows
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.core.errors import BrokenTableError, ForeignTableError
from lakehouse.core.rules import Release
from lakehouse.core.table.foreign import require_foreign
from lakehouse.settings import project_folder
from lakehouse.tables.spec import Column, DeltaSource, Sync, TableSpec
from lakehouse_tests.conftest import Lake, few, with_parent

pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark
#: Layout and properties of a table; `p` is its column for partitions.
FORMS = {
    "plain": "",
    "mapped": "TBLPROPERTIES ('delta.columnMapping.mode' = 'id', 'delta.enableDeletionVectors' = 'true', "
    "'delta.enableChangeDataFeed' = 'true')",
    "partitioned": "PARTITIONED BY (p) TBLPROPERTIES ('delta.enableDeletionVectors' = 'true', "
    "'delta.enableRowTracking' = 'true', 'delta.enableInCommitTimestamps' = 'true')",
    "clustered": "CLUSTER BY (id) TBLPROPERTIES ('delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '2')",
}
FIRST = "INSERT INTO {t} SELECT id, concat('n', id), CASE id % 3 WHEN 0 THEN 'a/b' WHEN 1 THEN 'São João 100%' END FROM range(30)"
STEPS = {
    "insert": "INSERT INTO {t} VALUES (100, 'x', NULL), (100, 'x', NULL), (101, '', 'y')",
    "update": "UPDATE {t} SET nome = 'novo' WHERE id % 10 = 3",
    "delete": "DELETE FROM {t} WHERE id % 10 = 4",
    "merge": "MERGE INTO {t} USING (SELECT explode(array(5, 500)) AS k) ON id = k "
    "WHEN MATCHED THEN UPDATE SET nome = 'm' WHEN NOT MATCHED THEN INSERT (id, nome, p) VALUES (k, 'i', 'y')",
    "optimize": "OPTIMIZE {t}",
    "zorder": "OPTIMIZE {t} ZORDER BY (nome)",
    "restore": "RESTORE TABLE {t} TO VERSION AS OF 1",
    "overwrite": "INSERT OVERWRITE {t} SELECT id, 'o', 'z' FROM range(25, 35)",
    "vacuum": "VACUUM {t} RETAIN 0 HOURS",
    "after": "INSERT INTO {t} VALUES (900, 'last', 'y')",
}
#: What only a table that is followed goes on after: the id is another one.
REPLACED = {
    "replace": "CREATE OR REPLACE TABLE {t} USING delta {form} AS SELECT id, 'r' AS nome, 'y' AS p FROM range(28, 33)",
    "more": "MERGE INTO {t} USING (SELECT explode(array(28, 600)) AS k) ON id = k "
    "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, nome, p) VALUES (k, 'i', NULL)",
}
CREATE = "CREATE TABLE {t} (id BIGINT, nome STRING, p STRING) USING delta {form}"


class OtherSpark:
    def __init__(self, folder: Path, jars: str) -> None:
        self.log = (folder / "log").open("w")
        script = str(Path(__file__).with_name("other_spark.py"))
        self.process = subprocess.Popen(
            with_parent(sys.executable, script, jars), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            cwd=folder,
        )  # fmt: skip

    def sql(self, text: str) -> list[dict[str, Any]]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        while line and not line.startswith("{"):  # VACUUM prints there too
            line = self.process.stdout.readline()
        assert line, "Spark has ended"
        answer = json.loads(line)
        assert "error" not in answer, f"{text}: {answer['error']}"
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherSpark]:
    folder = project_folder() / ".stack" / "jars"
    if not list(folder.glob("delta-spark_*.jar")):
        subprocess.run(["make", "--silent", "spark-jars"], cwd=project_folder(), check=True)
    jars = ",".join(str(path) for path in sorted(folder.glob("delta-*.jar")))
    other = OtherSpark(tmp_path_factory.mktemp("spark"), jars)
    try:
        yield other
    finally:
        other.end()


def spec(uri: str, sync: Sync) -> TableSpec:
    columns = (Column("id", "bigint"), Column("nome", "string"), Column("p", "string"))
    return TableSpec(
        name=sync,
        sync=sync,
        silver_name=f"{sync}_processed",
        description="",
        source=DeltaSource(uri, "other"),
        columns=columns,
        max_loss=1.0,
    )


def counted(rows: list[dict[str, Any]]) -> Counter[Any]:
    return Counter(tuple(None if row.get(name) is None else str(row[name]) for name in ("id", "nome", "p")) for row in rows)


@pytest.mark.parametrize("form", few(FORMS, "mapped"))
def test_after_each_step_bronze_has_what_is_new_and_silver_what_spark_reads(spark: OtherSpark, tmp_path: Path, form: str) -> None:
    table, lake = f"delta.`{tmp_path / 'other' / 'tabela'}`", Lake(tmp_path)
    uri = str(tmp_path / "other" / "tabela")
    specs = {"append": spec(uri, "append"), "overwrite": spec(uri, "overwrite")}
    spark.sql(CREATE.format(t=table, form=FORMS[form]))
    before: Counter[Any] = Counter()
    taken: Counter[Any] = Counter()
    for name, step in {"first": FIRST, **STEPS}.items():
        if name == "zorder" and form == "clustered":  # it has an order of its own
            continue
        spark.sql(step.format(t=table, form=FORMS[form]))
        now = counted(spark.sql(f"SELECT * FROM {table}"))
        lake.ingest(specs["append"])
        lake.run(specs["overwrite"])
        taken += now - before
        assert counted(lake.rows(specs["append"].bronze, "id", "nome", "p")) == taken, name
        assert counted(lake.rows(specs["overwrite"].silver, "id", "nome", "p")) == now, name
        before = now
    lake.refresh(specs["append"])
    assert counted(lake.rows(specs["append"].silver, "id", "nome", "p")) == taken


@pytest.mark.parametrize("form", few(FORMS))
def test_silver_that_follows_withdrawals_has_what_spark_reads_after_each_step(
    spark: OtherSpark, tmp_path: Path, form: str
) -> None:
    uri, lake = str(tmp_path / "other" / "tabela"), Lake(tmp_path)
    table = f"delta.`{uri}`"
    appended = replace(spec(uri, "append"), source=DeltaSource(uri, "other", withdrawals="delete"))
    keyed = replace(appended, name="dedup", silver_name="dedup_processed", sync="dedup", key=("id",), order=("id",))
    create = CREATE.format(t=table, form=FORMS[form])

    def check(step: str, release: Release | None = None) -> None:
        now = counted(spark.sql(f"SELECT * FROM {table}"))
        for one, wanted in ((appended, now), (keyed, Counter({*now}))):  # an id has equal rows only
            lake.ingest(one, release=release)
            assert not lake.refresh(one).stopped
            assert counted(lake.rows(one.silver, "id", "nome", "p")) == wanted, (step, one.sync)

    spark.sql(create)
    for name, step in {"first": FIRST, **STEPS, **REPLACED}.items():
        if name == "zorder" and form == "clustered":  # it has an order of its own
            continue
        spark.sql(step.format(t=table, form=FORMS[form]))
        check(name)
    shutil.rmtree(uri)
    spark.sql(create)
    spark.sql(STEPS["insert"].format(t=table))
    for one in (appended, keyed):
        with pytest.raises(BrokenTableError, match="made again"):
            lake.ingest(one)
    check("recreate", Release("made again"))
    spark.sql(STEPS["update"].format(t=table))
    check("after it")
    for one in (appended, keyed):
        before = lake.rows(one.silver)
        assert not lake.refresh(one, rebuild=True).stopped and lake.rows(one.silver) == before


def test_a_shallow_clone_and_what_it_adds_are_read(spark: OtherSpark, tmp_path: Path) -> None:
    source, clone = f"delta.`{tmp_path / 'source'}`", f"delta.`{tmp_path / 'clone'}`"
    spark.sql(f"CREATE TABLE {source} USING delta AS SELECT id FROM range(100)")
    spark.sql(f"CREATE TABLE {clone} SHALLOW CLONE {source}")
    spark.sql(f"INSERT INTO {clone} SELECT id FROM range(200, 210)")
    spark.sql(f"DELETE FROM {clone} WHERE id < 5")
    with require_foreign(str(tmp_path / "clone"), remedy="").reading() as rows:
        assert sorted(rows.read_all().column("id").to_pylist()) == [*range(5, 100), *range(200, 210)]


def test_dates_of_the_old_calendar_are_refused_and_those_since_are_read(spark: OtherSpark, tmp_path: Path) -> None:
    table = f"delta.`{tmp_path / 't'}`"
    spark.sql(f"CREATE TABLE {table} (d DATE) USING delta")
    spark.sql(f"INSERT INTO {table} VALUES (DATE '1990-02-28')")
    with require_foreign(str(tmp_path / "t"), remedy="").reading() as rows:
        assert [str(day) for day in rows.read_all().column("d").to_pylist()] == ["1990-02-28"]
    spark.sql(f"INSERT INTO {table} VALUES (DATE '1500-02-28')")
    with (
        pytest.raises(ForeignTableError, match="calendar before 1582"),
        require_foreign(str(tmp_path / "t"), remedy="").reading(),
    ):
        pass
