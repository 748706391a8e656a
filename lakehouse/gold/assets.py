"""The gold asset: its sources at one moment ─▶ scratch database ─▶ dbt build ─▶ candidates ─▶ Delta, mart by mart.

snapshots of the marts      opened first: they are the fences of what is committed at the end
views over the sources      as the run views them; their versions go into every commit; only the days needed (`increments.py`)
views over published marts  for marts that are referred to and not part of this run
dbt build                   once, models and tests, in a scratch database of the run
candidates                  only of marts that were built and whose error-severity tests passed
publication                 after the last commit: readers see the marts of the run together (`core/publications.py`)
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import narwhals as nw

from lakehouse.bronze.empty import without_data
from lakehouse.core import publications
from lakehouse.core.engines.duckdb import DuckDBSession, literal, quoted, sql_type, text
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.publications import Named
from lakehouse.core.rules import Finding, Severity
from lakehouse.core.store.scratch import scratch
from lakehouse.core.store.storage import lock
from lakehouse.core.table.inputs import is_viewed_older, open_input
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import DataFile, Snapshot, open_existing, open_table
from lakehouse.core.table.transaction import Transaction
from lakehouse.gold import increments
from lakehouse.gold.lineage import column_lineage
from lakehouse.gold.marts import Mart, below, marts_of
from lakehouse.gold.project import DATABASE, invoke, write_profile
from lakehouse.gold.schema import source_columns
from lakehouse.runtime.io_manager import Unchanged
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import RETRY, check_results, failures, standing_findings, standings
from lakehouse.runtime.view import viewed
from lakehouse.tables import ALL, parts

_SAMPLE, _SAMPLE_ROWS, _SAMPLE_TEXT = "sample", 5, 60
T = TypeVar("T")
#: Megabytes for the rows of a publication.
_FEW = 64
_COLUMN_LINEAGE = "dagster/column_lineage"
_LINEAGE: dict[tuple[str, str], dg.TableColumnLineage] = {}


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
        if not wanted:
            with failures():
                yield from _tests_alone(context, lake, manifest, marts)
            return
        with failures(), ExitStack() as stack:
            for mart in wanted:
                stack.enter_context(lock(lake.storage.uri(mart.ref)))
            yield from _Build(context, lake, manifest, marts, stack).run(wanted)

    return gold


def _tests_alone(
    context: dg.AssetExecutionContext, lake: LakeResource, manifest: Mapping[str, Any], marts: Mapping[str, Mart]
) -> Iterator[Any]:
    """The chosen tests over the published marts. Of a mart that is not there, or of which a source has moved on, none is run."""
    from lakehouse.gold.published_tests import audit

    chosen = context.selected_asset_check_keys
    only = {mart.ref for mart in marts.values() if any(check.key in chosen for check in mart.checks.values())}
    published = {ref: open_existing(lake.storage.uri(ref)) for ref in only}
    found: dict[dg.AssetCheckKey, Finding] = {}
    for ref, finding in audit(lake, manifest, only=only):
        if finding.rule == "current":
            context.log.warning("%s: %s.", ref, finding.detail["message"])
        elif (table := published[ref]) is not None:
            found[dg.AssetCheckKey(dg.AssetKey(ref.key), finding.rule)] = replace(finding, validated=table.rows)
    for key in sorted(chosen):
        yield from check_results(key.asset_key.path, [found.get(key, Finding(key.name, True, "warn"))])


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
        self.storage = viewed(context, lake)
        self.moved: dict[TableRef, Named] = {}
        self.scratch = Path(stack.enter_context(scratch(lake.spill)))
        self.stack = stack

    def run(self, wanted: list[Mart]) -> Iterator[Any]:
        unbuilt = []
        wanted = self._with_data(wanted)
        for ref in self._missing(wanted):
            needed = [mart for mart in wanted if ref in mart.sources]
            wanted = [mart for mart in wanted if ref not in mart.sources]
            if needed:
                unbuilt.append(f"{', '.join(str(m.ref) for m in needed)}: {ref} does not exist. {ref.how_to_make}")
        published = {
            m.unique_id: open_table(self.storage.uri(m.ref), m.columns, partition_by=[m.partition] if m.partition else ())
            for m in wanted
        }
        sources = self._sources(wanted)
        versions = {ref: snapshot.version for ref, snapshot in sources.items()}
        self.ids = {ref: snapshot.id for ref, snapshot in sources.items()}
        self.batches = {ref: increments.batch_of(ref, snapshot) for ref, snapshot in sources.items()}
        self.reported = self.context.instance.get_asset_records([mart.spec.key for mart in wanted])
        stale = []
        for mart in wanted:
            if self._is_current(mart, published[mart.unique_id], sources):
                yield from self._unchanged(mart, published[mart.unique_id])
            else:
                stale.append(mart)
        if stale:
            unbuilt += yield from self._build(stale, sources, published, versions)
        self._let_readers_see()
        if unbuilt:  # last, so that the others are published
            raise dg.Failure(description=" ".join(unbuilt), allow_retries=False)

    def _let_readers_see(self) -> None:
        """Publish what the run has committed, and what it found current."""
        if self.moved:
            run_id = self.context.run.run_id
            done = publications.publish(lambda: self.lake.duckdb(at_most=_FEW), self.storage, self.moved, run_id=run_id)
            if done.run_id == run_id:
                self.context.log.info("Publication %s: readers see the marts of this run.", done.number)

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

    def _with_data(self, wanted: list[Mart]) -> list[Mart]:
        """The marts of pipelines that have data. The others stay as they are, also where they have rows."""
        tables = {ref for mart in wanted for ref in mart.sources if ref.layer != "ops"}
        specs = parts()
        empty = {ref for ref in tables if without_data(self.storage, ref, open_input(self.storage, ref), specs)}
        out = []
        for mart in wanted:
            read = [ref for ref in mart.sources if ref.layer != "ops"]
            if read and empty.issuperset(read):
                names = ", ".join(map(str, sorted(read, key=str)))
                self.context.log.warning("%s is skipped: nothing has ever landed for %s.", mart.ref, names)
            else:
                out.append(mart)
        return out

    def _missing(self, wanted: list[Mart]) -> list[TableRef]:
        """The tables that a mart reads and that nobody has made yet."""
        read = {ref for mart in wanted for ref in mart.sources if ref.layer != "ops"}
        absent = [ref for ref in sorted(read, key=str) if not self.storage.has(ref)]
        return [ref for ref in absent if open_input(self.storage, ref) is None]  # or says that it lost its log

    def _sources(self, wanted: list[Mart]) -> dict[TableRef, Snapshot]:
        out = {}
        for ref in sorted({ref for mart in wanted for ref in mart.sources}, key=str):
            snapshot = open_input(self.storage, ref)
            if snapshot is None and ref.layer == "ops":  # nothing was measured yet: a figure of nothing, not an error
                snapshot = open_table(self.storage.uri(ref), source_columns(self.manifest, ref))
            if snapshot is None:
                raise BrokenTableError(f"Gold needs {ref}, which does not exist.", remedy=ref.how_to_make)
            out[ref] = snapshot
        return out

    def _days(self, mart: Mart, published: Snapshot, sources: Mapping[TableRef, Snapshot]) -> frozenset[date] | None:
        """The days of a mart that are to be computed again; None for all."""
        made = published.provenance
        since, versions = made.batches, made.inputs
        if since is None or made.facts.get("mart_code") != mart.code or made.input_ids != self._inputs(mart, self.ids):
            return None
        days: set[date] = set()
        for ref in mart.sources:
            found = increments.days_since(self.storage, ref, sources[ref], version=versions[str(ref)], batch=since[str(ref)])
            if found is None:
                return None
            days |= found
        return frozenset(days)

    def _is_current(self, mart: Mart, published: Snapshot, sources: Mapping[TableRef, Snapshot]) -> bool:
        made, versions = published.provenance, {ref: sources[ref].version for ref in mart.sources}
        if made.input_ids != self._inputs(mart, self.ids):  # a table that was made anew begins at version 0 again
            return False
        newer = [ref for ref, version in versions.items() if made.inputs.get(str(ref), -1) > version]
        if any(is_viewed_older(self.storage, sources[ref]) for ref in newer):
            return True  # another run was faster, and nothing older takes the place of what it has made
        return made.inputs == self._inputs(mart, versions) and made.facts.get("mart_code") == mart.code

    def _inputs(self, mart: Mart, values: Mapping[TableRef, T]) -> dict[str, T]:
        """What there is of each table that the mart reads, a version or an id, by asset."""
        return {str(ref): values[ref] for ref in mart.sources}

    def _unchanged(self, mart: Mart, published: Snapshot) -> Iterator[Any]:
        names = [check.name for check in mart.checks.values()]
        # Marts of earlier releases did not keep how many rows their tests had looked at.
        known, rows = published.provenance.findings, published.rows
        found = standing_findings(published.uri, names)
        standing = [replace(each, validated=rows if each.rule in known else 0) for each in found]
        yield from check_results(mart.ref.key, standing, selected=self.context.selected_asset_check_keys)
        self.context.log.info("%s is current.", mart.ref)
        self.moved[mart.ref] = Named(published.id, published.version)
        yield dg.Output(
            Unchanged(published.version),
            output_name=mart.spec.key.to_python_identifier(),
            data_version=dg.DataVersion(str(published.version)),
            metadata={"unique_id": mart.unique_id, **self._last_lineage(mart)},
        )

    def _last_lineage(self, mart: Mart) -> dict[str, Any]:
        """The column lineage as it was reported last: it is found in the SQL that dbt compiles, and dbt is not run."""
        events = [
            record.asset_entry.last_materialization for record in self.reported if record.asset_entry.asset_key == mart.spec.key
        ]
        last = events[0].asset_materialization if events and events[0] is not None else None
        return (
            {name: value for name, value in last.metadata.items() if name in (_COLUMN_LINEAGE, _SAMPLE)}
            if last is not None
            else {}
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
                columns = measured_columns(self.manifest, ref)
                chosen = increments.files_of(ref, snapshot, wanted)
                view(session, self.scratch, ref.layer, ref.table, snapshot, files=chosen, columns=columns)
            for mart in stale:
                if mart.reads_itself:
                    anew = self.days[mart.unique_id] is None
                    view(session, self.scratch, "published", mart.name, own[mart.unique_id], files=[] if anew else None)
            for uid in sorted(referred):
                mart = self.marts[uid]
                published = open_input(self.storage, mart.ref)
                if published is None:
                    raise BrokenTableError(f"{mart.ref} is not published yet.", remedy=mart.ref.how_to_make)
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
        rows = session.connection.table(f"{DATABASE}.gold.{mart.name}").shape[0] if _built(mart, results) else 0
        findings = []
        for unique_id, check in mart.checks.items():
            found = finding_of(check.name, results.get(unique_id), self.manifest["nodes"][unique_id])
            findings.append(replace(found, validated=rows))
        yield from check_results(mart.ref.key, findings, selected=self.context.selected_asset_check_keys)
        if not _built(mart, results):
            return
        if any(finding.stops for finding in findings):
            self.context.log.error("%s keeps version %s: a test failed.", mart.ref, published.version)
            return
        frame = _frame(session.connection.table(f"{DATABASE}.gold.{mart.name}"))
        days = self.days[mart.unique_id] if mart.partition else None
        remove = list(published.files)
        if days is not None:
            frame = frame.filter(nw.col(mart.partition).is_in(sorted(days)))
            remove = [file for file in remove if increments.day_of(file, mart.partition) in days]
        order = list(mart.columns)[:1]
        transaction = Transaction(
            table=published,
            add=session.write(frame, published.uri, columns=mart.columns, sort_by=order, partition=mart.partition),
            remove=remove,
            columns=None if published.columns == dict(mart.columns) else mart.columns,
            provenance=Provenance(
                operation="overwrite" if days is None else "partitions",
                batches={str(ref): self.batches[ref] for ref in mart.sources} if mart.by_days else None,
                inputs=self._inputs(mart, versions),
                input_ids=self._inputs(mart, self.ids),
                findings=standings(findings),
                facts={"mart_code": mart.code},
            ),
        )
        sample = sample_rows(session, frame)
        yield dg.Output(
            transaction,
            output_name=mart.spec.key.to_python_identifier(),
            data_version=dg.DataVersion(str(published.version + 1)),
            metadata={
                "dbt_seconds": round(results[mart.unique_id].execution_time, 3),
                "unique_id": mart.unique_id,
                _COLUMN_LINEAGE: _lineage(mart, results, self.manifest),
                **sample,
            },
        )
        self.moved[mart.ref] = Named(published.id, published.version + 1)  # committed by now


def sample_rows(session: DuckDBSession, frame: "nw.LazyFrame[Any]") -> dict[str, Any]:
    """Some rows as metadata, for Dagster's pages: texts short, what is declared as personal masked. None for no rows."""
    hidden = {column.name for spec in ALL for column in spec.columns if column.personal}
    rows = session.dicts(frame.head(_SAMPLE_ROWS))
    shown = [{name: _shown(value) if name not in hidden else "***" for name, value in row.items()} for row in rows]
    return {_SAMPLE: dg.MetadataValue.table([dg.TableRecord(row) for row in shown])} if shown else {}


def _shown(value: object) -> str | int | float | bool | None:
    """A value as Dagster's tables have it."""
    return value if value is None or isinstance(value, bool | int | float) else str(value)[:_SAMPLE_TEXT]


def measured_columns(manifest: Mapping[str, Any], ref: TableRef) -> dict[str, str]:
    """The declared columns of a table of measurements: one that an earlier release made lacks the newest of them."""
    return source_columns(manifest, ref) if ref.layer == "ops" else {}


@contextmanager
def views_in(session: DuckDBSession, database: Path) -> Iterator[None]:
    """Views are made in the scratch database, within the block; after it the file is dbt's to open."""
    session.connection.execute(f"ATTACH {text(str(database))} AS {DATABASE}")
    session.connection.execute(f"USE {DATABASE}")
    yield
    session.connection.execute("USE memory")
    session.connection.execute(f"DETACH {DATABASE}")


def view(
    session: DuckDBSession,
    scratch: Path,
    schema: str,
    name: str,
    snapshot: Snapshot,
    *,
    files: list[DataFile] | None = None,
    columns: Mapping[str, str] | None = None,
) -> None:
    """A view over a table's current files (or these), here until the run ends; copies of those in a bucket are in `scratch`.

    Names come from the specs; paths are quoted. A column that no file of theirs has is null.

    Args:
        columns: those that the view has besides the table's.
    """
    session.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    chosen = snapshot.files if files is None else files
    nulls = ", ".join(f"CAST(NULL AS {sql_type(k)}) AS {quoted(c)}" for c, k in {**(columns or {}), **snapshot.columns}.items())
    source = f"SELECT {nulls} WHERE false"
    if chosen:
        paths = session.local(snapshot.paths(chosen), folder=str(scratch))
        listed = ", ".join(text(literal(path)) for path in paths)
        found = f"FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        source = f"{source} UNION ALL BY NAME {found}" if schema in ("bronze", "ops") else found
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
    """What dbt reports of a mart that it did not build, without the macros that it went through."""
    result = results.get(mart.unique_id)
    message = (result.message if result is not None else "") or "a mart or test before it failed."
    return message.partition("> in macro")[0].rstrip()


def finding_of(name: str, result: Any, node: Mapping[str, Any]) -> Finding:
    """A dbt test's result; one that was skipped because something before it failed has not passed."""
    action: Severity = "warn" if node["config"]["severity"].lower() == "warn" else "fail"
    if result is None or str(result.status) in ("skipped", "error"):
        message = (result.message if result is not None else None) or "not run: something before it failed"
        return Finding(name, False, "fail", 0, 0, {"message": message})
    failed = int(result.failures or 0)
    # Under the names that dagster-dbt gives them (docs/decisions/0067).
    figures = {"unique_id": node["unique_id"], "status": str(result.status), "dagster_dbt/failed_row_count": failed}
    return Finding(name, str(result.status) == "pass", action, failed, 0, {"message": result.message or "", **figures})


def _frame(relation: Any) -> Any:
    return nw.from_native(relation)
