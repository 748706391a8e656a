"""What one checkout declares, as JSON. A program of its own, so that any commit can be described by today's code:

    PYTHONPATH=<checkout> python -P describe.py OUT.json [SOURCES.json]

Assets with their columns and column lineage, checks, jobs, schedules, sensors; and, over empty tables with the columns that the
specs declare, which marts dbt cannot build and which of its tests cannot run. So a column that is gone is found by the
engine itself, whether or not `make sync` was run. With SOURCES.json the marts are tried over those columns instead, and nothing
else is described.

What cannot be loaded is left out and named in `errors`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: `{schema: {table: {column: type}}}`, in the words of the specs.
Sources = dict[str, dict[str, dict[str, str]]]


def main() -> int:
    out, *given = map(Path, sys.argv[1:])
    found = trial(json.loads(given[0].read_text())) if given else describe()
    out.write_text(json.dumps(found, default=str))
    return 0


def describe() -> dict[str, Any]:
    """Everything that this checkout declares."""
    errors: list[str] = []
    found: dict[str, Any] = {
        "assets": {},
        "checks": {},
        "jobs": {},
        "schedules": {},
        "sensors": {},
        "sources": {},
        "errors": errors,
    }
    _try(errors, "the table specs", lambda: found.update(sources=spec_sources()))
    definitions = _definitions(errors)
    for each in definitions:
        _try(errors, "the graph", partial(_graph, each, found))
    if len(definitions) == 1:  # else there is no whole graph for jobs to select from
        _try(errors, "the jobs", lambda: _jobs(definitions[0], found))
    for each in definitions:
        _try(errors, "schedules and sensors", partial(_automation, each, found))
    _try(errors, "silver's columns", lambda: _silver(found))
    if found["sources"]:
        _try(errors, "the dbt project", lambda: found.update(trial(found["sources"], found)))
    return found


def _try(errors: list[str], what: str, do: Callable[[], object]) -> None:
    try:
        do()
    except Exception as error:  # noqa: BLE001 # any commit may be described, also one that is broken
        reported = f"{what}: {_line(error)}"
        if reported not in errors:
            errors.append(reported)


def _line(error: object) -> str:
    """What an error says, as one line, without the line of SQL that DuckDB repeats."""
    return " ".join(str(error).split()).partition(" LINE ")[0][:500] or type(error).__name__


# --- Dagster ---------------------------------------------------------------------------------------------------------


def _definitions(errors: list[str]) -> list[Any]:
    """The code location; where it does not load as a whole, the layers that do."""
    from lakehouse import definitions
    from lakehouse.settings import load_settings

    settings = load_settings()
    try:
        whole = definitions.build_defs(settings)
        whole.resolve_asset_graph()
    except Exception as error:  # noqa: BLE001
        errors.append(f"the definitions do not load: {_line(error)}")
        layers: list[Any] = []
        for name in (*definitions.FLOW, *definitions.AROUND):
            _try(errors, f"layer {name}", partial(_layer, name, settings, layers))
        return layers
    return [whole]


def _layer(name: str, settings: Any, layers: list[Any]) -> None:
    try:
        layer = import_module(f"lakehouse.{name}.defs")
    except ModuleNotFoundError as error:
        if error.name != f"lakehouse.{name}.defs":
            raise
        # a commit from before layers had one
        layer = import_module(f"lakehouse.{name}")
    built = layer.build_defs(settings)
    built.resolve_asset_graph()
    layers.append(built)


def _graph(definitions: Any, found: dict[str, Any]) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        if not node.is_materializable and key.to_user_string() in found["assets"]:
            continue  # a layer alone sees what it reads as a stub
        found["assets"][key.to_user_string()] = {
            "group": node.group_name,
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "code_version": node.code_version,
            "owners": sorted(node.owners),
            "tags": dict(node.tags),
            "partitions": repr(node.partitions_def) if node.partitions_def else "",
            "freshness": repr(node.freshness_policy) if node.freshness_policy else "",
            "retries": _retries(node),
        }
    for key in graph.asset_check_keys:
        spec = graph.get_check_spec(key)
        name = f"{key.asset_key.to_user_string()}:{key.name}"
        found["checks"][name] = {"description": spec.description or "", "blocking": spec.blocking}


def _retries(node: Any) -> str:
    made = getattr(node, "assets_def", None)
    policy = getattr(made.node_def, "retry_policy", None) if made is not None and made.is_executable else None
    return f"{policy.max_retries} x {policy.delay} s" if policy else ""


def _jobs(definitions: Any, found: dict[str, Any]) -> None:
    for job in definitions.resolve_all_job_defs():
        if not job.name.startswith("__"):
            assets = sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            found["jobs"][job.name] = {"assets": assets, "tags": dict(job.tags)}


def _automation(definitions: Any, found: dict[str, Any]) -> None:
    for schedule in definitions.schedules or ():
        found["schedules"][schedule.name] = {
            "job": schedule.job_name,
            "cron": schedule.cron_schedule,
            "timezone": schedule.execution_timezone,
            "starts": schedule.default_status.value,
        }
    for sensor in definitions.sensors or ():
        found["sensors"][sensor.name] = {
            "jobs": sorted(target.job_name for target in sensor.targets),
            "seconds": sensor.minimum_interval_seconds,
            "starts": sensor.default_status.value,
        }


# --- columns ---------------------------------------------------------------------------------------------------------


def spec_sources() -> Sources:
    """The columns that marts may read, as the specs declare them now; the generated file may be older."""
    import yaml

    from lakehouse.gold.sources import render_sources
    from lakehouse.tables import ALL

    return {
        source["schema"]: {table["name"]: _types(table["columns"]) for table in source["tables"]}
        for source in yaml.safe_load(render_sources(ALL))["sources"]
    }


def _types(columns: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {column["name"]: column["data_type"] for column in columns}


def _silver(found: dict[str, Any]) -> None:
    from lakehouse.silver.assets import _history_lineage, _lineage
    from lakehouse.tables import ALL
    from lakehouse.tables.spec import history_ref

    for schema, tables in found["sources"].items():
        for table, columns in tables.items():
            found["assets"].setdefault(f"{schema}/{table}", {})["columns"] = columns
    for spec in ALL:
        found["assets"][str(spec.silver)]["lineage"] = _pairs(_lineage(spec))
        if spec.history:
            found["assets"][str(history_ref(spec))]["lineage"] = _pairs(_history_lineage(spec))


def _pairs(lineage: Any) -> dict[str, list[list[str]]]:
    return {
        name: [[dep.asset_key.to_user_string(), dep.column_name] for dep in deps] for name, deps in lineage.deps_by_column.items()
    }


# --- dbt -------------------------------------------------------------------------------------------------------------


def trial(sources: Sources, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """Build every mart and run every dbt test over empty tables.

    Args:
        found: a description; columns and lineage of the marts are added to it.

    Returns:
        `unbuilt` and `unrun`: `{asset: reason}`, `{asset:check: reason}`. A test that fails on no rows was run.
    """
    import duckdb

    from lakehouse.core.engines.duckdb import quoted, sql_type
    from lakehouse.gold.project import ensure_manifest, invoke, write_profile
    from lakehouse.gold.schema import mart_columns

    manifest = ensure_manifest()
    marts = mart_columns(manifest)
    own = {**sources, "published": marts}
    for node in manifest["sources"].values():  # of schemas that no spec declares, such as ops
        if node["schema"] not in sources:
            own.setdefault(node["schema"], {})[node["name"]] = _types(node["columns"].values())
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        with duckdb.connect(str(write_profile(scratch, memory_limit="1GB"))) as connection:
            for schema, tables in own.items():
                connection.execute(f"CREATE SCHEMA {quoted(schema)}")
                for table, columns in tables.items():
                    listed = ", ".join(f"{quoted(name)} {sql_type(kind)}" for name, kind in columns.items())
                    connection.execute(f"CREATE TABLE {quoted(schema)}.{quoted(table)} ({listed})")
        arguments: dict[str, Any] = {"scratch": scratch, "target": scratch / "target", "manifest": manifest}
        built = invoke(["run"], **arguments)
        tested = invoke(["test", "--indirect-selection", "eager"], **arguments)
    if found is not None:
        _marts(manifest, marts, {result.node.unique_id: result for result in built}, found)
    failed = {result.node.unique_id: result for result in built if str(result.status) != "success"}
    unrun = [result for result in tested if str(result.status) in ("error", "skipped")]
    return {
        "unbuilt": {
            f"gold/{result.node.name}": _reason(manifest, uid, failed)
            for uid, result in failed.items()
            if result.node.name in marts
        },
        "unrun": {
            name: _line(result.message or "what it reads was not built")
            for result in unrun
            if (name := _check(manifest, manifest["nodes"][result.node.unique_id]))
        },
    }


def _reason(manifest: Mapping[str, Any], uid: str, failed: Mapping[str, Any]) -> str:
    """Why a model was not built: its own error, or that of the model before it."""
    if failed[uid].message and str(failed[uid].status) == "error":
        return _line(failed[uid].message)
    before = [parent for parent in manifest["parent_map"][uid] if parent in failed]
    return _reason(manifest, before[0], failed) if before else "what it reads was not built"


def _check(manifest: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """The asset check that a dbt test is, `asset:check`."""
    dagster = test["config"].get("meta", {}).get("dagster", {}).get("ref", {})
    attached = manifest["nodes"].get(test.get("attached_node") or "")
    mart = dagster.get("name") or (attached["name"] if attached else "")
    if not mart:
        read = [manifest["nodes"][uid]["name"] for uid in test["depends_on"]["nodes"] if uid in manifest["nodes"]]
        mart = read[0] if len(read) == 1 else ""
    return f"gold/{mart}:{test['name']}" if mart else ""


def _marts(manifest: Mapping[str, Any], marts: Mapping[str, Any], built: Mapping[str, Any], found: dict[str, Any]) -> None:
    uids = {node["name"]: uid for uid, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    usable = {uid: result for uid, result in built.items() if getattr(result.node, "compiled_code", None)}
    for name, columns in marts.items():
        asset = found["assets"].setdefault(f"gold/{name}", {})
        asset["columns"] = columns
        succeeded = uids[name] in built and str(built[uids[name]].status) == "success"
        errors = found["errors"] if succeeded else []  # one that is not built has none
        _try(errors, f"column lineage of gold/{name}", partial(_mart, asset, uids[name], usable, manifest))


def _mart(asset: dict[str, Any], uid: str, built: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    from lakehouse.gold.lineage import column_lineage

    asset["lineage"] = _pairs(column_lineage(uid, built, manifest))


if __name__ == "__main__":
    sys.exit(main())
