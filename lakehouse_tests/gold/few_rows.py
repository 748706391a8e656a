"""Gold over a few rows of silver that the tests write themselves."""

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable

from lakehouse.core.engines.session import duckdb_session
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged
from lakehouse.definitions import build_defs
from lakehouse.gold import project
from lakehouse.settings import Settings, project_folder
from lakehouse.silver.refresh import silver_columns
from lakehouse.tables.vendas import CLIENTES, PRODUTOS, VENDAS

#: `vendas_por_segmento` reads a history, which these tests do not write.
MARTS = {"clientes_rfm", "vendas_diarias", "vendas_mensais", "vendas_por_pais", "vendas_por_produto"}
NOON = "2024-03-01 12:00:00+00"
FAILS = "select * from {{ ref('vendas_diarias') }} where receita > 0"


def sale(number: int, **fields) -> dict:
    row = {
        "id": number, "pedido_id": f"P{number}", "produto_id": "x", "descricao": "X", "quantidade": 2, "valor_unitario": "1.25",
        "cliente_id": 1, "pais": "Brasil", "status": "paid", "created_at": NOON, "updated_at": NOON,
        "created_date": "2024-03-01", "total": "2.50", "_extracted_at": NOON,
    }  # fmt: skip
    return {**row, **fields}


@dataclass(frozen=True)
class Lake:
    root: Path
    base: Path | str = ""

    def silver(self, spec, rows: list[dict], mode: str = "overwrite") -> None:
        columns = silver_columns(spec)
        write = Write(frame=lambda session: session.table(rows, columns), columns=columns, mode=mode, key=("id",))
        with duckdb_session(memory_limit="500MB", spill=str(self.root / ".spill"), folders=[str(self.root)]) as session:
            commit_staged(stage_write(session, str(self.root / "silver" / spec.silver_name), write))

    def run(
        self, *marts: str, dbt: Path | None = None, instance: dg.DagsterInstance | None = None, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialise gold, or only some marts, with the project's dbt or with a copy of it, on an instance of its own."""
        keys = [dg.AssetKey(["gold", mart]) for mart in marts or sorted(MARTS)]
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as own:
            warnings.simplefilter("ignore")
            if dbt is not None:
                patch.setattr(project, "project_dir", lambda: dbt)
            settings = Settings(root=str(self.root), base_root=str(self.base))
            job = build_defs(settings).resolve_implicit_global_asset_job_def()
            return job.execute_in_process(instance=instance or own, asset_selection=keys, raise_on_error=False, tags=tags)

    def rows(self, mart: str) -> list[dict]:
        return DeltaTable(str(self.root / "gold" / mart)).to_pyarrow_table().to_pylist()

    def versions(self) -> dict[str, int]:
        return {path.name: DeltaTable(str(path)).version() for path in (self.root / "gold").iterdir()}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Lake:
    """Three rows of silver, and the marts of them. Nobody changes it."""
    lake = Lake(tmp_path_factory.mktemp("gold") / "lake")
    lake.silver(VENDAS, [sale(1), sale(2, pais="Chile", created_date="2024-03-02"), sale(3, pedido_id="P1")])
    lake.silver(PRODUTOS, [{"id": "x", "nome": "X", "categoria": "c", "updated_at": NOON, "_extracted_at": NOON}])
    customer = {"id": 1, "pais": "Brasil", "segmento": "s", "created_at": NOON, "updated_at": NOON, "_extracted_at": NOON}
    lake.silver(CLIENTES, [customer])
    assert lake.run().success
    return lake


@pytest.fixture
def lake(base, tmp_path) -> Lake:
    shutil.copytree(base.root, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def copy_project(folder: Path, files: dict[str, str]) -> Path:
    """The project's dbt folder with other or more files."""
    shutil.copytree(project_folder() / "dbt_project", folder, ignore=shutil.ignore_patterns("target", "logs"))
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
