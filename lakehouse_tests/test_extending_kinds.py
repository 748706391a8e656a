"""docs/extending.md, a new kind of rule or source: each diff is applied to a copy of the package, and the copy is used."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lakehouse.settings import project_folder

PROJECT = project_folder()
#: Runs below the copy: lands each batch of records, takes it into bronze and silver, and prints what became of them.
PROGRAM = """
import json, sys
from pathlib import Path

import lakehouse
from lakehouse.core import rules
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.conftest import Lake, file_content

assert Path(lakehouse.__file__).parents[1] == Path.cwd()
block, batches, share = json.loads(sys.argv[1])
scope = {}
exec(block.replace("/mnt/loja", share), scope)
types = {"id": "bigint", "valor": "decimal(12,2)", "frete": "double", "em": "timestamp"}
columns = tuple(Column(name, kind) for name, kind in types.items())
declared = {"source": AirbyteStream("itens"), **{name: scope[name] for name in ("source", "rules") if name in scope}}
spec = TableSpec(name="itens", columns=columns, key=("id",), order=("em",), **declared)
lake, ran = Lake(Path(share).parent / "lake"), []
for number, rows in enumerate(batches):
    target = Path(share, "hoje") if "source" in scope else lake.folder / "landing" / "raw" / "itens"
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{number}.jsonl").write_bytes(file_content(rows))
    refresh = lake.run(spec)
    ran.append({"stopped": refresh.stopped, "failed": {f.rule: f.failed for f in refresh.findings if not f.passed}})
print(json.dumps({
    "ran": ran,
    "bronze": [row["_source_file"] for row in lake.rows(spec.bronze, "_source_file")],
    "silver": [row["id"] for row in lake.rows(spec.silver, "id")],
    "quarantine": [row["rules"] for row in lake.quarantined(spec)],
    "proofs": sorted(rules.PROOFS),
}))
"""


def sections() -> dict[str, tuple[str, str]]:
    """`{heading: (diff, program)}` of the page."""
    text = (PROJECT / "docs" / "extending.md").read_text()
    (part,) = re.findall(r"^## A new kind of rule or source\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^### ([^\n]+)\n.*?```diff\n(.*?)```\n.*?```python\n(.*?)```", part, flags=re.DOTALL | re.MULTILINE)
    return {heading: (diff, program) for heading, diff, program in found}


def item(number: int, valor: str = "2.50", frete: float = 1.0) -> dict[str, Any]:
    return {"id": number, "valor": valor, "frete": frete, "em": "2026-01-01T00:00:00Z"}


def run(folder: Path, heading: str, *batches: list[dict[str, Any]], apply: bool = True) -> "subprocess.CompletedProcess[str]":
    """What the page's program makes of records, on a copy of the package with the page's diff."""
    diff, block = sections()[heading]
    copy = folder / "copy"
    shutil.copytree(PROJECT / "lakehouse", copy / "lakehouse", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "lakehouse_tests").mkdir()
    for name in ("__init__.py", "conftest.py"):
        shutil.copy2(PROJECT / "lakehouse_tests" / name, copy / "lakehouse_tests" / name)
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder), "PYTHONPATH": str(copy)}
    if apply:
        command = ["git", "apply", "--whitespace=error", "-"]
        subprocess.run(command, cwd=copy, env=environment, input=diff, text=True, capture_output=True, check=True)
    given = json.dumps([block, batches, str(folder / "share")])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, given], cwd=copy, env=environment, text=True, capture_output=True, check=False
    )


def outcome(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_page_shows_one_of_each() -> None:
    assert list(sections()) == ["A row rule", "A table rule", "A source"]
    for heading, (diff, _) in sections().items():
        added = [line for line in diff.splitlines() if re.match(r"\+(?!\+\+)", line)]
        assert len(re.findall(r"^\+(class|def) ", diff, flags=re.MULTILINE)) == 2, f"{heading}: one declaration, one function"
        assert len(added) <= 32, heading


def test_a_new_row_rule_quarantines_or_warns(tmp_path: Path) -> None:
    found = outcome(run(tmp_path, "A row rule", [item(1), item(2, valor="-1.00"), item(3, frete=0.0)]))
    assert found["silver"] == [1, 3] and found["quarantine"] == ["positive_valor"]
    assert found["ran"] == [{"stopped": False, "failed": {"positive_valor": 1, "positive_frete": 1}}]
    assert "positive" in found["proofs"]


def test_a_new_table_rule_stops_the_batch(tmp_path: Path) -> None:
    found = outcome(run(tmp_path, "A table rule", [item(1), item(2)], [item(3), item(4)]))
    assert found["ran"] == [{"stopped": False, "failed": {}}, {"stopped": True, "failed": {"max_rows_2": 2}}]
    assert found["silver"] == [1, 2] and len(found["bronze"]) == 4


def test_a_new_source_lands_rows_in_bronze_once(tmp_path: Path) -> None:
    found = outcome(run(tmp_path, "A source", [item(1), item(2)], [item(3)]))
    assert found["bronze"] == ["hoje/0.jsonl", "hoje/0.jsonl", "hoje/1.jsonl"] and found["silver"] == [1, 2, 3]


def test_without_the_diff_there_is_no_such_kind(tmp_path: Path) -> None:
    done = run(tmp_path, "A table rule", [item(1)], apply=False)
    assert done.returncode == 1 and "ImportError: cannot import name 'MaxRows'" in done.stderr
