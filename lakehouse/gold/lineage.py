"""Column lineage of a mart, from the SQL that dbt compiled: which columns of which assets each of its columns is made of."""

from collections.abc import Mapping
from typing import Any

import dagster as dg


def column_lineage(unique_id: str, results: Mapping[str, Any], manifest: Mapping[str, Any]) -> dg.TableColumnLineage:
    """Lineage of a mart's columns, through staging views, to silver tables and other marts.

    Args:
        results: dbt's results by unique id; staging views among them are looked through.
    """
    from sqlglot import exp
    from sqlglot.lineage import lineage

    declared = [*manifest["sources"].values(), *manifest["nodes"].values()]
    assets = {_name(node): node for node in declared if node["schema"] in ("silver", "gold")}
    schema: dict[str, Any] = {}
    for node in declared:
        if node["resource_type"] in ("source", "model"):
            columns = {name: column.get("data_type") or "varchar" for name, column in node["columns"].items()}
            schema.setdefault(node["database"], {}).setdefault(node["schema"], {})[node["name"]] = columns
    views = {
        _name(manifest["nodes"][uid]): result.node.compiled_code
        for uid, result in results.items()
        if uid in manifest["nodes"] and _name(manifest["nodes"][uid]) not in assets and uid.startswith("model.")
    }
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for name in manifest["nodes"][unique_id]["columns"]:
        found = set()
        tree = lineage(name, results[unique_id].node.compiled_code, schema=schema, sources=views, dialect="duckdb")
        for node in tree.walk():
            table = node.expression.find(exp.Table) if not node.downstream else None
            location = ".".join(part.name for part in table.parts) if table is not None else ""
            if location in assets:
                asset = assets[location]
                found.add((asset["schema"], asset["name"], exp.to_column(node.name).name))
        deps[name] = [dg.TableColumnDep(dg.AssetKey([layer, table]), column) for layer, table, column in sorted(found)]
    return dg.TableColumnLineage(deps)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['database']}.{node['schema']}.{node['name']}"
