"""The marts, as the dbt manifest declares them: what each reads, by which days it is computed, the code that decides it."""

import copyreg
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.core import names as core_names
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.gold import schema
from lakehouse.gold.project import cached
from lakehouse.gold.schema import mart_columns

# Marts are cached by pickle. As Dagster has it, an AssetDep cannot be unpickled. Those of dbt have no partition mapping.
copyreg.pickle(dg.AssetDep, lambda dep: (dg.AssetDep, (dep.asset_key,)))


@dataclass(frozen=True)
class Mart:
    """One published model: what it reads, all the way down to silver, and what decides its content."""

    unique_id: str
    name: str
    spec: dg.AssetSpec
    columns: Mapping[str, str]
    sources: tuple[TableRef, ...]
    refers_to: tuple[str, ...]
    code: str
    #: The date column by which days are published one by one, and whether the model reads its own published rows.
    partition: str = ""
    reads_itself: bool = False
    checks: Mapping[str, dg.AssetCheckSpec] = field(default_factory=dict)

    @property
    def ref(self) -> TableRef:
        return TableRef("gold", self.name)

    @property
    def by_days(self) -> bool:
        """Whether a run computes it from the days in which its sources have something new."""
        return bool(self.partition) or self.reads_itself


# --- what the manifest says --------------------------------------------------------------------------------------------


def marts_of(manifest: Mapping[str, Any]) -> dict[str, Mart]:
    """Every mart of the project, by unique id."""
    # dagster-dbt imports all of dbt, two seconds of every process that loads the definitions.
    versions = [f"{name} {version(name)}" for name in ("dagster", "dagster-dbt")]
    code = [Path(str(module.__file__)).read_text() for module in (sys.modules[__name__], schema, core_names)]
    return cached("marts", lambda: _marts(manifest), by="\n".join([*versions, sys.version, *code]))


def _marts(manifest: Mapping[str, Any]) -> dict[str, Mart]:
    """Every model that is a table, by unique id. Others (staging) are passed through to what they read."""
    from dagster_dbt import DagsterDbtTranslator

    translator = DagsterDbtTranslator()
    nodes = manifest["nodes"]
    columns = mart_columns(manifest)
    found = {}
    for unique_id, node in nodes.items():
        if node["resource_type"] != "model" or node["config"]["materialized"] != "table":
            continue
        parents = below(manifest, unique_id)
        read = [manifest["sources"][uid] for uid in parents if uid.startswith("source.")]
        sources = sorted((TableRef(node["schema"], node["name"]) for node in read), key=str)
        direct = _direct(manifest, unique_id)
        spec = translator.get_asset_spec(manifest, unique_id, None)
        keys = [translator.get_asset_spec(manifest, uid, None).key for uid in direct]
        code = hashlib.sha256()
        tests = [uid for uid in manifest["child_map"][unique_id] if uid.startswith("test.")]
        for uid in sorted([*parents, unique_id, *tests]):
            if uid in nodes:
                code.update(_code(manifest, nodes[uid]).encode())
        checks = {}
        spec = spec.replace_attributes(
            key=["gold", node["name"]],
            deps=sorted(keys),
            group_name="gold",
            code_version=code.hexdigest()[:12],
            kinds={"dbt", "duckdb", "deltalake"},
            # not the manifest and the translator, by which dagster-dbt's own commands would find their way
            metadata={name: value for name, value in spec.metadata.items() if isinstance(value, dg.TableSchema | str)},
        )
        for uid in tests:
            check = translator.get_asset_check_spec(asset_spec=spec, manifest=manifest, unique_id=uid, project=None)
            if check is not None and check.asset_key == spec.key:
                checks[uid] = check._replace(blocking=True)
        refers_to = tuple(sorted(uid for uid in parents if uid.startswith("model.") and uid in direct))
        own = node["config"].get("meta", {}).get("lakehouse", {})
        found[unique_id] = Mart(
            unique_id,
            node["name"],
            spec,
            columns[node["name"]],
            tuple(sources),
            refers_to,
            code.hexdigest()[:12],
            own.get("partition", ""),
            own.get("reads_itself", False),
            checks,
        )
    _check_parts(found)
    return found


def _check_parts(marts: Mapping[str, Mart]) -> None:
    """Refuse declarations that cannot be kept: in a run there are only the days of a partitioned mart that it computes."""
    for mart in marts.values():
        if mart.partition and mart.columns.get(mart.partition) != "date":
            raise DeclarationError(
                f"{mart.ref} is to be published by {mart.partition!r}, which is no date column of it.",
                remedy=f"Fix meta.lakehouse.partition in models/marts/{mart.name}.yml.",
            )
        if mart.partition and f"not_null_{mart.name}_{mart.partition}" not in {check.name for check in mart.checks.values()}:
            raise DeclarationError(
                f"{mart.ref} is published by {mart.partition!r}, and nothing tests that every row has one.",
                remedy=f"Give that column the test not_null in models/marts/{mart.name}.yml.",
            )
        for uid in mart.refers_to:
            if marts[uid].partition:
                raise DeclarationError(
                    f"{mart.ref} refers to {marts[uid].ref}, of which a run computes some days only.",
                    remedy="Read what that mart reads.",
                )


def _code(manifest: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """What decides the outcome of a model or test: its text, its settings, and the project's own macros that it uses."""
    macros = [manifest["macros"][uid] for uid in sorted(node["depends_on"]["macros"]) if uid in manifest["macros"]]
    own = [macro["macro_sql"] for macro in macros if macro["package_name"] == node["package_name"]]
    settings = {name: node.get(name) for name in ("config", "columns", "test_metadata")}
    return json.dumps([node.get("raw_code", ""), settings, own], sort_keys=True, default=str)


def below(manifest: Mapping[str, Any], unique_id: str) -> set[str]:
    """Everything that a node reads, directly or not."""
    parents = set(manifest["parent_map"].get(unique_id, ()))
    return parents.union(*(below(manifest, parent) for parent in parents))


def _direct(manifest: Mapping[str, Any], unique_id: str) -> set[str]:
    """The sources and marts that a node reads, through models that are not tables."""
    out = set()
    for parent in manifest["parent_map"].get(unique_id, ()):
        node = manifest["nodes"].get(parent)
        passed_through = node is not None and node["config"]["materialized"] != "table"
        out |= _direct(manifest, parent) if passed_through else {parent}
    return out
