"""Release: what to type when a rule stops a batch, and what is raised when none does. Pure: no dagster."""

from lakehouse.core.errors import RefusedWriteError
from lakehouse.core.names import TableRef
from lakehouse.tables.spec import TableSpec


def nothing_to_release(target: TableRef) -> RefusedWriteError:
    """What is raised when a release was given for a table that no rule stops."""
    return RefusedWriteError(
        f"No rule stops {target}: there is nothing to release.", remedy="Run make trigger JOB=medallion_etl."
    )


def how_to_release(spec: TableSpec, rule: str, mode: str, *, uncast: bool = False) -> str:
    """What to type when a rule with action `fail` has stopped a batch.

    Args:
        mode: how the refresh read its batches (`refresh.Mode`).
        uncast: values of the batch could not be cast. Then the declaration is wrong, or the source; to accept the batch as it is
            would only hide that.
    """
    if mode == "redrive":
        return "Fix the rule in lakehouse/tables/ and run it again; until then all stays in quarantine."
    command = f"make {'release' if mode in ('increment', 'overwrite') else 'rebuild'} TABLE={spec.name} REASON='...'"
    of_table = rule in {declared.name for declared in spec.table_rules}
    fix = "Fix the source or the rule in lakehouse/tables/ and run again."
    if uncast:
        fix = "Values could not be cast: declare their columns as the check castable says, or fix the source, and run again."
    if of_table:
        return fix if uncast else f"{fix} Or {command} ACTION=accept takes the batch in as it is."
    way = f"{command} puts the offending records in quarantine and takes in the rest"
    return f"{fix} Or {way}." if uncast else f"{fix} Or {way}; with ACTION=accept all of it."
