"""Bronze assets: lock the table, stage the batch, report the findings, let the IO manager commit, finalise the ledger.

A batch that a killed run has left is committed by the asset itself where more has landed since, and the IO manager commits that.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.ledger import NEVER_DELIVERED
from lakehouse.core.rules import telling
from lakehouse.core.store.storage import lock
from lakehouse.core.table.transaction import commit_staged
from lakehouse.runtime.io_manager import Unchanged
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
from lakehouse.tables.spec import TableSpec
from lakehouse.tables.spec.content import of_bronze

if TYPE_CHECKING:
    from lakehouse.bronze.ingest import Batch

_DESCRIPTIONS = {
    "readable_files": "Every landed file could be read; others are in quarantine whole.",
    "readable_records": "Every line of a landed file is a record; others are in quarantine.",
    "schema_drift": "The delivered fields are the declared ones.",
    "field_collisions": "Delivered fields that share a column's name are each declared, and no record has a field twice.",
    "changed_by_airbyte": "Airbyte changed no value on the way (`_airbyte_meta.changes`).",
    "ledger": "Records in = written + quarantined.",
}


def bronze_asset(spec: TableSpec) -> dg.AssetsDefinition:
    """The asset `bronze/<name>` of one table."""

    version = code_version(of_bronze(spec))

    @dg.asset(
        key=spec.bronze.key,
        deps=[spec.landing.key],
        check_specs=check_specs(spec.bronze.key, _DESCRIPTIONS.items()),
        code_version=version,
        **asset_arguments(spec, "bronze"),
    )
    def bronze(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        from lakehouse.bronze.empty import looked_in, warning
        from lakehouse.bronze.ingest import landing_of, stage_batch

        storage = lake.storage
        uri = storage.uri(spec.bronze)
        with failures(), lock(uri), lake.duckdb(landing=landing_of(storage, spec)) as session:
            batch, earlier = stage_batch(session, storage, spec, run_id=context.run.run_id), []
            if batch.more and batch.transaction is not None and not any(finding.stops for finding in batch.findings):
                # What a killed run has left is a commit of its own, so that what landed since need not wait for another run.
                made_by = {"run_id": context.run.run_id, "asset": str(spec.bronze), "code_version": version}
                commit_staged(batch.transaction.with_provenance(findings=standings(batch.findings), **made_by))
                finalise(session, storage, spec.bronze, log=context.log.info)
                _log(context, batch)
                earlier = batch.findings
                batch = stage_batch(session, storage, spec, run_id=context.run.run_id)
            findings = telling([*earlier, *batch.findings])
            if batch.stopped:
                standing = [f for f in standing_findings(uri, _DESCRIPTIONS) if f.rule not in {g.rule for g in findings}]
                yield from check_results(spec.bronze.key, [*findings, *standing])
                for finding in batch.findings:
                    context.log.error(stopped(finding, spec.bronze, batch.version))
                return
            if batch.transaction is None:
                yield from check_results(spec.bronze.key, findings or standing_findings(uri, _DESCRIPTIONS))
                folder = looked_in(storage, spec, listed=batch.listed)
                if folder:
                    context.log.warning(warning(spec, folder, version=batch.version))
                else:
                    context.log.info("Nothing landed since version %s of %s.", batch.version, spec.bronze)
                yield dg.Output(
                    Unchanged(batch.version, {NEVER_DELIVERED: folder} if folder else {}),
                    data_version=dg.DataVersion(str(batch.version)),
                )
                return
            yield from check_results(spec.bronze.key, findings)
            _log(context, batch)
            if any(finding.stops for finding in batch.findings):
                batch.transaction.abandon()
                return
            transaction = batch.transaction.with_provenance(findings=standings(batch.findings))
            yield dg.Output(transaction, data_version=dg.DataVersion(str(batch.version + 1)))
            finalise(session, storage, spec.bronze, log=context.log.info)

    return bronze


def _log(context: dg.AssetExecutionContext, batch: "Batch") -> None:
    """What a batch found, in the run's log."""
    report(batch.findings, context.log.warning)
    if batch.changed:
        more = f"; and {len(batch.changed) - 5} more" if len(batch.changed) > 5 else ""
        context.log.warning("Changed in place: %s%s.", "; ".join(batch.changed[:5]), more)
