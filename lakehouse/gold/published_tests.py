"""Every dbt test over the published marts as they are, beside the sources that they were made from.

A run tests what it has just computed, of some marts only the newest days. This looks at what readers see: whole tables. A mart
of which a source has moved on is not tested; the next run computes and tests it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lakehouse.core.errors import LakehouseError, StoreError
from lakehouse.core.names import TableRef
from lakehouse.core.rules import Finding
from lakehouse.core.store.scratch import scratch
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.gold.assets import finding_of, measured_columns, view, views_in
from lakehouse.gold.marts import Mart, below, marts_of
from lakehouse.gold.project import invoke, write_profile
from lakehouse.runtime.lake import LakeResource


def audit(
    lake: LakeResource, manifest: Mapping[str, Any], *, only: Collection[TableRef] | None = None
) -> Iterator[tuple[TableRef, Finding]]:
    """The finding of every test of every mart that is there; one named `current` for each mart that cannot be tested now.

    Args:
        only: the marts to test, where not all.

    Raises:
        StoreError: the store does not answer.
        DbtError: dbt ended without results.
    """
    marts = marts_of(manifest)
    tables: dict[TableRef, Snapshot | None] = {}
    for ref in sorted({ref for mart in marts.values() for ref in (mart.ref, *mart.sources)}, key=str):
        tables[ref] = _whole(lake, ref)
    wanted = {uid: mart for uid, mart in marts.items() if only is None or mart.ref in only}
    there = {uid: mart for uid, mart in wanted.items() if lake.storage.has(mart.ref)}
    tested = {}
    for uid, mart in there.items():
        if why := _other(mart, [marts[of].ref for of in mart.refers_to], tables):
            yield mart.ref, Finding("current", True, "warn", 0, 0, {"message": f"not tested: {why}"})
        else:
            tested[uid] = mart
    if tested:
        results = _test(lake, manifest, marts, tested, tables)
        for mart in tested.values():
            for uid, check in mart.checks.items():
                yield mart.ref, finding_of(check.name, results.get(uid), manifest["nodes"][uid])


def _whole(lake: LakeResource, ref: TableRef) -> Snapshot | None:
    """A table that can be read; what is wrong with another one is for the audit of its files to report."""
    try:
        found = open_existing(lake.storage.uri(ref))
        if found is not None:
            found.check()
    except StoreError:
        raise
    except LakehouseError:
        return None
    return found


def _other(mart: Mart, referred: Sequence[TableRef], tables: Mapping[TableRef, Snapshot | None]) -> str:
    """Why the sources are not those that a mart was made from; empty when they are."""
    own = tables[mart.ref]
    if own is None or any(tables[ref] is None for ref in referred):
        return "it, or a mart that it refers to, cannot be read"
    made = own.provenance
    for ref in mart.sources:
        source = tables[ref]
        if source is None or made.input_ids.get(str(ref)) != source.id:
            return f"{ref} is not the table that it was made from"
        later = [commit for commit in source.commits(since=made.inputs.get(str(ref), -1)) if commit.id]
        if any(commit.provenance.maintenance != "compact" for commit in later):
            return f"{ref} has moved on since"
    return ""


def _test(
    lake: LakeResource,
    manifest: Mapping[str, Any],
    marts: Mapping[str, Mart],
    tested: Mapping[str, Mart],
    tables: Mapping[TableRef, Snapshot | None],
) -> dict[str, Any]:
    """dbt's result of every test of these marts, by unique id."""
    read = {ref for mart in tested.values() for ref in (mart.ref, *mart.sources, *(marts[uid].ref for uid in mart.refers_to))}
    with scratch(lake.spill) as spill:
        folder = Path(spill)
        database = write_profile(folder, memory_limit=lake.memory_limit, folders=lake.storage.folders())
        with lake.duckdb() as session, views_in(session, database):
            for ref in sorted(read, key=str):
                if (snapshot := tables[ref]) is not None:
                    view(session, folder, ref.layer, ref.table, snapshot, columns=measured_columns(manifest, ref))
            for mart in tested.values():
                if mart.reads_itself and (own := tables[mart.ref]) is not None:
                    view(session, folder, "published", mart.name, own)
        nodes = manifest["nodes"]
        between = {uid for mart in tested for uid in below(manifest, mart) if uid in nodes} - set(marts)
        given: dict[str, Any] = {"scratch": folder, "target": folder / "target", "manifest": manifest}
        if between:
            invoke(["run", "--select", *sorted(nodes[uid]["name"] for uid in between)], **given)
        results = invoke(["test", "--select", *sorted(mart.name for mart in tested.values())], **given)
    return {result.node.unique_id: result for result in results}
