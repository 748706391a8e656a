"""A flow of plain Spark moves here: its bronze becomes our silver, `make compare` says whether that is the old flow's silver.

old_flow.py (Spark)  ─▶  bronze/vendas, v1 Airbyte columns  ─▶  DeltaSource  ─▶  silver/vendas_processed
                     └▶  its own silver/vendas  ◀──────────────  make compare
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.commands import compare
from lakehouse.settings import project_folder, settings
from lakehouse.tables.spec import DeltaSource
from lakehouse.tables.vendas import VENDAS
from lakehouse_tests.conftest import Lake, with_parent

pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark
ROWS = 2000 + 100 - 50 + 25  # lines, new ones, deleted ones, and those of them that came back


@pytest.fixture(scope="module")
def jars(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Delta for Spark, by `deploy/spark/pom.xml` as `make spark-jars` does."""
    folder = project_folder() / ".stack" / "jars"
    if not list(folder.glob("delta-spark_*.jar")):
        subprocess.run(["make", "--silent", "spark-jars"], cwd=project_folder(), check=True)
    return ",".join(str(path) for path in sorted(folder.glob("delta-*.jar")))


class OldFlow:
    """The script, stopped between its two parts."""

    def __init__(self, folder: Path, jars: str) -> None:
        self.folder = folder
        self.log = (folder / "log").open("w")
        script = str(Path(__file__).with_name("old_flow.py"))
        self.process = subprocess.Popen(
            with_parent(sys.executable, script, str(folder), jars),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=folder,
        )

    def goes_on(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.is_done()

    def is_done(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "done\n", (self.folder / "log").read_text()[-2000:]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


@pytest.fixture(scope="module")
def old_flow(jars: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldFlow]:
    flow = OldFlow(tmp_path_factory.mktemp("old"), jars)
    try:
        yield flow
    finally:
        flow.end()


@pytest.fixture
def project(old_flow: OldFlow, tmp_path: Path) -> Path:
    """This project with the two lines changed that docs/tables.md names, and its settings' lake below."""
    folder = tmp_path / "project"
    for name in ("lakehouse", "dbt_project"):
        shutil.copytree(project_folder() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    for name in ("pyproject.toml", "dagster.yaml"):
        shutil.copy2(project_folder() / name, folder)
    (folder / "lakehouse_tests" / "golden").mkdir(parents=True)

    def change(file: str, old: str, new: str) -> None:
        text = (folder / file).read_text()
        assert text.count(old) == 1, (file, old)
        (folder / file).write_text(text.replace(old, new))

    source = f'source=DeltaSource("{old_flow.folder}/bronze/vendas", "vendas_spark"), silver_name="vendas_processed"'
    change("lakehouse/tables/vendas.py", 'source=AirbyteStream("vendas")', source)
    change("lakehouse/tables/vendas.py", "    Column,\n", "    Column,\n    DeltaSource,\n")
    change("dbt_project/models/staging/stg_vendas.sql", "source('silver', 'vendas')", "source('silver', 'vendas_processed')")
    return folder


def run(project: Path, *words: str, code: int = 0) -> str:
    """One of the project's commands, as Make calls it; what it printed."""
    foreign = ("LAKEHOUSE_", "DAGSTER_", "AWS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    (project / "home").mkdir(exist_ok=True)
    env |= {"DAGSTER_HOME": str(project / "home"), "LAKEHOUSE_ROOT": str(project / "lake"), "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=project, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


def test_its_bronze_becomes_silver_vendas_processed_and_differs_in_nothing_but_what_is_planted(
    project: Path, old_flow: OldFlow
) -> None:
    silver, theirs = project / "lake" / "silver" / "vendas_processed", f"{old_flow.folder}/silver/vendas"
    run(project, "lakehouse", "sync")
    materialize = ("lakehouse", "materialize", 'key:"bronze/vendas" or key:"silver/vendas_processed"')
    old_flow.is_done()
    assert DeltaTable(f"{old_flow.folder}/bronze/vendas").version() == 1
    run(project, *materialize)
    first = DeltaTable(str(silver)).version()
    old_flow.goes_on()
    run(project, *materialize)
    assert DeltaTable(str(silver)).version() == first + 1
    output = run(project, "lakehouse", "compare", "vendas", theirs)
    assert output.endswith(f"{ROWS:,} rows are in both; 12 columns were compared, and nothing differs\n"), output

    planted = f"{old_flow.folder}/silver/planted"
    shutil.copytree(theirs, planted)
    table = DeltaTable(planted)
    table.update(predicate="id = 22", updates={"quantidade": "quantidade + 1"})
    table.delete("id = 8")
    table.merge(
        table.to_pyarrow_table(filters=[("id", "=", 4)]).set_column(0, "id", [[987654]]), "t.id = s.id",
        source_alias="s", target_alias="t",
    ).when_not_matched_insert_all().execute()  # fmt: skip
    output = run(project, "lakehouse", "compare", "vendas", planted, code=1)
    assert "1 rows are only here\n    8\n" in output
    assert "1 rows are only there\n    987654\n" in output
    assert "1 rows differ in quantidade\n    22: 5 here, 6 there\n" in output
    assert f"{ROWS - 1:,} rows are in both; 12 columns were compared\n" in output


def test_so_does_one_whose_fields_are_in_airbyte_data(
    old_flow: OldFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the test above: the script has come to its end."""
    theirs = f"{old_flow.folder}/silver/vendas"
    source = DeltaSource(f"{old_flow.folder}/bronze/vendas_json", "vendas_spark")
    spec = replace(VENDAS, source=source, silver_name="vendas_processed")
    monkeypatch.setattr(settings, "ALL", (spec,))
    lake = Lake(tmp_path)
    monkeypatch.setenv("LAKEHOUSE_ROOT", lake.storage.root)
    lake.run(spec)
    assert compare.compare("vendas", theirs) == 0, capsys.readouterr().out
    assert f"{ROWS:,} rows are in both" in capsys.readouterr().out
