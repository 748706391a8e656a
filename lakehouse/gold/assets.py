"""The gold asset: its sources at one moment ─▶ scratch database ─▶ dbt build ─▶ candidates ─▶ Delta, mart by mart.

snapshots of the marts      opened first: they are the fences of what is published at the end
views over the sources      one moment, and its versions go into every commit; only the days that a mart needs (`increments.py`)
views over published marts  for marts that are referred to and not part of this run
dbt build                   once, models and tests, in a scratch database of the run
candidates                  only of marts that were built and whose error-severity tests passed
"""

import copyreg
import hashlib
import json
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import narwhals as nw

from lakehouse.core import names as core_names
from lakehouse.core.delta import Candidate, DataFile, Snapshot, open_existing, open_table
from lakehouse.core.engines.duckdb import DuckDBSession, literal, quoted, sql_type, text
from lakehouse.core.errors import BrokenTableError, DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding, Severity
from lakehouse.core.storage import hold
from lakehouse.gold import increments, schema
from lakehouse.gold.lineage import column_lineage
from lakehouse.gold.project import DATABASE, invoke, kept, write_profile
from lakehouse.gold.schema import mart_columns, source_columns
from lakehouse.io_manager import Unchanged
from lakehouse.lake import LakeResource, scratch
from lakehouse.steps import RETRY, check_results, failures, findings_info, standing_findings

T = TypeVar("T")
# As Dagster has it, one cannot be unpickled. Those of dbt have no partition mapping.
copyreg.pickle(dg.AssetDep, lambda dep: (dg.AssetDep, (dep.asset_key,)))
_LINEAGE: dict[tuple[str, str], dg.TableColumnLineage] = {}


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


def gold_assets(manifest: Mapping[str, Any]) -> dg.AssetsDefinition:
    """One multi-asset over every mart of the project."""
    marts = marts_of(manifest)
    checks = [spec for mart in marts.values() for spec in mart.checks.values()]

    @dg.multi_asset(
        name="gold",
        specs=[mart.spec.with_io_manager_key("io_manager") for mart in marts.values()],
        check_specs=checks,
        can_subset=True,
        retry_policy=RETRY,
    )
    def gold(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        wanted = [mart for mart in marts.values() if mart.spec.key in context.selected_asset_keys]
        with failures(), ExitStack() as stack:
            for mart in wanted:
                stack.enter_context(hold(lake.storage.uri(mart.ref)))
            yield from _Build(context, lake, manifest, marts, stack).run(wanted)

    return gold


# --- what the manifest says --------------------------------------------------------------------------------------------


def marts_of(manifest: Mapping[str, Any]) -> dict[str, Mart]:
    """Every mart of the project, by unique id."""
    # dagster-dbt imports all of dbt, two seconds of every process that loads the definitions.
    versions = [f"{name} {version(name)}" for name in ("dagster", "dagster-dbt")]
    code = [Path(str(module.__file__)).read_text() for module in (sys.modules[__name__], schema, core_names)]
    return kept("marts", lambda: _marts(manifest), by="\n".join([*versions, sys.version, *code]))


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
                remedy=f"Mend meta.lakehouse.partition in models/marts/{mart.name}.yml.",
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


# --- one run -----------------------------------------------------------------------------------------------------------


class _Build:
    def __init__(
        self,
        context: dg.AssetExecutionContext,
        lake: LakeResource,
        manifest: Mapping[str, Any],
        marts: Mapping[str, Mart],
        stack: ExitStack,
    ) -> None:
        self.context, self.lake, self.manifest, self.marts = context, lake, manifest, marts
        self.storage = lake.storage
        self.scratch = Path(stack.enter_context(scratch(lake.spill)))
        self.stack = stack

    def run(self, wanted: list[Mart]) -> Iterator[Any]:
        unbuilt = []
        for ref in self._missing(wanted):
            needed = [mart for mart in wanted if ref in mart.sources]
            wanted = [mart for mart in wanted if ref not in mart.sources]
            if needed:
                unbuilt.append(f"{', '.join(str(m.ref) for m in needed)}: {ref} does not exist. Materialise {ref} first.")
        published = {
            m.unique_id: open_table(self.storage.uri(m.ref), m.columns, partition_by=[m.partition] if m.partition else ())
            for m in wanted
        }
        sources = self._sources(wanted)
        versions = {ref: snapshot.version for ref, snapshot in sources.items()}
        self.ids = {ref: snapshot.id for ref, snapshot in sources.items()}
        self.batches = {ref: increments.batch_of(ref, snapshot) for ref, snapshot in sources.items()}
        stale = []
        for mart in wanted:
            if self._is_current(mart, published[mart.unique_id], versions):
                yield from self._unchanged(mart, published[mart.unique_id])
            else:
                stale.append(mart)
        if stale:
            unbuilt += yield from self._build(stale, sources, published, versions)
        if unbuilt:  # last, so that the others are published
            raise dg.Failure(description=" ".join(unbuilt), allow_retries=False)

    def _build(
        self,
        stale: list[Mart],
        sources: Mapping[TableRef, Snapshot],
        published: Mapping[str, Snapshot],
        versions: Mapping[TableRef, int],
    ) -> Generator[Any, None, list[str]]:
        """Compute and publish; what was not built is returned, each with a sentence."""
        self.days = {
            mart.unique_id: self._days(mart, published[mart.unique_id], sources) if mart.by_days else None for mart in stale
        }
        session = self.stack.enter_context(self.lake.duckdb())
        results = self._dbt(session, stale, sources, published)
        session.connection.execute(f"ATTACH {text(f'{self.scratch}/{DATABASE}.duckdb')} AS {DATABASE} (READ_ONLY)")
        for mart in stale:
            yield from self._publish(mart, published[mart.unique_id], results, versions, session)
        return [f"{mart.ref} was not built: {_failure(mart, results)}" for mart in stale if not _built(mart, results)]

    def _missing(self, wanted: list[Mart]) -> list[TableRef]:
        """The tables that a mart reads and that nobody has made yet."""
        read = {ref for mart in wanted for ref in mart.sources if ref.layer != "ops"}
        absent = [ref for ref in sorted(read, key=str) if not self.storage.has(ref)]
        return [ref for ref in absent if open_existing(self.storage.uri(ref)) is None]  # or says that it lost its log

    def _sources(self, wanted: list[Mart]) -> dict[TableRef, Snapshot]:
        out = {}
        for ref in sorted({ref for mart in wanted for ref in mart.sources}, key=str):
            snapshot = open_existing(self.storage.uri(ref))
            if snapshot is None and ref.layer == "ops":  # nothing was measured yet: a figure of nothing, not an error
                snapshot = open_table(self.storage.uri(ref), source_columns(self.manifest, ref))
            if snapshot is None:
                raise BrokenTableError(f"Gold needs {ref}, which does not exist.", remedy=f"Materialise {ref} first.")
            out[ref] = snapshot
        return out

    def _days(self, mart: Mart, published: Snapshot, sources: Mapping[TableRef, Snapshot]) -> frozenset[date] | None:
        """The days of a mart that are to be computed again; None for all."""
        info = published.last_info()
        same = info.get("mart_code") == mart.code
        same = same and json.loads(info.get("input_ids", "{}")) == self._inputs(mart, self.ids)
        if not same or "batches" not in info:
            return None
        since, versions = json.loads(info["batches"]), json.loads(info["inputs"])
        days: set[date] = set()
        for ref in mart.sources:
            found = increments.days_since(self.storage, ref, sources[ref], version=versions[str(ref)], batch=since[str(ref)])
            if found is None:
                return None
            days |= found
        return frozenset(days)

    def _is_current(self, mart: Mart, published: Snapshot, versions: Mapping[TableRef, int]) -> bool:
        info = published.last_info()
        same = json.loads(info.get("inputs", "{}")) == self._inputs(mart, versions)
        # A table that was made anew begins at version 0 again.
        same = same and json.loads(info.get("input_ids", "{}")) == self._inputs(mart, self.ids)
        return same and info.get("mart_code") == mart.code

    def _inputs(self, mart: Mart, values: Mapping[TableRef, T]) -> dict[str, T]:
        """What there is of each table that the mart reads, a version or an id, by asset."""
        return {str(ref): values[ref] for ref in mart.sources}

    def _unchanged(self, mart: Mart, published: Snapshot) -> Iterator[Any]:
        names = [check.name for check in mart.checks.values()]
        yield from check_results(mart.ref.key, standing_findings(published.uri, names))
        self.context.log.info("%s is current.", mart.ref)
        yield dg.Output(
            Unchanged(published.version),
            output_name=mart.spec.key.to_python_identifier(),
            data_version=dg.DataVersion(str(published.version)),
        )

    def _dbt(
        self,
        session: DuckDBSession,
        stale: list[Mart],
        sources: Mapping[TableRef, Snapshot],
        own: Mapping[str, Snapshot],
    ) -> dict[str, Any]:
        database = write_profile(self.scratch, memory_limit=self.lake.memory_limit, folders=self.storage.folders())
        building = {mart.unique_id for mart in stale}
        referred = {uid for mart in stale for uid in mart.refers_to} - building
        with views_in(session, database):
            for ref, snapshot in sources.items():
                wanted = [self.days[mart.unique_id] for mart in stale if ref in mart.sources]
                view(session, self.scratch, ref.layer, ref.table, snapshot, files=increments.files_of(ref, snapshot, wanted))
            for mart in stale:
                if mart.reads_itself:
                    anew = self.days[mart.unique_id] is None
                    view(session, self.scratch, "published", mart.name, own[mart.unique_id], files=[] if anew else None)
            for uid in sorted(referred):
                mart = self.marts[uid]
                published = open_existing(self.storage.uri(mart.ref))
                if published is None:
                    raise BrokenTableError(f"{mart.ref} is not published yet.", remedy=f"Materialise {mart.ref} first.")
                view(session, self.scratch, mart.ref.layer, mart.ref.table, published)
        nodes = self.manifest["nodes"]
        views = {uid for mart in building for uid in below(self.manifest, mart) if uid in nodes} - set(self.marts)
        names = [nodes[uid]["name"] for uid in sorted(building | views)]
        results = invoke(
            ["build", "--select", *names], scratch=self.scratch, target=self.scratch / "target", manifest=self.manifest
        )
        for result in results:
            if str(result.status) not in ("success", "pass"):
                self.context.log.warning("dbt %s: %s. %s", result.node.name, result.status, result.message or "")
        models = sum(1 for result in results if result.node.resource_type == "model")
        seconds = sum(result.execution_time for result in results)
        self.context.log.info("dbt: %s models and %s tests in %.1f s", models, len(results) - models, seconds)
        return {result.node.unique_id: result for result in results}

    def _publish(
        self,
        mart: Mart,
        published: Snapshot,
        results: Mapping[str, Any],
        versions: Mapping[TableRef, int],
        session: DuckDBSession,
    ) -> Iterator[Any]:
        findings = []
        for unique_id, check in mart.checks.items():
            findings.append(finding_of(check.name, results.get(unique_id), self.manifest["nodes"][unique_id]))
        yield from check_results(mart.ref.key, findings)
        if not _built(mart, results):
            return
        if any(finding.stops for finding in findings):
            self.context.log.error("%s keeps version %s: a test failed.", mart.ref, published.version)
            return
        frame = _frame(session.connection.table(f"{DATABASE}.gold.{mart.name}"))
        inputs = self._inputs(mart, versions)
        days = self.days[mart.unique_id] if mart.partition else None
        remove = list(published.files)
        if days is not None:
            frame = frame.filter(nw.col(mart.partition).is_in(sorted(days)))
            remove = [file for file in remove if increments.day_of(file, mart.partition) in days]
        order = list(mart.columns)[:1]
        candidate = Candidate(
            snapshot=published,
            add=session.write(frame, published.uri, columns=mart.columns, sort_by=order, partition=mart.partition),
            remove=remove,
            columns=None if published.columns == dict(mart.columns) else mart.columns,
            info={
                "operation": "overwrite" if days is None else "partitions",
                **self._batches(mart),
                "inputs": json.dumps(inputs),
                "input_ids": json.dumps(self._inputs(mart, self.ids)),
                "mart_code": mart.code,
                **findings_info(findings),
            },
        )
        yield dg.Output(
            candidate,
            output_name=mart.spec.key.to_python_identifier(),
            data_version=dg.DataVersion(str(published.version + 1)),
            metadata={
                "dbt_seconds": round(results[mart.unique_id].execution_time, 3),
                "dagster/column_lineage": _lineage(mart, results, self.manifest),
            },
        )

    def _batches(self, mart: Mart) -> dict[str, str]:
        """How far the sources of a mart that is computed by days have read their deliveries, for the next run."""
        return {"batches": json.dumps({str(ref): self.batches[ref] for ref in mart.sources})} if mart.by_days else {}


@contextmanager
def views_in(session: DuckDBSession, database: Path) -> Iterator[None]:
    """Views are made in the scratch database, within the block; after it the file is dbt's to open."""
    session.connection.execute(f"ATTACH {text(str(database))} AS {DATABASE}")
    session.connection.execute(f"USE {DATABASE}")
    yield
    session.connection.execute("USE memory")
    session.connection.execute(f"DETACH {DATABASE}")


def view(
    session: DuckDBSession, scratch: Path, schema: str, name: str, snapshot: Snapshot, *, files: list[DataFile] | None = None
) -> None:
    """A view over a table's current files (or these), here until the run ends; copies of those in a bucket are in `scratch`.

    Names come from the specs; paths are quoted. A column that no file of theirs has is null.
    """
    session.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    chosen = snapshot.files if files is None else files
    nulls = ", ".join(f"CAST(NULL AS {sql_type(k)}) AS {quoted(c)}" for c, k in snapshot.columns.items())
    source = f"SELECT {nulls} WHERE false"
    if chosen:
        paths = session.local(snapshot.paths(chosen), folder=str(scratch))
        listed = ", ".join(text(literal(path)) for path in paths)
        found = f"FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        source = f"{source} UNION ALL BY NAME {found}" if schema == "bronze" else found
    session.connection.execute(f"CREATE OR REPLACE VIEW {schema}.{name} AS {source}")


def _lineage(mart: Mart, results: Mapping[str, Any], manifest: Mapping[str, Any]) -> dg.TableColumnLineage:
    """Column lineage of a mart. It follows from code alone and takes a quarter of a second, so a process asks once."""
    key = (mart.unique_id, mart.code)
    if key not in _LINEAGE:
        _LINEAGE[key] = column_lineage(mart.unique_id, results, manifest)
    return _LINEAGE[key]


def _built(mart: Mart, results: Mapping[str, Any]) -> bool:
    return mart.unique_id in results and str(results[mart.unique_id].status) == "success"


def _failure(mart: Mart, results: Mapping[str, Any]) -> str:
    result = results.get(mart.unique_id)
    return (result.message if result is not None else "") or "a mart or test before it failed."


def finding_of(name: str, result: Any, node: Mapping[str, Any]) -> Finding:
    """A dbt test's result; one that was skipped because something before it failed has not passed."""
    action: Severity = "warn" if node["config"]["severity"].lower() == "warn" else "fail"
    if result is None or str(result.status) in ("skipped", "error"):
        message = (result.message if result is not None else None) or "not run: something before it failed"
        return Finding(name, False, "fail", 0, 0, {"message": message})
    failed = int(result.failures or 0)
    return Finding(name, str(result.status) == "pass", action, failed, 0, {"message": result.message or ""})


def _frame(relation: Any) -> Any:
    return nw.from_native(relation)
