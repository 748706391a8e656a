"""Silver assets: hold the table, stage the refresh, report every rule, let the IO manager commit, settle the ledger."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lakehouse.core.delta import open_existing
from lakehouse.core.storage import hold
from lakehouse.io_manager import Unchanged, describe
from lakehouse.lake import LakeResource
from lakehouse.resources import TableRequest
from lakehouse.steps import (
    asset_arguments,
    check_results,
    check_specs,
    code_version,
    failures,
    findings_info,
    settle,
    standing_findings,
    stopped,
)
from lakehouse.tables.spec import EXTRACTED_AT, TableSpec


def silver_asset(spec: TableSpec) -> dg.AssetsDefinition:
    """The asset `silver/<silver_name>` of one table."""
    from lakehouse.silver.checks import declared_rules

    rules = declared_rules(spec)
    names = [name for name, _ in rules]
    arguments = asset_arguments(spec, "silver")

    @dg.asset(
        key=spec.silver.key,
        deps=[part.bronze.key for part in spec.parts],
        check_specs=check_specs(spec.silver.key, rules),
        code_version=code_version(spec.columns, spec.key, spec.order, spec.deleted, spec.rules, spec.transform, spec.feeds),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.freshness) if spec.freshness else None,
        **arguments,
    )
    def silver(context: dg.AssetExecutionContext, lake: LakeResource, request: TableRequest) -> Iterator[Any]:
        from lakehouse.silver.refresh import settle_quarantine, stage_refresh

        storage = lake.storage
        with failures():
            target = request.target(spec)
            standing = standing_findings(storage.uri(spec.silver), names) if target is None else []
        if target is None:
            context.log.info("This run is for %s.", request.source_table)
            yield from check_results(spec.silver.key, standing)
            return
        uri = storage.uri(target)
        with failures(), hold(uri), lake.session(engine=spec.engine) as session:
            refresh = stage_refresh(session, storage, spec, run_id=context.run.run_id, target=target)
            elsewhere = target != spec.silver
            if refresh.candidate is None and not refresh.stopped:
                yield from check_results(spec.silver.key, standing_findings(uri, names))
                context.log.info("No new batches for version %s of %s.", refresh.version, target)
                if not elsewhere:
                    yield dg.Output(Unchanged(refresh.version), data_version=dg.DataVersion(str(refresh.version)))
                return
            yield from check_results(spec.silver.key, refresh.findings)
            if refresh.candidate is None:
                for finding in refresh.findings:
                    if finding.stops:
                        context.log.error(stopped(finding, target, refresh.version))
                return
            refresh.candidate.info = {**(refresh.candidate.info or {}), **findings_info(refresh.findings)}
            if elsewhere:
                refresh.candidate.commit({"run_id": context.run.run_id, "asset": str(target)})
                yield dg.AssetMaterialization(target.key, metadata=describe(open_existing(uri)))
            else:
                yield dg.Output(
                    refresh.candidate,
                    data_version=dg.DataVersion(str(refresh.version + 1)),
                    metadata={"dagster/column_lineage": _lineage(spec)},
                )
            committed = settle(session, storage, target, log=context.log.info)
            if committed is not None and not elsewhere:
                settle_quarantine(session, storage, spec, committed)

    return silver


def _lineage(spec: TableSpec) -> dg.TableColumnLineage:
    sources = {column.name: {column.bronze_name} for column in spec.delivered}
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
