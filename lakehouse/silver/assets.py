"""Silver assets: lock the table, stage the refresh, report every rule, let the IO manager commit, finalise the ledger.

A run of checks alone locks and commits nothing: it reports the rules over the table as it stands (`standing.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.ledger import NEVER_DELIVERED
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.transaction import commit_staged
from lakehouse.runtime.io_manager import Unchanged, describe
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import (
    asset_arguments,
    check_results,
    check_specs,
    code_version,
    failures,
    finalise,
    report,
    standing_findings,
    standings,
    stopped,
)
from lakehouse.runtime.view import viewed
from lakehouse.silver import transforms
from lakehouse.silver.request import TableRequest
from lakehouse.tables.spec import EXTRACTED_AT, TableSpec, history_ref, history_table
from lakehouse.tables.spec.content import of_history, of_silver
from lakehouse.tables.spec.history import COLUMNS as HISTORY_COLUMNS

if TYPE_CHECKING:
    from lakehouse.silver.refresh import Refresh


def silver_asset(spec: TableSpec) -> dg.AssetsDefinition:
    """The asset `silver/<silver_name>` of one table."""
    from lakehouse.silver.checks import declared_rules

    rules = declared_rules(spec)
    names = [name for name, _ in rules]
    lineage, deps = {"dagster/column_lineage": _lineage(spec)}, [*(part.bronze for part in spec.parts), *spec.referred]

    @dg.multi_asset(**_arguments(spec, deps=deps, rules=rules, code=of_silver(spec)))
    def silver(context: dg.AssetExecutionContext, lake: LakeResource, request: TableRequest) -> Iterator[Any]:
        from lakehouse.silver.refresh import finalise_quarantine, stage_refresh

        if not context.selected_asset_keys:
            with failures():
                found = _as_it_stands(lake, spec, request.target(spec) or spec.silver)
            yield from _chosen(context, spec.silver, found)
            return
        storage, selected = viewed(context, lake), context.selected_asset_check_keys
        with failures():
            target = request.target(spec)
            standing = standing_findings(storage.uri(spec.silver), names) if target is None else []
        if target is None:
            context.log.info("This run is for %s.", request.source_table)
            yield from check_results(spec.silver.key, standing, selected=selected)
            return
        uri = storage.uri(target)
        with failures(), lock(uri), lake.session(engine=spec.engine) as session:
            refresh = stage_refresh(session, storage, spec, run_id=context.run.run_id, target=target)
            _log(context, refresh, target)
            elsewhere = target != spec.silver
            if refresh.transaction is None and not refresh.stopped:
                yield from check_results(spec.silver.key, standing_findings(uri, names), selected=selected)
                context.log.info("No new batches for version %s of %s.", refresh.version, target)
                if not elsewhere:
                    yield _unchanged(storage, spec, refresh, target, lineage)
                return
            yield from check_results(spec.silver.key, refresh.findings, selected=selected)
            if refresh.transaction is None:
                return
            transaction = refresh.transaction.with_provenance(findings=standings(refresh.findings))
            if elsewhere:
                commit_staged(transaction.with_provenance(run_id=context.run.run_id, asset=str(target)))
                yield dg.AssetMaterialization(target.key, metadata=describe(open_existing(uri)))
            else:
                yield dg.Output(
                    transaction,
                    output_name=_output(target),
                    data_version=dg.DataVersion(str(refresh.version + 1)),
                    metadata=lineage,
                )
            committed = finalise(session, storage, target, log=context.log.info)
            if committed is not None and not elsewhere:
                finalise_quarantine(session, storage, spec, committed)

    return silver


def history_asset(spec: TableSpec) -> dg.AssetsDefinition:
    """The asset `silver/<silver_name>_history` of one table, brought to what silver has read."""
    from lakehouse.silver.checks import history_rules

    ref, rules = history_ref(spec), history_rules()
    names = [name for name, _ in rules]
    lineage = {"dagster/column_lineage": _history_lineage(spec)}

    deps = [*(part.bronze for part in spec.parts), spec.silver]

    @dg.multi_asset(**_arguments(history_table(spec), deps=deps, rules=rules, code=of_history(spec)))
    def history(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        from lakehouse.silver.history import stage_history

        if not context.selected_asset_keys:
            with failures():
                found = _history_as_it_stands(lake, spec)
            yield from _chosen(context, ref, found)
            return
        storage, uri, selected = viewed(context, lake), lake.storage.uri(ref), context.selected_asset_check_keys
        with failures(), lock(uri), lake.session(engine=spec.engine) as session:
            refresh = stage_history(session, storage, spec, run_id=context.run.run_id)
            _log(context, refresh, ref)
            if refresh.transaction is None and not refresh.stopped:
                yield from check_results(ref.key, standing_findings(uri, names), selected=selected)
                context.log.info("No new batches for version %s of %s.", refresh.version, ref)
                yield _unchanged(storage, spec, refresh, ref, lineage)
                return
            yield from check_results(ref.key, refresh.findings, selected=selected)
            if refresh.transaction is None:
                return
            yield dg.Output(
                refresh.transaction.with_provenance(findings=standings(refresh.findings)),
                output_name=_output(ref),
                data_version=dg.DataVersion(str(refresh.version + 1)),
                metadata=lineage,
            )
            finalise(session, storage, ref, log=context.log.info)

    return history


def _arguments(spec: TableSpec, *, deps: Sequence[TableRef], rules: Sequence[tuple[str, str]], code: object) -> dict[str, Any]:
    """Arguments of `@dg.multi_asset` over one table. Dagster runs the checks of such an asset without it, if it may be subset."""
    given, key = asset_arguments(spec, "silver"), spec.silver.key
    retry_policy, skippable = given.pop("retry_policy"), not given.pop("output_required")
    version = code_version(code, transforms.code(spec.transform) if spec.transform is not None else "")
    asset = dg.AssetSpec(key, deps=[ref.key for ref in deps], code_version=version, skippable=skippable, **given)
    return {
        "name": _output(spec.silver),
        "specs": [asset.with_io_manager_key("io_manager")],
        "check_specs": check_specs(key, rules),
        "can_subset": True,
        "retry_policy": retry_policy,
    }


def _output(table: TableRef) -> str:
    """The name of a table's step, and of its output."""
    return dg.AssetKey(table.key).to_python_identifier()


def _as_it_stands(lake: LakeResource, spec: TableSpec, table: TableRef) -> list[Finding]:
    """The findings of all rules over a silver table as it stands, without a write."""
    from lakehouse.silver import standing
    from lakehouse.silver.checks import declared_rules

    uri = lake.storage.uri(table)
    last = standing_findings(uri, [name for name, _ in declared_rules(spec)])
    with lake.session(engine=spec.engine) as session:
        return [*last, *standing.of_silver(session, lake.storage, spec, open_existing(uri))]


def _history_as_it_stands(lake: LakeResource, spec: TableSpec) -> list[Finding]:
    """The findings of all checks over a history as it stands, without a write."""
    from lakehouse.silver import standing
    from lakehouse.silver.checks import history_rules

    uri, silver = lake.storage.uri(history_ref(spec)), lake.storage.uri(spec.silver)
    last = standing_findings(uri, [name for name, _ in history_rules()])
    with lake.session(engine=spec.engine) as session:
        return [*last, *standing.of_history(session, spec, open_existing(uri), open_existing(silver))]


def _chosen(context: dg.AssetExecutionContext, table: TableRef, found: Sequence[Finding]) -> Iterator[Any]:
    """The results of the checks that a run of checks alone is for; of several findings of a rule the last."""
    report(found, context.log.warning)
    by_rule = {finding.rule: finding for finding in found}
    yield from check_results(table.key, [by_rule[key.name] for key in sorted(context.selected_asset_check_keys)])


def _log(context: dg.AssetExecutionContext, refresh: "Refresh", target: TableRef) -> None:
    """What the console has of a refresh: how it was computed, what its findings report, what stopped it."""
    for note in refresh.notes:
        context.log.warning(note)
    report(refresh.findings, context.log.warning)
    for finding in refresh.findings:
        if refresh.stopped and finding.stops:
            context.log.error(stopped(finding, target, refresh.version))


def _unchanged(
    storage: Storage, spec: TableSpec, refresh: "Refresh", table: TableRef, metadata: Mapping[str, Any]
) -> dg.Output[Unchanged]:
    """The output of a run that had nothing to do; it tells where the table's sources were looked for, if none ever delivered."""
    empty = _without_source(storage, spec)
    return dg.Output(
        Unchanged(refresh.version, {NEVER_DELIVERED: empty} if empty else {}),
        output_name=_output(table),
        data_version=dg.DataVersion(str(refresh.version)),
        metadata=metadata,
    )


def _without_source(storage: Storage, spec: TableSpec) -> str:
    """Where the table's sources were looked for, when none of them has ever delivered and it has no rows."""
    from lakehouse.bronze.empty import without_data
    from lakehouse.landing.readers.registry import landing

    if not without_data(storage, spec.silver, open_existing(storage.uri(spec.silver)), spec.parts):
        return ""
    return ", ".join(landing(part.origin, storage).location for part in spec.parts)


def _history_lineage(spec: TableSpec) -> dg.TableColumnLineage:
    """Columns of silver are the ones of the same name; the interval follows from the order and the extraction."""
    silver = dg.AssetKey(spec.silver.key)
    found = {name: [dg.TableColumnDep(silver, name)] for name in (*(column.name for column in spec.columns), EXTRACTED_AT)}
    instant = [dg.TableColumnDep(silver, name) for name in (spec.order[0], EXTRACTED_AT)]
    return dg.TableColumnLineage(found | {column.name: instant for column in HISTORY_COLUMNS})


def _lineage(spec: TableSpec) -> dg.TableColumnLineage:
    sources = {column.name: {column.bronze_name} for column in spec.of_record}
    if spec.array is not None:  # what an element says, and where it is
        sources |= {name: {spec.array.bronze_name} for name in (*(c.name for c in spec.of_elements), spec.position)}
        del sources[spec.array.name]
    sources |= {column.name: {"_airbyte_extracted_at"} for column in spec.observed}
    for column in spec.columns:
        if column.expression is not None:
            used = spec.parsed(column.expression).columns
            sources[column.name] = set().union(*(sources[name] for name in used))
    sources[EXTRACTED_AT] = {"_airbyte_extracted_at"}
    lineage = {}
    for name, fields in sources.items():
        read = [(part.bronze.key, field) for part in spec.parts for field in sorted(fields - {*part.values})]
        lineage[name] = [dg.TableColumnDep(dg.AssetKey(key), field) for key, field in read]
    return dg.TableColumnLineage(lineage)
