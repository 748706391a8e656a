"""Who is told that the orders are there: the last step of the job `pedidos`, with what was loaded and what was missing.

That a run failed, a check did not pass or a run took too long is told by the observability layer for every job.
"""

import dagster as dg

from lakehouse.landing.assets.systems import EXTRACTED
from lakehouse.runtime.announce import Announce
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import failures, retry_policy
from lakehouse.settings.retries import NOTIFY
from lakehouse.warehouse.publish import Target, Warehouse

ORDERS = "pedidos"


def orders_notice() -> dg.AssetsDefinition:
    """The asset `ops/pedidos_notice`."""
    from lakehouse.tables.pedidos import PEDIDOS

    target = Target(PEDIDOS.silver, {column.name: column.type for column in PEDIDOS.columns}, PEDIDOS.key)

    @dg.asset(
        key=["ops", "pedidos_notice"],
        group_name="ops",
        deps=[target.ref.key],
        description="Tells how many orders the warehouse holds, and whether a channel was missing.",
        owners=["team:dados"],
        kinds={"alert"},
        tags={"pedidos": ""},
        retry_policy=retry_policy(NOTIFY),
        io_manager_key=None,
    )
    def pedidos_notice(
        context: dg.AssetExecutionContext,
        lake: LakeResource,
        warehouse: dg.ResourceParam[Warehouse],
        announce: dg.ResourceParam[Announce],
    ) -> dg.MaterializeResult:
        from lakehouse.warehouse.publish import published_state

        with failures():
            found = published_state(warehouse, target)
            version, figures = found if found is not None else (-1, {"rows": 0, "total": 0})
            missing = missing_channels(context.instance, context.run.run_id)
            loaded = f"{figures['rows']:,} orders of {figures['total'] or 0:,.2f} in all"
            nothing = len(missing) == len(PEDIDOS.parts)
            subject = f"pedidos: {loaded}" + (f", without {' and '.join(missing)}" if missing else "")
            announce.notice(
                lake.storage,
                subject,
                severity="error" if nothing else "warning" if missing else "info",
                body=f"The warehouse holds version {version} of silver/pedidos: {loaded}."
                + "".join(f"\n{name} was not taken in: {error}" for name, error in missing.items()),
                key=f"pedidos:loaded:{context.run.run_id}",  # a key that comes again is counted, not sent
                run_id=context.run.run_id,
                job=context.run.job_name,
                step=str(context.op_handle),
            )
            if nothing:
                raise dg.Failure(
                    description=f"No channel was taken in; the warehouse holds what it held before. {' '.join(missing.values())}",
                    allow_retries=False,
                )
        return dg.MaterializeResult(metadata={"subject": subject, "degraded": bool(missing)})

    return pedidos_notice


def missing_channels(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """The channels that a run went on without, each with its error."""
    out = {}
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = record.dagster_event
        found = event.asset_check_evaluation_data if event is not None else None
        if found is not None and found.check_name == EXTRACTED and not found.passed:
            out[found.asset_key.path[-1]] = str(found.metadata["error"].value)
    return out
