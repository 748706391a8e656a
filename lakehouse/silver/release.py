"""Release: what to type when a rule stops a batch, and what is raised when none does. Pure: no dagster."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import narwhals as nw

from lakehouse.core.errors import RefusedWriteError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.silver.checks import TYPES
from lakehouse.silver.hints import told
from lakehouse.tables.spec import TableSpec

if TYPE_CHECKING:
    from lakehouse.core.engines.session import Session


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


def explained(
    session: "Session", spec: TableSpec, finding: Finding, bad: "nw.LazyFrame[Any] | None", *, mode: str, uncast: bool
) -> Finding:
    """A finding that stops the batch, with some of its records and what to type.

    Args:
        bad: the refused records with a flag for each rule (`Validator.refused`).
    """
    detail, flag = dict(finding.detail), f"_is_{finding.rule}"
    if bad is not None and flag in bad.collect_schema().names():
        some = bad.filter(nw.col(flag)).select("source_file", "raw_id").head(5)
        detail["examples"] = [f"{file} {raw_id}" for file, raw_id in session.rows(some)]
    return replace(finding, detail={**detail, "what_to_do": how_to_release(spec, finding.rule, mode, uncast=uncast)})


def reported(
    session: "Session",
    spec: TableSpec,
    findings: Sequence[Finding],
    bad: "nw.LazyFrame[Any] | None",
    counts: Mapping[str, int],
    *,
    mode: str,
    validated: int,
) -> list[Finding]:
    """Findings with what a person is told: of values that could not be cast, and of what stops the batch.

    Args:
        bad: as in `explained`.
        counts: refused records by rule.
    """
    if bad is not None:
        findings = [told(session, spec, f, bad, counts, validated=validated) if f.rule == TYPES else f for f in findings]
    uncast = any(not finding.passed for finding in findings if finding.rule == TYPES)
    return [explained(session, spec, f, bad, mode=mode, uncast=uncast) if f.stops else f for f in findings]
